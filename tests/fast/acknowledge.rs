//! The answer to a sender for every kind of sink in trouble: required and optional ones, with
//! queues in memory and on disk, for each mode of `acknowledge`.

use std::path::Path;
use std::time::Duration;

/// Long enough for a slow endpoint, and for storing a batch.
const TIMEOUT: &str = "acknowledge_timeout = \"1500ms\"";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    /// Nothing listens.
    Down,
    /// Answers 503.
    Busy,
    /// Answers after a batch would be stored, and before the sender's timeout.
    Slow,
    /// Never answers.
    Hangs,
    /// Answers 400.
    Refuses,
}

use crate::in_process::Live;
use Trouble::{Busy, Down, Hangs, None as Well, Refuses, Slow};
use metrifold_testing::config::{sink, source};
use metrifold_testing::{Does, Endpoint, Reply, Sender, free_address, nobody, until_so, up, ups};

/// Name and keys of each sink.
const SINKS: [(&str, &str); 4] = [
    ("must_memory", "required = true"),
    (
        "must_disk",
        "required = true\nqueue = { type = \"disk\", max_bytes = \"1MiB\" }",
    ),
    ("may_memory", "required = false"),
    (
        "may_disk",
        "required = false\nqueue = { type = \"disk\", max_bytes = \"1MiB\" }",
    ),
];

fn endpoint(trouble: Trouble) -> Option<Endpoint> {
    let does = move || match trouble {
        Well | Down => Does::from(204),
        Busy => Does::from(503),
        Slow => Does::After(Duration::from_millis(150), Box::new(204.into())),
        Hangs => Does::Hang(Reply::new(204)),
        Refuses => Does::from(400),
    };
    (trouble != Down).then(|| Endpoint::new(move |_| does()))
}

fn config(
    folder: &Path,
    source: &str,
    endpoints: &[Option<Endpoint>],
    troubles: [Trouble; 4],
) -> String {
    let mut text = format!("data_dir = {folder:?}\n{source}");
    for (((name, keys), endpoint), trouble) in SINKS.iter().zip(endpoints).zip(troubles) {
        let url = endpoint.as_ref().map_or_else(nobody, Endpoint::url);
        // Storing is delayed, so that the endpoint's answer comes first.
        let keys = match trouble {
            Refuses => keys.replace("max_bytes", "store_after = \"10s\", max_bytes"),
            _ => (*keys).to_owned(),
        };
        text += &sink(name, "a", &url, &keys);
    }
    text
}

/// Checks the answer to a sender of one sample while the sinks' endpoints have these troubles.
/// Healthy sinks deliver the sample, and after a 2xx every required sink has stored or delivered
/// it.
#[track_caller]
fn expect(mode: &str, troubles: [Trouble; 4], status: u16) {
    let what = format!("{mode}, {troubles:?}");
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let keys = format!("acknowledge = \"{mode}\"\n{TIMEOUT}");
    let endpoints = troubles.map(endpoint);
    let source = source("a", address, &keys);
    let live = Live::start(&config(folder.path(), &source, &endpoints, troubles));
    let answer = Sender::new(address).write(&up(1));
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    let retry_after = answer.header("retry-after");
    assert_eq!(retry_after.is_some(), status == 503, "{what}");
    let there = |at: usize| {
        let endpoint = endpoints[at].as_ref();
        endpoint.is_some_and(|endpoint| endpoint.accepted() == ups([1]))
    };
    if status == 204 && mode != "received" {
        assert!(there(0), "{what}");
        let on_disk = live.metric("metrifold_queue_disk_batches", &["must_disk"]);
        let stored = mode == "stored" && on_disk == 1.0;
        assert!(there(1) || stored, "{what}: {on_disk} on disk");
    }
    for at in 0..SINKS.len() {
        if [Well, Slow].contains(&troubles[at]) {
            until_so(&format!("{what}: {} has it", SINKS[at].0), || there(at));
        }
    }
    for endpoint in endpoints.iter().flatten() {
        endpoint.release();
    }
}

/// Checks the answer with one sink in trouble and the others healthy.
#[track_caller]
fn expect_of(mode: &str, sink: &str, trouble: Trouble, status: u16) {
    let at = SINKS.iter().position(|(name, _)| *name == sink).unwrap();
    let mut troubles = [Well; 4];
    troubles[at] = trouble;
    expect(mode, troubles, status);
}

#[test]
fn stored_means_delivered_or_on_disk() {
    for (sink, trouble, status) in [
        ("must_memory", Well, 204),
        ("must_memory", Down, 503),
        ("must_memory", Busy, 503),
        ("must_memory", Slow, 204),
        ("must_memory", Hangs, 503),
        ("must_memory", Refuses, 400),
        ("must_disk", Down, 204),
        ("must_disk", Busy, 204),
        ("must_disk", Slow, 204),
        ("must_disk", Hangs, 204),
        ("must_disk", Refuses, 400),
    ] {
        expect_of("stored", sink, trouble, status);
    }
}

#[test]
fn delivered_means_delivered_whatever_queue_there_is() {
    for sink in ["must_memory", "must_disk"] {
        for (trouble, status) in [
            (Well, 204),
            (Down, 503),
            (Busy, 503),
            (Slow, 204),
            (Hangs, 503),
            (Refuses, 400),
        ] {
            expect_of("delivered", sink, trouble, status);
        }
    }
}

#[test]
fn received_waits_for_nobody() {
    for (sink, _) in SINKS {
        for trouble in [Well, Down, Busy, Slow, Hangs, Refuses] {
            expect_of("received", sink, trouble, 204);
        }
    }
}

#[test]
fn an_optional_sink_changes_no_answer() {
    for mode in ["stored", "delivered"] {
        for sink in ["may_memory", "may_disk"] {
            for trouble in [Down, Busy, Slow, Hangs, Refuses] {
                expect_of(mode, sink, trouble, 204);
            }
        }
    }
}

#[test]
fn of_several_troubles_the_worst_for_required_sinks_is_told() {
    for (mode, troubles, status) in [
        // A failure that may pass wins over a refusal: otherwise its sink would never get the
        // batch.
        ("stored", [Down, Refuses, Well, Well], 503),
        ("stored", [Refuses, Down, Well, Well], 400),
        ("delivered", [Refuses, Down, Well, Well], 503),
        ("delivered", [Slow, Hangs, Well, Well], 503),
        ("stored", [Slow, Hangs, Well, Well], 204),
        ("stored", [Slow, Slow, Slow, Slow], 204),
        // All optional sinks are in trouble.
        ("delivered", [Well, Well, Hangs, Refuses], 204),
        ("stored", [Well, Busy, Down, Hangs], 204),
        ("stored", [Refuses, Well, Down, Down], 400),
        ("received", [Down, Hangs, Busy, Refuses], 204),
    ] {
        expect(mode, troubles, status);
    }
}
