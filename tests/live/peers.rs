//! Real traffic: Metrifold between independent programs.
//!
//! Prometheus and vmagent scrape node_exporter, themselves and targets of the test, and send the
//! series through Metrifold to Prometheus and VictoriaMetrics. The receivers' data is then
//! compared, sample by sample, with the sender's own database, or with a VictoriaMetrics to which
//! vmagent writes directly. `make test` installs the programs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrifold_testing::peers::{
    Labels, NodeExporter, OPENMETRICS, PROTOBUF, Prometheus, Samples, TEXT, Target, Victoria,
    histogram_page, now, until_same, vmagent,
};
use metrifold_testing::series::counts;
use metrifold_testing::{Metrifold, Sender, Series, body, body_v2, until};

/// Values and labels that are easily damaged.
const PAGE: &str = r#"# HELP test_values Values that are "easily" damaged.
# TYPE test_values gauge
test_values{kind="nan"} NaN
test_values{kind="inf"} +Inf
test_values{kind="minus inf"} -Inf
test_values{kind="tiny"} 2.2250738585072014e-308
test_values{kind="huge"} 1.7976931348623157e+308
test_values{kind="third"} 0.3333333333333333
test_values{kind="negative"} -17
test_values{kind="zero"} 0
test_values{kind="ünïcode 🙂, \"quotes\", \\ and \n"} 1
"#;

/// Serves the page, the number of scrapes, and, while `passing` is set, a metric that disappears.
fn page_target(passing: &Arc<AtomicBool>) -> Target {
    let passing = passing.clone();
    Target::start(TEXT, move |number| {
        let passing = if passing.load(Ordering::Relaxed) {
            "test_passing 1\n"
        } else {
            ""
        };
        format!("{PAGE}test_served_total {number}\n{passing}").into()
    })
}

/// Serves a counter with a new exemplar at each scrape.
fn traced_target() -> Target {
    Target::start(OPENMETRICS, |number| {
        let exemplar = format!("# {{trace_id=\"t{number}\"}} 0.{number}");
        format!("# TYPE test_traced counter\ntest_traced_total {number} {exemplar}\n# EOF\n").into()
    })
}

fn sender_config(write_url: &str, jobs: &str) -> String {
    format!(
        r#"
global:
  scrape_interval: 1s
  scrape_timeout: 1s
remote_write:
  - url: {write_url}
    send_exemplars: true
    send_native_histograms: true
    queue_config: {{ batch_send_deadline: 500ms, max_backoff: 500ms, max_shards: 4 }}
    metadata_config: {{ send_interval: 2s }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{ targets: [SELF] }}]
{jobs}"#
    )
}

/// Selector of everything that was scraped.
const ALL: &str = r#"{job!=""}"#;

/// The expected data at the receiver: without what relabelling drops, with the tenant.
fn cleaned<T>(series: BTreeMap<Labels, T>) -> BTreeMap<Labels, T> {
    let kept = series
        .into_iter()
        .filter(|(labels, _)| !labels["__name__"].starts_with("go_gc_"));
    kept.map(|(mut labels, values)| {
        labels.remove("noise");
        labels.insert("tenant_id".into(), "team-a".into());
        (labels, values)
    })
    .collect()
}

/// The part that VictoriaMetrics can hold: no NaNs.
fn without_nans(samples: Samples) -> Samples {
    let series = samples.into_iter().map(|(labels, mut values)| {
        values.retain(|(_, value)| !value.is_nan());
        (labels, values)
    });
    series.filter(|(_, values)| !values.is_empty()).collect()
}

/// Relative precision of VictoriaMetrics, which stores decimal numbers of at least twelve digits,
/// and tiny ones as zero.
const DECIMAL: f64 = 1e-11;

