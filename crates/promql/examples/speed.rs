//! Measures how long it takes to parse, narrow and print queries, and how that grows.
//!
//! `cargo run --release -p metrifold-promql --example speed`

use std::hint::black_box;
use std::time::{Duration, Instant};

use metrifold_promql::{ImplicitInfo, MatchOp, Matcher, Options, enforce, parse};

/// How long each query is measured.
const TIME: Duration = Duration::from_millis(500);

/// Queries as dashboards send them.
const QUERIES: [(&str, &str); 5] = [
    ("selector", r#"up{job="node", instance=~"$instance"}"#),
    (
        "rate",
        r#"sum by (instance) (rate(node_cpu_seconds_total{mode!="idle", job="node"}[5m]))"#,
    ),
    (
        "quantile",
        r#"histogram_quantile(0.99, sum by (le, verb) (rate(apiserver_request_duration_seconds_bucket{job="apiserver", verb!~"WATCH|CONNECT"}[$__rate_interval])))"#,
    ),
    (
        "ratio",
        r#"100 * (1 - (sum by (instance) (node_memory_MemFree_bytes{job="node"} + node_memory_Cached_bytes{job="node"} + node_memory_Buffers_bytes{job="node"})) / sum by (instance) (node_memory_MemTotal_bytes{job="node"}))"#,
    ),
    (
        "join",
        r#"sum by (namespace, pod, node) (kube_pod_status_phase{phase=~"Pending|Unknown", job="kube"} * on (namespace, pod) group_left (owner_kind) max by (namespace, pod, owner_kind) (kube_pod_owner{owner_kind!="Job"})) > 0"#,
    ),
];

fn main() {
    for (name, query) in QUERIES {
        report(name, &query.replace("$__rate_interval", "5m"));
    }
    for terms in [40, 400, 4_000] {
        report(
            &format!("{terms} terms"),
            &vec!["a{b=\"c\"}"; terms].join(" or "),
        );
    }
    let pods: Vec<_> = (0..8_000).map(|pod| format!("some-pod-{pod:08}")).collect();
    report("8000 pods", &format!("up{{pod=~\"{}\"}}", pods.join("|")));
}

/// Prints medians, which other work on the machine does not move.
fn report(name: &str, query: &str) {
    let options = Options::default();
    let tenant = Matcher::new("tenant_id", MatchOp::Equal, "team-a");
    let (mut parsing, mut all) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        let expr = parse(black_box(query), &options);
        parsing.push(start.elapsed());
        let mut expr = expr.expect("a valid query");
        enforce(
            &mut expr,
            std::slice::from_ref(&tenant),
            ImplicitInfo::Narrow,
        )
        .expect("narrowed");
        black_box(expr.to_query());
        drop(expr);
        all.push(start.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let (all, parsing, length) = (median(all), median(parsing), query.len());
    println!("{name:>12}: {length:>7} bytes, {all:>9.2} µs, of which parsing {parsing:>9.2} µs");
}
