//! Scraping in the whole program: series of a target's page, and stale markers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message;
use serde_json::Value;

use metrifold_testing::edits::{edit, until_runs};
use metrifold_testing::messages::Histogram;
use metrifold_testing::series::{Series, decompress};
use metrifold_testing::{
    Does, Endpoint, Manner, Metrifold, Reply, Seen, free_address, until, until_so,
};

const STALE: u64 = 0x7ff0_0000_0000_0002;
/// Short, so that tests wait little.
pub(crate) const OFTEN: &str = "scrape_interval = \"1s\"";

fn page(text: &str) -> Reply {
    Reply::new(200)
        .header("content-type", "text/plain; version=0.0.4")
        .body(text)
}

fn target(text: &'static str) -> Endpoint {
    Endpoint::new(move |_| page(text))
}

pub(crate) fn config(keys: &str, sink: &Endpoint) -> String {
    format!(
        "[sources.s]\ntype = \"scrape\"\n{OFTEN}\n{keys}\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\nmerge_bytes = \"0B\"\n",
        sink.url()
    )
}

/// A pipe from a target to an endpoint.
pub(crate) fn pipe(target: &Endpoint, keys: &str) -> (Metrifold, Endpoint) {
    let sink = Endpoint::healthy();
    let targets = format!("targets = [\"{}\"]\n{keys}", target.address());
    (Metrifold::start(&config(&targets, &sink)), sink)
}

/// A series without its labels `job` and `instance`, in PromQL's notation.
fn named(series: &Series) -> String {
    let others = series.labels.iter();
    let others =
        others.filter(|(name, _)| !["__name__", "job", "instance"].contains(&name.as_str()));
    let labels: Vec<_> = others
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{}{{{}}}", series.name(), labels.join(","))
}

/// Values of a request's series by name, as bits.
fn values(seen: &Seen) -> BTreeMap<String, u64> {
    let series = seen.series().iter();
    series
        .map(|series| (named(series), series.samples[0].bits))
        .collect()
}

fn value(values: &BTreeMap<String, u64>, name: &str) -> Option<f64> {
    values
        .get(&format!("{name}{{}}"))
        .copied()
        .map(f64::from_bits)
}

/// The next scrape for which `holds` returns true.
fn scrape(
    sink: &Endpoint,
    what: &str,
    holds: impl Fn(&BTreeMap<String, u64>) -> bool,
) -> BTreeMap<String, u64> {
    until(what, || sink.take().iter().map(values).find(|it| holds(it)))
}

fn up(values: &BTreeMap<String, u64>, expected: f64) -> bool {
    value(values, "up") == Some(expected)
}

/// The last value of a series of this name.
pub(crate) fn last_value(sink: &Endpoint, name: &str) -> Option<f64> {
    let seen = sink.seen();
    let all = seen.iter().flat_map(Seen::series);
    let mut of_name = all.filter(|series| series.name() == name);
    of_name
        .next_back()
        .map(|series| f64::from_bits(series.samples[0].bits))
}

pub(crate) fn targets(running: &Metrifold, query: &str) -> Value {
    running.get(&format!("/api/v1/targets{query}")).json()["data"].clone()
}

