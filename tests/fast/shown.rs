//! What an operator sees: log lines, data of the status page, and output during shutdown.

use std::time::{Duration, Instant};

use metrifold_testing::config::{ingest, sink};
use metrifold_testing::{
    Does, Endpoint, Metrifold, Random, Reply, Sender, Series, body, cli, expect, fetch, nobody,
    run, until_so, up,
};

const WRITE: &str = "/api/v1/write";

#[test]
fn the_start_says_what_listens_where() {
    let config = ingest("") + &sink("out", "ingest", &nobody(), "required = false");
    let child = Metrifold::start(&config);
    let log = child.log();
    let line = |what: &str| {
        let found = log.lines().find(|line| line.contains(what));
        found
            .unwrap_or_else(|| panic!("{what} in {log}"))
            .to_owned()
    };
    let listening = line(&format!("address={}", child.ingest));
    assert!(
        listening.contains("serves=\"ingest: POST /api/v1/write\""),
        "{listening}"
    );
    assert!(listening.contains("tls=false"), "{listening}");
    assert!(line(&format!("url=http://{}/", child.api)).contains("status page"));
    // The addresses are announced once they accept connections.
    let place = |what| log.find(what).unwrap();
    assert!(place("listening") < place("metrifold runs"));
}

#[test]
fn senders_that_are_refused_are_seen_in_the_log_and_in_the_metrics() {
    let endpoint = Endpoint::healthy();
    let keys = "authorization = { credentials = \"right\" }";
    let config = ingest(keys) + &sink("out", "ingest", &endpoint.url(), "");
    let mut child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    let right = ("authorization", "Bearer right");
    for (path, headers, body, status) in [
        ("/api/v2/write", &[right][..], &up(1)[..], 404),
        ("/api/v3/write", &[right], &up(1), 404),
        ("/api/v4/write", &[right], &up(1), 404),
        (WRITE, &[("authorization", "Bearer wrong")], &up(1), 401),
        (WRITE, &[right, ("content-type", "text/plain")], &up(1), 415),
        (WRITE, &[right], &[0xff; 8], 400),
        (WRITE, &[right], &up(1), 204),
    ] {
        expect(&sender.post(path, headers, body), status);
    }
    let counted = |code| {
        let labels = [("code", code)];
        child.metric("metrifold_listener_refused_requests_total", &labels)
    };
    for (code, times) in [
        ("404", 3.0),
        ("401", 1.0),
        ("415", 1.0),
        ("400", 1.0),
        ("204", 0.0),
    ] {
        assert_eq!(counted(code), times, "{code}");
    }
    assert!(child.terminate().success());
    let log = child.log();
    let told = |code: &str| -> Vec<&str> {
        let code = format!(" code={code} ");
        let refused = log
            .lines()
            .filter(|line| line.contains("sender is refused"));
        refused.filter(|line| line.contains(&code)).collect()
    };
    // The first refusal at once, and the summary of the others at the end.
    let unknown = told("404");
    assert_eq!(unknown.len(), 2, "{log}");
    assert!(unknown[0].contains("/api/v2/write") && unknown[0].contains("suppressed=0"));
    assert!(unknown[1].contains("/api/v4/write") && unknown[1].contains("suppressed=1"));
    for code in ["401", "415", "400"] {
        let lines = told(code);
        assert_eq!(lines.len(), 1, "{code}: {log}");
        assert!(lines[0].contains("WARN") && lines[0].contains("component=\"ingest\""));
        assert!(lines[0].contains("peer=127.0.0.1"), "{lines:?}");
    }
    assert!(!log.contains("Bearer"), "{log}");
}

