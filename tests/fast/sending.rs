//! Sending in strict conformance: the cases of the Prometheus project's compliance suite for
//! senders, with `retry.statuses = "specification"`.
//!
//! The suite scrapes the series that it compares; here they come by remote write of either version,
//! and leave in either. [`Seen::checked`] checks every request against the specification: the table
//! of symbols, references, order and uniqueness of labels, and the content of series. Pauses
//! between attempts are tested in simulated time, in `crates/delivery/src/pace/tests.rs`.

use std::collections::BTreeSet;

use metrifold_testing::config::{self, ingest};
use metrifold_testing::messages::{Histogram, v1};
use metrifold_testing::series::{self, Series, TYPE_1, TYPE_2, from_v2, same};
use metrifold_testing::{
    Answer, Does, Endpoint, Manner, Metrifold, Reply, Seen, Sender, cli, expect, nobody, run,
    until_so,
};

/// A timestamp that no receiver finds too old.
const T: i64 = 1_790_000_000_000;

const LETTER: &str =
    "retry = { statuses = \"specification\", min_backoff = \"5ms\", max_backoff = \"20ms\" }";

/// A sink to `url` that conforms strictly, with further keys.
fn pipe_to(url: &str, source: &str, keys: &str) -> Metrifold {
    let keys = format!("{LETTER}\n{keys}");
    Metrifold::start(&(ingest(source) + &config::sink("out", "ingest", url, &keys)))
}

fn pipe(endpoint: &Endpoint, keys: &str) -> Metrifold {
    pipe_to(&endpoint.url(), "", keys)
}

fn post(child: &Metrifold, is_v2: bool, series: &[Series]) -> Answer {
    let mut sender = Sender::new(child.ingest);
    match is_v2 {
        true => sender.write_v2(&series::body_v2(series)),
        false => sender.write(&series::body(series)),
    }
}

fn one() -> Vec<Series> {
    vec![Series::named("up").sample(1.0, T)]
}

/// Sends series in one version of the protocol; returns the request that left in another.
fn through(from_v2: bool, protocol: &str, series: &[Series]) -> Seen {
    let endpoint = Endpoint::speaking(Manner::Prometheus);
    let child = pipe(&endpoint, &format!("protocol = {protocol:?}"));
    expect(&post(&child, from_v2, series), 204);
    endpoint.only()
}

#[test]
fn requests_have_the_protocols_method_headers_and_format() {
    for (protocol, content_type, version) in [("1.0", TYPE_1, "0.1.0"), ("2.0", TYPE_2, "2.0.0")] {
        for from_v2 in [false, true] {
            let seen = through(from_v2, protocol, &one());
            assert_eq!(seen.method, "POST");
            assert_eq!(seen.header("content-type"), Some(content_type));
            assert_eq!(seen.header("content-encoding"), Some("snappy"));
            let header = "x-prometheus-remote-write-version";
            assert_eq!(seen.header(header), Some(version));
            let agent = seen.header("user-agent").unwrap();
            assert!(agent.starts_with("metrifold/"), "{agent}");
            assert_eq!(seen.header("retry-attempt"), None);
            // Snappy's block format with protobuf inside.
            same("body", &seen.checked(), &one());
        }
    }
}

/// An endpoint behind a shared address needs the one, an endpoint that tells senders apart the other.
#[test]
fn the_host_and_the_user_agent_are_those_that_are_configured() {
    let endpoint = Endpoint::speaking(Manner::Prometheus);
    let keys = "headers = { Host = \"metrics.test:8443\", User-Agent = \"agent/7\" }";
    let child = pipe(&endpoint, keys);
    expect(&post(&child, false, &one()), 204);
    let seen = endpoint.only();
    assert_eq!(seen.header("host"), Some("metrics.test:8443"));
    assert_eq!(seen.header("user-agent"), Some("agent/7"));
    let hosts = seen
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("host"));
    assert_eq!(hosts.count(), 1);
}

