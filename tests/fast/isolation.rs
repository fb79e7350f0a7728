//! Failures of one sink do not affect the others.
//!
//! Endpoints that refuse, hang, break off, answer nonsense or ask for a pause run beside healthy
//! ones. Checked are the answers to the sender, that the healthy endpoint gets every sample exactly
//! once and in order, that queues and memory stay within their bounds, that every sample is
//! accounted for, and that credentials go nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use metrifold_testing::config::{self, OPTIONAL, ingest};
use metrifold_testing::{
    Authority, Does, Endpoint, Metrifold, Random, Reply, Sender, Series, body, body_v2, expect,
    nobody, one, until, until_so,
};

/// A remote-write sink of `ingest` with further keys.
fn sink(name: &str, url: &str, keys: &str) -> String {
    config::sink(name, "ingest", url, keys)
}

/// Short for fast tests, and long enough for a healthy sink.
const IMPATIENT: &str = "acknowledge_timeout = \"700ms\"";

fn samples(name: &str, times: impl IntoIterator<Item = i64>) -> Vec<(String, i64)> {
    times
        .into_iter()
        .map(|time| (name.to_owned(), time))
        .collect()
}

/// An endpoint for each kind of failure that may pass, by name.
fn troubles() -> Vec<(&'static str, Endpoint)> {
    let garbage = || Does::Raw(b"\x00\xffthis is not HTTP\r\n\r\n".to_vec());
    let huge = || Reply::new(500).body(vec![b'x'; 4 << 20]);
    let later = || {
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        Reply::new(503).header("retry-after", date)
    };
    let reset = Endpoint::healthy();
    reset.reset(usize::MAX);
    vec![
        ("500", Endpoint::new(|_| 500)),
        ("503 with a date", Endpoint::new(move |_| later())),
        (
            "429",
            Endpoint::new(|_| Reply::new(429).header("retry-after", 3600)),
        ),
        ("hangs", Endpoint::new(|_| Does::Hang(Reply::new(500)))),
        ("closes", Endpoint::new(|_| Does::Close)),
        ("resets", reset),
        ("garbage", Endpoint::new(move |_| garbage())),
        ("huge 500", Endpoint::new(move |_| huge())),
        ("401", Endpoint::new(|_| 401)),
        ("403", Endpoint::new(|_| 403)),
        ("404", Endpoint::new(|_| 404)),
        ("408", Endpoint::new(|_| 408)),
        ("415 to 1.0", Endpoint::new(|_| 415)),
        ("425", Endpoint::new(|_| 425)),
        ("301", Endpoint::new(|_| 301)),
        (
            "trickles",
            Endpoint::new(|_| Does::Trickle(Reply::new(500), Duration::from_millis(100))),
        ),
    ]
}

/// An endpoint for each refusal of a batch's content, which no retry can change.
fn refusals() -> Vec<(&'static str, Endpoint)> {
    let say = |status| Endpoint::new(move |_| Reply::new(status).body("because of the weather"));
    vec![
        ("400", say(400)),
        ("409", say(409)),
        ("413", say(413)),
        ("422", say(422)),
    ]
}

#[test]
fn an_optional_sink_in_any_trouble_changes_nothing_for_the_sender_and_the_other_sink() {
    let mut all = troubles();
    all.extend(refusals());
    let mut urls: Vec<String> = all.iter().map(|(_, endpoint)| endpoint.url()).collect();
    urls.push(nobody());
    let healthy = Endpoint::healthy();
    let mut config = ingest("") + &sink("healthy", &healthy.url(), "");
    for (at, url) in urls.iter().enumerate() {
        // The least pause between requests to a failing endpoint does not matter here.
        let keys = format!("{OPTIONAL}\nretry = {{ min_backoff = \"50ms\" }}");
        config += &sink(&format!("troubled-{at}"), url, &keys);
    }
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=50 {
        // Some endpoints hang until the test ends; the answer must not wait for them.
        expect(
            &sender.write(&body(&[one("up", time), one("down", time)])),
            204,
        );
    }
    let expected: Vec<_> = (1..=50)
        .flat_map(|time| [("up".to_owned(), time), ("down".to_owned(), time)])
        .collect();
    assert_eq!(healthy.accepted(), expected);
    assert_eq!(healthy.count(), 50, "nothing is sent twice");
    for (name, endpoint) in &all {
        let tried = || endpoint.count() > 0 || endpoint.connections() > 0;
        until_so(&format!("the endpoint that {name} was tried"), tried);
        assert_eq!(endpoint.accepted(), [], "{name}");
    }
}

#[test]
fn a_required_sink_in_passing_trouble_has_the_sender_try_again_and_the_other_sink_has_its_samples()
{
    for (name, troubled) in troubles() {
        let healthy = Endpoint::healthy();
        let config = ingest(IMPATIENT)
            + &sink("healthy", &healthy.url(), "")
            + &sink("troubled", &troubled.url(), "");
        let child = Metrifold::start(&config);
        let answer = Sender::new(child.ingest).write(&body(&[one("up", 1)]));
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), Some("1"), "{name}");
        assert!(answer.text().contains("acknowledge_timeout"), "{name}");
        assert_eq!(healthy.accepted(), samples("up", [1]), "{name}");
    }
    let config = ingest(IMPATIENT) + &sink("troubled", &nobody(), "");
    let child = Metrifold::start(&config);
    expect(
        &Sender::new(child.ingest).write(&body(&[one("up", 1)])),
        503,
    );
    let refused = [("name", "troubled"), ("code", "<error>")];
    assert!(child.metric("remote_write_requests_count", &refused) > 1.0);
}

