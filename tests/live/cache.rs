//! Range queries assembled from cached and fetched parts equal the answers of the Prometheus
//! behind: generated queries over overlapping ranges, each sent both ways.

use serde_json::Value;

use metrifold_testing::peers::{Prometheus, now};
use metrifold_testing::{Answer, Metrifold, Random, Sender, Series, body, encode, expect, request};

/// Seconds of data, and interval between the samples of a series.
const PAST: i64 = 6 * 3600;
const INTERVAL: i64 = 60;
const QUERIES: usize = 600;

#[test]
fn what_is_put_together_is_what_prometheus_says() {
    let store = Prometheus::start("global: { scrape_interval: 1h }");
    let end = now() as i64;
    fill(&store, end);
    let config = |keys: &str| {
        format!(
            "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
             [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\n\
             replicas = [{{ endpoint = \"{}\" }}]\ncache = {{ recent = \"30m\"{keys} }}\n",
            store.url()
        )
    };
    let gateways = ["", ", split = \"1h\"", ", split = \"7m\", max_parallel = 2"]
        .map(|keys| Metrifold::start(&config(keys)));
    let seed = now().to_bits();
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut draw = |below: u64| random.number() % below;
    for _ in 0..QUERIES {
        let expression = expression(&mut draw);
        let step = [30, 60, 97, 300][draw(4) as usize];
        // Phases repeat, so that cached parts are used.
        let from = end - PAST + 600 * draw(34) as i64;
        let until = (from + 300 * draw(40) as i64).min(end);
        let form = format!(
            "query={}&start={from}&end={until}&step={step}",
            encode(&expression)
        );
        let target = format!("/api/v1/query_range?{form}");
        let expected = request("GET", store.address, &target, &[], b"").unwrap();
        for gateway in &gateways {
            let answer = request("GET", gateway.ingest, &target, &[], b"").unwrap();
            assert_eq!(
                answer.status,
                expected.status,
                "{target}: {}",
                answer.text()
            );
            assert_eq!(
                said(&answer),
                said(&expected),
                "{expression} from {from} to {until} by {step}"
            );
        }
    }
    for gateway in &gateways {
        let shown = gateway.get("/api/v1/replicas").json();
        let cache = &shown["routers"][0]["fleet"]["cache"];
        assert!(cache["hits"].as_u64() > Some(20), "{shown}");
        assert!(cache["partial"].as_u64() > Some(20), "{shown}");
    }
}

/// Writes counters with resets, gauges with gaps, and a series that starts late.
fn fill(store: &Prometheus, end: i64) {
    let mut sender = Sender::new(store.address);
    for (number, time) in (end - PAST..=end).step_by(INTERVAL as usize).enumerate() {
        let (number, at) = (number as i64, time * 1000);
        let mut all = Vec::new();
        for n in 0..4i64 {
            let label = n.to_string();
            let total = (number % (90 + 7 * n)) * (n + 1);
            all.push(Series::new("test_total", &[(at, total as f64)]).label("n", &label));
            if (number / (11 + n)) % 3 != 0 {
                let gauge = ((number * (n + 3)) % 17) as f64 / 3.0;
                all.push(Series::new("test_gauge", &[(at, gauge)]).label("n", &label));
            }
        }
        if time > end - PAST / 2 {
            all.push(Series::new("test_late", &[(at, number as f64)]));
        }
        expect(&sender.post("/api/v1/write", &[], &body(&all)), 204);
    }
}

/// A random expression.
fn expression(draw: &mut impl FnMut(u64) -> u64) -> String {
    const SELECTORS: [&str; 5] = [
        "test_gauge",
        "test_total{n=~\"1|2\"}",
        "{__name__=~\"test_.*\"}",
        "test_late",
        "test_gauge{n!=\"0\"}",
    ];
    const FORMS: [&str; 16] = [
        "EXPR",
        "sum by (n) (EXPR)",
        "rate(test_total[5m])",
        "increase(EXPR[13m])",
        "max_over_time(EXPR[7m])",
        "EXPR offset 10m",
        "EXPR offset -10m",
        "avg_over_time((EXPR)[15m:2m])",
        "topk(2, EXPR)",
        "absent(EXPR)",
        "EXPR > bool 3",
        "EXPR and on (n) test_total",
        "timestamp(EXPR)",
        "hour()",
        "EXPR @ end()",
        "time() - EXPR",
    ];
    let selector = SELECTORS[draw(SELECTORS.len() as u64) as usize];
    FORMS[draw(FORMS.len() as u64) as usize].replace("EXPR", selector)
}

/// The content of an answer, independent of the order of series, or the kind of its error.
fn said(answer: &Answer) -> Value {
    let mut told = answer.json();
    if let Some(series) = told["data"]["result"].as_array_mut() {
        series.sort_by_key(|one| one["metric"].to_string());
        return told["data"].take();
    }
    told["errorType"].take()
}
