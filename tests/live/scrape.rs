//! The same targets scraped by Metrifold and by a real Prometheus 3, which stores both: equal
//! series, values, histograms, exemplars and `up`, and equal stale markers when a target
//! disappears.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use metrifold_testing::peers::{
    Labels, NodeExporter, OPENMETRICS, PROTOBUF, Prometheus, TEXT, Target, Victoria,
    histogram_page, now, started_histogram_page,
};
use metrifold_testing::{Endpoint, Metrifold, Reply, until};

/// Content that is easily misread.
const PAGE: &str = r#"# HELP test_values Values that are "easily" damaged.
# TYPE test_values gauge
test_values{kind="nan"} NaN
test_values{kind="inf"} +Inf
test_values{kind="tiny"} 2.2250738585072014e-308
test_values{kind="ünïcode 🙂, \"quotes\", \\ and \n",job="mine",instance="me"} 1
{"test.utf8","a.b"="c"} 3
# TYPE test_histogram histogram
test_histogram_bucket{le="1"} 1
test_histogram_bucket{le="1e6"} 2
test_histogram_bucket{le="+Inf"} 2
test_histogram_sum 7
test_histogram_count 2
"#;

const TRACED: &str = "# TYPE test_traced counter\ntest_traced_total 5 # {trace_id=\"t\"} 0.5 1700000000\ntest_traced_created 1700000000\n# EOF\n";

/// Last value of each series of a job at a time, without the label `job`.
fn values(store: &Prometheus, job: &str, end: f64) -> BTreeMap<Labels, String> {
    let selector = format!("{{job={job:?}}}");
    let series = store.samples(&selector, 5, end).into_iter();
    let values = series.map(|(labels, samples)| {
        let name = labels["__name__"].clone();
        // Measured values differ between two scrapes.
        let measured = ["node_", "go_", "process_", "promhttp_", "scrape_duration_"]
            .iter()
            .any(|it| name.starts_with(it));
        let value = samples.last().unwrap().1;
        let value = if measured {
            "measured".into()
        } else {
            value.to_string()
        };
        (without_job(labels), value)
    });
    let added = |labels: &Labels| labels["__name__"] != "scrape_series_added";
    values.filter(|(labels, _)| added(labels)).collect()
}

fn without_job(mut labels: Labels) -> Labels {
    labels.remove("job");
    labels
}