#[test]
fn a_page_becomes_series_with_the_targets_labels_and_a_report() {
    let target =
        target("# TYPE a counter\n# HELP a What it is.\na{job=\"x\",z=\"1\"} 5\nb 1 1000\n");
    let (child, sink) = pipe(
        &target,
        "job = \"j\"\nlabels = { env = \"prod\" }\nextra_scrape_metrics = true",
    );
    let is_up = |series: &Series| series.name() == "up" && series.samples[0].bits == 1f64.to_bits();
    let seen = until("a good scrape", || {
        let mut taken = sink.take().into_iter();
        taken.find(|seen| seen.series().iter().any(is_up))
    });
    let instance = target.address().to_string();
    let a = seen
        .series()
        .iter()
        .find(|series| series.name() == "a")
        .unwrap();
    let expected = [
        ("__name__", "a"),
        ("env", "prod"),
        ("exported_job", "x"),
        ("instance", &*instance),
        ("job", "j"),
        ("z", "1"),
    ];
    let found: Vec<_> = a
        .labels
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(a.samples[0].bits, 5f64.to_bits());
    let b = seen
        .series()
        .iter()
        .find(|series| series.name() == "b")
        .unwrap();
    assert_eq!(b.samples[0].timestamp, 1000);
    let report: BTreeMap<_, _> = seen
        .series()
        .iter()
        .map(|series| (series.name(), f64::from_bits(series.samples[0].bits)))
        .collect();
    for (name, value) in [
        ("up", 1.0),
        ("scrape_samples_scraped", 2.0),
        ("scrape_samples_post_metric_relabeling", 2.0),
        ("scrape_series_added", 2.0),
        ("scrape_timeout_seconds", 1.0),
        ("scrape_sample_limit", 0.0),
    ] {
        assert_eq!(report[name], value, "{name}");
    }
    assert!(report["scrape_duration_seconds"] > 0.0 && report["scrape_body_size_bytes"] > 0.0);
    let metadata = &seen.v1().metadata;
    assert_eq!((metadata.len(), &*metadata[0].help), (1, "What it is."));
    let asked = &target.seen()[0];
    let accept = asked.header("accept").unwrap();
    assert!(
        accept.starts_with("application/openmetrics-text;version=1.0.0"),
        "{accept}"
    );
    assert_eq!(
        asked.header("x-prometheus-scrape-timeout-seconds"),
        Some("1")
    );
    // No series is new any more, and metadata is not sent again.
    let next = until("another scrape", || sink.take().into_iter().next());
    assert_eq!(values(&next).get("scrape_series_added{env=prod}"), Some(&0));
    assert!(next.v1().metadata.is_empty());
    until_so("it is shown", || {
        let data = targets(&child, "?state=active");
        data["activeTargets"][0]["health"] == "up"
    });
    let shown = &targets(&child, "")["activeTargets"][0];
    assert_eq!(shown["labels"]["job"], "j");
    assert_eq!(shown["discoveredLabels"]["__scrape_interval__"], "1s");
    assert_eq!(shown["scrapeUrl"], format!("http://{instance}/metrics"));
    assert_eq!(shown["scrapePool"], "s");
    assert!(child.get("/targets").text().contains("/api/v1/targets?"));
}

#[test]
fn what_vanishes_ends_and_what_fails_ends_all() {
    let target = target("a 1\nb 2\nc 3 1000\n");
    let (child, sink) = pipe(&target, "");
    scrape(&sink, "a good scrape", |it| up(it, 1.0));
    target.now(|_| page("b 2\n"));
    let gone = scrape(&sink, "a is gone", |it| it.get("a{}") == Some(&STALE));
    assert_eq!(value(&gone, "b"), Some(2.0));
    // A series with its own timestamps gets no stale marker.
    assert!(!gone.contains_key("c{}"));
    let after = scrape(&sink, "a scrape after that", |it| up(it, 1.0));
    assert!(!after.contains_key("a{}"));
    for (reply, reason) in [
        (Reply::new(500), "status"),
        (page("b 2\n<html>"), "page"),
        (page("b 2\nb{x=\"1\",x=\"2\"} 2\n"), "page"),
    ] {
        target.now(move |_| reply.clone());
        let failed = scrape(&sink, "a failure", |it| up(it, 0.0));
        assert_eq!(failed.get("b{}"), Some(&STALE), "{reason}");
        let again = scrape(&sink, "another failure", |it| up(it, 0.0));
        assert!(!again.contains_key("b{}"), "{reason}");
        let labels = [("pool", "s"), ("outcome", reason)];
        let failed = || child.metric("metrifold_scrapes_total", &labels) >= 1.0;
        until_so(reason, failed);
        let shown = &targets(&child, "?health=down")["activeTargets"][0];
        assert_ne!(shown["lastError"], "", "{reason}");
        target.now(|_| page("b 2\n"));
        let good = scrape(&sink, "it is well again", |it| up(it, 1.0));
        assert_eq!(value(&good, "b"), Some(2.0));
        // The series was known before the failure.
        assert_eq!(value(&good, "scrape_series_added"), Some(0.0));
    }
}

