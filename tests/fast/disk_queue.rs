//! Sinks with a queue on disk: acknowledged data survives, in order, failures of the endpoint and
//! of the process.

use std::path::Path;
use std::time::Duration;

use metrifold_testing::config::{OPTIONAL, sink, source};
use metrifold_testing::{
    Endpoint, Reply, Sender, expect, free_address, hanging, nobody, until, until_so, up, ups, write,
};

use crate::in_process::Live;

const DISK: &str = "queue = { type = \"disk\", max_bytes = \"8MiB\" }";

fn data_dir(folder: &Path) -> String {
    format!("data_dir = {folder:?}\n")
}

/// A sink's ledger: received, delivered, dropped and queued samples, or batches where samples were
/// not counted.
fn ledger(live: &Live, id: &str) -> [u64; 4] {
    let total = until("nothing moves", || {
        let ledgers = live.running().telemetry().ledgers();
        let found = ledgers.into_iter().find(|it| &*it.sink == id).unwrap();
        found.ledger.balances().then_some(found.ledger.total)
    });
    let account = &total.account;
    let dropped: u64 = account.dropped.values().map(|tally| tally.batches).sum();
    let (received, delivered) = (account.received.batches, account.delivered.batches);
    [received, delivered, dropped, total.queued.batches]
}

#[test]
fn a_sender_is_answered_though_the_endpoint_is_gone_and_a_restart_delivers_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let config = |url: &str| {
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", url, DISK)
    };
    let live = Live::start(&config(&nobody()));
    let mut sender = Sender::new(address);
    for time in 1..=50 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(ledger(&live, "z"), [50, 0, 0, 50]);
    assert_eq!(live.stop(), [], "nothing is lost");
    let live = Live::start(&config(&healthy.url()));
    let mut sender = Sender::new(address);
    for time in 51..=60 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(healthy.wait_accepted(60), ups(1..=60));
    until_so("all of it is done", || ledger(&live, "z") == [60, 60, 0, 0]);
    assert_eq!(live.stop(), []);
    let live = Live::start(&config(&healthy.url()));
    assert_eq!(healthy.accepted().len(), 60);
    drop(live);
}

#[test]
fn one_batch_alone_is_sent_once_its_endpoint_is_well_whatever_it_answered_before() {
    let statuses = [503, 500, 429];
    let endpoints = statuses.map(|status| Endpoint::new(move |_| status));
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    // With default keys, so that the pause between attempts is the usual one.
    let sinks = endpoints.iter().zip(statuses).map(|(endpoint, status)| {
        format!(
            "[sinks.z{status}]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{}\"\n{DISK}\n",
            endpoint.url()
        )
    });
    let text = data_dir(folder.path()) + &source("a", address, "") + &sinks.collect::<String>();
    let live = Live::start(&text);
    expect(&Sender::new(address).write(&up(1)), 204);
    let begun = std::time::Instant::now();
    until_so("the endpoints have refused it for 1.5 s", || {
        let asked = endpoints.iter().all(|endpoint| endpoint.count() > 0);
        asked && begun.elapsed().as_millis() >= 1500
    });
    for (endpoint, status) in endpoints.iter().zip(statuses) {
        endpoint.now(|_| 204);
        assert_eq!(endpoint.wait_accepted(1), ups(1..=1), "{status}");
    }
    for status in statuses {
        let id = format!("z{status}");
        until_so("it is done", || {
            live.metric("metrifold_queue_disk_batches", &[&*id]) == 0.0
        });
    }
}

/// None of these statuses is about the content: each comes from a proxy, a rollout or a changed
/// password, and passes.
#[test]
fn refusals_that_pass_cost_no_batch_that_was_acknowledged() {
    const BATCHES: i64 = 20;
    let statuses = [301, 307, 401, 403, 404, 405, 407, 408, 425];
    let endpoints = statuses.map(|status| Endpoint::new(move |_| status));
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let sinks = endpoints.iter().zip(statuses).map(|(endpoint, status)| {
        format!(
            "[sinks.z{status}]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{}\"\nmerge_bytes = \"0B\"\n{DISK}\n",
            endpoint.url()
        )
    });
    let text = data_dir(folder.path()) + &source("a", address, "") + &sinks.collect::<String>();
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    for time in 1..=BATCHES {
        expect(&sender.write(&up(time)), 204);
    }
    for (endpoint, status) in endpoints.iter().zip(statuses) {
        until_so(&format!("{status} was answered more than once"), || {
            endpoint.count() > 1
        });
    }
    for (endpoint, status) in endpoints.iter().zip(statuses) {
        endpoint.now(|_| 204);
        let accepted = endpoint.wait_accepted(BATCHES as usize);
        assert_eq!(accepted, ups(1..=BATCHES), "{status}");
        let id = format!("z{status}");
        let all = BATCHES as u64;
        until_so(&format!("the books of {id} are right"), || {
            ledger(&live, &id) == [all, all, 0, 0]
        });
    }
}