#[test]
fn an_endpoint_that_fails_is_shown_as_failing_and_its_error_as_over_when_it_is_back() {
    let endpoint = Endpoint::healthy();
    let keys = "required = false";
    let child = Metrifold::start(&(ingest("") + &sink("out", "ingest", &endpoint.url(), keys)));
    let mut sender = Sender::new(child.ingest);
    for time in 1..=5 {
        expect(&sender.write(&up(time)), 204);
    }
    until_so("there is a rate", || endpoint.accepted().len() == 5);
    endpoint.now(|_| 503);
    let shown = || {
        let topology = child.get("/api/v1/topology").json();
        let components = topology["components"].as_array().unwrap().clone();
        components.into_iter().find(|it| it["id"] == "out").unwrap()
    };
    expect(&sender.write(&up(6)), 204);
    until_so("it is seen to fail", || shown()["failing_seconds"].is_f64());
    let out = shown();
    assert!(out["last_error"]["text"].as_str().unwrap().contains("503"));
    assert!(out["last_error"]["over"].is_null(), "{out}");
    assert_eq!(out["waiting"]["samples"], 1, "{out}");
    let failing = |child: &Metrifold| child.metric("metrifold_sink_failing_seconds", &[]);
    until_so("so do metrics", || failing(&child) > 0.0);
    // The rate from before the failure is no basis for a drain time.
    assert!(
        child
            .metric("metrifold_ledger_drain_seconds", &[])
            .is_infinite()
    );
    let address = child.api.to_string();
    let ledger = run(&mut cli(&["ledger", "--address", &address])).stdout;
    let ledger = String::from_utf8(ledger).unwrap();
    assert!(
        ledger.contains("the endpoint has been failing for"),
        "{ledger}"
    );
    assert!(!ledger.contains("drained in about"), "{ledger}");

    endpoint.now(|_| 204);
    until_so("it is back", || shown()["failing_seconds"].is_null());
    let out = shown();
    assert!(out["last_error"]["over"].is_u64(), "{out}");
    assert_eq!(failing(&child), 0.0);
}

#[test]
fn readiness_is_gone_from_the_moment_in_which_the_process_is_to_end() {
    let endpoint = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let keys = "required = false";
    let mut child = Metrifold::start(&(ingest("") + &sink("out", "ingest", &endpoint.url(), keys)));
    expect(&Sender::new(child.ingest).write(&up(1)), 204);
    endpoint.wait_requests(1);
    assert_eq!(child.get("/-/ready").status, 200);
    child.signal("TERM");
    child.until_logged("shutting down");
    let ready = fetch(child.api, "/-/ready").unwrap();
    assert_eq!(
        (ready.status, ready.text()),
        (503, "shutting down".to_owned())
    );
    assert_eq!(child.get("/-/healthy").status, 200);
    endpoint.release();
    assert!(child.wait().success(), "{}", child.log());
}

#[test]
fn nobody_says_that_everything_was_delivered_when_something_was_dropped_in_the_end() {
    let keys = "required = false\nconnections = 1";
    let refusing = Endpoint::new(|_| Does::Hang(Reply::new(400)));
    let config = ingest("") + &sink("out", "ingest", &refusing.url(), keys);
    let mut child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=2 {
        expect(&sender.write(&up(time)), 204);
    }
    refusing.wait_requests(1);
    child.signal("TERM");
    child.until_logged("shutting down");
    refusing.release();
    assert!(child.wait().success(), "{}", child.log());
    ended_without(&child.log(), "refused");

    let slow = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let source = ingest("acknowledge_timeout = \"1s\"");
    let config = source + &sink("out", "ingest", &slow.url(), "connections = 1");
    let mut child = Metrifold::start(&config);
    let ingest = child.ingest;
    let waiting =
        [1, 2].map(|time| std::thread::spawn(move || Sender::new(ingest).write(&up(time)).status));
    until_so("both are there", || {
        let name = "metrifold_ledger_received_batches_total";
        child.metric(name, &[]) == 2.0
    });
    slow.wait_requests(1);
    child.signal("TERM");
    child.until_logged("shutting down");
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap(), 503);
    }
    slow.release();
    assert!(child.wait().success(), "{}", child.log());
    ended_without(&child.log(), "abandoned");
}

#[track_caller]
fn ended_without(log: &str, reason: &str) {
    let mut lines = log.lines();
    let reason = format!("reason=\"{reason}\"");
    let told = |line: &str| line.contains("dropped during the shutdown") && line.contains(&reason);
    assert!(lines.any(told), "{log}");
    assert!(!log.contains("everything was delivered"), "{log}");
    assert!(log.contains("were not delivered"), "{log}");
}

