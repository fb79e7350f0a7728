//! A sink that a reload changes hands over its batches; a removed one delivers them, or reports
//! them lost.
//!
//! Each scenario drives a topology in this process, with senders and endpoints on real sockets.

use std::time::Duration;

use metrifold_testing::config::{OPTIONAL, sink, source};
use metrifold_testing::{
    Endpoint, Reply, Sender, body, expect, fetch, free_address, hanging, nobody, one, until_so, up,
    ups, write,
};

use crate::in_process::Live;

/// A request of 3,000 series; a few of them fill a small queue.
fn large(time: i64) -> Vec<u8> {
    let names = (0..3000).map(|n| one(&format!("m{n:05}-{time}-{}", n * 7919), time));
    body(&names.collect::<Vec<_>>())
}

/// Gives an optional sink with a failing endpoint another one: its batches arrive there, in order
/// and once.
#[track_caller]
fn moves_on_from(trouble: &Endpoint, url: &str, limit: Duration) {
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let config = |url: &str| source("a", address, "") + &sink("z", "a", url, OPTIONAL);
    let mut live = Live::start(&config(url));
    live.limit = limit;
    let mut sender = Sender::new(address);
    for time in 1..=20 {
        expect(&sender.write(&up(time)), 204);
    }
    until_so("an attempt was made", || {
        trouble.count() > 0 || live.metric("metrifold_component_retries_total", &["z"]) > 0.0
    });
    let changes = live.reload(&config(&healthy.url()));
    assert_eq!(changes.to_string(), "changed sinks.z");
    for time in 21..=40 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(healthy.wait_accepted(40), ups(1..=40));
    assert_eq!(
        live.metric("metrifold_component_discarded_batches_total", &["z"]),
        0.0
    );
    assert_eq!(live.metric("metrifold_component_up", &["z"]), 1.0);
    assert_eq!(live.stop(), []);
}

#[test]
fn a_sink_moves_on_from_an_endpoint_that_is_dead() {
    let unused = Endpoint::healthy();
    moves_on_from(&unused, &nobody(), metrifold_testing::PATIENCE);
}

#[test]
fn a_sink_moves_on_from_an_endpoint_that_refuses_for_now() {
    let busy = Endpoint::new(|_| Reply::new(503).header("retry-after", 3600));
    moves_on_from(&busy, &busy.url(), metrifold_testing::PATIENCE);
}

#[test]
fn a_sink_moves_on_from_an_endpoint_that_hangs_once_the_limit_is_over() {
    let hanging = hanging();
    moves_on_from(&hanging, &hanging.url(), Duration::from_millis(100));
}

#[test]
fn a_request_that_was_under_way_when_its_sink_changed_counts_if_it_is_answered() {
    let (address, old, new) = (free_address(), hanging(), Endpoint::healthy());
    let keys = format!("{OPTIONAL}\nmerge_bytes = \"0B\"");
    let config = |url: &str| source("a", address, "") + &sink("z", "a", url, &keys);
    let mut live = Live::start(&config(&old.url()));
    let mut sender = Sender::new(address);
    for time in 1..=5 {
        expect(&sender.write(&up(time)), 204);
    }
    old.wait_requests(1);
    live.reload(&config(&new.url()));
    old.release();
    assert_eq!(new.wait_accepted(4), ups(2..=5));
    assert_eq!(old.accepted(), ups([1]));
    assert_eq!(live.stop(), []);
    assert_eq!(new.accepted(), ups(2..=5));
}

#[test]
fn the_sender_of_a_batch_that_a_successor_delivers_hears_that_it_was_delivered() {
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let config = |url: &str| source("a", address, "") + &sink("z", "a", url, "");
    let mut live = Live::start(&config(&nobody()));
    let waiting = [1, 2, 3].map(|time| write(address, time));
    until_so("all of them wait", || {
        live.metric("metrifold_component_received_batches_total", &["z"]) == 3.0
    });
    live.reload(&config(&healthy.url()));
    for waiting in waiting {
        expect(&waiting.join().unwrap(), 204);
    }
    let mut accepted = healthy.accepted();
    accepted.sort();
    assert_eq!(accepted, ups(1..=3));
    assert_eq!(live.stop(), []);
}

#[test]
fn whoever_waits_for_room_in_a_queue_gets_it_from_the_successor() {
    let (address, hanging, healthy) = (free_address(), hanging(), Endpoint::healthy());
    let config = |url: &str| {
        let keys = "queue = { max_bytes = \"64KiB\" }\nconnections = 1";
        source("a", address, "") + &sink("z", "a", url, keys)
    };
    let mut live = Live::start(&config(&hanging.url()));
    live.limit = Duration::from_millis(100);
    let waiting: Vec<_> = (1..=6)
        .map(|time| {
            let body = large(time);
            std::thread::spawn(move || Sender::new(address).write(&body))
        })
        .collect();
    until_so("all of them wait, some for room", || {
        live.metric("metrifold_component_received_batches_total", &["z"]) == 6.0
    });
    let queued = live.metric("metrifold_queue_batches", &["z"]);
    assert!(queued < 5.0, "{queued} batches fit into the queue");
    live.reload(&config(&healthy.url()));
    for waiting in waiting {
        expect(&waiting.join().unwrap(), 204);
    }
    assert_eq!(healthy.accepted().len(), 6 * 3000);
    assert_eq!(live.stop(), []);
}