#[test]
fn a_refusal_of_a_required_sink_reaches_the_sender_with_its_reason() {
    let endpoints = refusals();
    let healthy = Endpoint::healthy();
    for (name, endpoint) in &endpoints {
        let config = ingest("check_series = true")
            + &sink("healthy", &healthy.url(), "")
            + &sink("strict", &endpoint.url(), "");
        let child = Metrifold::start(&config);
        let answer = Sender::new(child.ingest).write(&body(&[one("up", 1)]));
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        let text = answer.text();
        assert!(
            text.contains(name) && text.contains("strict: "),
            "{name}: {text}"
        );
        let reason = match *name {
            "413" => "too_large",
            _ => "refused",
        };
        if *name != "413" {
            assert!(text.contains("because of the weather"), "{text}");
        }
        let discarded = "metrifold_component_discarded_samples_total";
        let labels = [("component_id", "strict"), ("reason", reason)];
        assert_eq!(child.metric(discarded, &labels), 1.0, "{name}");
        let requests = child.metric(
            "remote_write_requests_count",
            &[("name", "strict"), ("code", name)],
        );
        assert_eq!(requests, 1.0, "{name}");
        let requests = [("name", "healthy"), ("code", "204")];
        assert_eq!(child.metric("remote_write_requests_count", &requests), 1.0);
    }
    assert_eq!(
        healthy.accepted(),
        samples("up", endpoints.iter().map(|_| 1))
    );
}

#[test]
fn a_failure_that_may_pass_wins_over_a_refusal() {
    let (strict, busy) = (Endpoint::new(|_| 400), Endpoint::new(|_| 503));
    let config = ingest(IMPATIENT)
        + &sink("a", &strict.url(), "")
        + &sink("b", &busy.url(), "")
        + &sink("c", &strict.url(), "");
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    expect(&sender.write(&body(&[one("up", 1)])), 503);
    // Once the failure has passed, the answer is the refusal.
    busy.now(|_| 204);
    expect(&sender.write(&body(&[one("up", 1)])), 400);
}

#[test]
fn retries_say_which_they_are_and_end_in_success() {
    let endpoint = Endpoint::new(|seen| match seen.order {
        0 => Does::from(500),
        1 => Does::Close,
        2 => Does::from(429),
        _ => Does::from(204),
    });
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), "")));
    let request = body(&[one("up", 1)]);
    expect(&Sender::new(child.ingest).write(&request), 204);
    let seen = endpoint.seen();
    let attempts: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("retry-attempt"))
        .collect();
    assert_eq!(attempts, [None, Some("1"), Some("2"), Some("3")]);
    assert!(
        seen.iter().all(|seen| seen.body == request),
        "the same bytes each time"
    );
    let retries = [("component_id", "out")];
    assert_eq!(
        child.metric("metrifold_component_retries_total", &retries),
        3.0
    );
    for (code, times) in [("500", 1.0), ("<error>", 1.0), ("429", 1.0), ("204", 1.0)] {
        let requests = [("name", "out"), ("code", code)];
        assert_eq!(
            child.metric("remote_write_requests_count", &requests),
            times,
            "{code}"
        );
    }
}

/// Pauses so long that only immediate retries happen within a test.
const PATIENT: &str = "retry = { min_backoff = \"60s\", max_backoff = \"60s\" }";

#[test]
fn a_401_is_tried_again_at_once_only_with_other_credentials() {
    let endpoint = Endpoint::new(|seen| match seen.header("authorization") {
        Some("Bearer new") => 204,
        _ => 401,
    });
    let request = body(&[one("up", 1)]);
    let keys = format!("{PATIENT}\nauthorization = {{ credentials = \"old\" }}");
    let child = Metrifold::start(&(ingest(IMPATIENT) + &sink("out", &endpoint.url(), &keys)));
    expect(&Sender::new(child.ingest).write(&request), 503);
    assert_eq!(endpoint.count(), 1);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "old").unwrap();
    let keys = format!("{PATIENT}\nauthorization = {{ credentials_file = {file:?} }}");
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), &keys)));
    std::fs::write(&file, "new").unwrap();
    expect(&Sender::new(child.ingest).write(&request), 204);
}

#[test]
fn the_log_tells_what_is_kept_from_what_is_lost_and_that_trouble_is_over() {
    let endpoint = Endpoint::new(|_| 503);
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), "")));
    let since = Instant::now();
    let sender = std::thread::spawn({
        let ingest = child.ingest;
        move || Sender::new(ingest).write(&body(&[one("up", 1)]))
    });
    until_so("it has been away for a second", || {
        endpoint.count() > 1 && since.elapsed() > Duration::from_millis(1500)
    });
    endpoint.now(|_| 204);
    expect(&sender.join().unwrap(), 204);
    let logged = |text: &str| until_so(text, || child.log().contains(text));
    logged("attempt failed: the batch is kept and tried again");
    logged("endpoint is back after 1 s, ");
    assert!(!child.log().contains("data is lost"), "{}", child.log());

    endpoint.now(|_| 400);
    let series = [one("a", 2), one("b", 2), one("c", 2)];
    expect(&Sender::new(child.ingest).write(&body(&series)), 400);
    logged("data is lost");
    let log = child.log();
    let lost: Vec<_> = log
        .lines()
        .filter(|line| line.contains("data is lost"))
        .collect();
    assert_eq!(lost.len(), 1, "{log}");
    for told in [
        "ERROR",
        "sink=out",
        "reason=\"refused\"",
        "samples=1",
        "dead-letters",
    ] {
        assert!(lost[0].contains(told), "{told}: {}", lost[0]);
    }
}

#[test]
fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let date = SystemTime::now() + Duration::from_secs(2);
    let endpoint = Endpoint::new(move |seen| match seen.order {
        0 => Reply::new(429).header("Retry-After", 1),
        1 => Reply::new(503).header("Retry-After", httpdate::fmt_http_date(date)),
        _ => Reply::new(204),
    });
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), "")));
    expect(
        &Sender::new(child.ingest).write(&body(&[one("up", 1)])),
        204,
    );
    let seen = endpoint.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
    // HTTP dates have whole seconds.
    let date = httpdate::parse_http_date(&httpdate::fmt_http_date(date)).unwrap();
    assert!(seen[2].time >= date || seen[1].time >= date);
    assert_eq!(seen.len(), 3);
}

