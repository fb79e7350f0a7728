//! A reload takes effect as a whole or not at all, and affects only what it changes.
//!
//! Each scenario drives a topology in this process, with senders and endpoints on real sockets.

use std::net::{SocketAddr, TcpListener};

use metrifold_testing::config::{sink, source};
use metrifold_testing::{
    Authority, Endpoint, Sender, expect, fetch, free_address, hanging, is_closed, nobody, until_so,
    up, ups, write, write_again,
};

use crate::in_process::Live;

#[test]
fn the_same_content_changes_nothing() {
    let (address, endpoint) = (free_address(), Endpoint::healthy());
    let text = source("a", address, "") + &sink("z", "a", &endpoint.url(), "");
    let mut live = Live::start(&text);
    let mut sender = Sender::new(address);
    expect(&sender.write(&up(1)), 204);
    let changes = live.reload(&format!("# a remark\n{text}"));
    assert!(changes.is_empty(), "{changes}");
    assert_eq!(changes.to_string(), "nothing changed");
    expect(&sender.write(&up(2)), 204);
    assert_eq!(endpoint.accepted(), ups(1..=2));
    assert_eq!(endpoint.connections(), 1);
    assert_eq!(live.stop(), []);
}

#[test]
fn other_inputs_alone_leave_the_component_as_it_is() {
    let addresses = [free_address(), free_address()];
    let endpoint = Endpoint::healthy();
    let sources = source("a", addresses[0], "") + &source("b", addresses[1], "");
    let hole = "[sinks.hole]\ntype = \"blackhole\"\ninputs = [\"*\"]\n";
    let config = |input: &str| sources.clone() + hole + &sink("z", input, &endpoint.url(), "");
    let mut live = Live::start(&config("a"));
    let mut senders = addresses.map(Sender::new);
    expect(&senders[0].write(&up(1)), 204);
    let changes = live.reload(&config("b"));
    assert_eq!(changes.to_string(), "rewired sinks.z");
    expect(&senders[0].write(&up(2)), 204);
    expect(&senders[1].write(&up(3)), 204);
    // And back.
    live.reload(&config("a"));
    expect(&senders[0].write(&up(4)), 204);
    expect(&senders[1].write(&up(5)), 204);
    assert_eq!(endpoint.accepted(), ups([1, 3, 4]));
    assert_eq!(endpoint.connections(), 1);
    assert_eq!(live.stop(), []);
}

#[test]
fn an_input_that_is_removed_and_added_again_carries_on() {
    let (address, endpoint) = (free_address(), Endpoint::healthy());
    let other = Endpoint::healthy();
    let text = source("a", address, "") + &sink("other", "a", &other.url(), "");
    let with = text.clone() + &sink("z", "a", &endpoint.url(), "");
    let mut live = Live::start(&with);
    let mut sender = Sender::new(address);
    expect(&sender.write(&up(1)), 204);
    assert_eq!(live.reload(&text).to_string(), "removed sinks.z");
    expect(&sender.write(&up(2)), 204);
    assert_eq!(live.reload(&with).to_string(), "added sinks.z");
    expect(&sender.write(&up(3)), 204);
    assert_eq!(endpoint.accepted(), ups([1, 3]));
    assert_eq!(other.accepted(), ups(1..=3));
    assert_eq!(live.stop(), []);
}

#[test]
fn a_source_with_other_keys_keeps_its_connections_and_answers_what_is_under_way() {
    let (address, endpoint) = (free_address(), hanging());
    let config = |keys: &str| source("a", address, keys) + &sink("z", "a", &endpoint.url(), "");
    let mut live = Live::start(&config(""));
    let mut sender = Sender::new(address);
    let waiting = write(address, 1);
    endpoint.wait_requests(1);
    let changes = live.reload(&config("max_labels_per_series = 7"));
    assert_eq!(changes.to_string(), "changed sources.a");
    endpoint.release();
    expect(&waiting.join().unwrap(), 204);
    // On a connection from before the reload.
    expect(&sender.write(&up(2)), 204);
    assert_eq!(endpoint.accepted(), ups(1..=2));
    assert_eq!(live.stop(), []);
}

#[test]
fn an_address_may_go_to_a_source_of_another_name() {
    let (address, endpoint) = (free_address(), hanging());
    let config = |name: &str| source(name, address, "") + &sink("z", name, &endpoint.url(), "");
    let mut live = Live::start(&config("before"));
    let mut sender = Sender::new(address);
    let waiting = write(address, 1);
    endpoint.wait_requests(1);
    let changes = live.reload(&config("after"));
    assert_eq!(
        changes.to_string(),
        "added sources.after; rewired sinks.z; removed sources.before"
    );
    endpoint.release();
    expect(&waiting.join().unwrap(), 204);
    expect(&sender.write(&up(2)), 204);
    until_so("nothing is left of the source", || !live.shows("before"));
    expect(&sender.write(&up(3)), 204);
    assert_eq!(endpoint.accepted(), ups(1..=3));
    assert_eq!(live.metric("metrifold_component_up", &["after"]), 1.0);
    assert_eq!(live.stop(), []);
}

