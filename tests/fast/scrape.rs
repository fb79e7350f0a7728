//! Scraping, in the whole program: what a target's page becomes, and what is sent when it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use metrifold_testing::edits::{edit, until_runs};
use metrifold_testing::series::Series;
use metrifold_testing::{Endpoint, Metrifold, Reply, Seen, free_address, until, until_so};

const STALE: u64 = 0x7ff0_0000_0000_0002;
/// As often as a test wants to see something.
const OFTEN: &str = "scrape_interval = \"1s\"";

fn page(text: &str) -> Reply {
    Reply::new(200)
        .header("content-type", "text/plain; version=0.0.4")
        .body(text)
}

fn target(text: &'static str) -> Endpoint {
    Endpoint::new(move |_| page(text))
}

fn config(keys: &str, sink: &Endpoint) -> String {
    format!(
        "[sources.s]\ntype = \"scrape\"\n{OFTEN}\n{keys}\n\
         [sinks.out]\ntype = \"remote_write\"\ninputs = [\"s\"]\nendpoint = \"{}\"\nmerge_bytes = \"0B\"\n",
        sink.url()
    )
}

/// A pipe from a target to an endpoint.
fn pipe(target: &Endpoint, keys: &str) -> (Metrifold, Endpoint) {
    let sink = Endpoint::healthy();
    let targets = format!("targets = [\"{}\"]\n{keys}", target.address());
    (Metrifold::start(&config(&targets, &sink)), sink)
}

/// A series without its labels `job` and `instance`, as PromQL writes it.
fn named(series: &Series) -> String {
    let others = series.labels.iter();
    let others =
        others.filter(|(name, _)| !["__name__", "job", "instance"].contains(&name.as_str()));
    let labels: Vec<_> = others
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{}{{{}}}", series.name(), labels.join(","))
}

/// The series of a request by their names, as bits.
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

/// The first scrape from now on that this holds of.
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

fn targets(running: &Metrifold, query: &str) -> Value {
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
    // Nothing is new any more, and nothing has to be said of families again.
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
    // It said itself when it was.
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
        // It was known before the failure.
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
    // What the one before knew, this one knows: nothing is new.
    assert_eq!(value(&after, "scrape_series_added"), Some(0.0));
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
    let (first, second) = (start("0"), start("\"metrifold-1\""));
    let has = |child: &Metrifold| -> BTreeSet<String> {
        let data = targets(child, "");
        let active = data["activeTargets"].as_array().unwrap();
        let urls = active.iter().map(|it| it["scrapeUrl"].to_string());
        urls.collect()
    };
    // How many are whose is for their hashes to say: by chance, one may have all of them.
    let (first, second) = until("each target is somebody's", || {
        let (first, second) = (has(&first), has(&second));
        (first.union(&second).count() == endpoints.len()).then_some((first, second))
    });
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
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