/// Labels, values, histograms, exemplars and metadata that the suite exposes.
fn exposed() -> Vec<Series> {
    let long = "x".repeat(1000);
    let name = "n".repeat(500);
    let many: Vec<(String, String)> = (0..60).map(|n| (format!("l{n:02}"), "v".into())).collect();
    let many = many.iter().map(|(name, value)| (&**name, &**value));
    let many: Vec<(&str, &str)> = [("__name__", "many")].into_iter().chain(many).collect();
    let values = [
        0.0,
        1.0,
        -1.5,
        1e308,
        5e-324,
        1.234_567_890_123_456_7e-10,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let times = (0..).map(|n| T + n * 1000);
    let mut all = vec![
        values
            .into_iter()
            .zip(times)
            .fold(Series::named("values"), |series, (value, time)| {
                series.sample(value, time)
            })
            .stale(T + 60_000),
        Series::of(&[("__name__", "job:colons:rate5m"), ("emoji", "🙂 ünï")]).sample(1.0, T),
        Series::of(&[("__name__", "special"), ("path", "a\\b\"c\nd\te")]).sample(1.0, T),
        Series::of(&[("__name__", "long_value"), ("v", &long)]).sample(1.0, T),
        Series::of(&[("__name__", &name)]).sample(1.0, T),
        Series::of(&many).sample(1.0, T),
        Series::named("zero_timestamp").sample(1.0, 0),
        Series::named("future").sample(1.0, T + 86_400_000),
        Series::named("requests_total")
            .sample(1.0, T)
            .exemplar(&[("trace_id", "a"), ("span_id", "b")], 0.5, T)
            .exemplar(&[("custom", "ü")], 0.7, T + 1)
            .metadata(1, "Requests.\nWith \"quotes\" and \\.", ""),
        Series::named("gauge")
            .sample(2.0, T)
            .metadata(2, "", "bytes"),
        Series::named("summary")
            .sample(2.0, T)
            .metadata(5, "Summary.", ""),
    ];
    for (name, histogram) in [
        ("native", series::integer_histogram(T)),
        ("native_float", series::float_histogram(T)),
        ("native_stale", series::stale_histogram(T)),
        (
            "native_empty",
            Histogram {
                positive_spans: vec![],
                positive_deltas: vec![],
                ..series::integer_histogram(T)
            },
        ),
    ] {
        all.push(
            Series::named(name)
                .histogram(histogram)
                .exemplar(&[("trace_id", "h")], 0.1, T)
                .metadata(3, "Native.", "seconds"),
        );
    }
    all
}

#[test]
fn what_is_exposed_arrives_as_it_is_in_either_version() {
    for from_v2 in [false, true] {
        same(
            "2.0",
            &through(from_v2, "2.0", &exposed()).checked(),
            &exposed(),
        );
        let without_metadata = exposed().into_iter().map(|series| Series {
            metadata: None,
            ..series
        });
        let expected: Vec<Series> = without_metadata.collect();
        let seen = through(from_v2, "1.0", &exposed());
        let arrived = seen.checked().into_iter().map(|series| Series {
            metadata: None,
            ..series
        });
        same("1.0", &arrived.collect::<Vec<_>>(), &expected);
        let families = seen.v1().metadata;
        let families: BTreeSet<_> = families.iter().map(|m| &*m.metric_family_name).collect();
        assert!(families.is_superset(&["requests_total", "gauge", "summary", "native"].into()));
    }
}

#[test]
fn start_timestamps_leave_in_2_0_and_only_there() {
    let started = [Series::named("jobs_total")
        .started_sample(1.0, T, T - 60_000)
        .started_sample(2.0, T + 1000, T - 60_000)];
    same("2.0", &through(true, "2.0", &started).checked(), &started);
    let seen = through(true, "1.0", &started);
    assert!(
        seen.checked()[0]
            .samples
            .iter()
            .all(|sample| sample.start == 0)
    );
}

#[test]
fn symbols_are_shared_and_none_is_sent_that_nothing_uses() {
    let all: Vec<Series> = (0..1000)
        .map(|n| {
            let instance = format!("i{n}");
            Series::of(&[("__name__", "up"), ("instance", &*instance), ("job", "api")])
                .sample(1.0, T)
                .metadata(2, "Up.", "")
        })
        .collect();
    let sent = through(false, "2.0", &all);
    let message = sent.v2();
    same("symbols", &from_v2(&message), &all);
    // "", three label names, the metric, the job, the help, and every instance once.
    assert_eq!(message.symbols.len(), 7 + 1000);
}

#[test]
fn only_429_and_5xx_are_tried_again() {
    for from_v2 in [false, true] {
        for status in [400, 401, 403, 404, 409, 413, 422] {
            let endpoint = Endpoint::new(move |_| Reply::new(status).counts([0, 0, 0]));
            let child = pipe(&endpoint, "");
            expect(&post(&child, from_v2, &one()), 400);
            assert_eq!(endpoint.count(), 1, "{status}");
        }
        for status in [429, 500, 502, 503, 504] {
            let endpoint = Endpoint::new(move |seen| match seen.order {
                0..3 => Reply::new(status),
                _ => Manner::Honest.answer(seen),
            });
            let child = pipe(&endpoint, "");
            expect(&post(&child, from_v2, &one()), 204);
            let seen = endpoint.take();
            let attempts = seen.iter().map(|seen| seen.header("retry-attempt"));
            let attempts: Vec<_> = attempts.collect();
            let expected = [None, Some("1"), Some("2"), Some("3")];
            assert_eq!(attempts, expected, "{status}");
        }
    }
}

#[test]
fn an_answer_counts_by_its_status_and_its_counts_whatever_else_is_in_it() {
    let large = "x".repeat(1 << 20);
    for body in ["", "<html>", "{\"status\": \"error\"}", &*large] {
        for status in [200, 204] {
            let text = match status {
                204 => String::new(),
                _ => body.to_owned(),
            };
            let endpoint =
                Endpoint::new(move |_| Reply::new(status).counts([1, 0, 0]).body(text.clone()));
            let child = pipe(&endpoint, "");
            let reply = post(&child, true, &one());
            expect(&reply, 204);
            assert_eq!(reply.written(), Some([1, 0, 0]));
            assert_eq!(endpoint.count(), 1);
        }
        let text = body.to_owned();
        let endpoint = Endpoint::new(move |_| Reply::new(400).counts([0, 0, 0]).body(text.clone()));
        let child = pipe(&endpoint, "");
        let reply = post(&child, true, &one());
        expect(&reply, 400);
        assert_eq!(reply.written(), Some([0, 0, 0]));
        // The beginning of the endpoint's answer is passed on.
        let told: String = body.chars().take(100).collect();
        assert!(reply.text().contains(&told), "{}", reply.text());
        assert_eq!(endpoint.count(), 1);
    }
}

#[test]
fn a_partial_write_is_told_and_nothing_of_it_is_sent_again() {
    let two = [one(), vec![Series::named("down").sample(1.0, T)]].concat();
    for status in [200, 400] {
        let endpoint = Endpoint::new(move |_| Reply::new(status).counts([1, 0, 0]));
        let child = pipe(&endpoint, "");
        let reply = post(&child, true, &two);
        expect(&reply, 400);
        assert_eq!(reply.written(), Some([1, 0, 0]), "{status}");
        assert_eq!(endpoint.count(), 1, "{status}");
        assert!(endpoint.only().is_v2(), "{status}");
    }
}

#[test]
fn an_endpoint_that_answers_nonsense_or_nothing_is_tried_again() {
    let nonsense: [fn() -> Does; 4] = [
        || Does::Close,
        || Does::Raw(b"not HTTP at all\r\n\r\n".to_vec()),
        || Does::Raw(b"HTTP/1.1 999 What\r\n\r\n".to_vec()),
        || Does::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_vec()),
    ];
    for (number, nonsense) in nonsense.into_iter().enumerate() {
        let endpoint = Endpoint::new(move |seen| match seen.order {
            0 => nonsense(),
            _ => Does::from(Manner::Honest.answer(seen)),
        });
        let child = pipe(&endpoint, "");
        let reply = post(&child, true, &one());
        expect(&reply, 204);
        assert!(endpoint.count() > 1, "{number}");
        // The sink goes on afterwards.
        expect(&post(&child, true, &one()), 204);
    }
    for url in [nobody(), "http://does-not-exist.invalid/write".into()] {
        let child = pipe_to(&url, "acknowledge_timeout = \"300ms\"", "");
        expect(&post(&child, true, &one()), 503);
        let retries = [("component_id", "out")];
        until_so("it is tried again", || {
            child.metric("metrifold_component_retries_total", &retries) > 0.0
        });
    }
}

