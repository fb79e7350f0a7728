//! Queues on disk whose sink was renamed: the warning, moving and removing them.

use std::process::Output;

use metrifold_testing::config::{ingest, sink};
use metrifold_testing::edits::*;
use metrifold_testing::{Endpoint, Metrifold, Sender, cli, expect, nobody, run, until_so, up, ups};

fn config(name: &str, url: &str) -> String {
    let keys = "queue = { type = \"disk\" }";
    format!(
        "data_dir = \"data\"\n{}{}",
        ingest(""),
        sink(name, "ingest", url, keys)
    )
}

/// Runs a subcommand with the configuration of a process.
fn ask(child: &Metrifold, arguments: &[&str]) -> Output {
    run(cli(&["-c"]).arg(file(child)).args(arguments))
}

fn said(output: &Output) -> String {
    let both = [output.stdout.clone(), output.stderr.clone()].concat();
    String::from_utf8(both).unwrap()
}

/// A process whose sink `old` has three batches on disk.
fn with_backlog() -> Metrifold {
    let child = Metrifold::start_with(&config("old", &nobody()), &["--no-watch"]);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=3 {
        expect(&sender.write(&up(time)), 204);
    }
    child
}

#[test]
fn a_renamed_sinks_queue_is_warned_of_and_adopted_with_its_accounts() {
    let mut child = with_backlog();
    assert!(child.terminate().success(), "{}", child.log());

    edit(&child, &config("new", &nobody()));
    let warned = said(&ask(&child, &["validate"]));
    assert!(warned.contains("no sink reads the queue on disk of \"old\": 3 batches with "));
    assert!(
        warned.contains("metrifold queues adopt old NEW"),
        "{warned}"
    );
    let quiet = said(&ask(&child, &["validate", "--no-environment"]));
    assert!(!quiet.contains("old"), "{quiet}");

    child.start_again();
    assert!(
        child
            .log()
            .contains("no sink reads the queue on disk of \"old\"")
    );
    until_so("it is counted", || {
        child.metric("metrifold_orphaned_queue_batches", &[]) == 3.0
    });
    assert_eq!(child.metric("metrifold_orphaned_queues", &[]), 1.0);
    expect(&Sender::new(child.ingest).write(&up(4)), 204);
    let listed = said(&ask(&child, &["queues", "list"]));
    assert!(
        listed.contains("old: read by no sink of the configuration\n"),
        "{listed}"
    );
    assert!(listed.contains("  3 batches with "), "{listed}");
    assert!(listed.contains("new: read by the sink of this name, in use by a process\n"));
    let refused = ask(&child, &["queues", "adopt", "old", "new"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("is in use"), "{}", said(&refused));

    assert!(child.terminate().success(), "{}", child.log());
    let adopted = ask(&child, &["queues", "adopt", "old", "new"]);
    assert!(adopted.status.success(), "{}", said(&adopted));
    assert!(said(&adopted).contains("moved 3 batches with "));
    let endpoint = Endpoint::healthy();
    edit(&child, &config("new", &endpoint.url()));
    child.start_again();
    assert!(!child.log().contains("no sink reads"), "{}", child.log());
    until_so("all of it is delivered", || endpoint.accepted().len() >= 4);
    assert_eq!(endpoint.accepted(), ups(1..=4), "in order");
    until_so("it is booked", || {
        let ledger = child.get("/api/v1/ledger").json();
        ledger["balances"] == true && ledger["sinks"][0]["total"]["delivered"]["batches"] == 4
    });
    let ledger = child.get("/api/v1/ledger").json();
    assert_eq!(ledger["sinks"][0]["total"]["received"]["batches"], 4);
    assert_eq!(child.metric("metrifold_orphaned_queues", &[]), 0.0);
}

#[test]
fn a_sink_whose_queue_is_in_memory_now_delivers_first_what_its_queue_on_disk_has_left() {
    let mut child = with_backlog();
    child.kill();
    let endpoint = Endpoint::healthy();
    let in_memory = config("old", &endpoint.url()).replace("\"disk\"", "\"memory\"");
    edit(&child, &in_memory);
    let checked = said(&ask(&child, &["validate"]));
    assert!(!checked.contains("no sink reads"), "{checked}");
    let listed = said(&ask(&child, &["queues", "list"]));
    assert!(
        listed.contains("old: read by the sink of this name\n  3 batches"),
        "{listed}"
    );

    child.start_again();
    let mut sender = Sender::new(child.ingest);
    for time in 4..=6 {
        expect(&sender.write(&up(time)), 204);
    }
    until_so("all of it is delivered", || endpoint.accepted().len() >= 6);
    assert_eq!(endpoint.accepted(), ups(1..=6), "in order");
    until_so("it is booked", || {
        let ledger = child.get("/api/v1/ledger").json();
        ledger["balances"] == true && ledger["sinks"][0]["total"]["delivered"]["batches"] == 6
    });
    assert_eq!(child.metric("metrifold_orphaned_queues", &[]), 0.0);
    assert!(child.terminate().success(), "{}", child.log());
}

#[test]
fn a_reload_that_renames_a_sink_says_what_it_leaves_behind() {
    let child = with_backlog();
    edit(&child, &config("new", &nobody()));
    let reloaded = said(&ask(&child, &["reload"]));
    assert!(
        reloaded.contains("no sink reads the queue on disk of \"old\": 3 batches"),
        "{reloaded}"
    );
    assert!(
        reloaded.contains("unless the sink that still runs"),
        "{reloaded}"
    );
    assert!(reloaded.contains("applied:"), "{reloaded}");
}

#[test]
fn a_queue_is_removed_only_on_purpose_and_not_while_somebody_has_it() {
    let mut child = with_backlog();
    let discard = ["queues", "discard", "old", "--yes"];
    let refused = ask(&child, &discard);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("is in use"), "{}", said(&refused));
    assert!(child.terminate().success());

    edit(&child, &config("new", &nobody()));
    let unsure = ask(&child, &discard[..3]);
    assert_eq!(unsure.status.code(), Some(64));
    assert!(said(&unsure).contains("3 batches with "));
    for (old, new) in [("old", "other"), ("gone", "new"), ("new", "old")] {
        let refused = ask(&child, &["queues", "adopt", old, new]);
        assert_eq!(refused.status.code(), Some(1), "{old} {new}");
    }
    let outside = ask(&child, &["queues", "discard", "../data", "--yes"]);
    assert_eq!(outside.status.code(), Some(64));
    let removed = ask(&child, &discard);
    assert!(removed.status.success(), "{}", said(&removed));
    let listed = said(&ask(&child, &["queues", "list"]));
    assert!(!listed.contains("old"), "{listed}");
    assert!(!said(&ask(&child, &["validate"])).contains("old"));
}