#[test]
fn a_source_may_move_to_another_address() {
    let (old, new) = (free_address(), free_address());
    let endpoint = hanging();
    let config = |address| source("a", address, "") + &sink("z", "a", &endpoint.url(), "");
    let mut live = Live::start(&config(old));
    let waiting = write(old, 1);
    endpoint.wait_requests(1);
    live.reload(&config(new));
    // It accepts requests at once, while the old address still has one in flight.
    let other = write(new, 2);
    endpoint.wait_requests(2);
    endpoint.release();
    expect(&waiting.join().unwrap(), 204);
    expect(&other.join().unwrap(), 204);
    until_so("the old address is closed", || is_closed(old));
    assert_eq!(live.stop(), []);
}

#[test]
fn two_sources_may_swap_their_ports() {
    let addresses = [free_address(), free_address()];
    let endpoints = [Endpoint::healthy(), Endpoint::healthy()];
    let config = |[a, b]: [SocketAddr; 2]| {
        source("a", a, "max_labels_per_series = 20")
            + &source("b", b, "max_labels_per_series = 30")
            + &sink("to-a", "a", &endpoints[0].url(), "")
            + &sink("to-b", "b", &endpoints[1].url(), "")
    };
    let mut live = Live::start(&config(addresses));
    let mut senders = addresses.map(Sender::new);
    for sender in &mut senders {
        expect(&sender.write(&up(1)), 204);
    }
    let changes = live.reload(&config([addresses[1], addresses[0]]));
    assert_eq!(changes.to_string(), "changed sources.a, sources.b");
    expect(&senders[0].write(&up(2)), 204);
    expect(&senders[1].write(&up(3)), 204);
    assert_eq!(endpoints[0].accepted(), ups([1, 3]));
    assert_eq!(endpoints[1].accepted(), ups([1, 2]));
    assert_eq!(live.stop(), []);
}

#[test]
fn what_cannot_be_built_is_reported_whole_and_leaves_everything_as_it_was() {
    let (address, free, endpoint) = (free_address(), free_address(), Endpoint::healthy());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = source("a", address, "") + &sink("z", "a", &endpoint.url(), "");
    let mut live = Live::start(&text);
    let mut sender = Sender::new(address);
    expect(&sender.write(&up(1)), 204);
    let authority = Authority::new();
    let file = authority.ca();
    let unreadable = format!("tls = {{ ca_file = {file:?} }}");
    let wrong = source("a", address, "max_labels_per_series = 7")
        + &source("moved", taken.local_addr().unwrap(), "")
        + &source("new", free, "")
        + &sink("z", "*", &nobody(), &unreadable)
        + &sink("y", "*", &nobody(), "");
    let config = crate::in_process::config(&wrong);
    // The file existed when the configuration was validated.
    std::fs::remove_file(&file).unwrap();
    for _ in 0..3 {
        let errors = live.try_apply(config.clone()).unwrap_err();
        let mut lines = errors.lines();
        let [sink, source] = [lines.next().unwrap(), lines.next().unwrap()];
        assert!(
            sink.starts_with("z: ") && sink.contains("ca.crt"),
            "{errors}"
        );
        assert!(source.starts_with("moved: "), "{errors}");
        assert!(source.contains("another process"), "{errors}");
        assert_eq!(lines.next(), None);
    }
    expect(&sender.write(&up(2)), 204);
    for gone in ["moved", "new", "y"] {
        assert!(!live.shows(gone), "{}", live.page());
    }
    for there in ["a", "z"] {
        assert_eq!(live.metric("metrifold_component_up", &[there]), 1.0);
    }
    // The address bound for it is released.
    drop(TcpListener::bind(free).unwrap());
    drop(taken);
    // Once repaired, it is applied.
    let changes = live.reload(&wrong.replace(&unreadable, ""));
    assert_eq!(
        changes.to_string(),
        "added sinks.y, sources.moved, sources.new; changed sinks.z, sources.a"
    );
    assert_eq!(endpoint.accepted(), ups(1..=2));
    live.reload(&text);
    assert_eq!(live.stop(), []);
}

#[test]
fn a_source_that_is_removed_answers_what_it_has_under_way() {
    let addresses = [free_address(), free_address()];
    let endpoint = hanging();
    let sink = sink("z", "*", &endpoint.url(), "");
    let one = source("a", addresses[0], "") + &sink;
    let mut live = Live::start(&(source("b", addresses[1], "") + &one));
    let waiting = write(addresses[1], 1);
    endpoint.wait_requests(1);
    let changes = live.reload(&one);
    assert_eq!(changes.to_string(), "rewired sinks.z; removed sources.b");
    endpoint.release();
    expect(&waiting.join().unwrap(), 204);
    until_so("its address is closed", || is_closed(addresses[1]));
    until_so("its metrics are gone", || !live.shows("b"));
    expect(&Sender::new(addresses[0]).write(&up(2)), 204);
    assert_eq!(live.stop(), []);
}