#[test]
fn limits_fail_a_scrape_as_a_whole_and_rules_come_before_them() {
    let target = target("a 1\nb{l=\"long value\"} 2\nc 3\n");
    let drop =
        "metric_relabel = [{ source_labels = [\"__name__\"], regex = \"c\", action = \"drop\" }]";
    for (keys, failure) in [
        (format!("sample_limit = 2\n{drop}"), None),
        ("sample_limit = 2".to_owned(), Some("sample_limit")),
        ("label_limit = 3".to_owned(), Some("label_limit")),
        ("label_limit = 4".to_owned(), None),
        (
            "label_name_length_limit = 7".to_owned(),
            Some("label_limit"),
        ),
        (
            "label_value_length_limit = 9".to_owned(),
            Some("label_limit"),
        ),
        (
            "body_size_limit = \"28B\"".to_owned(),
            Some("body_size_limit"),
        ),
        ("target_limit = 1".to_owned(), None),
    ] {
        let (child, sink) = pipe(&target, &keys);
        let Some(reason) = failure else {
            let good = scrape(&sink, &keys, |it| up(it, 1.0));
            assert!(good.contains_key("a{}"), "{keys}");
            if keys.contains("metric_relabel") {
                assert_eq!(value(&good, "scrape_samples_scraped"), Some(3.0));
                let kept = value(&good, "scrape_samples_post_metric_relabeling");
                assert_eq!(kept, Some(2.0));
            }
            continue;
        };
        let labels = [("pool", "s"), ("outcome", reason)];
        until_so(&keys, || {
            child.metric("metrifold_scrapes_total", &labels) >= 1.0
        });
        let all = sink.seen();
        let mut all = all.iter().map(values);
        assert!(
            all.all(|it| up(&it, 0.0) && !it.contains_key("a{}")),
            "{keys}"
        );
    }
}

#[test]
fn credentials_go_to_the_target_and_never_along_with_a_redirect() {
    let other = target("a 1\n");
    let place = other.url_of("/there");
    let first = Endpoint::new(move |seen| match &*seen.path {
        "/metrics" => Reply::new(302).header("location", "/here"),
        _ => Reply::new(307).header("location", &place),
    });
    let (_child, sink) = pipe(
        &first,
        "basic_auth = { username = \"u\", password = \"hidden\" }",
    );
    scrape(&sink, "a good scrape", |it| up(it, 1.0));
    assert!(
        first
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_some())
    );
    assert!(first.seen().iter().any(|seen| seen.path == "/here"));
    assert!(
        other
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    let (_child, sink) = pipe(&first, "follow_redirects = false");
    scrape(&sink, "a redirect is a failure", |it| up(it, 0.0));
}

#[test]
fn what_another_server_redirects_to_gets_no_credentials_even_at_the_targets_own() {
    let (first, other) = (target("a 1\n"), target("a 1\n"));
    let (back, place) = (first.url_of("/chosen"), other.url_of("/there"));
    other.now(move |_| Reply::new(302).header("location", &back));
    first.now(move |seen| match &*seen.path {
        "/chosen" => page("a 1\n"),
        _ => Reply::new(302).header("location", &place),
    });
    let keys = "basic_auth = { username = \"u\", password = \"hidden\" }";
    let (_child, sink) = pipe(&first, keys);
    scrape(&sink, "a page by a detour", |it| up(it, 1.0));
    assert!(first.seen().iter().any(|seen| seen.path == "/chosen"));
    for seen in first.seen() {
        let own = seen.path == "/metrics";
        assert_eq!(seen.header("authorization").is_some(), own, "{}", seen.path);
    }
}

