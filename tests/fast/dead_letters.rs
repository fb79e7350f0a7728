//! One bad series costs only itself: the rest of its batch is delivered, and the series becomes a
//! dead letter that can be listed, sent again and discarded.
//!
//! The program runs as a child process, its command line beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use metrifold_engine::dead_letters::{Entry, Listing};
use metrifold_testing::config::{ingest, sink};
use metrifold_testing::{
    Endpoint, Metrifold, Reply, Seen, Sender, Series, body, body_v2, cli, one, run, until, until_so,
};

/// Runs `config` with a data directory.
#[track_caller]
fn start(data: &TempDir, config: &str) -> Metrifold {
    spawn(data, config).started(config)
}

fn spawn(data: &TempDir, config: &str) -> Metrifold {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.toml");
    let more = folder.path().join("data.toml");
    fs::write(&more, format!("data_dir = {:?}\n", data.path())).unwrap();
    let (file, more) = (file.to_str().unwrap(), more.to_str().unwrap());
    let arguments = ["-c", file, "-c", more].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(|a| &**a).collect();
    let file = Path::new(file).to_owned();
    Metrifold::spawn_from(folder, &file, config, &arguments, Stdio::null())
}

fn config(sinks: &[(&str, &str, &str)]) -> String {
    let sinks = sinks.iter();
    let sinks = sinks.map(|(name, url, keys)| sink(name, "ingest", url, keys));
    ingest("") + &sinks.collect::<String>()
}