#[track_caller]
fn until_same(store: &Prometheus, what: &str, holds: impl Fn(&BTreeMap<Labels, String>) -> bool) {
    let mut last = String::new();
    until(&format!("both to have the same: {what}"), || {
        let end = now();
        let (here, there) = (values(store, "here", end), values(store, "there", end));
        let same = here == there && holds(&here);
        let differ = here
            .iter()
            .filter(|(labels, value)| there.get(*labels) != Some(*value));
        let differ: Vec<_> = differ.take(3).collect();
        let text = format!("{} here, {} there, {differ:?}", here.len(), there.len());
        if text != last {
            println!("{what}: {text}");
            last = text;
        }
        same.then_some(())
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn metrifold_and_prometheus_scrape_the_same() {
    let plain = Target::start(TEXT, |_| PAGE.into());
    let traced = Target::start(OPENMETRICS, |_| TRACED.into());
    let native = Target::start(PROTOBUF, |_| histogram_page("test_native", 7));
    let wrong = Target::start(TEXT, |_| "a 1\nb\n".into());
    let node = NodeExporter::start();
    let all = [
        plain.address,
        traced.address,
        native.address,
        wrong.address,
        node.address,
    ];
    let targets = all.map(|address| format!("\"{address}\"")).join(", ");
    let store = Prometheus::start_3(&format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true }}\n\
         scrape_configs: [{{ job_name: there, extra_scrape_metrics: true, static_configs: [{{ targets: [{targets}] }}] }}]\n"
    ));
    let _child = Metrifold::start(&format!(
        "[sources.here]\ntype = \"scrape\"\ntargets = [{targets}]\nscrape_interval = \"1s\"\n\
         scrape_native_histograms = true\nextra_scrape_metrics = true\n\
         [sinks.store]\ntype = \"remote_write\"\ninputs = [\"here\"]\nendpoint = \"{}\"\nprotocol = \"2.0\"\n",
        store.write_url()
    ));
    let has = |series: &BTreeMap<Labels, String>, name: &str, address: &str| {
        let is = |labels: &Labels| {
            labels["__name__"] == name && labels.get("instance").is_some_and(|it| it == address)
        };
        series.keys().any(is)
    };
    let at = node.address.to_string();
    until_same(&store, "all of them", |series| {
        has(series, "node_cpu_seconds_total", &at)
            && series.keys().any(|it| it["__name__"] == "test.utf8")
    });
    until("both to have the same histograms and exemplars", || {
        let end = now();
        let histograms = |job: &str| {
            let found = store
                .histograms(&format!("{{job={job:?}}}"), 5, end)
                .into_iter();
            let last = found.map(|(labels, it)| {
                (
                    without_job(labels),
                    it.as_array().unwrap().last().unwrap()[1].clone(),
                )
            });
            last.collect::<BTreeMap<_, _>>()
        };
        let (here, there) = (histograms("here"), histograms("there"));
        let exemplars = |job: &str| {
            let found = store
                .exemplars(&format!("{{job={job:?}}}"), 1.0, end)
                .into_iter();
            let found = found.map(|(labels, it)| (without_job(labels), it));
            found.collect::<BTreeMap<_, _>>()
        };
        (!here.is_empty() && here == there && exemplars("here") == exemplars("there")).then_some(())
    });
    let at = plain.address.to_string();
    drop(plain);
    let up = |job: &str| {
        let series = format!("up{{job={job:?},instance={at:?}}}");
        store.value(&series, now())
    };
    until("both to see that a target is gone", || {
        (up("here") == Some(0.0) && up("there") == Some(0.0)).then_some(())
    });
    until("both to have ended its series", || {
        let left =
            |job: &str| store.value(&format!("count({{job={job:?},instance={at:?}}})"), now());
        // `up` and its seven companions.
        (left("here") == Some(8.0) && left("there") == Some(8.0)).then_some(())
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn the_pages_of_prometheus_and_victoriametrics_become_the_same_series() {
    let victoria = Victoria::start();
    let other = victoria.url().replace("http://", "");
    let store = Prometheus::start_3(&format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true }}\n\
         scrape_configs: [{{ job_name: there, static_configs: [{{ targets: ['SELF', '{other}'] }}] }}]\n"
    ));
    let own = store.url().replace("http://", "");
    let _child = Metrifold::start(&format!(
        "[sources.here]\ntype = \"scrape\"\ntargets = [\"{own}\", \"{other}\"]\nscrape_interval = \"1s\"\n\
         scrape_native_histograms = true\n\
         [sinks.store]\ntype = \"remote_write\"\ninputs = [\"here\"]\nendpoint = \"{}\"\nprotocol = \"2.0\"\n",
        store.write_url()
    ));
    until("both to have the same series", || {
        let end = now();
        let [here, there] = ["here", "there"].map(|job| {
            let selector = format!("{{job={job:?}}}");
            let floats = store.samples(&selector, 5, end).into_iter();
            let floats = floats.map(|(labels, _)| (without_job(labels), "floats"));
            let native = store.histograms(&selector, 5, end).into_iter();
            let native = native.map(|(labels, _)| (without_job(labels), "histograms"));
            floats.chain(native).collect::<BTreeSet<_>>()
        });
        let has = |name: &str| here.iter().any(|(labels, _)| labels["__name__"] == name);
        let differ: Vec<_> = here.symmetric_difference(&there).take(3).collect();
        if !differ.is_empty() {
            println!("{} here, {} there, {differ:?}", here.len(), there.len());
        }
        let all = has("prometheus_build_info")
            && has("vm_app_version")
            && here.iter().any(|(_, kind)| *kind == "histograms");
        (all && differ.is_empty()).then_some(())
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn classic_histograms_become_the_same_native_ones() {
    let plain = Target::start(TEXT, |_| PAGE.into());
    let node = NodeExporter::start();
    let targets = [plain.address, node.address].map(|address| format!("\"{address}\""));
    let targets = targets.join(", ");
    let store = Prometheus::start_3(&format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s, convert_classic_histograms_to_nhcb: true }}\n\
         scrape_configs: [{{ job_name: there, static_configs: [{{ targets: [{targets}] }}] }}]\n"
    ));
    let _child = Metrifold::start(&format!(
        "[sources.here]\ntype = \"scrape\"\ntargets = [{targets}]\nscrape_interval = \"1s\"\n\
         convert_classic_histograms_to_nhcb = true\n\
         [sinks.store]\ntype = \"remote_write\"\ninputs = [\"here\"]\nendpoint = \"{}\"\nprotocol = \"2.0\"\n",
        store.write_url()
    ));
    until_same(&store, "the series of no histogram", |series| {
        series
            .keys()
            .any(|labels| labels["__name__"] == "test_values")
            && !series
                .keys()
                .any(|labels| labels["__name__"] == "test_histogram_bucket")
    });
    until("both to have the same histograms", || {
        let end = now();
        let [here, there] = ["here", "there"].map(|job| {
            let found = store.histograms(&format!("{{job={job:?}}}"), 5, end);
            let last = found.into_iter().map(|(labels, it)| {
                let last = it.as_array().unwrap().last().unwrap()[1].clone();
                (without_job(labels), last)
            });
            last.collect::<BTreeMap<_, _>>()
        });
        let has = here.keys().any(|it| it["__name__"] == "test_histogram");
        if here != there {
            println!("{here:?} {there:?}");
        }
        (has && here == there).then_some(())
    });
}