#[test]
fn a_healthy_endpoint_keeps_the_disk_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let slow = "queue = { type = \"disk\", store_after = \"10s\" }";
    let text =
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", &healthy.url(), slow);
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    for time in 1..=50 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(healthy.accepted(), ups(1..=50));
    assert_eq!(ledger(&live, "z"), [50, 50, 0, 0]);
    assert_eq!(
        live.metric("metrifold_queue_disk_fsyncs_total", &["z"]),
        0.0
    );
}

#[test]
fn a_sender_that_waits_for_delivery_is_not_answered_when_it_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (address, slow) = (free_address(), hanging());
    let text = data_dir(folder.path())
        + &source("a", address, "acknowledge = \"delivered\"")
        + &sink("z", "a", &slow.url(), DISK);
    let live = Live::start(&text);
    let waiting = write(address, 1);
    until_so("it is stored", || {
        live.metric("metrifold_queue_disk_batches", &["z"]) == 1.0
    });
    assert!(!waiting.is_finished());
    slow.release();
    expect(&waiting.join().unwrap(), 204);
}

#[test]
fn an_endpoint_that_hangs_delays_senders_until_their_batch_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (address, slow) = (free_address(), hanging());
    let text =
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", &slow.url(), DISK);
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    for time in 1..=5 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(slow.most_at_once(), 1, "of a lane, one is under way");
    slow.release();
    assert_eq!(slow.wait_accepted(5), ups(1..=5));
    drop(live);
}

#[test]
fn more_than_fits_into_memory_goes_through_the_disk_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let busy = Endpoint::new(|_| Reply::new(503));
    let address = free_address();
    let keys = "queue = { type = \"disk\", memory_bytes = \"64KiB\" }";
    let text =
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", &busy.url(), keys);
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    for time in 1..=2000 {
        expect(&sender.write(&up(time)), 204);
    }
    assert!(live.metric("metrifold_queue_bytes", &["z"]) < 80_000.0);
    busy.now(|_| Reply::new(204));
    for time in 2001..=2100 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(busy.wait_accepted(2100), ups(1..=2100));
    until_so("all of it is done", || {
        ledger(&live, "z") == [2100, 2100, 0, 0]
    });
}

#[test]
fn a_reload_hands_the_disk_over_and_back_to_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let config = |url: &str, keys: &str| {
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", url, keys)
    };
    let memory = "queue = { max_bytes = \"1MiB\" }";
    let received = |text: String| text.replace("[sinks", "acknowledge = \"received\"\n[sinks");
    let mut live = Live::start(&received(config(&nobody(), memory)));
    let mut sender = Sender::new(address);
    for time in 1..=10 {
        expect(&sender.write(&up(time)), 204);
    }
    live.reload(&received(config(&nobody(), DISK)));
    for time in 11..=20 {
        expect(&sender.write(&up(time)), 204);
    }
    until_so("all of it is on disk", || {
        live.metric("metrifold_queue_disk_batches", &["z"]) == 20.0
    });
    live.reload(&received(config(&nobody(), &DISK.replace("8MiB", "9MiB"))));
    for time in 21..=30 {
        expect(&sender.write(&up(time)), 204);
    }
    live.reload(&received(config(&healthy.url(), memory)));
    for time in 31..=40 {
        expect(&sender.write(&up(time)), 204);
    }
    assert_eq!(healthy.wait_accepted(40), ups(1..=40));
    until_so("all of it is done", || ledger(&live, "z") == [40, 40, 0, 0]);
    assert_eq!(live.stop(), []);
}

#[test]
fn a_sink_that_is_removed_leaves_its_files_for_when_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let other = Endpoint::healthy();
    let without =
        data_dir(folder.path()) + &source("a", address, "") + &sink("other", "a", &other.url(), "");
    let with = |url: &str| without.clone() + &sink("z", "a", url, DISK);
    let mut live = Live::start(&with(&nobody()));
    live.limit = Duration::from_millis(200);
    let mut sender = Sender::new(address);
    for time in 1..=10 {
        expect(&sender.write(&up(time)), 204);
    }
    live.reload(&without);
    until_so("its queue is closed", || {
        live.try_reload(&with(&healthy.url())).is_ok()
    });
    assert_eq!(healthy.wait_accepted(10), ups(1..=10));
}