#[test]
fn a_target_that_goes_is_ended_after_a_while_and_one_that_stays_is_left_alone() {
    let (a, b) = (target("a 1\n"), target("b 1\n"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets");
    let write = |list: &[&Endpoint]| {
        let lines: Vec<_> = list.iter().map(|it| it.address().to_string()).collect();
        fs::write(&file, lines.join("\n")).unwrap();
    };
    write(&[&a, &b]);
    let sink = Endpoint::healthy();
    let discovery = format!(
        "[discovery.d]\ntype = \"file\"\nformat = \"lines\"\nfiles = [{file:?}]\nwatch_interval = \"100ms\"\n"
    );
    let keys = "discovery = \"d\"\nrelabel = [{ source_labels = [\"__meta_filepath\"], target_label = \"file\" }]";
    let child = Metrifold::start(&format!("{discovery}{}", config(keys, &sink)));
    let named = |name: &str, value: u64| {
        until(name, || {
            let taken = sink.take();
            let all = taken.iter().flat_map(Seen::series);
            all.filter(|series| series.name() == name)
                .find(|series| series.samples[0].bits == value)
                .cloned()
        })
    };
    let series = named("a", 1f64.to_bits());
    assert_eq!(series.get("file"), file.to_str());
    named("b", 1f64.to_bits());
    write(&[&b]);
    let ended = named("a", STALE);
    let instance = a.address().to_string();
    assert_eq!(ended.get("instance"), Some(&*instance));
    named("b", 1f64.to_bits());
    let ups = sink.seen();
    let ups = ups.iter().flat_map(Seen::series);
    let mut ended = ups.filter(|it| it.name() == "up" && it.get("instance") == Some(&*instance));
    assert_eq!(ended.next_back().unwrap().samples[0].bits, STALE);
    assert_eq!(targets(&child, "")["matched"], 1);
}

#[test]
fn a_reload_keeps_what_is_known_of_targets_and_a_source_that_goes_ends_its_series() {
    let target = target("a 1\nb 1\n");
    let sink = Endpoint::healthy();
    let keys = |more: &str| {
        config(
            &format!("targets = [\"{}\"]\n{more}", target.address()),
            &sink,
        )
    };
    let child = Metrifold::start(&keys(""));
    scrape(&sink, "a scrape", |it| up(it, 1.0));
    target.now(|_| page("a 1\n"));
    scrape(&sink, "b is gone", |it| it.get("b{}") == Some(&STALE));
    edit(
        &child,
        &keys("sample_limit = 9\nextra_scrape_metrics = true"),
    );
    let after = scrape(&sink, "the new source", |it| {
        it.contains_key("scrape_sample_limit{}") && up(it, 1.0)
    });
    // The successor knows the series of its predecessor: none is new.
    assert_eq!(value(&after, "scrape_series_added"), Some(0.0));
    // A report that is not wanted any more ends, once.
    edit(&child, &keys("sample_limit = 10"));
    let limit = "scrape_sample_limit{}";
    scrape(&sink, "the report ends", |it| it.get(limit) == Some(&STALE));
    let next = scrape(&sink, "another scrape", |it| up(it, 1.0));
    assert!(!next.contains_key(limit));
    edit(
        &child,
        &format!(
            "[sources.other]\ntype = \"scrape\"\ntargets = [\"{}\"]\n[sinks.out]\ntype = \"remote_write\"\ninputs = [\"other\"]\nendpoint = \"{}\"\n",
            free_address(),
            sink.url()
        ),
    );
    until_runs(&child, "other");
    let ended = scrape(&sink, "its series end", |it| it.get("up{}") == Some(&STALE));
    assert_eq!(ended.get("a{}"), Some(&STALE));
}

#[test]
fn scrapes_of_many_targets_leave_together_and_each_series_in_order() {
    let pages: Vec<Endpoint> = (0..40)
        .map(|_| {
            let scraped = AtomicU64::new(0);
            // Some pages repeat but for their values, others never do.
            Endpoint::new(move |_| {
                let count = scraped.fetch_add(1, Ordering::Relaxed);
                page(&format!("a {count}\nb{{run=\"{}\"}} 1\n", count / 3))
            })
        })
        .collect();
    let list: Vec<_> = pages.iter().map(|it| it.address().to_string()).collect();
    for (keys, together) in [
        ("", true),
        ("batch_wait = \"0s\"", false),
        ("batch_series = 1", false),
    ] {
        let sink = Endpoint::healthy();
        let _child = Metrifold::start(&config(&format!("targets = {list:?}\n{keys}"), &sink));
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        let mut most = 0;
        let mut scrapes = 0;
        until_so("many scrapes", || {
            for seen in sink.take() {
                let ups = seen.series().iter().filter(|it| it.name() == "up").count();
                most = most.max(ups);
                scrapes += ups;
                for series in seen.series().iter().filter(|it| it.name() == "a") {
                    let instance = series.get("instance").unwrap().to_owned();
                    let value = f64::from_bits(series.samples[0].bits) as u64;
                    let before = last.insert(instance, value);
                    assert!(before.is_none_or(|before| before < value), "{series:?}");
                }
            }
            scrapes >= 400
        });
        assert_eq!((most > 1, last.len()), (together, 40), "{keys}: {most}");
    }
}

#[test]
fn a_page_that_takes_nearly_the_whole_interval_is_scraped_in_each() {
    let slow = Endpoint::new(|_| {
        let page = Does::Answer(page("a 1\n"));
        Does::After(Duration::from_millis(850), Box::new(page))
    });
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(500)));
    for (target, value) in [(&slow, 1f64), (&hanging, 0.0)] {
        let (_child, sink) = pipe(target, "");
        let times = until("ten scrapes", || {
            let seen = sink.seen();
            let ups = seen.iter().flat_map(Seen::series);
            let ups = ups.filter(|it| it.name() == "up" && it.samples[0].bits == value.to_bits());
            let times: Vec<i64> = ups.flat_map(Series::times).collect();
            (times.len() >= 10).then_some(times)
        });
        let mut pauses: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        pauses.sort_unstable();
        // Not every other interval.
        assert!(pauses[pauses.len() / 2] < 1700, "{pauses:?}");
    }
}