/// Runs `dead-letters` with these arguments; returns exit code, stdout and stderr.
fn ask(child: &Metrifold, arguments: &[&str]) -> (i32, String, String) {
    let mut command = cli(&["dead-letters"]);
    command.args(arguments);
    let output = run(command.args(["--address", &child.api.to_string()]));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn list(child: &Metrifold, arguments: &[&str]) -> Vec<Entry> {
    let (code, out, err) = ask(child, &[&["list", "--json"], arguments].concat());
    assert_eq!(code, 0, "{err}");
    let listing: Listing = serde_json::from_str(&out).unwrap();
    listing.letters
}

/// Waits for `count` letters, which may be written after the sender's answer.
#[track_caller]
fn letters(child: &Metrifold, count: usize) -> Vec<Entry> {
    until(&format!("there are {count} letters"), || {
        let letters = list(child, &[]);
        (letters.len() == count).then_some(letters)
    })
}

/// An endpoint that refuses requests with a series whose name begins with "bad".
fn picky(status: u16) -> Endpoint {
    Endpoint::new(move |seen| match has_bad(seen) {
        true => Reply::new(status).body("no such luck"),
        false => taken(seen),
    })
}

fn has_bad(seen: &Seen) -> bool {
    seen.series().iter().any(|s| s.name().starts_with("bad"))
}

/// A successful answer in the request's version.
fn taken(seen: &Seen) -> Reply {
    match seen.header("x-prometheus-remote-write-version") {
        Some("2.0.0") => Reply::written(seen.series().iter().map(|s| s.samples.len() as u64).sum()),
        _ => Reply::new(204),
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:03}")).collect()
}

const DISCARDED: &str = "metrifold_component_discarded_samples_total";
const SENT: &str = "metrifold_component_sent_samples_total";

#[test]
fn the_bad_series_of_a_batch_become_letters_and_all_others_are_delivered_once_and_in_order() {
    for status in [400, 409, 413, 422] {
        let (strict, healthy) = (picky(status), Endpoint::healthy());
        let data = tempfile::tempdir().unwrap();
        let child = start(
            &data,
            &config(&[("strict", &strict.url(), ""), ("other", &healthy.url(), "")]),
        );
        let mut series: Vec<Series> = names("good", 100).iter().map(|n| one(n, 7)).collect();
        let bad = Series::new("bad1", &[(5, 1.0), (6, 2.0)]).label("job", "a\"b");
        series.insert(13, bad);
        series.insert(14, one("bad2", 8));
        series.insert(77, one("bad3", 9));
        let answer = Sender::new(child.ingest).write(&body(&series));
        assert_eq!(answer.status, 400);
        let text = answer.text();
        assert!(
            text.contains("strict: ") && text.contains("no such luck"),
            "{text}"
        );

        let good: Vec<_> = names("good", 100).into_iter().map(|n| (n, 7)).collect();
        assert_eq!(strict.accepted(), good);
        assert!(
            strict.count() <= 1 + 2 * 3 * 8,
            "{} requests",
            strict.count()
        );
        assert_eq!(healthy.count(), 1, "the other sink is not concerned");
        let reason = if status == 413 {
            "too_large"
        } else {
            "refused"
        };
        let labels = [("component_id", "strict"), ("reason", reason)];
        assert_eq!(child.metric(DISCARDED, &labels), 4.0);
        assert_eq!(child.metric(SENT, &[("component_id", "strict")]), 100.0);

        let letters = letters(&child, 3);
        let first = &letters[2];
        assert_eq!((&*first.sink, first.status), ("strict", Some(status)));
        assert!(first.reason.contains("no such luck"), "{}", first.reason);
        assert_eq!((first.samples, &*first.version), (2, "1.0"));
        let shown = &first.series[0];
        assert_eq!(shown.labels, "bad1{job=\"a\\\"b\"}");
        assert_eq!((shown.samples, shown.first_timestamp), (2, Some(5)));
        assert_eq!(child.metric("metrifold_dead_letters", &[]), 3.0);
        assert_eq!(
            child.metric("metrifold_dead_letters_bytes", &[]),
            3.0 * 4096.0
        );
    }
}

#[test]
fn a_sender_of_2_0_is_told_what_was_written() {
    let (strict, other) = (picky(400), Endpoint::new(taken));
    let data = tempfile::tempdir().unwrap();
    let child = start(
        &data,
        &config(&[("strict", &strict.url(), ""), ("other", &other.url(), "")]),
    );
    let mut series: Vec<Series> = names("good", 9).iter().map(|n| one(n, 7)).collect();
    series.insert(3, Series::new("bad", &[(1, 1.0), (2, 2.0)]));
    let answer = Sender::new(child.ingest).write_v2(&body_v2(&series));
    assert_eq!(answer.status, 400);
    let written = answer.header("x-prometheus-remote-write-samples-written");
    assert_eq!(written, Some("9"));
    assert_eq!(strict.accepted().len(), 9);
    let letters = letters(&child, 1);
    assert_eq!((&*letters[0].version, letters[0].samples), ("2.0", 2));
}

#[test]
fn what_concerns_all_data_alike_is_not_looked_into_but_kept() {
    for status in [401, 403, 404, 405] {
        let endpoint = Endpoint::new(move |_| status);
        let data = tempfile::tempdir().unwrap();
        let child = start(&data, &config(&[("out", &endpoint.url(), "")]));
        let request = body(&[one("a", 1), one("b", 1)]);
        let sender = std::thread::spawn({
            let (ingest, request) = (child.ingest, request.clone());
            move || Sender::new(ingest).write(&request)
        });
        until_so("it is tried again", || endpoint.count() > 2);
        assert!(endpoint.seen().iter().all(|seen| seen.body == request));
        endpoint.now(|_| 204);
        assert_eq!(sender.join().unwrap().status, 204, "{status}");
        assert_eq!(list(&child, &[]), []);
    }
}

#[test]
fn what_the_configuration_refuses_is_lost_as_a_whole_and_at_once() {
    for (statuses, status) in [
        ("{ 404 = \"refuse\" }", 404),
        ("{ 4xx = \"refuse\" }", 405),
        ("\"specification\"", 401),
        ("\"specification\"", 400),
    ] {
        let endpoint = Endpoint::new(move |_| status);
        let data = tempfile::tempdir().unwrap();
        let keys = format!("retry = {{ statuses = {statuses} }}");
        let child = start(&data, &config(&[("out", &endpoint.url(), &keys)]));
        let answer = Sender::new(child.ingest).write(&body(&[one("a", 1), one("b", 1)]));
        assert_eq!(answer.status, 400, "{statuses}: {}", answer.text());
        assert_eq!(endpoint.count(), 1, "{statuses}");
    }
}

#[test]
fn what_thanos_stored_in_part_is_not_sent_again() {
    let endpoint = Endpoint::new(|_| Reply::new(409).body("out of order"));
    let data = tempfile::tempdir().unwrap();
    let config = config(&[("out", &endpoint.url(), "")]);
    let config = config.replace(
        "[sinks.out]\ntype = \"remote_write\"",
        "[sinks.out]\ntype = \"thanos\"",
    );
    let child = start(&data, &config);
    let answer = Sender::new(child.ingest).write(&body(&[one("a", 1), one("b", 1)]));
    assert_eq!(answer.status, 400);
    assert_eq!(endpoint.count(), 1);
    assert_eq!(list(&child, &[]), []);
}

#[test]
fn an_endpoint_that_refuses_everything_is_asked_a_bounded_number_of_times() {
    let endpoint = Endpoint::new(|_| 400);
    let data = tempfile::tempdir().unwrap();
    let child = start(&data, &config(&[("out", &endpoint.url(), "")]));
    let series: Vec<Series> = names("m", 1000).iter().map(|n| one(n, 7)).collect();
    let answer = Sender::new(child.ingest).write(&body(&series));
    assert_eq!(answer.status, 400);
    assert!(endpoint.count() <= 70, "{} requests", endpoint.count());
    let refused = |reason| child.metric(DISCARDED, &[("reason", reason)]);
    let (alone, together) = (refused("refused"), refused("refused_together"));
    assert_eq!(alone + together, 1000.0);
    assert!((16.0..=17.0).contains(&alone), "{alone}");
    let kept = until("all of it is kept", || {
        let letters = list(&child, &[]);
        let samples: u64 = letters.iter().map(|letter| letter.samples).sum();
        (samples == 1000).then_some(letters)
    });
    assert!(kept.iter().any(|letter| letter.more_series > 0));
}

#[test]
fn later_data_of_a_sender_waits_while_its_batch_is_taken_apart() {
    let endpoint = picky(400);
    let data = tempfile::tempdir().unwrap();
    let child = start(
        &data,
        &config(&[("out", &endpoint.url(), "required = false\nconnections = 4")]),
    );
    let mut sender = Sender::new(child.ingest);
    for time in 1..=30 {
        let mut series: Vec<Series> = names("good", 8).iter().map(|n| one(n, time)).collect();
        series.insert((time % 8) as usize, one("bad", time));
        assert_eq!(sender.write(&body(&series)).status, 204);
    }
    let accepted = endpoint.wait_accepted(240);
    for name in names("good", 8) {
        let times = accepted.iter().filter(|(n, _)| *n == name);
        let times: Vec<i64> = times.map(|(_, time)| *time).collect();
        assert_eq!(times, (1..=30).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_letter_that_is_sent_again_is_gone_once_its_sink_has_it() {
    let endpoint = picky(400);
    let data = tempfile::tempdir().unwrap();
    let keys = "retry = { min_backoff = \"5ms\", max_backoff = \"20ms\", max_age = \"1s\" }";
    let child = start(&data, &config(&[("out", &endpoint.url(), keys)]));
    let series = ["bad1", "good", "bad2", "bad3"].map(|name| one(name, 7));
    assert_eq!(Sender::new(child.ingest).write(&body(&series)).status, 400);
    let ids: Vec<String> = letters(&child, 3).into_iter().map(|l| l.id).collect();

    // A letter that is refused again stays under its name, and yields no second letter.
    let (code, out, err) = ask(&child, &["resend", &ids[0]]);
    assert_eq!((code, &*out), (1, "sent: 0 letters\n"));
    assert!(
        err.contains(&ids[0]) && err.contains("no such luck"),
        "{err}"
    );
    endpoint.now(|_| 401);
    assert_eq!(ask(&child, &["resend", &ids[0]]).0, 1);
    let still: Vec<String> = list(&child, &[]).into_iter().map(|l| l.id).collect();
    assert_eq!(still, ids);

    endpoint.now(taken);
    let before = endpoint.accepted().len();
    let (code, out, err) = ask(&child, &["resend", &ids[0]]);
    assert_eq!((code, &*out, &*err), (0, "sent: 1 letter\n", ""));
    let (code, _, err) = ask(&child, &["resend", &ids[0]]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no such letter"), "{err}");
    let (code, out, _) = ask(&child, &["resend", "--all"]);
    assert_eq!((code, &*out), (0, "sent: 2 letters\n"));
    let again: BTreeSet<_> = endpoint.accepted().split_off(before).into_iter().collect();
    let expected = ["bad1", "bad2", "bad3"].map(|name| (name.to_owned(), 7));
    assert_eq!(again, expected.into());
    assert_eq!(list(&child, &[]), []);
    // Each attempt counts as received again, and was delivered or lost.
    let total = |name| child.metric(name, &[("component_id", "out")]);
    let received = total("metrifold_component_received_samples_total");
    assert_eq!(received, total(SENT) + total(DISCARDED));
}

#[test]
fn a_letter_that_cannot_be_delivered_now_stays_and_is_not_delivered_later() {
    let endpoint = picky(400);
    let data = tempfile::tempdir().unwrap();
    let child = start(
        &data,
        &config(&[("lock", &endpoint.url(), "retry = { max_age = \"1s\" }")]),
    );
    assert_eq!(
        Sender::new(child.ingest)
            .write(&body(&[one("bad", 7)]))
            .status,
        400
    );
    let before = letters(&child, 1);
    endpoint.now(|_| 503);
    let (code, out, err) = ask(&child, &["resend", "--all"]);
    assert_eq!((code, &*out), (1, "sent: 0 letters\n"));
    assert!(err.contains("not delivered within retry.max_age"), "{err}");
    assert_eq!(list(&child, &[]), before);
    endpoint.now(taken);
    assert_eq!(ask(&child, &["resend", "--all"]).0, 0);
    assert_eq!(endpoint.accepted(), [("bad".to_owned(), 7)]);
}

#[test]
fn letters_are_discarded_one_by_one_by_tenant_or_all() {
    let endpoint = picky(422);
    let data = tempfile::tempdir().unwrap();
    let config = config(&[("out", &endpoint.url(), "tenant_header = \"X-Scope-OrgID\"")]);
    let config = config.replace("inputs = [\"ingest\"]", "inputs = [\"tenant\"]")
        + "[transforms.tenant]\ntype = \"tenant\"\ninputs = [\"ingest\"]\nfrom = [{ label = \"team\" }]\n";
    let child = start(&data, &config);
    let series: Vec<Series> = ["a", "b", "a", "c"]
        .iter()
        .enumerate()
        .map(|(n, team)| one(&format!("bad{n}"), 1).label("team", team))
        .collect();
    assert_eq!(Sender::new(child.ingest).write(&body(&series)).status, 400);
    let all = letters(&child, 4);
    let tenants: BTreeSet<_> = all.iter().filter_map(|l| l.tenant.as_deref()).collect();
    assert_eq!(tenants, ["a", "b", "c"].into());
    assert_eq!(list(&child, &["--tenant", "a"]).len(), 2);
    assert_eq!(list(&child, &["--sink", "nobody"]), []);
    assert_eq!(list(&child, &["--limit", "1"]), all[..1]);

    let (code, out, err) = ask(&child, &["list", "--tenant", "b"]);
    assert_eq!((code, &*err), (0, ""));
    assert!(
        out.contains("  tenant b\n") && out.contains("  bad1{team=\"b\"}  1 sample from 1\n"),
        "{out}"
    );

    let (code, out, _) = ask(&child, &["discard", "--all", "--tenant", "a"]);
    assert_eq!((code, &*out), (0, "discarded: 2 letters\n"));
    let left = list(&child, &[]);
    let (code, out, _) = ask(&child, &["discard", &left[0].id, "out/1"]);
    assert_eq!((code, &*out), (1, "discarded: 1 letter\n"));
    assert_eq!(list(&child, &[]), left[1..]);
    let (code, ..) = ask(&child, &["discard", "--all"]);
    assert_eq!(code, 0);
    assert_eq!(list(&child, &[]), []);
    assert_eq!(endpoint.accepted(), []);
}

#[test]
fn letters_outlive_the_process_and_its_violent_end() {
    let endpoint = picky(400);
    let data = tempfile::tempdir().unwrap();
    let text = config(&[("out", &endpoint.url(), "")]);
    let mut child = start(&data, &text);
    let request = body(&[one("good", 7), one("bad", 7)]);
    assert_eq!(Sender::new(child.ingest).write(&request).status, 400);
    let before = letters(&child, 1);
    child.signal("KILL");
    child.wait();

    let mut child = start(&data, &text);
    assert_eq!(list(&child, &[]), before);
    assert_eq!(child.metric("metrifold_dead_letters", &[]), 1.0);
    assert_eq!(Sender::new(child.ingest).write(&request).status, 400);
    // A graceful shutdown writes all letters.
    child.signal("TERM");
    assert!(child.wait().success());
    let folder = data.path().join("dead-letters/out");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2);
    // A damaged letter is reported; the program and the other letter are unaffected.
    files.sort();
    fs::write(&files[0], "something else").unwrap();
    let child = start(&data, &text);
    let (code, out, _) = ask(&child, &["list"]);
    assert_eq!(code, 0);
    assert!(out.contains("  damaged: file is no dead letter"), "{out}");
    assert!(out.contains("  bad  1 sample from 7\n"), "{out}");
    endpoint.now(taken);
    let (code, out, err) = ask(&child, &["resend", "--all"]);
    assert_eq!((code, &*out), (1, "sent: 1 letter\n"));
    assert!(err.contains("no dead letter of this version"), "{err}");
    assert_eq!(ask(&child, &["discard", "--all"]).0, 0);
    assert_eq!(list(&child, &[]), []);
}

#[test]
fn letters_survive_a_reload_of_their_sink_and_its_new_bounds_hold() {
    let endpoint = picky(400);
    let data = tempfile::tempdir().unwrap();
    let text = config(&[("out", &endpoint.url(), "")]);
    let child = start(&data, &text);
    let mut sender = Sender::new(child.ingest);
    for time in 1..=20 {
        assert_eq!(sender.write(&body(&[one("bad", time)])).status, 400);
    }
    letters(&child, 20);
    let less = config(&[(
        "out",
        &endpoint.url(),
        "dead_letters = { max_bytes = \"64KiB\" }",
    )]);
    fs::write(child.folder().join("main.toml"), child.complete(&less)).unwrap();
    let reload = Sender::new(child.api).post("/-/reload", &[], b"");
    assert_eq!(reload.status, 200, "{}", reload.text());
    assert_eq!(list(&child, &[]).len(), 20);
    assert_eq!(sender.write(&body(&[one("bad", 21)])).status, 400);
    let kept = letters(&child, 16);
    assert_eq!(kept[0].series[0].first_timestamp, Some(21));
    assert_eq!(kept[15].series[0].first_timestamp, Some(6));
    let room = [("reason", "room")];
    assert_eq!(
        child.metric("metrifold_dead_letters_dropped_total", &room),
        5.0
    );
    endpoint.now(taken);
    assert_eq!(ask(&child, &["resend", "--all"]).0, 0);
}

#[test]
fn without_a_directory_for_files_they_are_only_counted() {
    let endpoint = picky(400);
    let child = Metrifold::start(&config(&[("out", &endpoint.url(), "")]));
    let request = body(&[one("good", 7), one("bad", 7)]);
    assert_eq!(Sender::new(child.ingest).write(&request).status, 400);
    assert_eq!(endpoint.accepted(), [("good".to_owned(), 7)]);
    assert_eq!(child.metric(DISCARDED, &[("reason", "refused")]), 1.0);
    assert_eq!(list(&child, &[]), []);

    let keys = "dead_letters = { max_age = \"1d\" }";
    let mut child = Metrifold::spawn(&config(&[("out", &endpoint.url(), keys)]), &[]);
    assert_eq!(child.wait().code(), Some(1));
    assert!(child.log().contains("need a data_dir"), "{}", child.log());
}

#[test]
fn the_admin_address_refuses_what_it_does_not_understand() {
    let endpoint = Endpoint::healthy();
    let child = Metrifold::start(&config(&[("out", &endpoint.url(), "")]));
    let list = "/api/v1/dead-letters";
    for (path, body, status) in [
        ("/resend", "", 400),
        ("/resend", "{\"id\": []}", 400),
        ("/discard", "{\"ids\": [1]}", 400),
        ("/discard", "{\"ids\": []}", 200),
        ("", "", 405),
    ] {
        let answer = Sender::new(child.api).post(&format!("{list}{path}"), &[], body.as_bytes());
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
    }
    assert_eq!(child.get(&format!("{list}?limit=x")).status, 400);
    assert_eq!(child.get(&format!("{list}/resend")).status, 405);
    let many = format!("{{\"ids\": [{}]}}", ["\"a/1\""; 101].join(","));
    let answer = Sender::new(child.api).post(&format!("{list}/discard"), &[], many.as_bytes());
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("at most 100"), "{}", answer.text());
}

#[test]
fn a_letter_is_sent_again_whole_whatever_its_source_allowed() {
    let endpoint = Endpoint::new(|_| Reply::new(400).body("not yet"));
    let data = tempfile::tempdir().unwrap();
    let keys = "max_labels_per_series = 300\nmax_label_value_bytes = \"64KiB\"";
    let config = ingest(keys) + &sink("out", "ingest", &endpoint.url(), "");
    let child = start(&data, &config);
    let labels = (0..200).map(|n| (format!("label{n:03}"), "v".repeat(20 << 10)));
    let series = labels.fold(one("many", 7), |series, (name, value)| {
        series.label(&name, &value)
    });
    assert_eq!(
        Sender::new(child.ingest).write(&body(&[series])).status,
        400
    );
    let letter = letters(&child, 1).remove(0);
    assert_eq!((letter.samples, letter.series.len()), (1, 1));
    endpoint.now(|_| 204);
    let before = endpoint.count();
    let (code, _, err) = ask(&child, &["resend", &letter.id]);
    assert_eq!(code, 0, "{err}");
    let sent = endpoint.seen().split_off(before);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].series()[0].labels.len(), 201);
    assert_eq!(list(&child, &[]), []);
}
