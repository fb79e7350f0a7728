//! Replicas with outages, merged, say what one Prometheus says that has everything: generated queries
//! over stores that were down at different times, one of which has lost its past.

use std::fmt::Write as _;

use metrifold_testing::peers::{Prometheus, now};
use metrifold_testing::series::integer_histogram;
use metrifold_testing::{
    Answer, Endpoint, Metrifold, Random, Reply, Sender, Series, body, encode, expect, request,
    until_so,
};
use serde_json::Value;

/// Seconds of data, and between two samples of a series.
const PAST: i64 = 20 * 3600;
const INTERVAL: i64 = 300;
const QUERIES: usize = 400;

#[test]
fn merged_replicas_say_what_a_store_with_everything_says() {
    let [whole, first, second, third] =
        std::array::from_fn(|_| Prometheus::start("global: { scrape_interval: 1h }"));
    let end = now() as i64 / INTERVAL * INTERVAL;
    let seed = now().to_bits();
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut draw = |below: u64| random.number() % below;
    // One replica at a time is down, for 2 to 20 samples; the third has lost its first half.
    let mut down = Vec::new();
    let mut from = end - PAST;
    while from < end {
        let until = from + INTERVAL * (2 + draw(19) as i64);
        down.push((draw(2) as usize, from..until));
        from = until + INTERVAL * (1 + draw(20) as i64);
    }
    fill(&whole, end, &|_| true);
    for (number, replica) in [&first, &second].into_iter().enumerate() {
        fill(replica, end, &|time| {
            !down
                .iter()
                .any(|(who, when)| *who == number && when.contains(&time))
        });
    }
    fill(&third, end, &|time| time > end - PAST / 2);

    let replicas = [&first, &second, &third].map(|it| format!("{{ endpoint = \"{}\" }}", it.url()));
    let gateway = Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nstrategy = \"merge\"\n\
         merge = {{ replicas = 3, wait = \"20s\" }}\nreplicas = [{}]\n",
        replicas.join(", ")
    ));
    until_so("all replicas are up", || {
        [&first, &second, &third]
            .iter()
            .all(|it| gateway.metric("metrifold_replica_up", &[("replica", &it.url())]) == 1.0)
    });

    let mut points = 0;
    for _ in 0..QUERIES {
        let expression = expression(&mut draw);
        // Between two samples, whose interval is the time for which a store looks back: no replica
        // fills its own outage with a sample from before it.
        let step = [60, 120, 300, 600][draw(4) as usize];
        let from = end - PAST + 30 + 60 * draw(1000) as i64;
        let until = (from + 300 * draw(80) as i64).min(end);
        let form = format!(
            "query={}&start={from}&end={until}&step={step}",
            encode(&expression)
        );
        let target = format!("/api/v1/query_range?{form}");
        let expected = request("GET", whole.address, &target, &[], b"").unwrap();
        let answer = request("GET", gateway.ingest, &target, &[], b"").unwrap();
        let (status, text) = (expected.status, answer.text());
        assert_eq!(answer.status, status, "{expression}: {text}");
        if status != 200 {
            continue;
        }
        let (said, expected) = (said(&answer), said(&expected));
        assert_eq!(
            said, expected,
            "{expression} from {from} to {until} by {step}"
        );
        points += said.iter().map(|(_, points)| points.len()).sum::<usize>();
    }
    println!("{QUERIES} queries, {points} points, all the same");
    assert!(points > QUERIES);

    for target in [
        "/api/v1/labels".to_owned(),
        "/api/v1/label/n/values".to_owned(),
        format!(
            "/api/v1/series?match[]=%7Bn%3D~%22.%2B%22%7D&start={}&end={end}",
            end - PAST
        ),
    ] {
        let [answer, expected] = [gateway.ingest, whole.address]
            .map(|address| request("GET", address, &target, &[], b"").unwrap().json());
        assert_eq!(answer["data"], expected["data"], "{target}");
    }
}