#[test]
fn a_sink_without_room_keeps_nothing_from_the_others_and_is_told_later_what_has_ended() {
    // Long enough to fill the queue soon.
    let long: String = (0..400)
        .map(|it| format!("long{{number=\"{it}\"}} 1\n"))
        .collect();
    let of = move |more: &str| page(&format!("{long}{more}"));
    let first = of.clone();
    let target = Endpoint::new(move |_| first("early 1\n"));
    let (healthy, stuck) = (Endpoint::healthy(), Endpoint::healthy());
    let sink = |name: &str, sink: &Endpoint| {
        format!(
            "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\nmerge_bytes = \"0B\"\nqueue = {{ max_bytes = \"64KiB\" }}\n",
            sink.url()
        )
    };
    let config = format!(
        "[sources.s]\ntype = \"scrape\"\n{OFTEN}\ntargets = [\"{}\"]\n{}{}",
        target.address(),
        sink("healthy", &healthy),
        sink("stuck", &stuck)
    );
    let child = Metrifold::start(&config);
    let has = |sink: &Endpoint, name: &str, bits: u64| {
        let seen = sink.seen();
        let mut all = seen.iter().flat_map(Seen::series);
        all.any(|series| series.name() == name && series.samples[0].bits == bits)
    };
    until_so("both have it", || {
        [&healthy, &stuck]
            .iter()
            .all(|it| has(it, "early", 1f64.to_bits()))
    });
    stuck.now(|_| Does::Hang(Reply::new(204)));
    let full = || {
        let discarded = "metrifold_component_discarded_batches_total";
        child.metric(discarded, &[("reason", "queue_full")])
    };
    until_so("one has no room", || full() > 0.0);
    let later = of.clone();
    target.now(move |_| later("late 1\n"));
    until_so("a new series", || has(&healthy, "late", 1f64.to_bits()));
    until_so("one ends", || has(&healthy, "early", STALE));
    target.now(move |_| of(""));
    until_so("the other ends", || has(&healthy, "late", STALE));
    let (before, scrapes) = (full(), healthy.count());
    until_so("it goes on", || {
        healthy.count() > scrapes + 3 && full() > before
    });
    stuck.now(|_| Reply::new(204));
    stuck.release();
    until_so("it is told in the end", || {
        has(&stuck, "early", STALE) && has(&stuck, "late", STALE)
    });
    // And then no more.
    let scrapes = healthy.count();
    until_so("more scrapes", || healthy.count() >= scrapes + 3);
    let seen = healthy.seen();
    let last = seen.last().unwrap();
    assert!(
        last.series().iter().all(|it| it.samples[0].bits != STALE),
        "{last:?}"
    );
}

#[test]
fn instances_share_the_targets_and_each_is_scraped_by_one() {
    let endpoints: Vec<Endpoint> = (0..8).map(|_| target("a 1\n")).collect();
    let addresses: Vec<String> = endpoints
        .iter()
        .map(|it| format!("\"{}\"", it.address()))
        .collect();
    let sink = Endpoint::healthy();
    let start = |index: &str| {
        let keys = format!(
            "targets = [{}]\nshard = {{ index = {index}, count = 2 }}",
            addresses.join(",")
        );
        Metrifold::start(&config(&keys, &sink))
    };
    let (one, other) = (start("0"), start("\"metrifold-1\""));
    let has = |child: &Metrifold| -> BTreeSet<String> {
        let data = targets(child, "");
        let active = data["activeTargets"].as_array().unwrap();
        let urls = active.iter().map(|it| it["scrapeUrl"].to_string());
        urls.collect()
    };
    // Hashes distribute the targets: by chance, one instance may get all of them.
    let (first, second) = until("each target is somebody's", || {
        let (first, second) = (has(&one), has(&other));
        (first.union(&second).count() == endpoints.len()).then_some((first, second))
    });
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
    let others = targets(&one, "?state=dropped");
    assert_eq!(others["droppedTargetCounts"]["s"], second.len());
    assert_eq!(others["matchedDropped"], second.len());
    if !second.is_empty() {
        let reason = "the instance with shard.index = 1 scrapes it";
        assert_eq!(others["droppedTargets"][0]["reason"], reason);
    }
}