#[test]
fn a_url_that_is_not_http_is_refused_when_the_configuration_is_read() {
    let text = ingest("") + &config::sink("out", "ingest", "ftp://localhost/write", LETTER);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, text.replace("INGEST", "127.0.0.1:0")).unwrap();
    let path = file.to_str().unwrap();
    let output = run(&mut cli(&["validate", "--config", path]));
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("endpoint"), "{text}");
}

#[test]
fn after_415_the_other_version_is_sent_and_stays_chosen() {
    let endpoint = Endpoint::speaking(Manner::OnlyV1);
    let child = pipe(&endpoint, "");
    for _ in 0..3 {
        let reply = post(&child, true, &one());
        expect(&reply, 204);
        assert_eq!(reply.written(), Some([1, 0, 0]));
    }
    let seen = endpoint.take();
    let types: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("content-type"))
        .collect();
    assert_eq!(
        types,
        [Some(TYPE_2), Some(TYPE_1), Some(TYPE_1), Some(TYPE_1)]
    );
    let header = "x-prometheus-remote-write-version";
    assert_eq!(seen[1].header(header), Some("0.1.0"));
    same("after 415", &seen[1].checked(), &one());
}

#[test]
fn after_2xx_with_counts_no_other_version_is_tried() {
    for written in [[1, 0, 0], [0, 0, 0]] {
        let endpoint = Endpoint::new(move |_| Reply::new(200).counts(written));
        let child = pipe(&endpoint, "");
        for _ in 0..2 {
            let reply = post(&child, true, &one());
            assert_eq!(reply.written(), Some(written));
        }
        assert_eq!(endpoint.count(), 2);
        assert!(endpoint.take().iter().all(Seen::is_v2));
    }
}