/// A target that is down, or counts since a time.
struct Counting {
    endpoint: Endpoint,
    since: Arc<Mutex<Option<i64>>>,
}

impl Counting {
    fn start(content_type: &'static str, page: fn(i64) -> Vec<u8>) -> Self {
        let since = Arc::new(Mutex::new(None));
        let shared = since.clone();
        let endpoint = Endpoint::new(move |_| {
            // A scrape that is due before the target began is answered as if it were still down.
            let since: Option<i64> = *shared.lock().unwrap();
            match since.filter(|since| milliseconds() > since + 50) {
                Some(since) => Reply::new(200)
                    .header("content-type", content_type)
                    .body(page(since)),
                None => Reply::new(500),
            }
        });
        Self { endpoint, since }
    }

    /// Begins to count, a little later. Returns the time.
    fn begin(&self) -> i64 {
        let since = milliseconds() + 5;
        *self.since.lock().unwrap() = Some(since);
        since
    }

    fn stop(&self) {
        *self.since.lock().unwrap() = None;
    }
}

fn milliseconds() -> i64 {
    (now() * 1000.0) as i64
}

/// A page of everything in OpenMetrics that has a start timestamp.
fn started_page(since: i64) -> Vec<u8> {
    let since = format!("{}.{:03}", since / 1000, since % 1000);
    let page = format!(
        "# TYPE test_c counter\ntest_c_total{{a=\"1\"}} 5\ntest_c_created{{a=\"1\"}} {since}\n\
         test_c_total{{a=\"2\"}} 6\n\
         # TYPE test_h histogram\ntest_h_bucket{{le=\"1\"}} 1\ntest_h_bucket{{le=\"+Inf\"}} 2\n\
         test_h_count 2\ntest_h_sum 3\ntest_h_created {since}\n\
         # TYPE test_s summary\ntest_s{{quantile=\"0.5\"}} 1\ntest_s_count 2\ntest_s_sum 3\n\
         test_s_created {since}\n# TYPE test_g gauge\ntest_g 1\n# EOF\n"
    );
    page.into()
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn start_timestamps_become_the_zeros_that_prometheus_makes_of_them() {
    let counted = Counting::start(OPENMETRICS, started_page);
    let native = Counting::start(PROTOBUF, |since| {
        started_histogram_page("test_native", 7, since)
    });
    let all = [counted.endpoint.address(), native.endpoint.address()];
    let targets = all.map(|address| format!("\"{address}\"")).join(", ");
    let store = Prometheus::start_3_with(
        "created-timestamp-zero-ingestion",
        &format!(
            "global: {{ scrape_interval: 1s, scrape_timeout: 1s, scrape_native_histograms: true }}\n\
             scrape_configs: [{{ job_name: there, static_configs: [{{ targets: [{targets}] }}] }}]\n"
        ),
    );
    let source = |name: &str, starts: &str| {
        format!(
            "[sources.{name}]\ntype = \"scrape\"\ntargets = [{targets}]\nscrape_interval = \"1s\"\n\
             scrape_native_histograms = true\nstart_timestamps = \"{starts}\"\n"
        )
    };
    let _child = Metrifold::start(&format!(
        "{}{}[sinks.store]\ntype = \"remote_write\"\ninputs = [\"here\", \"sent\"]\nendpoint = \"{}\"\nprotocol = \"2.0\"\n",
        source("here", "zero_sample"),
        source("sent", "send"),
        store.write_url()
    ));
    const JOBS: [&str; 3] = ["there", "here", "sent"];
    let all_are = |value: f64| {
        until(&format!("all to see that the targets are {value}"), || {
            let up = |job: &str| store.value(&format!("sum(up{{job={job:?}}})"), now());
            JOBS.iter()
                .all(|job| up(job) == Some(2.0 * value))
                .then_some(())
        });
    };
    /// Times at which each series is 0.
    fn zeros(store: &Prometheus, job: &str) -> BTreeMap<Labels, Vec<i64>> {
        let selector = format!("{{job={job:?},__name__=~\"test_.*\"}}");
        let floats = store.samples(&selector, 60, now()).into_iter();
        let mut found: BTreeMap<Labels, Vec<i64>> = BTreeMap::new();
        for (labels, samples) in floats {
            let zeros = samples.iter().filter(|(_, value)| *value == 0.0);
            let times = zeros.map(|(time, _)| *time).collect();
            found.insert(without_job(labels), times);
        }
        for (labels, described) in store.histograms(&selector, 60, now()) {
            let described = described.as_array().unwrap().iter();
            let zeros = described.filter(|it| it[1]["count"] == "0");
            let times = zeros.map(|it| (it[0].as_f64().unwrap() * 1000.0).round() as i64);
            found.insert(without_job(labels), times.collect());
        }
        found
    }
    all_are(0.0);
    let mut expected = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        for (target, times) in [&counted, &native].into_iter().zip(&mut expected) {
            times.push(target.begin());
        }
        all_are(1.0);
        let found = until("all to have the same zeros", || {
            let found = JOBS.map(|job| zeros(&store, job));
            let same = found[0] == found[1] && found[0] == found[2];
            let all = found[0].values().any(|times| *times == expected[0])
                && found[0].values().any(|times| *times == expected[1]);
            if !same {
                println!("{found:?}");
            }
            (same && all).then_some(found)
        });
        // The counter with a start timestamp, the four series of the histogram, the three of the
        // summary, and the native histogram.
        let started = found[0].values().filter(|times| !times.is_empty());
        assert_eq!(started.count(), 9);
        // The other counter and the gauge: no `_created`.
        assert_eq!(found[0].len(), 11);
        counted.stop();
        native.stop();
        all_are(0.0);
    }
}