#[test]
fn what_is_dropped_is_shown_with_its_reason() {
    let a = target("a 1\n");
    let keys = format!(
        "targets = [\"{}\", \"drop:1\"]\nrelabel = [{{ source_labels = [\"__address__\"], regex = \"drop.*\", action = \"drop\" }}]",
        a.address()
    );
    let sink = Endpoint::healthy();
    let child = Metrifold::start(&config(&keys, &sink));
    let dropped = until("a dropped target", || {
        targets(&child, "?state=dropped")["droppedTargets"]
            .get(0)
            .cloned()
    });
    assert_eq!(dropped["reason"], "a rule drops it");
    assert_eq!(dropped["discoveredLabels"]["__address__"], "drop:1");
    assert_eq!(targets(&child, "")["droppedTargetCounts"]["s"], 1);
    assert_eq!(child.get("/api/v1/targets?state=x").status, 400);
}

/// A page of a counter that begins now, and the time at which it does. That is a little later, so
/// that it is after the arrival of every earlier page.
fn begun(value: u32) -> (String, i64) {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let seconds = format!("{:.3}", since + 0.005);
    let page = format!("# TYPE c counter\nc_total {value}\nc_created {seconds}\n");
    let seconds: f64 = seconds.parse().unwrap();
    (page, (seconds * 1000.0) as i64)
}

fn openmetrics(text: &str) -> Reply {
    Reply::new(200)
        .header(
            "content-type",
            "application/openmetrics-text; version=1.0.0",
        )
        .body(format!("{text}# EOF\n"))
}

/// All samples of a series so far, as values, times and start timestamps.
fn samples(sink: &Endpoint, name: &str) -> Vec<(f64, i64, i64)> {
    let seen = sink.seen();
    let series = seen.iter().flat_map(Seen::series);
    let samples = series
        .filter(|series| series.name() == name)
        .flat_map(|series| &series.samples);
    samples
        .map(|it| (f64::from_bits(it.bits), it.timestamp, it.start))
        .collect()
}

#[test]
fn a_series_that_begins_between_two_scrapes_begins_with_a_zero() {
    let target = Endpoint::new(|_| openmetrics(""));
    let (_child, sink) = pipe(&target, "start_timestamps = \"zero_sample\"");
    until_so("an empty page", || !samples(&sink, "up").is_empty());
    let (first, start) = begun(5);
    target.now(move |_| openmetrics(&first));
    let all = until("two scrapes", || {
        let all = samples(&sink, "c_total");
        (all.len() >= 3).then_some(all)
    });
    assert_eq!((all[0].0, all[0].1), (0.0, start));
    assert!(all[1..].iter().all(|(value, ..)| *value == 5.0), "{all:?}");
    assert!(samples(&sink, "c_created").is_empty());
    // A restart of the target, which counts again.
    let (again, start) = begun(6);
    target.now(move |_| openmetrics(&again));
    until_so("it begins again", || {
        let all = samples(&sink, "c_total");
        all.contains(&(0.0, start, 0)) && all.last().unwrap().0 == 6.0
    });
    let zeros = samples(&sink, "c_total").into_iter();
    assert_eq!(zeros.filter(|(value, ..)| *value == 0.0).count(), 2);
}

#[test]
fn start_timestamps_are_sent_by_the_version_that_has_them() {
    let target = Endpoint::new(|_| openmetrics("# TYPE c counter\nc_total 5\nc_created 1000\n"));
    let (old, new) = (Endpoint::healthy(), Endpoint::speaking(Manner::Honest));
    let keys = format!(
        "targets = [\"{}\"]\nstart_timestamps = \"send\"",
        target.address()
    );
    let _child = Metrifold::start(&format!(
        "{}[sinks.new]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\nprotocol = \"2.0\"\n",
        config(&keys, &old),
        new.url()
    ));
    for (sink, start) in [(&old, 0), (&new, 1_000_000)] {
        let sample = until("a sample", || samples(sink, "c_total").first().copied());
        assert_eq!((sample.0, sample.2), (5.0, start));
    }
    assert!(new.seen().iter().any(Seen::is_v2));
}