#[test]
fn what_can_be_saved_at_the_end_is_saved_before_anything_is_waited_for() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(204)));
    let away = Endpoint::new(|_| 503);
    // No sink is known to fail yet, and nothing is stored before the shutdown.
    let disk = "required = false\nconnections = 1\n\
        queue = { type = \"disk\", store_after = \"10s\" }";
    let config = format!(
        "data_dir = \"data\"\n{}{}{}{}",
        ingest("acknowledge = \"delivered\""),
        sink("kept", "ingest", &hanging.url(), disk),
        sink("lost", "ingest", &away.url(), "required = false"),
        sink("slow", "ingest", &hanging.url(), ""),
    );
    let mut child = Metrifold::start_with(&config, &["--shutdown-limit", "1s"]);
    let ingest = child.ingest;
    // The sender waits for `slow` for longer than the shutdown lasts.
    let waiting = std::thread::spawn(move || Sender::new(ingest).write(&up(1)).status);
    hanging.wait_requests(2);
    until_so("one of them is seen to fail", || {
        child.metric("metrifold_sink_failing_seconds", &[]) > 0.0
    });
    assert_eq!(child.terminate().code(), Some(1), "{}", child.log());
    assert_eq!(waiting.join().unwrap(), 503);
    let log = child.log();
    let line = |what: &str, sink: &str| {
        let mut lines = log.lines();
        let sink = format!("sink={sink} ");
        lines.any(|line| line.contains(what) && line.contains(&sink))
    };
    assert!(
        line("endpoint is failing: batches in memory are dropped", "lost"),
        "{log}"
    );
    assert!(line("left undelivered", "lost"), "{log}");
    assert!(line("undelivered batches stay on disk", "kept"), "{log}");
    assert!(!line("left undelivered", "kept"), "{log}");
    hanging.release();
}

/// Lines of a log with this text.
fn lines<'a>(log: &'a str, text: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(text)).collect()
}

/// Sum of a numeric field over log lines.
fn sum(lines: &[&str], field: &str) -> u64 {
    let number = |line: &&str| -> u64 {
        let (_, rest) = line.split_once(field).unwrap();
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    };
    lines.iter().map(number).sum()
}

#[test]
fn an_answer_that_is_not_about_the_content_is_told_with_what_to_do_until_the_end() {
    for (status, advice) in [
        (302, "name the new URL in endpoint"),
        (307, "name the new URL in endpoint"),
        (401, "check the sink's credentials"),
        (403, "check the sink's credentials"),
        (404, "check the path in endpoint"),
        (405, "check the path in endpoint"),
        (407, "check proxy_url"),
        (410, "check the path in endpoint"),
    ] {
        let endpoint = Endpoint::new(move |_| status);
        let mut child =
            Metrifold::start(&(ingest("") + &sink("out", "ingest", &endpoint.url(), "")));
        let sender = std::thread::spawn({
            let ingest = child.ingest;
            move || Sender::new(ingest).write(&up(1))
        });
        let since = Instant::now();
        until_so("it is refused for more than a second", || {
            endpoint.count() > 3 && since.elapsed() > Duration::from_millis(1500)
        });
        endpoint.now(|_| 204);
        expect(&sender.join().unwrap(), 204);
        child.until_logged("endpoint is back after ");
        child.signal("TERM");
        assert_eq!(child.wait().code(), Some(0), "{status}");
        let refused = endpoint.seen().iter().filter(|seen| !seen.accepted).count();
        let log = child.log();
        let kept = lines(&log, "attempt failed: the batch is kept and tried again");
        for line in &kept {
            let status = status.to_string();
            for told in [" WARN ", "sink=out", &status, advice] {
                assert!(line.contains(told), "{told}: {line}");
            }
        }
        // What was held back is told when the sink ends.
        let told = kept.len() as u64 + sum(&kept, "suppressed=");
        assert_eq!(told, refused as u64, "{log}");
        assert_eq!(lines(&log, "data is lost"), [""; 0], "{log}");
    }
}