#[test]
fn a_queue_that_is_given_other_bounds_keeps_what_it_holds() {
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let config = |url: &str, queue: &str| {
        let keys = format!("{OPTIONAL}\nqueue = {{ {queue} }}");
        source("a", address, "") + &sink("z", "a", url, &keys)
    };
    let dead = nobody();
    let mut live = Live::start(&config(&dead, "when_full = \"drop_oldest\""));
    let mut sender = Sender::new(address);
    for time in 1..=6 {
        expect(&sender.write(&large(time)), 204);
    }
    // Less than it holds, and with a policy that refuses new batches.
    let small = "max_bytes = \"64KiB\", when_full = \"drop_newest\"";
    live.reload(&config(&dead, small));
    expect(&sender.write(&large(7)), 204);
    until_so("what comes above the bound is dropped", || {
        let dropped = ["z", "queue_full"];
        live.metric("metrifold_component_discarded_batches_total", &dropped) == 1.0
    });
    live.reload(&config(&healthy.url(), small));
    let times: Vec<i64> = healthy
        .wait_accepted(6 * 3000)
        .iter()
        .map(|(_, time)| *time)
        .collect();
    assert!(times.is_sorted());
    assert_eq!((times.len(), times.last()), (6 * 3000, Some(&6)));
    assert_eq!(live.stop(), []);
}

#[test]
fn a_sink_that_becomes_another_type_delivers_what_the_former_one_held() {
    let (address, page, healthy) = (free_address(), free_address(), Endpoint::healthy());
    let start = source("a", address, "") + &sink("z", "a", &nobody(), OPTIONAL);
    let mut live = Live::start(&start);
    let mut sender = Sender::new(address);
    for time in 1..=3 {
        expect(&sender.write(&up(time)), 204);
    }
    let thanos = |url: &str| {
        start
            .replace("\"remote_write\"\ninputs", "\"thanos\"\ninputs")
            .replace("endpoint = ", &format!("endpoint = \"{url}\" #"))
    };
    let changes = live.reload(&thanos(&healthy.url()));
    assert_eq!(changes.to_string(), "changed sinks.z");
    assert_eq!(healthy.wait_accepted(3), ups(1..=3));
    until_so("the former sink is gone from the metrics", || {
        let page = live.page();
        let of_the_sink = page.lines().filter(|line| line.contains("\"z\""));
        let mut types = of_the_sink.filter(|line| line.contains("component_type"));
        types.all(|line| line.contains("\"thanos\""))
    });
    live.reload(&start);
    for time in 4..=6 {
        expect(&sender.write(&up(time)), 204);
    }
    live.reload(&format!(
        "{}[sinks.z]\ntype = \"prometheus_exporter\"\ninputs = [\"a\"]\naddress = \"{page}\"\n",
        source("a", address, "")
    ));
    until_so("the page shows the last value", || {
        fetch(page, "/metrics").is_ok_and(|answer| answer.text().contains("up 6"))
    });
    assert_eq!(live.stop(), []);
}

#[test]
fn a_sink_that_is_removed_delivers_what_it_holds() {
    let (address, slow, other) = (free_address(), hanging(), Endpoint::healthy());
    let without = source("a", address, "") + &sink("other", "a", &other.url(), "");
    let mut live = Live::start(&(without.clone() + &sink("z", "a", &slow.url(), OPTIONAL)));
    let mut sender = Sender::new(address);
    for time in 1..=10 {
        expect(&sender.write(&up(time)), 204);
    }
    slow.wait_requests(1);
    assert_eq!(live.reload(&without).to_string(), "removed sinks.z");
    expect(&sender.write(&up(11)), 204);
    assert!(live.shows("z"), "it still drains");
    slow.release();
    assert_eq!(slow.wait_accepted(10), ups(1..=10));
    until_so("its metrics are gone", || !live.shows("z"));
    assert_eq!(live.stop(), []);
    assert_eq!(slow.accepted(), ups(1..=10));
}

#[test]
fn a_sink_that_is_removed_gives_up_after_the_limit_and_its_senders_try_again() {
    let (address, other) = (free_address(), Endpoint::healthy());
    let without = source("a", address, "") + &sink("other", "a", &other.url(), "");
    let mut live = Live::start(&(without.clone() + &sink("z", "a", &nobody(), "")));
    live.limit = Duration::from_millis(100);
    let waiting = write(address, 1);
    until_so("it waits", || {
        live.metric("metrifold_component_received_batches_total", &["z"]) == 1.0
    });
    live.reload(&without);
    let answer = waiting.join().unwrap();
    expect(&answer, 503);
    assert!(answer.text().contains("z: "), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    expect(&Sender::new(address).write(&up(1)), 204);
    until_so("its metrics are gone", || !live.shows("z"));
    assert_eq!(live.stop(), []);
}
