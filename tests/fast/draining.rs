//! A backlog of small batches is sent in few requests, in order.

use std::path::Path;

use metrifold_testing::config::{sink, source};
use metrifold_testing::{
    Does, Endpoint, Reply, Sender, body, body_v2, expect, free_address, nobody, one, protobuf,
    until_so, up, ups,
};

use crate::in_process::Live;

fn data_dir(folder: &Path) -> String {
    format!("data_dir = {folder:?}\n")
}

/// Lets a sink with an unreachable endpoint store requests, then restarts it with `endpoint`.
fn drained(endpoint: &Endpoint, keys: &str, write: impl Fn(&mut Sender)) {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let config = |url: &str| {
        let keys = format!("queue = {{ type = \"disk\" }}\n{keys}");
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", url, &keys)
    };
    let live = Live::start(&config(&nobody()));
    write(&mut Sender::new(address));
    let queued = live.metric("metrifold_queue_disk_batches", &["z"]);
    assert_eq!(live.stop(), []);
    let live = Live::start(&config(&endpoint.url()));
    until_so("all of it is done", || {
        live.metric("metrifold_queue_disk_batches", &["z"]) == 0.0
    });
    let ledgers = live.running().telemetry().ledgers();
    let total = &ledgers[0].ledger.total.account;
    let lost: u64 = total.dropped.values().map(|tally| tally.batches).sum();
    let done = total.delivered.batches + lost;
    assert_eq!(done as f64, queued, "all batches are accounted for");
    drop(live);
}

#[test]
fn small_batches_share_requests() {
    // Records are read into memory in groups of at most 1,024, which is also the bound of a
    // request.
    for (batches, requests) in [(500, 1), (2500, 3)] {
        let endpoint = Endpoint::healthy();
        drained(&endpoint, "", |sender| {
            for time in 1..=batches {
                expect(&sender.write(&up(time)), 204);
            }
        });
        assert_eq!(endpoint.accepted(), ups(1..=batches));
        assert_eq!(endpoint.count(), requests);
    }
}

#[test]
fn nothing_is_merged_if_that_is_not_wanted() {
    let endpoint = Endpoint::healthy();
    drained(&endpoint, "merge_bytes = \"0B\"", |sender| {
        for time in 1..=50 {
            expect(&sender.write(&up(time)), 204);
        }
    });
    assert_eq!(endpoint.accepted(), ups(1..=50));
    assert_eq!(endpoint.count(), 50);
}

#[test]
fn a_request_is_no_larger_than_it_may_be() {
    let endpoint = Endpoint::healthy();
    let text = "x".repeat(4 << 10);
    let large = |time| [one("up", time).label("text", &text)];
    let keys = format!("merge_bytes = \"{}B\"", 10 * protobuf(&large(1)).len());
    drained(&endpoint, &keys, |sender| {
        for time in 1..=100 {
            expect(&sender.write(&body(&large(time))), 204);
        }
    });
    assert_eq!(endpoint.accepted(), ups(1..=100));
    let most = endpoint.seen().iter().map(|seen| seen.series().len()).max();
    assert!(most.is_some_and(|most| most > 1 && most <= 10), "{most:?}");
}

#[test]
fn an_endpoint_that_finds_requests_too_large_gets_smaller_ones() {
    let endpoint = Endpoint::new(|seen| match seen.series().len() {
        0..=7 => 204,
        _ => 413,
    });
    drained(&endpoint, "", |sender| {
        for time in 1..=200 {
            expect(&sender.write(&up(time)), 204);
        }
    });
    assert_eq!(endpoint.accepted(), ups(1..=200));
    let refused = endpoint.count() - endpoint.seen().iter().filter(|it| it.accepted).count();
    assert!(refused < 30, "it learns: {refused} requests were too large");
}

#[test]
fn one_bad_batch_costs_the_others_of_a_request_nothing() {
    let endpoint = Endpoint::new(|seen| {
        let bad = seen.series().iter().any(|series| series.name() == "bad");
        if bad { 400 } else { 204 }
    });
    drained(&endpoint, "", |sender| {
        for time in 1..=30 {
            expect(&sender.write(&up(time)), 204);
            if time == 17 {
                let mixed = body(&[one("good", 17), one("bad", 17)]);
                expect(&sender.write(&mixed), 204);
            }
        }
    });
    let mut accepted = endpoint.accepted();
    accepted.retain(|(name, _)| name == "up");
    assert_eq!(accepted, ups(1..=30), "once each");
    let good = |it: &&(String, i64)| it.0 == "good";
    assert_eq!(endpoint.accepted().iter().filter(good).count(), 1);
}

#[test]
fn a_merged_request_that_fails_comes_again_whole_and_in_order() {
    let endpoint = Endpoint::new(|seen| match seen.order % 3 {
        0 => Does::from(503),
        1 => Does::Close,
        _ => Does::from(204),
    });
    drained(&endpoint, "merge_bytes = \"1KiB\"", |sender| {
        for time in 1..=300 {
            expect(&sender.write(&up(time)), 204);
        }
    });
    assert_eq!(endpoint.accepted(), ups(1..=300));
}

#[test]
fn remote_write_2_0_is_sent_as_it_came() {
    let endpoint = Endpoint::new(|seen| Reply::written(seen.series().len() as u64));
    drained(&endpoint, "", |sender| {
        for time in 1..=40 {
            expect(&sender.write_v2(&body_v2(&[one("up", time)])), 204);
        }
    });
    assert_eq!(endpoint.accepted(), ups(1..=40));
    assert_eq!(endpoint.count(), 40);
}

#[test]
fn what_is_sent_one_by_one_keeps_its_order_through_failures() {
    let endpoint = Endpoint::new(|seen| match seen.order % 3 {
        0 => Reply::new(503),
        1 => Reply::new(429),
        _ => Reply::written(seen.series().len() as u64),
    });
    drained(&endpoint, "", |sender| {
        for time in 1..=60 {
            expect(&sender.write_v2(&body_v2(&[one("up", time)])), 204);
        }
    });
    assert_eq!(endpoint.accepted(), ups(1..=60));
}