#[test]
fn many_requests_at_once_arrive_whole() {
    let endpoint = Endpoint::speaking(Manner::Honest);
    let child = pipe(&endpoint, "");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let child = &child;
            scope.spawn(move || {
                for time in 0..20 {
                    let series = [Series::named(&format!("s{n}")).sample(1.0, T + time)];
                    let reply = post(child, true, &series);
                    assert_eq!(reply.written(), Some([1, 0, 0]));
                }
            });
        }
    });
    let accepted = endpoint.accepted();
    assert_eq!(accepted.len(), 160);
    for n in 0..8 {
        let name = format!("s{n}");
        let times = accepted.iter().filter(|(of, _)| *of == name);
        assert!(times.is_sorted_by_key(|(_, time)| *time), "{name}");
    }
}

#[test]
fn dollars_reach_a_template_as_the_page_on_relabelling_says() {
    // docs/components/relabel.md: which references the file replaces, and which it leaves to the
    // rule.
    let endpoint = Endpoint::healthy();
    let rules = "[{ source_labels = [\"a\"], regex = \"(?P<name>.+)\", target_label = \"b\", \
        replacement = \"$1-${1}-$name-$${name}-$$$$\" }]";
    let text = format!(
        "{}[transforms.t]\ntype = \"relabel\"\ninputs = [\"ingest\"]\nrules = {rules}\n{}",
        ingest(""),
        config::sink("out", "t", &endpoint.url(), "")
    );
    let child = Metrifold::start(&text);
    let series = Series::new("up", &[(1, 1.0)]).label("a", "v");
    assert_eq!(post(&child, false, &[series]).status, 204);
    let label = v1::Label {
        name: "b".into(),
        value: "v-v-v-v-$".into(),
    };
    let sent = endpoint.only().v1();
    assert!(sent.timeseries[0].labels.contains(&label), "{sent:?}");
}
