//! The same targets scraped by Metrifold and by a real Prometheus 3, which has both: the same series,
//! values, histograms, exemplars and `up`, and the same series ended when a target is gone.

use std::collections::BTreeMap;

use metrifold_testing::peers::{
    Labels, NodeExporter, OPENMETRICS, PROTOBUF, Prometheus, TEXT, Target, histogram_page, now,
};
use metrifold_testing::{Metrifold, until};

/// What is easily read differently.
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

/// What is known of a job at a time, without the job: the last value of each series.
fn values(store: &Prometheus, job: &str, end: f64) -> BTreeMap<Labels, String> {
    let selector = format!("{{job={job:?}}}");
    let series = store.samples(&selector, 5, end).into_iter();
    let values = series.map(|(labels, samples)| {
        let name = labels["__name__"].clone();
        // What it measures is not the same in two scrapes.
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
        // `up` and the seven that come with it.
        (left("here") == Some(8.0) && left("there") == Some(8.0)).then_some(())
    });
}
