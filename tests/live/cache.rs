//! Range queries assembled from cached and fetched parts equal the answers of the Prometheus
//! behind: generated queries over overlapping ranges, each sent both ways.

use serde_json::Value;

use metrifold_testing::peers::{Prometheus, now};
use metrifold_testing::{Answer, Metrifold, Random, Sender, Series, body, encode, expect, request};

/// Seconds of data, and interval between the samples of a series.
const PAST: i64 = 6 * 3600;
const INTERVAL: i64 = 60;
/// Queries come in groups: two random ones, then one whose steps are all kept, the same again, and
/// the same over a wider range.
const GROUPS: usize = 120;

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
    let mut form = Form::default();
    for number in 0..5 * GROUPS {
        let kept = number % 5 >= 2;
        if number % 5 <= 2 {
            // Phases repeat, so that random queries use cached parts, too. Those of a group have an
            // entry of their own, and end before the steps that are too recent to be kept.
            let (name, starts, spans) = match kept {
                true => (format!(" # {number}"), 16, 28),
                false => (String::new(), 33, 40),
            };
            form = Form {
                expression: expression(&mut draw, kept) + &name,
                step: [30, 60, 97, 300][draw(4) as usize],
                from: end - PAST + 600 * (1 + draw(starts) as i64),
                span: 300 * draw(spans) as i64,
            };
        } else if number % 5 == 4 {
            // Missing on both sides, at the same phase.
            form.from -= form.step;
            form.span += 2 * form.step;
        }
        let Form {
            expression,
            step,
            from,
            span,
        } = &form;
        let until = (from + span).min(end);
        let target = format!(
            "/api/v1/query_range?query={}&start={from}&end={until}&step={step}",
            encode(expression)
        );
        let expected = request("GET", store.address, &target, &[], b"").unwrap();
        assert!(!kept || expected.status == 200, "{target}");
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
        // One of each per group, and those that the random queries add.
        for kind in ["misses", "hits", "partial"] {
            assert!(
                cache[kind].as_u64() >= Some(GROUPS as u64),
                "{kind}: {shown}"
            );
        }
    }
}

/// A range query, in seconds.
#[derive(Default)]
struct Form {
    expression: String,
    step: i64,
    from: i64,
    span: i64,
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

/// A random expression. One that is `kept` has no error, and the same value in every range.
fn expression(draw: &mut impl FnMut(u64) -> u64, kept: bool) -> String {
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
    loop {
        let selector = SELECTORS[draw(SELECTORS.len() as u64) as usize];
        let form = FORMS[draw(FORMS.len() as u64) as usize];
        // Series of several names can become the same; `@` makes a step depend on the range.
        if !kept || !selector.contains("__name__") && !form.contains('@') {
            return form.replace("EXPR", selector);
        }
    }
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
