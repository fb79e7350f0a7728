//! The memory of the process: which requests are refused when it is short, which never are, and
//! that it stays below its limit under a flood.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use metrifold_testing::config::{OPTIONAL, sink, source};
use metrifold_testing::{
    Endpoint, Metrifold, Random, Sender, Series, body, compress, expect, free_address, hanging,
    nobody, until_so, up, write,
};

use crate::in_process::Live;

/// A request of about `bytes` bytes that does not compress.
fn bulky(bytes: usize, random: &mut Random) -> Vec<u8> {
    let series = (0..bytes / 400).map(|n| {
        let value: String = (0..400)
            .map(|_| char::from(33 + (random.below(90)) as u8))
            .collect();
        Series::new("bulky", &[(n as i64, 1.0)]).label("value", &value)
    });
    body(&series.collect::<Vec<_>>())
}

#[test]
fn a_flood_stays_below_the_limit_and_leaves_no_trace() {
    const LIMIT: u64 = 224;
    let (folder, gone) = (tempfile::tempdir().unwrap(), nobody());
    let (dead, disk) = (free_address(), free_address());
    let request = "max_body_bytes = \"4MiB\"\nmax_decoded_bytes = \"8MiB\"\nmax_in_flight_bytes = \"128MiB\"\nacknowledge_timeout = \"1s\"";
    let config = format!(
        "data_dir = {:?}\nmemory_limit = \"{LIMIT}MiB\"\n{}{}{}{}{}",
        folder.path(),
        source("dead", dead, request),
        source("disk", disk, request),
        sink("memory", "dead", &gone, "queue = { max_bytes = \"16MiB\" }"),
        sink(
            "copy",
            "d*",
            &gone,
            &format!("{OPTIONAL}\nqueue = {{ max_bytes = \"16MiB\" }}")
        ),
        sink(
            "disk_queue",
            "disk",
            &gone,
            "queue = { type = \"disk\", max_bytes = \"64MiB\", memory_bytes = \"8MiB\" }"
        ),
    );
    let child = Metrifold::start(&config);
    let body = Arc::new(bulky(2 << 20, &mut Random(7)));
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..24)
        .map(|n| {
            let (body, stop) = (body.clone(), stop.clone());
            let address = if n % 2 == 0 { dead } else { disk };
            std::thread::spawn(move || {
                let mut refused = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = Sender::new(address).write(&body);
                    match answer.status {
                        204 => assert_eq!(address, disk, "nobody has it"),
                        503 => {
                            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                            assert!((1..=30).contains(&after), "{after}");
                            refused += 1;
                        }
                        status => panic!("{status}: {}", answer.text()),
                    }
                }
                refused
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(6);
    while Instant::now() < end {
        assert_eq!(child.get("/-/healthy").status, 200);
        assert_eq!(child.get("/-/ready").status, 200);
        assert_eq!(child.get("/metrics").status, 200);
        std::thread::sleep(Duration::from_millis(100));
    }
    stop.store(true, Ordering::Relaxed);
    let refused: u64 = senders.into_iter().map(|it| it.join().unwrap()).sum();
    let most = child.memory("VmHWM");
    let counted = child.metric("metrifold_source_refused_requests_total", &[]);
    println!("{refused} refused, {counted} of them for memory; at most {most} KiB");
    assert!(most < LIMIT << 10, "{most} KiB");
    assert!(counted > 0.0, "there was no shortage");
    until_so("nothing is in flight", || {
        child.metric("metrifold_in_flight_bytes", &[]) == 0.0
            && child.metric("metrifold_memory_requests_bytes", &[]) == 0.0
    });
    until_so("requests are taken again", || {
        Sender::new(disk).write(&up(1)).status == 204
    });
}

#[test]
fn all_sources_share_the_bound_of_the_process_and_a_reload_changes_it_at_once() {
    let (first, second) = (free_address(), free_address());
    let hanging = hanging();
    let request = "max_body_bytes = \"64KiB\"\nmax_decoded_bytes = \"64KiB\"";
    let config = |bound: &str| {
        format!(
            "max_in_flight_bytes = \"{bound}\"\n{}{}{}",
            source("a", first, request),
            source("b", second, request),
            sink("z", "[ab]", &hanging.url(), "").replace("[\"[ab]\"]", "[\"a\", \"b\"]")
        )
    };
    let mut live = Live::start(&config("128KiB"));
    let large = bulky(50 << 10, &mut Random(3));
    let send = |address| {
        let large = large.clone();
        std::thread::spawn(move || Sender::new(address).write(&large))
    };
    let waiting = send(first);
    hanging.wait_requests(1);
    let answer = Sender::new(second).write(&large);
    expect(&answer, 503);
    assert_eq!(answer.header("retry-after"), Some("1"));
    let shared = |reason| live.metric("metrifold_source_refused_requests_total", &["b", reason]);
    assert_eq!(shared("process") + shared("share"), 1.0);
    let changes = live.reload(&config("1MiB"));
    assert_eq!(changes.changed, ["max_in_flight_bytes"]);
    let other = send(second);
    hanging.wait_requests(2);
    hanging.release();
    expect(&waiting.join().unwrap(), 204);
    expect(&other.join().unwrap(), 204);
    until_so("nothing is in flight", || {
        live.metric("metrifold_in_flight_bytes", &[]) == 0.0
    });
}

#[test]
fn those_whom_nobody_promised_anything_are_refused_first() {
    let (promised, received, optional) = (free_address(), free_address(), free_address());
    let (hanging, healthy) = (hanging(), Endpoint::healthy());
    let request = "max_body_bytes = \"64KiB\"\nmax_decoded_bytes = \"64KiB\"";
    let config = format!(
        "max_in_flight_bytes = \"128KiB\"\n{}{}{}{}{}",
        source("promised", promised, request),
        source(
            "received",
            received,
            &format!("{request}\nacknowledge = \"received\"")
        ),
        source("optional", optional, request),
        sink("z", "promised", &hanging.url(), ""),
        sink("copy", "*ed", &healthy.url(), OPTIONAL)
            .replace("[\"*ed\"]", "[\"promised\", \"received\", \"optional\"]"),
    );
    let live = Live::start(&config);
    // Two requests of 40 KiB, compressed and decoded, take more than three quarters of the bound.
    let half = bulky(40 << 10, &mut Random(5));
    let small = bulky(12 << 10, &mut Random(6));
    let first = {
        let half = half.clone();
        std::thread::spawn(move || Sender::new(promised).write(&half))
    };
    hanging.wait_requests(1);
    for address in [received, optional] {
        expect(&Sender::new(address).write(&small), 503);
    }
    let another = std::thread::spawn(move || Sender::new(promised).write(&small));
    hanging.wait_requests(2);
    hanging.release();
    expect(&first.join().unwrap(), 204);
    expect(&another.join().unwrap(), 204);
    drop(live);
}

#[test]
fn an_optional_sink_has_no_say_in_when_to_come_again() {
    let (address, full) = (free_address(), nobody());
    let hanging = hanging();
    let keys = "acknowledge_timeout = \"300ms\"";
    let optional = format!("{OPTIONAL}\nqueue = {{ max_bytes = \"64KiB\" }}");
    let config = |queue: &str| {
        source("a", address, keys)
            + &sink("z", "a", &hanging.url(), queue)
            + &sink("copy", "a", &full, &optional)
    };
    let mut live = Live::start(&config(""));
    let large = bulky(60 << 10, &mut Random(9));
    let answer = Sender::new(address).write(&large);
    expect(&answer, 503);
    assert_eq!(
        answer.header("retry-after"),
        Some("1"),
        "the required sink's queue is all but empty"
    );
    live.reload(&config("queue = { max_bytes = \"64KiB\" }"));
    let answer = Sender::new(address).write(&large);
    expect(&answer, 503);
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(after > 10, "{after}: it is full and nothing leaves it");
    let waiting = write(address, 1);
    hanging.release();
    waiting.join().unwrap();
}

#[test]
fn a_request_of_too_many_series_is_refused_by_name_and_before_it_is_worked_on() {
    let (checked, counted, edited) = (free_address(), free_address(), free_address());
    let healthy = Endpoint::healthy();
    let config = format!(
        "{}{}{}{}{}",
        source("checked", checked, "check_series = true"),
        source("counted", counted, "count_samples = true"),
        source("edited", edited, ""),
        "[transforms.t]\ntype = \"relabel\"\ninputs = [\"edited\"]\nrules = [{ regex = \"x\", action = \"labeldrop\" }]\n",
        sink("z", "ZZ", &healthy.url(), "")
            .replace("[\"ZZ\"]", "[\"checked\", \"counted\", \"t\"]"),
    );
    let child = Metrifold::start(&config);
    // As many empty series as a decoded body may hold, in a few megabytes.
    let empty = [0x0a, 0].repeat(64 << 20);
    let body = compress(&empty);
    assert!(body.len() < 8 << 20, "{}", body.len());
    let before = child.memory("VmHWM");
    for address in [checked, counted, edited] {
        let answer = Sender::new(address).write(&body);
        expect(&answer, 413);
        let text = answer.text();
        assert!(
            text.contains("500000 series (max_series_per_request)"),
            "{text}"
        );
        expect(&Sender::new(address).write(&up(1)), 204);
    }
    // The body and its decoded form, and hardly anything else.
    let grown = child.memory("VmHWM").saturating_sub(before) >> 10;
    assert!(grown < 400, "{grown} MiB");
}

#[test]
fn callers_leave_descriptors_to_files_and_those_who_do_nothing_keep_nobody_out() {
    let healthy = Endpoint::healthy();
    let config = format!(
        "{}{}",
        "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n",
        sink("z", "a", &healthy.url(), ""),
    );
    // Soft and hard limit: it cannot be raised.
    let child = Metrifold::start_after("ulimit -n 200", &config);
    let silent = |address| -> Vec<_> {
        let open = |_| std::net::TcpStream::connect(address).unwrap();
        (0..400).map(open).collect()
    };
    let _silent = [silent(child.ingest), silent(child.api)];
    for _ in 0..10 {
        assert_eq!(child.get("/-/healthy").status, 200);
        expect(&Sender::new(child.ingest).write(&up(1)), 204);
    }
    assert!(child.listed("fd") < 150, "{}", child.listed("fd"));
    let log = child.log();
    assert!(!log.contains("cannot accept"), "{log}");
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_and_too_many_connections_are_refused() {
    let config = |keys: &str| {
        format!(
            "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n{keys}\n[sinks.z]\ntype = \"blackhole\"\ninputs = [\"a\"]\n"
        )
    };
    let child = Metrifold::start_after("ulimit -Sn 100; ulimit -Hn 2000", &config(""));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["2000", "2000"]);
    let _fits = Metrifold::start_after("ulimit -n 200", &config("max_connections = 150"));
    let mut refused = Metrifold::spawn_after("ulimit -n 200", &config("max_connections = 151"));
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.log();
    assert!(
        log.contains("max_connections = 151 leaves too few of the 200"),
        "{log}"
    );
}

#[test]
fn callers_that_come_at_once_and_in_great_number_are_all_answered() {
    let child = Metrifold::start(
        "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\nmax_connections = 64\n[sinks.z]\ntype = \"blackhole\"\ninputs = [\"a\"]\n",
    );
    let body = up(1);
    let send = |_| {
        let mut sender = Sender::new(child.ingest);
        sender.begin("/api/v1/write", &[], &body).unwrap();
        sender
    };
    // All requests are sent before the first answer is read.
    let mut senders: Vec<_> = (0..600).map(send).collect();
    for (n, sender) in senders.iter_mut().enumerate() {
        let answer = sender
            .read()
            .unwrap_or_else(|error| panic!("sender {n}: {error}"));
        assert_eq!(answer.status, 204, "sender {n}: {}", answer.text());
    }
}