#[test]
fn what_prometheus_scrapes_is_the_same_behind_metrifold() {
    let node = NodeExporter::start();
    let (receiver, victoria) = (Prometheus::start(""), Victoria::start());
    let metrifold = Metrifold::start(
        &r#"
        [sources.ingest]
        type = "remote_write"
        address = "INGEST"
        path = "/api/metrics/v1/{tenant}/api/v1/receive"

        [transforms.tenant]
        type = "tenant"
        inputs = ["ingest"]
        from = [{ path = "tenant" }]
        label = "tenant_id"

        [transforms.clean]
        type = "relabel"
        inputs = ["tenant"]
        rules = [
            { source_labels = ["__name__"], regex = "go_gc_.*", action = "drop" },
            { regex = "noise", action = "labeldrop" },
        ]

        [sinks.prometheus]
        type = "remote_write"
        inputs = ["clean"]
        endpoint = "RECEIVER"

        [sinks.victoria]
        type = "thanos"
        inputs = ["clean"]
        endpoint = "VICTORIA"
        "#
        .replace("RECEIVER", &receiver.write_url())
        .replace("VICTORIA", &victoria.write_url()),
    );

    // One target leaves discovery, one dies, one loses a metric.
    let (always, until_lost) = (Arc::new(true.into()), Arc::new(AtomicBool::new(true)));
    let leaving = page_target(&always);
    let dying = page_target(&always);
    let losing = page_target(&until_lost);
    let traced = traced_target();
    let native = Target::start(PROTOBUF, |number| histogram_page("test_native", number));
    let folder = tempfile::tempdir().unwrap();
    let discovered = folder.path().join("targets.json");
    let target_list = format!(r#"[{{ "targets": ["{}"] }}]"#, leaving.address);
    let discover = |list: &str| {
        let new = discovered.with_extension("new");
        std::fs::write(&new, list).unwrap();
        std::fs::rename(&new, &discovered).unwrap();
    };
    discover(&target_list);
    let jobs = format!(
        r#"
  - job_name: node
    static_configs: [{{ targets: ["{}"], labels: {{ noise: loud }} }}]
  - job_name: leaving
    file_sd_configs: [{{ files: ["{}"], refresh_interval: 1s }}]
  - job_name: dying
    static_configs: [{{ targets: ["{}"] }}]
  - job_name: losing
    static_configs: [{{ targets: ["{}"] }}]
  - job_name: traced
    static_configs: [{{ targets: ["{}"] }}]
  - job_name: native
    static_configs: [{{ targets: ["{}"] }}]
"#,
        node.address,
        discovered.display(),
        dying.address,
        losing.address,
        traced.address,
        native.address
    );
    let write_url = format!(
        "http://{}/api/metrics/v1/team-a/api/v1/receive",
        metrifold.ingest
    );
    let started = now();
    let sender = Prometheus::start(&sender_config(&write_url, &jobs));

    until("targets to be scraped", || {
        let scrapes = [&leaving, &dying, &losing, &traced, &native].map(Target::scrapes);
        (scrapes.into_iter().min() > Some(4)).then_some(())
    });
    discover("[]");
    drop(dying);
    until_lost.store(false, Ordering::Relaxed);
    let gone = until("the sender to see what is gone", || {
        let time = now();
        let left = r#"count(test_passing or up{job="leaving"})"#;
        sender.value(left, time).is_none().then_some(time)
    });
    let last = r#"count_over_time(test_passing{job="leaving"}[5m])"#;
    assert!(sender.value(last, gone) > Some(3.0), "it was never there");

    // Everything up to now, with a minute to spare at the start.
    let end = gone + 1.0;
    let seconds = (end - started).ceil() as u32 + 60;
    until("time to pass", || (now() > end + 1.5).then_some(()));
    let found = until_same("Prometheus", 0.0, || {
        let expected = cleaned(sender.samples(ALL, seconds, end));
        (receiver.samples(ALL, seconds, end), expected)
    });
    until_same("VictoriaMetrics", DECIMAL, || {
        let expected = cleaned(sender.samples(ALL, seconds, end));
        (victoria.samples(ALL, end).0, without_nans(expected))
    });

    // The amount and kind of data are as intended.
    assert!(found.len() > 500, "only {} series", found.len());
    assert!(found.values().map(Vec::len).sum::<usize>() > 3000);
    for name in [
        "node_memory_MemFree_bytes",
        "prometheus_tsdb_head_series",
        "go_goroutines",
        "up",
    ] {
        assert!(
            found.keys().any(|labels| labels["__name__"] == name),
            "{name}"
        );
    }
    let sent = sender.samples(ALL, seconds, end);
    assert!(
        sent.keys()
            .any(|labels| labels["__name__"].starts_with("go_gc_"))
    );
    assert!(sent.keys().any(|labels| labels.contains_key("noise")));
    for labels in found.keys() {
        assert_eq!(labels["tenant_id"], "team-a", "{labels:?}");
        assert!(!labels["__name__"].starts_with("go_gc_"), "{labels:?}");
        assert!(!labels.contains_key("noise"), "{labels:?}");
    }

    // Native histograms and exemplars have arrived.
    let histograms = cleaned(sender.histograms(ALL, seconds, end));
    let test_native = histograms
        .iter()
        .find(|(labels, _)| labels["__name__"] == "test_native");
    assert!(
        test_native.unwrap().1.as_array().unwrap().len() > 4,
        "{histograms:?}"
    );
    until("the receiver to have the same histograms", || {
        (receiver.histograms(ALL, seconds, end) == histograms).then_some(())
    });
    let exemplars = cleaned(sender.exemplars(ALL, started, end));
    let test_traced = exemplars
        .iter()
        .find(|(labels, _)| labels["job"] == "traced");
    assert!(
        test_traced.unwrap().1.as_array().unwrap().len() > 4,
        "{exemplars:?}"
    );
    until("the receiver to have the same exemplars", || {
        (receiver.exemplars(ALL, started, end) == exemplars).then_some(())
    });

    // Series end where they end at the sender, long before the look-back would end them.
    let ending = r#"{__name__=~"test_.*|up",job=~"leaving|dying|losing"}"#;
    let course = sender.course(ending, started, end);
    let reach = |job: &str, name: &str, course: &Samples| {
        let mut series = course
            .iter()
            .filter(|(l, _)| l["job"] == job && l["__name__"] == name);
        let (_, values) = series.next().unwrap();
        values.last().unwrap().0
    };
    let end_ms = (end * 1000.0) as i64;
    for (job, name, ends) in [
        ("leaving", "up", true),
        ("leaving", "test_passing", true),
        ("dying", "up", false),
        ("dying", "test_passing", true),
        ("losing", "up", false),
        ("losing", "test_served_total", false),
        ("losing", "test_passing", true),
    ] {
        assert_eq!(
            reach(job, name, &course) < end_ms - 500,
            ends,
            "{name} of {job}"
        );
    }
    until_same("the course of what ends", 0.0, || {
        (
            receiver.course(ending, started, end),
            cleaned(course.clone()),
        )
    });

    // VictoriaMetrics shows the stale markers: one at the end of each such series.
    let (samples, markers) = victoria.samples(ending, end);
    let mut markers_found = 0;
    for (labels, values) in &samples {
        let ends = labels["job"] == "leaving"
            || labels["__name__"] == "test_passing"
            || (labels["job"] == "dying" && labels["__name__"] != "up");
        let times = markers.get(labels).map_or(&[][..], Vec::as_slice);
        assert_eq!(times.len(), usize::from(ends), "{labels:?}: {times:?}");
        if let [time] = times {
            let last = values.last().unwrap().0;
            assert!(
                (last + 1..last + 10_000).contains(time),
                "{labels:?}: {last} {time}"
            );
            // A series exists up to its marker, and not from it on.
            let until = reach(&labels["job"], &labels["__name__"], &course);
            assert!(
                (until + 1..=until + 250).contains(time),
                "{labels:?}: {until} {time}"
            );
            markers_found += 1;
        }
    }
    assert!(markers_found > 20, "{markers_found} markers");
}

#[test]
fn nothing_is_missing_after_the_receiver_was_killed_and_started_again() {
    let mut receiver = Prometheus::start("");
    let mut metrifold = Metrifold::start(
        &r#"
        [sources.ingest]
        type = "remote_write"
        address = "INGEST"

        [sources.beside]
        type = "remote_write"
        address = "INGEST"
        path = "/beside"

        [sinks.prometheus]
        type = "remote_write"
        inputs = ["ingest", "beside"]
        endpoint = "RECEIVER"
        retry = { max_backoff = "500ms" }
        "#
        .replace("RECEIVER", &receiver.write_url()),
    );
    let write_url = metrifold.write_url();
    let started = now();
    let sender = Prometheus::start(&sender_config(&write_url, ""));
    let window = |end: f64| (end - started).ceil() as u32 + 60;
    until("samples to arrive", || {
        let samples = receiver.samples("up", 60, now());
        samples
            .values()
            .any(|values| values.len() >= 3)
            .then_some(())
    });

    // Requests in flight are cut off.
    receiver.process.kill();
    let killed = now();
    until("scrapes without a receiver", || {
        let up = sender.samples("up", 60, now());
        let missed =
            |values: &Vec<(i64, f64)>| values.iter().filter(|v| v.0 as f64 > killed * 1e3).count();
        up.values().any(|values| missed(values) >= 4).then_some(())
    });
    let retries = metrifold.metric("metrifold_component_retries_total", &[]);
    assert!(retries > 0.0, "nothing was tried again");
    let restarted = now();
    receiver.start_again();
    let end = now() + 2.0;
    until("time to pass", || (now() > end + 1.5).then_some(()));
    let found = until_same("the restarted receiver", 0.0, || {
        let expected = sender.samples(ALL, window(end), end);
        (receiver.samples(ALL, window(end), end), expected)
    });
    let up = found.iter().find(|(labels, _)| labels["__name__"] == "up");
    let (_, up) = up.unwrap();
    let meanwhile = (killed * 1e3) as i64..(restarted * 1e3) as i64;
    let caught_up = up
        .iter()
        .filter(|(time, _)| meanwhile.contains(time))
        .count();
    assert!(caught_up >= 4, "{meanwhile:?}: {up:?}");

    // A signal to stop while the receiver is down: the backlog is delivered first.
    receiver.process.kill();
    let beside = metrifold.ingest;
    let post = std::thread::spawn(move || {
        let last_words = Series::new("last_words", &[((now() * 1e3) as i64, 1.0)]);
        Sender::new(beside).post("/beside", &[], &body(&[last_words]))
    });
    until("the request to be inside", || {
        let labels = [("component_id", "beside")];
        let taken = metrifold.metric("metrifold_component_received_batches_total", &labels);
        (taken == 1.0).then_some(())
    });
    metrifold.signal("TERM");
    receiver.start_again();
    let status = metrifold.wait();
    assert_eq!(status.code(), Some(0), "{}", metrifold.log());
    let reply = post.join().unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(receiver.value("last_words", now()), Some(1.0));
}

#[test]
fn what_vmagent_sends_and_what_comes_as_2_0_reaches_an_old_prometheus() {
    let (receiver, reference) = (Prometheus::start(""), Victoria::start());
    let metrifold = Metrifold::start(
        &r#"
        [sources.ingest]
        type = "remote_write"
        address = "INGEST"

        [sinks.prometheus]
        type = "remote_write"
        inputs = ["ingest"]
        endpoint = "RECEIVER"
        protocol = "auto"
        "#
        .replace("RECEIVER", &receiver.write_url()),
    );
    let write_url = metrifold.write_url();

    // 2.0: this Prometheus answers 204 and stores nothing, so that Metrifold falls back to 1.0.
    let time = (now() * 1e3) as i64;
    let sent = [
        Series::named("new_total")
            .sample(41.0, time - 1000)
            .sample(42.0, time),
        Series::named("new_gauge").sample(0.5, time),
    ];
    let reply = Sender::new(metrifold.ingest).write_v2(&body_v2(&sent));
    assert_eq!(reply.status, 204, "{}", reply.text());
    assert_eq!(reply.written(), Some(counts(&sent)));
    let at = time as f64 / 1e3;
    assert_eq!(receiver.value("new_total", at), Some(42.0));
    assert_eq!(receiver.value("new_total", at - 0.5), Some(41.0));
    assert_eq!(receiver.value("new_gauge", at), Some(0.5));

    // vmagent, which writes the same to a VictoriaMetrics directly.
    let started = now();
    let always = Arc::new(true.into());
    let (stays, goes) = (page_target(&always), page_target(&always));
    let config = format!(
        r#"
global: {{ scrape_interval: 1s, scrape_timeout: 1s }}
scrape_configs:
  - job_name: stays
    static_configs: [{{ targets: ["{}"] }}]
  - job_name: goes
    static_configs: [{{ targets: ["{}"] }}]
"#,
        stays.address, goes.address
    );
    let folder = tempfile::tempdir().unwrap();
    let urls = [write_url, reference.write_url()];
    let _vmagent = vmagent(&config, &urls, folder.path());
    until("targets to be scraped", || {
        (stays.scrapes().min(goes.scrapes()) > 4).then_some(())
    });
    drop(goes);
    let gone = until("the target to be gone", || {
        let time = now();
        let left = receiver.value(r#"count({job="goes",__name__=~"test_.*"})"#, time);
        let down = receiver.value(r#"up{job="goes"}"#, time);
        (left.is_none() && down == Some(0.0)).then_some(time)
    });
    let served = stays.scrapes();
    let end = gone + 1.0;
    let seconds = (end - started).ceil() as u32 + 10;
    until("more scrapes", || {
        (stays.scrapes() > served + 3).then_some(())
    });
    until_same("vmagent's", DECIMAL, || {
        let found = receiver.samples(r#"{job=~"stays|goes"}"#, seconds, end);
        let expected = reference.samples(r#"{job=~"stays|goes"}"#, end).0;
        (without_nans(found), expected)
    });
    // Each scrape of a target arrived exactly once.
    for (job, at_least) in [("stays", served - 3), ("goes", 5)] {
        let selector = format!(r#"test_served_total{{job="{job}"}}"#);
        let samples = receiver.samples(&selector, seconds, end);
        let values: Vec<f64> = samples
            .into_values()
            .flatten()
            .map(|(_, value)| value)
            .collect();
        let expected: Vec<f64> = (1..=values.len()).map(|n| n as f64).collect();
        assert_eq!(values, expected, "{job}");
        assert!(values.len() as u64 >= at_least, "{job}: {values:?}");
    }
}

#[test]
fn what_goes_through_2_0_on_its_way_is_the_same_behind_it() {
    // A Prometheus with 1.0, a Metrifold that converts to 2.0, one that receives 2.0, and a
    // Prometheus that does not.
    let receiver = Prometheus::start("");
    let pass = |protocol: &str, endpoint: &str| {
        r#"
        [sources.ingest]
        type = "remote_write"
        address = "INGEST"

        [sinks.next]
        type = "remote_write"
        inputs = ["ingest"]
        endpoint = "ENDPOINT"
        protocol = "PROTOCOL"
        "#
        .replace("ENDPOINT", endpoint)
        .replace("PROTOCOL", protocol)
    };
    let second = Metrifold::start(&pass("auto", &receiver.write_url()));
    let second_url = second.write_url();
    let first = Metrifold::start(&pass("2.0", &second_url));
    let always = Arc::new(true.into());
    let plain = page_target(&always);
    let traced = traced_target();
    let native = Target::start(PROTOBUF, |number| histogram_page("test_native", number));
    let jobs = format!(
        r#"
  - job_name: targets
    static_configs: [{{ targets: ["{}", "{}", "{}"] }}]
"#,
        plain.address, traced.address, native.address
    );
    let write_url = first.write_url();
    let started = now();
    let sender = Prometheus::start(&sender_config(&write_url, &jobs));
    until("targets to be scraped", || {
        let scrapes = [&plain, &traced, &native].map(Target::scrapes);
        (scrapes.into_iter().min() > Some(4)).then_some(())
    });
    drop(plain);
    let end = now() + 2.0;
    let seconds = (end - started).ceil() as u32 + 60;
    until("time to pass", || (now() > end + 1.5).then_some(()));

    let found = until_same("Prometheus", 0.0, || {
        let expected = sender.samples(ALL, seconds, end);
        (receiver.samples(ALL, seconds, end), expected)
    });
    assert!(found.len() > 300, "only {} series", found.len());
    let ending = r#"{__name__=~"test_.*",job="targets"}"#;
    until_same("the course of what ends", 0.0, || {
        let expected = sender.course(ending, started, end);
        (receiver.course(ending, started, end), expected)
    });
    let histograms = sender.histograms(ALL, seconds, end);
    assert_eq!(histograms.len(), 1);
    until("the receiver to have the same histograms", || {
        (receiver.histograms(ALL, seconds, end) == histograms).then_some(())
    });
    let exemplars = sender.exemplars(ALL, started, end);
    assert_eq!(exemplars.len(), 1);
    until("the receiver to have the same exemplars", || {
        (receiver.exemplars(ALL, started, end) == exemplars).then_some(())
    });

    // It was 2.0 between them, and no sample was refused or lost.
    assert!(!first.log().contains("sending 1.0"), "{}", first.log());
    assert!(second.log().contains("sending 1.0"), "{}", second.log());
    for metrifold in [&first, &second] {
        let discarded = metrifold.metric("metrifold_component_discarded_samples_total", &[]);
        assert_eq!(discarded, 0.0);
    }
}