#[test]
fn a_batch_that_is_too_large_is_split_until_it_fits() {
    let endpoint = Endpoint::new(|seen| match seen.series().len() {
        0..=3 => 204,
        _ => 413,
    });
    let other = Endpoint::healthy();
    let config =
        ingest("") + &sink("small", &endpoint.url(), "") + &sink("large", &other.url(), "");
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let series: Vec<_> = (0..20).map(|n| one(&format!("m{n:02}"), 7)).collect();
    expect(&sender.write(&body(&series)), 204);
    let mut accepted = endpoint.accepted();
    assert!(
        accepted.is_sorted(),
        "parts leave in their order: {accepted:?}"
    );
    accepted.dedup();
    let expected: Vec<_> = (0..20).map(|n| (format!("m{n:02}"), 7)).collect();
    assert_eq!(accepted, expected);
    assert_eq!(other.accepted(), expected);
    assert_eq!(other.count(), 1);
    let discarded = "metrifold_component_discarded_samples_total";
    assert_eq!(child.metric(discarded, &[]), 0.0);
}

#[test]
fn a_single_series_that_is_too_large_is_dropped_and_counted_alone() {
    let endpoint = Endpoint::new(
        |seen| match seen.series().iter().any(|s| s.name() == "big") {
            true => 413,
            false => 204,
        },
    );
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), "")));
    let big = Series::new("big", &[(1, 1.0), (2, 2.0)]);
    let series = [one("a", 1), one("b", 1), big, one("c", 1), one("d", 1)];
    let answer = Sender::new(child.ingest).write(&body(&series));
    expect(&answer, 400);
    assert!(answer.text().contains("413"), "{}", answer.text());
    let expected = ["a", "b", "c", "d"].map(|name| (name.to_owned(), 1));
    assert_eq!(endpoint.accepted(), expected);
    let discarded = "metrifold_component_discarded_samples_total";
    let too_large = [("component_id", "out"), ("reason", "too_large")];
    assert_eq!(child.metric(discarded, &too_large), 2.0);
    let sent = "metrifold_component_sent_samples_total";
    assert_eq!(child.metric(sent, &[("component_id", "out")]), 4.0);
}

/// A request of about `bytes` bytes that compresses badly.
fn bulky(name: &str, time: i64, bytes: usize, random: &mut Random) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(&format!("{:016x}", random.number()));
    }
    let series = text.as_bytes().chunks(1024).enumerate().map(|(at, chunk)| {
        let series = one(name, time).label("part", &at.to_string());
        series.label("text", std::str::from_utf8(chunk).unwrap())
    });
    body(&series.collect::<Vec<_>>())
}

/// Samples that a sink has received, sent and discarded, from its own counters.
fn ledger(child: &Metrifold, sink: &str) -> (f64, f64, f64) {
    let sink = [("component_id", sink)];
    (
        child.metric("metrifold_component_received_samples_total", &sink),
        child.metric("metrifold_component_sent_samples_total", &sink),
        child.metric("metrifold_component_discarded_samples_total", &sink),
    )
}

/// Sends 40 requests of some 8 KiB to a hanging sink with a queue of 64 KiB, then releases it;
/// returns the times of the samples that arrive.
fn overflow(when_full: &str) -> Vec<i64> {
    let hanging = Endpoint::new(|seen| match seen.order {
        0 => Does::Hang(Reply::new(204)),
        _ => Does::from(204),
    });
    let healthy = Endpoint::healthy();
    let queue = format!("queue = {{ max_bytes = \"64KiB\", when_full = \"{when_full}\" }}");
    let config = ingest("check_series = true")
        + &sink("healthy", &healthy.url(), "")
        + &sink(
            "out",
            &hanging.url(),
            &format!("{OPTIONAL}\nconnections = 1\n{queue}"),
        );
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let mut random = Random(1);
    for time in 1..=40 {
        expect(&sender.write(&bulky("up", time, 8 << 10, &mut random)), 204);
        let bytes = child.metric("metrifold_queue_bytes", &[("component_id", "out")]);
        assert!(bytes <= 65536.0, "{bytes}");
        if time == 1 {
            // From here on the sink has the first request in flight.
            hanging.wait_requests(1);
        }
    }
    hanging.release();
    let balanced = || {
        let (received, sent, discarded) = ledger(&child, "out");
        received > 0.0 && received == sent + discarded
    };
    until_so("the ledger balances", balanced);
    let (received, sent, _) = ledger(&child, "out");
    assert_eq!(received, 40.0 * 8.0);
    let full = [("component_id", "out"), ("reason", "queue_full")];
    let discarded = child.metric("metrifold_component_discarded_samples_total", &full);
    assert_eq!(received - sent, discarded);
    assert!(discarded > 0.0 && sent > 8.0, "{sent} {discarded}");
    assert_eq!(healthy.count(), 40);
    let mut times: Vec<i64> = hanging
        .accepted()
        .into_iter()
        .map(|(_, time)| time)
        .collect();
    assert_eq!(times.len(), sent as usize);
    times.dedup();
    times
}