#[test]
fn every_sample_that_is_lost_is_in_the_log_by_its_reason() {
    let endpoint = Endpoint::new(|_| 401);
    let keys = "retry = { statuses = { 401 = \"refuse\", 404 = \"refuse\" } }";
    let mut child = Metrifold::start(&(ingest("") + &sink("out", "ingest", &endpoint.url(), keys)));
    let mut sender = Sender::new(child.ingest);
    for (status, reason) in [(401, "unauthorized"), (404, "refused")] {
        endpoint.now(move |_| status);
        for time in 1..=20 {
            expect(&sender.write(&up(time)), 400);
        }
        let log = child.log();
        let first = lines(&log, &format!("reason=\"{reason}\""));
        assert_eq!(first.len(), 1, "not held back by another reason: {log}");
        for told in [
            "ERROR",
            "sink=out",
            "samples=1 ",
            "retry.statuses",
            "data is lost",
        ] {
            assert!(first[0].contains(told), "{told}: {}", first[0]);
        }
    }
    child.signal("TERM");
    child.wait();
    let log = child.log();
    for reason in ["unauthorized", "refused"] {
        let lost = lines(&log, &format!("reason=\"{reason}\""));
        assert_eq!(sum(&lost, " samples="), 20, "{log}");
        assert_eq!(lost.len() as u64 + sum(&lost, "suppressed="), 20, "{log}");
    }
}

#[test]
fn what_a_full_queue_drops_is_lost_in_the_log_as_well() {
    for queue in [
        "max_bytes = \"64KiB\"",
        "max_bytes = \"64KiB\", when_full = \"drop_newest\"",
        "type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\"",
        "type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\", when_full = \"drop_newest\"",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::new(|_| 503);
        let keys = format!("required = false\nqueue = {{ {queue} }}");
        let data = format!("data_dir = {:?}\n", folder.path());
        let config = data + &ingest("") + &sink("out", "ingest", &endpoint.url(), &keys);
        let mut child = Metrifold::start(&config);
        let mut sender = Sender::new(child.ingest);
        for time in 1..=100_i64 {
            let mut random = Random(time as u64);
            let words = (0..512).map(|_| format!("{:016x}", random.number()));
            let series = Series::new("up", &[(time, 1.0)]).label("x", &words.collect::<String>());
            expect(&sender.write(&body(&[series])), 204);
        }
        until_so("the loss is told before anybody asks", || {
            child.log().contains("data is lost")
        });
        let dropped = || {
            let labels = [("reason", "queue_full")];
            child.metric("metrifold_ledger_dropped_samples_total", &labels) as u64
        };
        endpoint.now(|_| 204);
        until_so("the rest arrives", || {
            child.metric("metrifold_ledger_queued_samples", &[]) == 0.0
        });
        let dropped = dropped();
        assert!(dropped > 10, "{queue}: {dropped}");
        child.signal("TERM");
        child.wait();
        let log = child.log();
        let lost = lines(&log, "reason=\"queue_full\"");
        for told in ["ERROR", "sink=out", "queue.max_bytes", "data is lost"] {
            assert!(lost[0].contains(told), "{told}: {}", lost[0]);
        }
        // What made room while it was in flight may have been delivered after all.
        let told = sum(&lost, " samples=");
        assert!(
            (dropped..=dropped + 8).contains(&told),
            "{queue}: {dropped}, {log}"
        );
    }
}

#[test]
fn no_failure_is_told_after_the_recovery_that_ended_it() {
    let endpoint = Endpoint::new(|_| 503);
    let keys = "retry = { max_backoff = \"50ms\" }";
    let mut child = Metrifold::start(&(ingest("") + &sink("out", "ingest", &endpoint.url(), keys)));
    let mut sender = Sender::new(child.ingest);
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| sender.write(&up(1)));
        std::thread::sleep(Duration::from_millis(1500));
        endpoint.now(|_| 204);
        expect(&answer.join().unwrap(), 204);
    });
    child.signal("TERM");
    child.wait();
    let log = child.log();
    let place = |what: &str| log.rfind(what).unwrap_or_else(|| panic!("{what} in {log}"));
    assert!(place("attempt failed") < place("endpoint is back"), "{log}");
    let failures = lines(&log, "attempt failed");
    assert!(
        failures.len() == 2 && sum(&failures, "suppressed=") > 0,
        "{log}"
    );
}