#[test]
fn two_processes_cannot_share_a_queue_and_a_data_dir_does_not_move() {
    let folder = tempfile::tempdir().unwrap();
    let (address, healthy) = (free_address(), Endpoint::healthy());
    let text =
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", &healthy.url(), DISK);
    let mut live = Live::start(&text);
    let taken = metrifold_queue::disk::DiskQueue::open(
        folder.path().join("queues/z"),
        metrifold_queue::disk::Options {
            max_bytes: 1 << 20,
            max_age: None,
            drop_oldest: false,
            sync: metrifold_queue::disk::SyncPolicy::Batch,
        },
        |_| {},
    );
    assert!(taken.is_err());
    let moved = text.replace("data_dir = \"", "data_dir = \"/nowhere");
    let refused = live.try_reload(&moved).unwrap_err();
    assert!(refused.contains("cannot move"), "{refused}");
}

#[test]
fn what_an_optional_sink_cannot_hold_goes_oldest_first_and_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let keys = format!(
        "{OPTIONAL}\nqueue = {{ type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\" }}"
    );
    let text =
        data_dir(folder.path()) + &source("a", address, "") + &sink("z", "a", &nobody(), &keys);
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    for time in 1..=4000 {
        expect(&sender.write(&up(time)), 204);
    }
    until_so("all of it has been counted", || {
        let [received, delivered, dropped, queued] = ledger(&live, "z");
        assert_eq!(delivered, 0);
        received == 4000 && dropped > 0 && queued > 0 && dropped + queued == 4000
    });
}

#[test]
fn a_queue_on_disk_without_a_place_is_an_error_at_its_key() {
    let text = source("a", free_address(), "") + &sink("z", "a", &nobody(), DISK);
    let environment = |_: &str| None;
    let found = metrifold_engine::config::parse_str("test.toml", &text, &environment).unwrap_err();
    let found: Vec<_> = found.iter().map(|found| found.render(false)).collect();
    let found = found.join("\n");
    for part in [
        "sinks.z: a queue on disk needs data_dir, which is not set",
        "queue = { type = \"disk\"",
        "help: add data_dir",
    ] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn a_sender_is_told_to_wait_when_the_disk_is_full_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (address, down) = (free_address(), Endpoint::new(|_| Reply::new(503)));
    let keys = "queue = { type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\" }";
    let text = data_dir(folder.path())
        + &source("a", address, "acknowledge_timeout = \"300ms\"")
        + &sink("z", "a", &down.url(), keys);
    let live = Live::start(&text);
    let mut sender = Sender::new(address);
    let mut time = 0;
    let refused = loop {
        let answer = sender.write(&up(time + 1));
        match answer.status {
            204 => time += 1,
            _ => break answer,
        }
    };
    expect(&refused, 503);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert!(time > 500, "{time}");
    down.now(|_| Reply::new(204));
    until_so("there is room again", || {
        sender.write(&up(time + 1)).status == 204
    });
    let all = down.wait_accepted(time as usize + 1);
    let mut seen = std::collections::BTreeSet::new();
    let first: Vec<_> = all
        .into_iter()
        .filter(|it| seen.insert(it.clone()))
        .collect();
    assert_eq!(first, ups(1..=time + 1));
    drop(live);
}

#[test]
fn a_tenant_whose_batches_are_refused_is_answered_as_soon_as_they_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let endpoint = Endpoint::new(|seen| match seen.header("x-tenant") {
        Some("a") => Reply::new(503).header("Retry-After", 3),
        _ => Reply::new(204),
    });
    let keys = "path = \"/of/{tenant}\"\nacknowledge_timeout = \"700ms\"";
    let tenant =
        "[transforms.t]\ntype = \"tenant\"\ninputs = [\"in\"]\nfrom = [{ path = \"tenant\" }]\n";
    let sink_keys = format!("{DISK}\ntenant_header = \"X-Tenant\"");
    let text = data_dir(folder.path())
        + &source("in", address, keys)
        + tenant
        + &sink("z", "t", &endpoint.url(), &sink_keys);
    let live = Live::start(&text);
    let [mut a, mut b] = [Sender::new(address), Sender::new(address)];
    for time in 1..=20 {
        expect(&b.post("/of/b", &[], &up(time)), 204);
        expect(&a.post("/of/a", &[], &up(time)), 204);
    }
    assert_eq!(endpoint.accepted(), ups(1..=20), "of the other one");
    assert_eq!(live.stop(), []);
}