#[test]
fn a_target_that_moves_to_another_url_keeps_its_series() {
    let before = target("a 1\nold 1\n");
    let after = target("a 2\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets");
    fs::write(&file, before.address().to_string()).unwrap();
    let sink = Endpoint::healthy();
    let discovery = format!(
        "[discovery.d]\ntype = \"file\"\nformat = \"lines\"\nfiles = [{file:?}]\nwatch_interval = \"100ms\"\n"
    );
    let keys =
        "discovery = \"d\"\nrelabel = [{ target_label = \"instance\", replacement = \"same\" }]";
    let _child = Metrifold::start(&format!("{discovery}{}", config(keys, &sink)));
    until_so("it is scraped", || !samples(&sink, "old").is_empty());
    fs::write(&file, after.address().to_string()).unwrap();
    let ends = |name: &str| {
        let samples = samples(&sink, name);
        samples.iter().any(|(value, ..)| value.to_bits() == STALE)
    };
    // The marker comes two intervals later; by then the others have samples of the new place.
    until_so("what it has no more ends", || ends("old"));
    assert!(samples(&sink, "a").iter().any(|(value, ..)| *value == 2.0));
    assert!(!ends("a") && !ends("up"));
    // All samples of a target are in order, wherever it was.
    let times = samples(&sink, "a").into_iter().map(|(_, time, _)| time);
    assert!(times.is_sorted());
}

#[test]
fn a_scrape_that_a_reload_cuts_short_is_repeated_at_once() {
    let target = Endpoint::new(|_| Does::Hang(page("a 1\n")));
    let sink = Endpoint::healthy();
    let keys = |more: &str| {
        let keys = format!(
            "targets = [\"{}\"]\nscrape_interval = \"4s\"\nscrape_timeout = \"4s\"\n{more}",
            target.address()
        );
        config(&keys, &sink).replacen(OFTEN, "", 1)
    };
    let child = Metrifold::start(&keys(""));
    target.wait_requests(1);
    target.now(|_| page("a 1\n"));
    edit(&child, &keys("sample_limit = 9"));
    let times: Vec<i64> = until("two scrapes", || {
        let all = samples(&sink, "a");
        (all.len() >= 2).then(|| all.into_iter().map(|(_, time, _)| time).collect())
    });
    // The second was due at its time; the first was not, since it was late.
    let apart = times[1] - times[0];
    assert!(apart < 4000 && apart > 0, "{times:?}");
}

#[test]
fn classic_histograms_become_native_ones_for_the_version_that_has_custom_buckets() {
    let target = target(
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 7\nh_count 3\ng 1\n",
    );
    let (old, new) = (Endpoint::healthy(), Endpoint::speaking(Manner::Honest));
    let keys = format!(
        "targets = [\"{}\"]\nconvert_classic_histograms_to_nhcb = true",
        target.address()
    );
    let _child = Metrifold::start(&format!(
        "{}[sinks.new]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\nprotocol = \"2.0\"\n",
        config(&keys, &old),
        new.url()
    ));
    let histogram = until("a histogram", || {
        let seen = new.seen();
        let mut series = seen.iter().flat_map(Seen::series);
        let histogram = series.find(|series| series.name() == "h")?;
        Histogram::decode(&*histogram.histograms[0]).ok()
    });
    assert_eq!((histogram.schema, histogram.sum), (-53, 7.0));
    assert_eq!(histogram.custom_values, [1.0]);
    assert_eq!(histogram.positive_deltas, [1, 1]);
    // Neither its classic series nor what 1.0 cannot hold.
    let names = scrape(&old, "a good scrape", |it| up(it, 1.0));
    assert!(names.contains_key("g{}"));
    assert!(!names.keys().any(|name| name.starts_with('h')), "{names:?}");
}