/// Writes counters, gauges with gaps of their own and a native histogram, at the times at which the
/// store is `up`.
fn fill(store: &Prometheus, end: i64, up: &dyn Fn(i64) -> bool) {
    let mut sender = Sender::new(store.address);
    for (number, time) in (end - PAST..=end).step_by(INTERVAL as usize).enumerate() {
        if !up(time) {
            continue;
        }
        let (number, at) = (number as i64, time * 1000);
        let mut all = vec![Series::named("test_latency").histogram(integer_histogram(at))];
        for n in 0..4i64 {
            let label = n.to_string();
            // Restarted now and then, and zero for long.
            let total = (number % (90 + 7 * n)) * n;
            all.push(Series::new("test_total", &[(at, total as f64)]).label("n", &label));
            if (number / (11 + n)) % 3 != 0 {
                let gauge = ((number * (n + 3)) % 17) as f64 / 3.0;
                all.push(Series::new("test_gauge", &[(at, gauge)]).label("n", &label));
            }
        }
        expect(&sender.post("/api/v1/write", &[], &body(&all)), 204);
    }
}

/// An expression each of whose points depends on the samples of its own time alone: what looks back
/// sees the outage of the replica that evaluates it, as the router's page says.
fn expression(draw: &mut impl FnMut(u64) -> u64) -> String {
    const SELECTORS: [&str; 4] = [
        "test_gauge",
        "test_total{n=~\"1|2\"}",
        "test_total",
        "{__name__=~\"test_(gauge|total)\",n!=\"0\"}",
    ];
    const FORMS: [&str; 11] = [
        "EXPR",
        "EXPR",
        "sum by (n) (EXPR)",
        "-EXPR",
        "EXPR > 3",
        "EXPR > bool 3",
        "EXPR and on (n) test_gauge",
        "EXPR offset 10m",
        "topk(2, test_total)",
        "test_latency",
        "histogram_quantile(0.9, test_latency)",
    ];
    let selector = SELECTORS[draw(SELECTORS.len() as u64) as usize];
    FORMS[draw(FORMS.len() as u64) as usize].replace("EXPR", selector)
}

/// The series of an answer with their points, in the order of their labels.
fn said(answer: &Answer) -> Vec<(String, Vec<Value>)> {
    let told = answer.json();
    let mut all: Vec<(String, Vec<Value>)> = Vec::new();
    for one in told["data"]["result"].as_array().into_iter().flatten() {
        let points = ["values", "histograms"].map(|kind| one[kind].as_array().cloned());
        let points = points.into_iter().flatten().flatten().collect();
        all.push((one["metric"].to_string(), points));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// Series of each replica's answer, and points of each series that both have together.
const SERIES: usize = 8000;
const POINTS: usize = 1000;

/// Most memory of the whole process for answers of 200 MB, in KiB.
const MEMORY: u64 = 96 << 10;

/// An answer with every `step`th point of each series.
fn large_answer(from: usize, step: usize) -> String {
    let mut text =
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[".to_owned();
    for number in 0..SERIES {
        let comma = if number == 0 { "" } else { "," };
        write!(
            text,
            "{comma}{{\"metric\":{{\"n\":\"{number:08}\"}},\"values\":["
        )
        .unwrap();
        for point in (from..POINTS).step_by(step) {
            let comma = if point == from { "" } else { "," };
            write!(text, "{comma}[{},\"{point}.25\"]", 1_700_000_000 + point).unwrap();
        }
        text += "]}";
    }
    text + "]}}"
}

#[test]
fn answers_of_hundreds_of_megabytes_are_merged_in_little_memory() {
    let replicas: [Endpoint; 2] = std::array::from_fn(|from| {
        let answer = large_answer(from, 2);
        Endpoint::new(move |_| Reply::new(200).body(answer.clone()))
    });
    let [first, second] = replicas.each_ref().map(|it| it.url_of(""));
    let gateway = Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\ntimeout = \"10m\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nstrategy = \"merge\"\n\
         merge = {{ max_bytes = \"1MiB\", wait = \"1m\" }}\nprobe.interval = \"0s\"\n\
         replicas = [{{ endpoint = \"{first}\" }}, {{ endpoint = \"{second}\" }}]\n",
    ));
    let target = "/api/v1/query_range?query=x&start=1&end=2&step=1";
    let answer = request("GET", gateway.ingest, target, &[], b"").unwrap();
    expect(&answer, 200);
    assert!(answer.body == large_answer(0, 1).as_bytes());
    let peak = gateway.memory("VmHWM");
    println!(
        "{} MiB, in at most {} MiB",
        answer.body.len() >> 20,
        peak >> 10
    );
    assert!(peak < MEMORY, "{peak} KiB");
}