#[test]
fn a_full_queue_that_drops_its_oldest_keeps_what_is_being_sent_and_the_newest() {
    let times = overflow("drop_oldest");
    let newest = (41 - (times.len() as i64 - 1))..=40;
    assert_eq!(times, [1].into_iter().chain(newest).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_that_drops_the_newest_keeps_what_it_has() {
    let times = overflow("drop_newest");
    assert_eq!(times, (1..=times.len() as i64).collect::<Vec<_>>());
}

#[test]
fn a_full_queue_that_blocks_has_senders_wait_and_then_try_again() {
    let endpoint = Endpoint::new(|_| 503);
    let healthy = Endpoint::healthy();
    let queue = "connections = 1\nqueue = { max_bytes = \"64KiB\", when_full = \"block\" }";
    let config = ingest(&format!("acknowledge = \"received\"\n{IMPATIENT}"))
        + &sink("healthy", &healthy.url(), "")
        + &sink("out", &endpoint.url(), queue);
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let mut random = Random(2);
    let mut taken = Vec::new();
    for time in 1..=12 {
        let answer = sender.write(&bulky("up", time, 16 << 10, &mut random));
        match answer.status {
            204 => taken.push(time),
            503 => {
                // The queue is full, and nothing leaves it.
                let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((10..=30).contains(&after), "{after}");
            }
            status => panic!("{status}"),
        }
        let bytes = child.metric("metrifold_queue_bytes", &[("component_id", "out")]);
        assert!(bytes <= 65536.0, "{bytes}");
        if taken.len() as i64 + 2 == time {
            break; // two requests found a full queue
        }
    }
    assert!(taken.len() >= 2 && taken.len() < 10, "{taken:?}");
    endpoint.now(|_| 204);
    let last = 1 + *taken.last().unwrap();
    expect(
        &sender.write(&bulky("up", last, 16 << 10, &mut random)),
        204,
    );
    taken.push(last);
    let accepted = endpoint.wait_accepted(16 * taken.len());
    let mut times: Vec<_> = accepted.into_iter().map(|(_, time)| time).collect();
    assert_eq!(times.len(), 16 * taken.len());
    times.dedup();
    assert_eq!(times, taken, "what was acknowledged, once and in order");
}

#[test]
fn a_flood_at_a_dead_optional_sink_stays_within_its_memory() {
    let dead = Endpoint::new(|_| Does::Hang(Reply::new(500)));
    let queue = format!("{OPTIONAL}\nqueue = {{ max_bytes = \"4MiB\" }}");
    let config = ingest("") + &sink("dead", &dead.url(), &queue);
    let child = Metrifold::start(&config);
    let mut random = Random(3);
    let requests: Vec<_> = (0..8)
        .map(|n| bulky("up", n, 256 << 10, &mut random))
        .collect();
    let mut sender = Sender::new(child.ingest);
    let mut most: f64 = 0.0;
    for turn in 0..300 {
        expect(&sender.write(&requests[turn % requests.len()]), 204);
        if turn % 10 == 0 {
            most = most.max(child.metric("metrifold_queue_bytes", &[]));
        }
    }
    assert!(most <= 4.0 * 1048576.0, "{most}");
    assert!(most >= 2.0 * 1048576.0, "the queue was used: {most}");
    // Some 50 MiB were sent.
    let peak = child.memory("VmHWM");
    assert!(peak < 100 << 10, "{peak} KiB");
}

#[test]
fn many_small_requests_in_a_queue_take_no_more_memory_than_it_says() {
    let dead = Endpoint::new(|_| Does::Hang(Reply::new(500)));
    let queue = format!("{OPTIONAL}\nqueue = {{ max_bytes = \"1MiB\" }}");
    let child = Metrifold::start(&(ingest("") + &sink("dead", &dead.url(), &queue)));
    let small = body(&[one("up", 1)]);
    expect(&Sender::new(child.ingest).write(&small), 204);
    let before = child.memory("VmRSS");
    let mut turn = 0;
    until_so("the queue is full", || {
        // One connection per request: the read buffer of a connection must not stay with the
        // request.
        for _ in 0..100 {
            expect(&Sender::new(child.ingest).write(&small), 204);
        }
        turn += 1;
        turn % 4 == 0 && child.metric("metrifold_component_discarded_batches_total", &[]) > 0.0
    });
    let grown = child.memory("VmRSS").saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB for a queue of 1024 KiB");
}

#[test]
fn small_batches_that_wait_decoded_do_not_hold_the_buffers_of_large_ones() {
    // Nobody reads the console's output, so that it blocks, and decoded batches wait.
    let config = ingest("")
        + "[transforms.split]\ntype = \"route\"\ninputs = [\"ingest\"]\n"
        + "routes = { large = '{size=\"large\"}' }\n"
        + "[sinks.hole]\ntype = \"blackhole\"\ninputs = [\"split.large\"]\n"
        + "[sinks.lines]\ntype = \"console\"\ninputs = [\"split.rest\"]\n";
    let child = Metrifold::start_writing(&config, Stdio::piped());
    let text = "x".repeat(16 << 10);
    let large = (0..100).map(|n| one("up", n).label("size", "large").label("text", &text));
    let large = body(&large.collect::<Vec<_>>());
    let long = "y".repeat(10 << 10);
    let fill: Vec<_> = (0..20)
        .map(|n| one("fill", n).label("text", &long))
        .collect();
    let mut sender = Sender::new(child.ingest);
    expect(&sender.write(&body(&fill)), 204);
    expect(&sender.write(&large), 204);
    let before = child.memory("VmRSS");
    for time in 0..80 {
        expect(&sender.write(&large), 204);
        expect(&sender.write(&body(&[one("up", time)])), 204);
    }
    let waiting = child.metric("metrifold_queue_bytes", &[("component_id", "lines")]);
    assert!(waiting < 1048576.0, "{waiting}");
    assert!(child.metric("metrifold_queue_batches", &[("component_id", "lines")]) > 70.0);
    let grown = child.memory("VmRSS").saturating_sub(before);
    assert!(
        grown < 40 << 10,
        "{grown} KiB for a queue of {waiting} bytes"
    );
}

#[test]
fn a_sink_goes_on_to_its_next_endpoint_when_one_fails() {
    let (second, third) = (Endpoint::new(|_| 503), Endpoint::healthy());
    let child = Metrifold::start(&source_to_list(&[nobody(), second.url(), third.url()]));
    let mut sender = Sender::new(child.ingest);
    for time in 1..=10 {
        expect(&sender.write(&body(&[one("up", time)])), 204);
    }
    assert_eq!(third.accepted(), samples("up", 1..=10));
    assert_eq!(second.count(), 1, "a working endpoint is stayed with");
    // When that one fails as well, the sink continues with the first.
    third.now(|_| 500);
    second.now(|_| 204);
    expect(&sender.write(&body(&[one("up", 11)])), 204);
    assert_eq!(second.accepted(), samples("up", [11]));
}

fn source_to_list(urls: &[String]) -> String {
    let config = ingest("") + &sink("out", "LIST", "");
    config.replace("\"LIST\"", &format!("{urls:?}"))
}

/// The next reaction of an endpoint with seeded random failures.
fn moody(seed: u64) -> impl Fn(&metrifold_testing::Seen) -> Does + Send + Sync + 'static {
    let random = Mutex::new(Random(seed));
    move |_| {
        let mut random = random.lock().unwrap();
        let does = match random.below(10) {
            0 | 1 => Does::from(503),
            2 => Does::Close,
            3 => Does::from(429),
            _ => Does::from(204),
        };
        match random.chance(60) {
            true => Does::After(Duration::from_millis(random.below(8) as u64), does.into()),
            false => does,
        }
    }
}

/// The first arrival of every sample, by series, which must be in order. A sample that arrives
/// again was retried.
fn first_arrivals(endpoint: &Endpoint) -> BTreeMap<String, Vec<i64>> {
    let mut series: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (name, time) in endpoint.arrived() {
        let times = series.entry(name).or_default();
        if !times.contains(&time) {
            times.push(time);
        }
    }
    series
}

/// Runs senders of four tenants at once, each with a series of its own; checks that each series
/// arrives complete and in order.
fn order_holds(seed: u64, acknowledge: &str, keys: &str) -> usize {
    const TENANTS: usize = 4;
    const REQUESTS: i64 = 60;
    let endpoint = Endpoint::new(moody(seed));
    let resets = 5;
    endpoint.reset(resets);
    let tenant = "[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{ header = \"X-Tenant\" }]\n";
    let keys =
        format!("{keys}\nmin_connections = 8\nconnections = 8\ntenant_header = \"X-Tenant\"");
    let config = ingest(acknowledge)
        + tenant
        + &sink("out", &endpoint.url(), &keys).replace("\"ingest\"", "\"tenant\"");
    let child = Metrifold::start(&config);
    std::thread::scope(|scope| {
        for tenant in 0..TENANTS {
            let ingest = child.ingest;
            scope.spawn(move || {
                let mut sender = Sender::new(ingest);
                let id = format!("tenant-{tenant}");
                for time in 1..=REQUESTS {
                    let request = body(&[one(&id, time)]);
                    let answer = sender.post("/api/v1/write", &[("X-Tenant", &id)], &request);
                    expect(&answer, 204);
                }
            });
        }
    });
    let all = TENANTS * REQUESTS as usize;
    endpoint.wait_accepted(all);
    let expected: Vec<i64> = (1..=REQUESTS).collect();
    let series = first_arrivals(&endpoint);
    assert_eq!(series.len(), TENANTS);
    for (name, times) in series {
        assert_eq!(times, expected, "{name}");
    }
    for seen in endpoint.seen() {
        assert_eq!(seen.header("x-tenant"), Some(seen.series()[0].name()));
    }
    assert_eq!(endpoint.accepted().len(), all, "accepted once each");
    let retries = child.metric(
        "metrifold_component_retries_total",
        &[("component_id", "out")],
    );
    assert!(retries > 0.0, "there was trouble");
    endpoint.most_at_once()
}

#[test]
fn the_order_of_a_series_holds_for_an_optional_sink_with_many_connections() {
    let at_once = order_holds(11, "", OPTIONAL);
    assert!(at_once > 1, "connections were used side by side: {at_once}");
    assert!(at_once <= 8);
}

#[test]
fn the_order_of_a_series_holds_for_senders_that_are_acknowledged() {
    let at_once = order_holds(12, "", "");
    assert!(at_once > 1, "{at_once}");
}

#[test]
fn the_order_of_a_series_holds_when_requests_are_acknowledged_on_receipt() {
    let at_once = order_holds(13, "acknowledge = \"received\"", "");
    assert!(at_once > 1, "{at_once}");
}

#[test]
fn what_a_sender_was_told_to_send_again_is_not_delivered_later() {
    let endpoint = Endpoint::new(|_| Reply::new(503).header("retry-after", 2));
    let config = ingest(IMPATIENT) + &sink("out", &endpoint.url(), "connections = 1");
    let child = Metrifold::start(&config);
    let senders: Vec<_> = (1..=3)
        .map(|time| {
            let ingest = child.ingest;
            std::thread::spawn(move || Sender::new(ingest).write(&body(&[one("up", time)])))
        })
        .collect();
    for sender in senders {
        expect(&sender.join().unwrap(), 503);
    }
    endpoint.now(|_| 204);
    let abandoned = [("component_id", "out"), ("reason", "abandoned")];
    let discarded = "metrifold_component_discarded_batches_total";
    until_so("all three are given up", || {
        child.metric(discarded, &abandoned) == 3.0
    });
    expect(
        &Sender::new(child.ingest).write(&body(&[one("up", 4)])),
        204,
    );
    assert_eq!(endpoint.accepted(), samples("up", [4]));
    assert_eq!(
        child.metric("metrifold_queue_bytes", &[("component_id", "out")]),
        0.0
    );
}

#[test]
fn a_batch_that_is_too_old_is_given_up_and_counted() {
    let endpoint = Endpoint::new(|_| 503);
    let retry = "retry = { min_backoff = \"5ms\", max_backoff = \"20ms\", max_age = \"300ms\" }";
    let config = ingest("check_series = true") + &sink("out", &endpoint.url(), retry);
    let child = Metrifold::start(&config);
    let answer = Sender::new(child.ingest).write(&body(&[one("up", 1), one("down", 1)]));
    expect(&answer, 503);
    assert!(answer.text().contains("retry.max_age"), "{}", answer.text());
    let old = [("component_id", "out"), ("reason", "too_old")];
    assert_eq!(
        child.metric("metrifold_component_discarded_samples_total", &old),
        2.0
    );
}

#[test]
fn thanos_has_stored_the_valid_part_when_it_answers_409() {
    let endpoint = Endpoint::new(|_| Reply::new(409).body("store locally: out of order"));
    let config = ingest("") + &sink("out", &endpoint.url(), "");
    let config = config.replace(
        "[sinks.out]\ntype = \"remote_write\"",
        "[sinks.out]\ntype = \"thanos\"",
    );
    let child = Metrifold::start(&config);
    let answer = Sender::new(child.ingest).write(&body(&[one("up", 1)]));
    expect(&answer, 400);
    assert!(answer.text().contains("out of order"), "{}", answer.text());
    assert_eq!(endpoint.count(), 1, "it is not tried again");
    let partial = [("component_id", "out"), ("error_type", "partial")];
    assert_eq!(
        child.metric("metrifold_component_errors_total", &partial),
        1.0
    );
}

#[test]
fn an_endpoint_that_swallows_2_0_is_found_out_and_gets_1_0() {
    // It answers 2xx without the headers for written samples.
    let endpoint = Endpoint::healthy();
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), "")));
    let mut sender = Sender::new(child.ingest);
    for time in 1..=2 {
        let answer = sender.write_v2(&body_v2(&[one("up", time)]));
        expect(&answer, 204);
        let written = answer.header("x-prometheus-remote-write-samples-written");
        assert_eq!(written, Some("1"));
    }
    let seen = endpoint.seen();
    let versions: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("x-prometheus-remote-write-version").unwrap())
        .collect();
    assert_eq!(versions, ["2.0.0", "0.1.0", "0.1.0"]);
    assert_eq!(seen[1].series(), seen[0].series());

    // The same after a 415; an endpoint that reports written samples is trusted.
    let strict = Endpoint::new(
        |seen| match seen.header("x-prometheus-remote-write-version") {
            Some("2.0.0") => 415,
            _ => 204,
        },
    );
    let modern = Endpoint::new(|seen| match seen.order {
        0 => Reply::written(2),
        _ => Reply::written(1),
    });
    let config =
        ingest("") + &sink("strict", &strict.url(), "") + &sink("modern", &modern.url(), "");
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let request = body_v2(&[one("up", 1), one("down", 1)]);
    expect(&sender.write_v2(&request), 204);
    assert_eq!((strict.count(), modern.count()), (2, 1));
    let answer = sender.write_v2(&request);
    expect(&answer, 400);
    assert!(
        answer.text().contains("wrote 1 samples"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_slow_end_of_an_answer_costs_its_own_sink_only() {
    // The head comes at once, the body never ends.
    let slow = Endpoint::new(|_| {
        let reply = Reply::new(200).body(vec![b'.'; 1 << 20]);
        Does::Trickle(reply, Duration::from_micros(200))
    });
    let healthy = Endpoint::healthy();
    let config = ingest("")
        + &sink("healthy", &healthy.url(), "")
        + &sink(
            "slow",
            &slow.url(),
            &format!("{OPTIONAL}\ntimeout = \"300ms\""),
        );
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=5 {
        expect(&sender.write(&body(&[one("up", time)])), 204);
    }
    assert_eq!(healthy.accepted(), samples("up", 1..=5));
    // The status counts, whatever happens to the body.
    assert_eq!(slow.wait_accepted(5), samples("up", 1..=5));
    until_so("all five count as delivered", || {
        let sent = [("component_id", "slow")];
        child.metric("metrifold_component_sent_batches_total", &sent) == 5.0
    });
}

#[test]
fn senders_prove_who_they_are_and_their_credentials_go_no_further() {
    let endpoint = Endpoint::healthy();
    let out = "authorization = { credentials = \"token-out\" }\nheaders = { X-Extra = \"secret-header\" }";
    let basic = "Basic d3JpdGVyOnNlc2FtZS1pbg=="; // writer:sesame-in
    let user = "basic_auth = { username = \"writer\", password = \"sesame-in\" }";
    let token = "authorization = { credentials = \"token-in\" }";
    let tokens = ingest(token).replace("ingest", "tokens");
    let tokens = tokens.replace("\"INGEST\"", "\"INGEST\"\npath = \"/tokens\"");
    let config =
        ingest(&format!("{user}\n{IMPATIENT}")) + &tokens + &sink("out", &endpoint.url(), out);
    let config = config.replace("[\"ingest\"]", "[\"ingest\", \"tokens\"]");
    let mut child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let request = body(&[one("up", 1)]);
    let (users, tokens) = ("/api/v1/write", "/tokens");
    for (path, credentials, status) in [
        (users, None, 401),
        (users, Some("Basic d3JpdGVyOndyb25n"), 401),
        (users, Some("Bearer token-in"), 401),
        (users, Some(basic), 204),
        (tokens, None, 401),
        (tokens, Some("Bearer token-out"), 401),
        (tokens, Some(basic), 401),
        (tokens, Some("Bearer token-in"), 204),
    ] {
        let mut headers = vec![("cookie", "session=token-cookie")];
        headers.extend(credentials.map(|credentials| ("authorization", credentials)));
        let answer = sender.post(path, &headers, &request);
        assert_eq!(answer.status, status, "{path} {credentials:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    let seen = endpoint.seen();
    assert_eq!(seen.len(), 2, "nobody else got through");
    for seen in &seen {
        assert_eq!(seen.header("authorization"), Some("Bearer token-out"));
        assert_eq!(seen.header("x-extra"), Some("secret-header"));
        assert_eq!(seen.header("cookie"), None);
        let given = seen
            .headers
            .iter()
            .filter(|(name, _)| name == "authorization");
        assert_eq!(given.count(), 1);
    }
    // Nor do they show when an endpoint quotes them.
    endpoint.now(|_| 401);
    let answer = sender.post("/api/v1/write", &[("authorization", basic)], &request);
    expect(&answer, 503);
    let mut shown = answer.text();
    for page in ["/", "/metrics", "/api/v1/topology", "/-/ready"] {
        shown += &child.get(page).text();
    }
    child.signal("TERM");
    child.wait();
    shown += &child.log();
    for secret in [
        "sesame-in",
        "token-in",
        "token-out",
        "secret-header",
        "token-cookie",
        "d3JpdGVy",
    ] {
        assert!(!shown.contains(secret), "{secret} is shown: {shown}");
    }
}

#[test]
fn both_sides_can_ask_for_certificates() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let endpoint = Endpoint::tls(servers.server(Some(&clients.ca())), |_| 204);
    let (cert, key) = servers.issue("ingest");
    let (sink_cert, sink_key) = clients.issue("sink");
    let inbound = format!(
        "tls = {{ cert_file = {cert:?}, key_file = {key:?}, client_ca_file = {:?} }}\n{IMPATIENT}",
        clients.ca()
    );
    let outbound = format!(
        "tls = {{ ca_file = {:?}, cert_file = {sink_cert:?}, key_file = {sink_key:?} }}",
        servers.ca()
    );
    let url = endpoint.url().replace("http:", "https:");
    let child = Metrifold::start(&(ingest(&inbound) + &sink("out", &url, &outbound)));
    let request = body(&[one("up", 1)]);

    let known = servers.client(Some(clients.issue("sender")));
    expect(&Sender::tls(child.ingest, &known).write(&request), 204);
    assert_eq!(endpoint.accepted(), samples("up", [1]));

    let stranger = servers.client(Some(servers.issue("stranger")));
    let anonymous = servers.client(None);
    for tls in [stranger, anonymous] {
        let answer = Sender::tls(child.ingest, &tls).try_post("/api/v1/write", &[], &request);
        assert!(answer.is_err(), "{answer:?}");
    }
    let plain = Sender::new(child.ingest).try_post("/api/v1/write", &[], &request);
    assert!(plain.is_err(), "{plain:?}");
    assert_eq!(endpoint.count(), 1);

    // A sink without a certificate, or without the endpoint's authority, delivers nothing.
    for keys in [
        format!("tls = {{ ca_file = {:?} }}", servers.ca()),
        format!("tls = {{ ca_file = {:?} }}", clients.ca()),
    ] {
        let child = Metrifold::start(&(ingest(IMPATIENT) + &sink("out", &url, &keys)));
        expect(&Sender::new(child.ingest).write(&request), 503);
    }
    assert_eq!(endpoint.count(), 1);
}

#[test]
fn oauth2_tokens_are_fetched_once_and_again_when_one_is_refused() {
    let issued = AtomicUsize::new(0);
    let tokens = Endpoint::new(move |_| {
        let number = issued.fetch_add(1, Ordering::SeqCst);
        let token = format!("{{\"access_token\":\"token-{number}\",\"expires_in\":3600}}");
        Reply::new(200)
            .header("content-type", "application/json")
            .body(token)
    });
    let endpoint = Endpoint::new(|seen| match seen.header("authorization") {
        Some("Bearer token-0") if seen.order < 3 => 204,
        Some("Bearer token-1") => 204,
        _ => 401,
    });
    let keys = format!(
        "oauth2 = {{ client_id = \"me\", client_secret = \"hush-hush\", token_url = \"{}\", scopes = [\"metrics.write\"] }}",
        tokens.url()
    );
    let child = Metrifold::start(&(ingest("") + &sink("out", &endpoint.url(), &keys)));
    let mut sender = Sender::new(child.ingest);
    for time in 1..=5 {
        expect(&sender.write(&body(&[one("up", time)])), 204);
    }
    assert_eq!(endpoint.accepted(), samples("up", 1..=5));
    assert_eq!(tokens.count(), 2, "one token, and one after it was revoked");
    let asked = String::from_utf8(tokens.seen()[0].body.clone()).unwrap();
    assert!(asked.contains("grant_type=client_credentials"), "{asked}");
    assert!(asked.contains("scope=metrics.write"), "{asked}");
    let shown = child.get("/api/v1/topology").text() + &child.log();
    assert!(
        !shown.contains("hush-hush") && !shown.contains("token-0"),
        "{shown}"
    );
}

#[test]
fn a_dead_token_endpoint_is_the_trouble_of_its_sink_alone() {
    let tokens = Endpoint::new(|_| Does::Hang(Reply::new(500)));
    let (guarded, healthy) = (Endpoint::healthy(), Endpoint::healthy());
    let keys = format!(
        "{OPTIONAL}\noauth2 = {{ client_id = \"me\", client_secret = \"x\", token_url = \"{}\" }}",
        tokens.url()
    );
    let config =
        ingest("") + &sink("healthy", &healthy.url(), "") + &sink("guarded", &guarded.url(), &keys);
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=5 {
        expect(&sender.write(&body(&[one("up", time)])), 204);
    }
    tokens.wait_requests(1);
    assert_eq!(healthy.accepted(), samples("up", 1..=5));
    assert_eq!(guarded.count(), 0);
}

#[test]
fn the_admin_address_tells_what_runs_and_what_waits() {
    let (busy, healthy) = (Endpoint::new(|_| 503), Endpoint::healthy());
    let config = ingest("check_series = true")
        + &sink("healthy", &healthy.url(), "")
        + &sink("busy", &busy.url(), OPTIONAL);
    let child = Metrifold::start(&config);
    expect(
        &Sender::new(child.ingest).write(&body(&[one("up", 1), one("down", 1)])),
        204,
    );
    let ready = child.get("/-/ready");
    assert_eq!((ready.status, &*ready.text()), (200, "ready"));
    assert_eq!(child.get("/-/healthy").status, 200);
    let error = |topology: &serde_json::Value| {
        let components = topology["components"].as_array().unwrap();
        let busy = components.iter().find(|c| c["id"] == "busy").unwrap();
        busy["last_error"]["text"].as_str().map(str::to_owned)
    };
    let topology: serde_json::Value = until("the busy sink reports its trouble", || {
        let topology = serde_json::from_slice(&child.get("/api/v1/topology").body).unwrap();
        error(&topology).is_some().then_some(topology)
    });
    assert!(error(&topology).unwrap().contains("503"));
    let component = |id: &str| {
        let components = topology["components"].as_array().unwrap();
        components.iter().find(|c| c["id"] == id).unwrap().clone()
    };
    for id in ["ingest", "busy", "healthy"] {
        assert_eq!(component(id)["state"], "running", "{id}");
        assert_eq!(component(id)["received"]["samples"], 2, "{id}");
    }
    assert_eq!(component("healthy")["sent"]["samples"], 2);
    assert_eq!(component("busy")["sent"]["samples"], 0);
    assert_eq!(component("busy")["required"], false);
    assert!(component("busy")["queue"]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(component("healthy")["queue"]["bytes"], 0);
    let edges = topology["edges"].as_array().unwrap();
    let expected = serde_json::json!([
        { "from": "ingest", "to": "busy" },
        { "from": "ingest", "to": "healthy" },
    ]);
    assert_eq!(edges, expected.as_array().unwrap());
    assert_eq!(child.get("/nowhere").status, 404);
    // A read must not change anything.
    let posted = Sender::new(child.api).post("/api/v1/topology", &[], b"");
    assert_eq!(posted.status, 405);
}

#[test]
fn requests_above_the_memory_for_requests_in_flight_are_told_to_come_again() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let keys = "max_in_flight_bytes = \"128KiB\"\nmax_decoded_bytes = \"64KiB\"\nmax_body_bytes = \"64KiB\"";
    let child = Metrifold::start(&(ingest(keys) + &sink("out", &hanging.url(), "")));
    let mut random = Random(4);
    let large = bulky("up", 1, 40 << 10, &mut random);
    let ingest = child.ingest;
    let first = {
        let large = large.clone();
        std::thread::spawn(move || Sender::new(ingest).write(&large))
    };
    hanging.wait_requests(1);
    let answer = Sender::new(ingest).write(&large);
    expect(&answer, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.text().contains("in flight"), "{}", answer.text());
    hanging.release();
    expect(&first.join().unwrap(), 204);
    expect(&Sender::new(ingest).write(&large), 204);
    let overloaded = [("component_id", "ingest"), ("error_type", "overloaded")];
    assert_eq!(
        child.metric("metrifold_component_errors_total", &overloaded),
        1.0
    );
    let started = Instant::now();
    let answered = [("component_id", "ingest"), ("code", "204")];
    until_so("all answers are counted", || {
        child.metric("metrifold_source_requests_total", &answered) == 2.0
    });
    assert!(started.elapsed() < metrifold_testing::PATIENCE);
}

#[test]
fn a_series_that_an_endpoint_fails_on_for_ever_is_isolated_and_the_lane_goes_on() {
    let fails = |seen: &metrifold_testing::Seen| {
        seen.series().iter().any(|series| series.name() == "poison")
    };
    let endpoint = Endpoint::new(move |seen| if fails(seen) { 500 } else { 204 });
    let folder = tempfile::tempdir().unwrap();
    let retry =
        "retry = { min_backoff = \"1ms\", max_backoff = \"10ms\", isolate_after = \"300ms\" }";
    for (number, queue) in ["type = \"memory\"", "type = \"disk\""].iter().enumerate() {
        let keys = format!("required = false\nqueue = {{ {queue} }}\n{retry}");
        let text = format!("data_dir = {:?}\n", folder.path().join(number.to_string()))
            + &ingest("")
            + &sink("z", &endpoint.url(), &keys);
        let child = Metrifold::start(&text);
        let mut sender = Sender::new(child.ingest);
        let offset = 100 * number as i64;
        for time in 1..=30 {
            let mut series = vec![one("up", offset + time)];
            match time {
                10 => series.push(one("poison", time)),
                20 => series = vec![one("poison", time)],
                _ => {}
            }
            expect(&sender.write(&body(&series)), 204);
        }
        until_so("all else is through", || {
            let labels = [("component_id", "z")];
            child.metric("metrifold_ledger_queued_batches", &labels) == 0.0
        });
        let mut seen = Vec::new();
        for sample in endpoint.accepted() {
            // Control samples arrive again.
            if sample.1 > offset && !seen.contains(&sample) {
                seen.push(sample);
            }
        }
        let times = (1..=30)
            .filter(|time| *time != 20)
            .map(|time| offset + time);
        assert_eq!(seen, samples("up", times), "{queue}");
        let labels = [("component_id", "z"), ("reason", "isolated")];
        let dropped = child.metric("metrifold_ledger_dropped_samples_total", &labels);
        assert_eq!(dropped, 2.0, "{queue}");
        let letters = child.get("/api/v1/dead-letters").text();
        assert!(letters.contains("endpoint answered 500"), "{letters}");
        let ledger: serde_json::Value =
            serde_json::from_slice(&child.get("/api/v1/ledger").body).unwrap();
        assert_eq!(ledger["balances"], true, "{ledger}");
    }
}

#[test]
fn what_a_search_leaves_out_is_lost_once_and_the_rest_is_delivered() {
    let endpoint = Endpoint::new(|_| 500);
    let folder = tempfile::tempdir().unwrap();
    let keys = "queue = { type = \"disk\" }\n\
        retry = { min_backoff = \"1ms\", max_backoff = \"10ms\", isolate_after = \"50ms\" }";
    let text = format!("data_dir = {:?}\n", folder.path())
        + &ingest("")
        + &sink("z", &endpoint.url(), keys);
    let child = Metrifold::start(&text);
    let twice = [("__name__", "bad"), ("a", "1"), ("a", "2")];
    let mut series: Vec<Series> = ["one", "two", "three"].map(|name| one(name, 1)).into();
    series.push(Series::of(&twice).sample(1.0, 1));
    expect(&Sender::new(child.ingest).write(&body(&series)), 204);
    let discarded = || {
        let labels = [("component_id", "z"), ("reason", "duplicate_label")];
        child.metric("metrifold_component_discarded_samples_total", &labels)
    };
    until_so("a search has left it out", || discarded() > 0.0);
    // Several searches follow, none of which has a request that the endpoint has accepted before.
    endpoint.wait_requests(endpoint.count() + 60);
    endpoint.now(|_| 204);
    // A search under way may deliver its parts one by one, and repeat one as a control.
    let all = ["one", "three", "two"].map(|name| (name.to_owned(), 1));
    until_so("the rest is delivered", || {
        BTreeSet::from_iter(endpoint.accepted()) == BTreeSet::from(all.clone())
    });
    let mut ledger = serde_json::Value::Null;
    until_so("it is booked", || {
        ledger = child.get("/api/v1/ledger").json();
        ledger["sinks"][0]["total"]["queued"]["batches"] == 0
    });
    let total = &ledger["sinks"][0]["total"];
    assert_eq!(total["received"]["samples"], 4, "{ledger}");
    assert_eq!(total["delivered"]["samples"], 3, "{ledger}");
    assert_eq!(total["dropped"]["invalid"]["samples"], 1, "{ledger}");
    assert_eq!(ledger["balances"], true, "{ledger}");
    assert_eq!(discarded(), 1.0);
}