/// Such pages are not read again, but written into the series of the page before.
#[test]
fn values_of_pages_that_differ_in_nothing_else_arrive_in_every_form() {
    let target = Endpoint::new(|seen: &Seen| {
        let asked = seen.order + 1;
        page(&format!(
            "# HELP n help\n# TYPE n counter\nn{{a=\"x\"}} {asked}\nn{{a=\"none\"}} 0\ndropped {asked}\n"
        ))
    });
    let newer = Endpoint::speaking(Manner::Prometheus);
    let (plain, edited) = (Endpoint::healthy(), Endpoint::healthy());
    let sink = |name: &str, input: &str, keys: &str, sink: &Endpoint| {
        format!(
            "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [\"{input}\"]\nendpoint = \"{}\"\nmerge_bytes = \"0B\"\n{keys}\n",
            sink.url()
        )
    };
    let child = Metrifold::start(&format!(
        "[sources.s]\ntype = \"scrape\"\nscrape_interval = \"100ms\"\nmetadata_interval = \"300ms\"\ntargets = [\"{}\"]\n\
         metric_relabel = [{{ source_labels = [\"__name__\"], regex = \"dropped\", action = \"drop\" }}]\n\
         [transforms.t]\ntype = \"relabel\"\ninputs = [\"s\"]\nrules = [{{ target_label = \"new\", replacement = \"text\" }}]\n{}{}{}",
        target.address(),
        sink("plain", "s", "protocol = \"1.0\"", &plain),
        sink("newer", "s", "protocol = \"2.0\"", &newer),
        sink("edited", "t", "protocol = \"1.0\"", &edited),
    ));
    for sink in [&plain, &newer, &edited] {
        sink.wait_requests(12);
    }
    drop(child);
    for (sink, label) in [(&plain, ""), (&newer, ""), (&edited, ",new=text")] {
        let seen = sink.seen();
        let (mut before, mut described) = (0.0, 0);
        for request in &seen {
            let values = values(request);
            let of = |a: &str| f64::from_bits(values[&format!("n{{a={a}{label}}}")]);
            assert_eq!(of("none"), 0.0);
            assert!(of("x") > before, "{} after {before}", of("x"));
            before = of("x");
            // Two series of the page, and five about the scrape.
            assert_eq!(values.len(), 7, "{values:?}");
            let times: BTreeSet<i64> = request.series().iter().flat_map(Series::times).collect();
            assert_eq!(times.len(), 1, "{times:?}");
            described +=
                usize::from(String::from_utf8_lossy(&decompress(&request.body)).contains("help"));
        }
        // 2.0 describes a series in every request, and 1.0 a family now and then.
        match seen[0].is_v2() {
            true => assert_eq!(described, seen.len()),
            false => assert!((2..seen.len()).contains(&described), "{described}"),
        }
    }
}

#[test]
fn a_page_that_does_not_come_in_time_fails_its_scrape() {
    let target = Endpoint::new(|_| Does::Hang(page("a 1\n")));
    let (child, sink) = pipe(&target, "scrape_timeout = \"200ms\"");
    scrape(&sink, "the target is down", |values| up(values, 0.0));
    until_so("the cause is counted", || {
        child.metric("metrifold_scrapes_total", &[("outcome", "timeout")]) >= 1.0
    });
    let found = &targets(&child, "")["activeTargets"][0];
    let error = found["lastError"].as_str().unwrap();
    assert!(error.contains("200ms"), "{found}");
    target.release();
}

#[test]
fn more_targets_than_the_limit_are_all_down() {
    let (one, other) = (target("a 1\n"), target("a 1\n"));
    let sink = Endpoint::healthy();
    let keys = format!(
        "targets = [\"{}\", \"{}\"]\ntarget_limit = 1",
        one.address(),
        other.address()
    );
    let child = Metrifold::start(&config(&keys, &sink));
    scrape(&sink, "a target is down", |values| up(values, 0.0));
    let found = targets(&child, "");
    for target in found["activeTargets"].as_array().unwrap() {
        until_so("each is down", || {
            let found = targets(&child, "");
            let mut all = found["activeTargets"].as_array().unwrap().iter();
            let same = |it: &&Value| it["scrapeUrl"] == target["scrapeUrl"];
            let error = all.find(same).unwrap()["lastError"]
                .as_str()
                .unwrap()
                .to_owned();
            error.contains("target_limit = 1")
        });
    }
    assert_eq!((one.count(), other.count()), (0, 0));
}

#[test]
fn timestamps_of_a_page_are_ignored_where_they_are_not_honoured() {
    let target = target("a 1 1000\n");
    let (_child, sink) = pipe(&target, "honor_timestamps = false");
    let seen = until("a good scrape", || {
        let mut taken = sink.take().into_iter();
        taken.find(|seen| values(seen).contains_key("a{}"))
    });
    let times: BTreeSet<i64> = seen.series().iter().flat_map(Series::times).collect();
    assert_eq!(times.len(), 1, "{times:?}");
    assert!(!times.contains(&1000));
}

#[test]
fn a_job_asks_with_its_token_and_for_the_encodings_that_it_takes() {
    for (keys, encodings) in [
        ("", "zstd,gzip"),
        ("enable_compression = false", "identity"),
    ] {
        let target = target("a 1\n");
        let keys = format!("authorization = {{ credentials = \"token\" }}\n{keys}");
        let (_child, sink) = pipe(&target, &keys);
        scrape(&sink, "a good scrape", |values| up(values, 1.0));
        let asked = &target.seen()[0];
        assert_eq!(asked.header("authorization"), Some("Bearer token"));
        assert_eq!(asked.header("accept-encoding"), Some(encodings));
    }
}