#[test]
fn everything_may_get_another_name_at_once() {
    let (address, endpoint) = (free_address(), hanging());
    let config = |at: &str| {
        source(&format!("a{at}"), address, "")
            + &format!(
                "[transforms.t{at}]\ntype = \"relabel\"\ninputs = [\"a{at}\"]\nrules = [{{ target_label = \"via\", replacement = \"t\" }}]\n"
            )
            + &sink(&format!("z{at}"), &format!("t{at}"), &endpoint.url(), "")
    };
    let mut live = Live::start(&config("1"));
    let mut sender = Sender::new(address);
    let waiting = write(address, 1);
    endpoint.wait_requests(1);
    let changes = live.reload(&config("2"));
    assert_eq!(
        changes.to_string(),
        "added sinks.z2, sources.a2, transforms.t2; removed sinks.z1, sources.a1, transforms.t1"
    );
    endpoint.release();
    expect(&waiting.join().unwrap(), 204);
    expect(&sender.write(&up(2)), 204);
    assert_eq!(endpoint.accepted(), ups(1..=2));
    until_so("nothing is left of the old names", || {
        ["a1", "t1", "z1"].iter().all(|id| !live.shows(id))
    });
    assert_eq!(live.stop(), []);
}

#[test]
fn a_component_may_change_its_kind() {
    let (address, endpoint) = (free_address(), Endpoint::healthy());
    let source = source("a", address, "");
    let as_sink = source.clone() + &sink("x", "a", &endpoint.url(), "");
    let as_transform = source
        + "[transforms.x]\ntype = \"relabel\"\ninputs = [\"a\"]\nrules = [{ target_label = \"via\", replacement = \"x\" }]\n"
        + &sink("z", "x", &endpoint.url(), "");
    let mut live = Live::start(&as_sink);
    let mut sender = Sender::new(address);
    expect(&sender.write(&up(1)), 204);
    let changes = live.reload(&as_transform);
    assert_eq!(
        changes.to_string(),
        "added sinks.z, transforms.x; removed sinks.x"
    );
    expect(&sender.write(&up(2)), 204);
    let changes = live.reload(&as_sink);
    assert_eq!(
        changes.to_string(),
        "added sinks.x; removed sinks.z, transforms.x"
    );
    expect(&sender.write(&up(3)), 204);
    let seen = endpoint.seen();
    let via: Vec<_> = seen
        .iter()
        .map(|seen| seen.series()[0].get("via"))
        .collect();
    assert_eq!(via, [None, Some("x"), None]);
    assert_eq!(live.stop(), []);
}

#[test]
fn a_listener_may_widen_to_all_interfaces_and_narrow_again() {
    let (local, endpoint) = (free_address(), hanging());
    let all = SocketAddr::from(([0, 0, 0, 0], local.port()));
    let config =
        |address, keys: &str| source("a", address, keys) + &sink("z", "a", &endpoint.url(), "");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused =
        source("b", taken.local_addr().unwrap(), "") + &sink("y", "b", &endpoint.url(), "");
    let mut live = Live::start(&config(local, ""));
    let mut requests = 0;
    for (turn, (to, back)) in [(all, local), (local, all)]
        .repeat(3)
        .into_iter()
        .enumerate()
    {
        let waiting = write_again(local, 2 * turn as i64);
        requests += 1;
        if turn == 0 {
            endpoint.wait_requests(requests);
        }
        live.try_reload(&(config(to, "") + &refused)).unwrap_err();
        // The reload is undone: the previous listener goes on, and has its port to itself.
        assert!(TcpListener::bind(to).is_err() && TcpListener::bind(back).is_err());
        assert_eq!(
            live.reload(&config(to, "")).to_string(),
            "changed sources.a"
        );
        let other = write_again(local, 2 * turn as i64 + 1);
        requests += 1;
        if turn == 0 {
            // The old listener has a request in flight while the new one serves.
            endpoint.wait_requests(requests);
            endpoint.release();
        }
        expect(&waiting.join().unwrap(), 204);
        expect(&other.join().unwrap(), 204);
    }
    let mut accepted = endpoint.accepted();
    accepted.sort();
    assert_eq!(accepted, ups(0..12));
    assert_eq!(live.stop(), []);
}

#[test]
fn a_listener_may_come_back_while_its_predecessor_has_requests_under_way() {
    let (local, endpoint) = (free_address(), hanging());
    let all = SocketAddr::from(([0, 0, 0, 0], local.port()));
    let config = |address| source("a", address, "") + &sink("z", "a", &endpoint.url(), "");
    let mut live = Live::start(&config(local));
    let mut waiting = Vec::new();
    for (turn, address) in [all, local, all, local].into_iter().enumerate() {
        waiting.push(write_again(local, turn as i64));
        endpoint.wait_requests(turn + 1);
        live.reload(&config(address));
        until_so("somebody listens", || {
            fetch(local, "/nowhere").is_ok_and(|answer| answer.status == 404)
        });
    }
    endpoint.release();
    for waiting in waiting {
        expect(&waiting.join().unwrap(), 204);
    }
    expect(&write_again(local, 9).join().unwrap(), 204);
    assert_eq!(live.stop(), []);
}
