//! The ledger balances in every situation: what each sink received, in total and by tenant, is
//! delivered, dropped and queued.
//!
//! The program runs as a child process, its command line beside it.

use std::path::Path;

use metrifold::api::ledger::{Amount, Balance, Ledgers, Row, Sink};
use metrifold_testing::{
    Does, Endpoint, Metrifold, Reply, Sender, Series, body, cli, expect, nobody, one, run, until,
    until_so,
};

/// Runs `ledger` with these arguments; returns exit code, stdout and stderr.
fn ask(child: &Metrifold, arguments: &[&str]) -> (i32, String, String) {
    let mut command = cli(&["ledger"]);
    command.args(arguments);
    let output = run(command.args(["--address", &child.api.to_string()]));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// The ledgers, once they balance.
#[track_caller]
fn balanced(child: &Metrifold) -> Ledgers {
    until("nothing moves", || {
        let (code, out, err) = ask(child, &["--format", "json"]);
        assert!([0, 75].contains(&code), "{code}: {out}{err}");
        (code == 0).then(|| serde_json::from_str(&out).unwrap())
    })
}

fn sink<'a>(ledgers: &'a Ledgers, name: &str) -> &'a Sink {
    ledgers.sinks.iter().find(|sink| sink.sink == name).unwrap()
}

fn dropped(line: &Row, reason: &str) -> Amount {
    line.dropped.get(reason).copied().unwrap_or_default()
}

/// Received, delivered, dropped and queued batches.
fn batches(line: &Row) -> [i64; 4] {
    let dropped = line.dropped.values().map(|amount| amount.batches).sum();
    let [received, delivered, queued] =
        [line.received, line.delivered, line.queued].map(|amount| amount.batches);
    [received, delivered, dropped, queued]
}

/// The same numbers from the metrics page, for all tenants or for one.
fn on_page(child: &Metrifold, sink: &str, tenant: Option<&str>) -> [i64; 4] {
    let mut labels = vec![("component_id", sink)];
    labels.extend(tenant.map(|tenant| ("tenant", tenant)));
    [
        "received_batches_total",
        "delivered_batches_total",
        "dropped_batches_total",
        "queued_batches",
    ]
    .map(|name| child.metric(&format!("metrifold_ledger_{name}"), &labels) as i64)
}

const SAMPLES: i64 = 200;

/// A batch of some kilobytes.
fn large(time: i64) -> Vec<u8> {
    let series = (0..SAMPLES).map(|n| one(&format!("series_{n}_{}", n * 7919 % 1000), time + n));
    body(&series.collect::<Vec<_>>())
}

const TENANTS: [&str; 3] = ["a", "b", "c"];

struct Paths {
    sender: Sender,
    time: i64,
}

impl Paths {
    fn new(child: &Metrifold) -> Self {
        let sender = Sender::new(child.ingest);
        Self { sender, time: 0 }
    }

    /// Writes `count` batches of each tenant to each source.
    fn write(&mut self, count: usize) {
        for _ in 0..count {
            for tenant in TENANTS {
                self.time += SAMPLES;
                for source in ["plain", "edited"] {
                    let path = format!("/{source}/{tenant}");
                    expect(&self.sender.post(&path, &[], &large(self.time)), 204);
                }
            }
        }
    }
}

/// Two sources with a queue on disk, one without and one with transforms, and with a small queue in
/// memory for each, which fills.
fn config(folder: &Path, disk: &str, oldest: &str, newest: &str) -> String {
    let mut text = format!("data_dir = {folder:?}\n[ledger]\ntenants = 2\n");
    for source in ["plain", "edited"] {
        text += &format!(
            "[sources.{source}]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
             path = \"/{source}/{{tenant}}\"\ncount_samples = false\n\
             [transforms.{source}_tenant]\ntype = \"tenant\"\ninputs = [\"{source}\"]\n\
             from = [{{ path = \"tenant\" }}]\n"
        );
    }
    text += "[transforms.edits]\ntype = \"relabel\"\ninputs = [\"edited_tenant\"]\n\
             rules = [{ target_label = \"edited\", replacement = \"yes\" }]\n";
    let memory = |policy: &str| {
        format!("required = false\nqueue = {{ max_bytes = \"64KiB\", when_full = \"{policy}\" }}")
    };
    let sinks = [
        (
            "disk",
            "\"plain_tenant\", \"edits\"",
            disk,
            "queue = { type = \"disk\" }".to_owned(),
        ),
        ("oldest", "\"plain_tenant\"", oldest, memory("drop_oldest")),
        ("newest", "\"edits\"", newest, memory("drop_newest")),
    ];
    for (name, inputs, url, keys) in sinks {
        text += &format!(
            "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [{inputs}]\nendpoint = \"{url}\"\n\
             retry = {{ min_backoff = \"5ms\", max_backoff = \"20ms\" }}\n{keys}\n"
        );
    }
    text
}

#[test]
fn the_ledger_balances_whatever_happens() {
    let folder = tempfile::tempdir().unwrap();
    let down = nobody();
    let (oldest, newest) = (
        Endpoint::new(|_| 503),
        Endpoint::new(|_| Does::Hang(Reply::new(204))),
    );
    let config = |disk: &str| config(folder.path(), disk, &oldest.url(), &newest.url());
    let file = |child: &Metrifold| child.folder().join("metrifold.toml");
    let mut child = Metrifold::start(&config(&down));
    let mut paths = Paths::new(&child);

    // Nothing is dropped yet.
    paths.write(1);
    let ledgers = balanced(&child);
    assert_eq!(batches(&sink(&ledgers, "disk").total), [6, 0, 0, 6]);
    assert_eq!(batches(&sink(&ledgers, "newest").total), [3, 0, 0, 3]);
    let edited = sink(&ledgers, "newest").total.received;
    assert_eq!((edited.samples, edited.uncounted_batches), (3 * SAMPLES, 0));
    let plain = sink(&ledgers, "oldest").total.received;
    assert_eq!((plain.samples, plain.uncounted_batches), (0, 3));
    for line in &sink(&ledgers, "disk").tenants {
        assert_eq!(batches(line), [2, 0, 0, 2], "{line:?}");
    }

    // Batches are counted before they go to disk, once the endpoint is known to fail.
    until_so("the disk is in use", || {
        child.metric(
            "metrifold_component_retries_total",
            &[("component_id", "disk")],
        ) >= 2.0
    });
    let uncounted = |ledgers: &Ledgers| sink(ledgers, "disk").total.received.uncounted_batches;
    let before = uncounted(&balanced(&child));

    // Memory is full, and each queue in memory drops according to its policy.
    paths.write(19);
    let ledgers = balanced(&child);
    assert_eq!(uncounted(&ledgers), before);
    for (name, received) in [("disk", 120), ("oldest", 60), ("newest", 60)] {
        let sink = sink(&ledgers, name);
        assert_eq!(sink.total.received.batches, received, "{name}");
        assert_eq!(sink.tenants.len(), 3);
        assert!(
            sink.oldest_seconds.is_some() && sink.queued_bytes > 0,
            "{sink:?}"
        );
        assert_eq!(sink.drain_seconds, None, "nothing goes");
        let full = dropped(&sink.total, "queue_full").batches;
        assert_eq!(full > 0, name != "disk", "{sink:?}");
        assert_eq!(sink.across_restarts, name == "disk");
    }
    // The page agrees: two tenants by name, the third among the others.
    for name in ["disk", "oldest", "newest"] {
        let total = batches(&sink(&ledgers, name).total);
        assert_eq!(on_page(&child, name, None), total, "{name}");
        let mut shown: Vec<i64> = TENANTS
            .iter()
            .map(|tenant| on_page(&child, name, Some(tenant))[0])
            .collect();
        shown.sort_unstable();
        assert_eq!(shown, [0, total[0] / 3, total[0] / 3], "{name}");
        let other = on_page(&child, name, Some("<other>"));
        assert_eq!(other[0], total[0] / 3, "{name}");
    }

    // A table of one sink, with one named tenant.
    let (code, out, _) = ask(&child, &["--sink", "newest", "--tenants", "1"]);
    assert_eq!(code, 0);
    let rows: Vec<&str> = out
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let expected = [
        "newest:", "samples", "a", "<other>", "total", "dropped:", "queued:",
    ];
    assert_eq!(rows[..7], expected, "{out}");
    assert!(!out.contains("not counted"), "{out}");
    assert!(
        out.ends_with("balances: received = delivered + dropped + queued\n"),
        "{out}"
    );
    let (_, out, _) = ask(&child, &["--sink", "oldest"]);
    assert!(out.contains("not counted: 60 of 60 batches"), "{out}");

    // A sink is replaced while its queue is full; its successor delivers the batches.
    newest.release();
    let before = batches(&sink(&balanced(&child), "oldest").total);
    let replaced =
        config(&down).replace("when_full = \"drop_oldest\"", "when_full = \"drop_newest\"");
    std::fs::write(file(&child), child.complete(&replaced)).unwrap();
    until_so("the sink is replaced", || {
        child.log().contains("changed sinks.oldest")
    });
    let after = balanced(&child);
    assert_eq!(batches(&sink(&after, "oldest").total), before);
    oldest.now(|_| 204);
    until_so("memory has drained", || {
        let ledgers = balanced(&child);
        let queued = |name| batches(&sink(&ledgers, name).total)[3];
        queued("oldest") + queued("newest") == 0
    });

    // A part of a batch is refused.
    newest.now(
        |seen| match seen.series().iter().any(|it| it.name() == "bad") {
            true => 400,
            false => 204,
        },
    );
    let refused = dropped(&sink(&balanced(&child), "newest").total, "dead_letter").samples;
    assert_eq!(refused, 0);
    let mut series: Vec<Series> = (0..9).map(|n| one(&format!("good{n}"), 1)).collect();
    series.push(Series::new("bad", &[(1, 1.0), (2, 2.0)]));
    expect(&paths.sender.post("/edited/a", &[], &body(&series)), 204);
    until_so("the part is refused", || {
        let ledgers = balanced(&child);
        let total = &sink(&ledgers, "newest").total;
        let lost: i64 = total
            .dropped
            .iter()
            .filter(|(reason, _)| *reason != "queue_full")
            .map(|(_, amount)| amount.samples)
            .sum();
        total.queued.batches == 0 && lost == 2
    });

    // Batches on disk are accounted for across a crash.
    until_so("all of it is on disk", || {
        child.metric("metrifold_queue_disk_batches", &[("component_id", "disk")]) == 121.0
    });
    let before = balanced(&child);
    let before = &sink(&before, "disk").total;
    assert_eq!(batches(before), [121, 0, 0, 121]);
    child.signal("KILL");
    child.wait();
    child.start_again();
    let ledgers = balanced(&child);
    let after = &sink(&ledgers, "disk").total;
    assert_eq!(batches(after), [121, 0, 0, 121]);
    assert_eq!(after.received, before.received);
    assert_eq!(batches(&sink(&ledgers, "oldest").total), [0; 4]);
    assert_eq!(on_page(&child, "disk", None), [121, 0, 0, 121]);

    // They are delivered in the end.
    let healthy = Endpoint::healthy();
    std::fs::write(file(&child), child.complete(&config(&healthy.url()))).unwrap();
    until_so("the disk has drained", || {
        batches(&sink(&balanced(&child), "disk").total) == [121, 121, 0, 0]
    });
    let ledgers = balanced(&child);
    let disk = sink(&ledgers, "disk");
    assert_eq!((disk.oldest_seconds, disk.drain_seconds), (None, Some(0.0)));
    assert_eq!(on_page(&child, "disk", None), [121, 121, 0, 0]);

    // A restart starts a new page, on which these batches are not received again.
    child.signal("TERM");
    assert!(child.wait().success(), "{}", child.log());
    child.start_again();
    assert_eq!(
        batches(&sink(&balanced(&child), "disk").total),
        [121, 121, 0, 0]
    );
    assert_eq!(on_page(&child, "disk", None), [0; 4]);
}

#[test]
fn samples_are_counted_unless_that_is_turned_off_and_what_passes_through_stays_as_it_came() {
    let endpoint = Endpoint::healthy();
    let config = |keys: &str| {
        format!(
            "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n{keys}\
             [sinks.z]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{}\"\n",
            endpoint.url()
        )
    };
    // Decoding would sort the labels.
    let mut series = Series::new("up", &[(1, 1.0), (2, 2.0)]).label("a", "b");
    series.labels.reverse();
    let body = body(&[series, one("down", 1)]);
    for (keys, expected) in [("count_samples = false\n", [0, 1]), ("", [3, 0])] {
        let child = Metrifold::start(&config(keys));
        expect(&Sender::new(child.ingest).write(&body), 204);
        let ledgers = balanced(&child);
        let total = &sink(&ledgers, "z").total;
        assert_eq!(batches(total), [1, 1, 0, 0]);
        let delivered = total.delivered;
        assert_eq!([delivered.samples, delivered.uncounted_batches], expected);
        assert_eq!(endpoint.seen().last().unwrap().body, body);
        let received = child.metric(
            "metrifold_component_received_samples_total",
            &[("component_id", "a")],
        );
        assert_eq!(received, expected[0] as f64);
    }
}

#[test]
fn transforms_that_lead_to_no_sink_are_not_run() {
    let endpoint = Endpoint::healthy();
    // If they ran, the batch would be decoded and counted.
    let child = Metrifold::start(&format!(
        "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\ncount_samples = false\n\
         [transforms.first]\ntype = \"relabel\"\ninputs = [\"a\"]\n\
         rules = [{{ regex = \"job\", action = \"labeldrop\" }}]\n\
         [transforms.second]\ntype = \"tenant\"\ninputs = [\"first\"]\n\
         from = [{{ value = \"team-a\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.z]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{}\"\n",
        endpoint.url()
    ));
    let body = body(&[one("up", 1)]);
    expect(&Sender::new(child.ingest).write(&body), 204);
    let delivered = sink(&balanced(&child), "z").total.delivered;
    assert_eq!([delivered.samples, delivered.uncounted_batches], [0, 1]);
    assert_eq!(endpoint.seen().last().unwrap().body, body);
}

#[test]
fn who_asks_for_what_there_is_not_is_told_so() {
    let endpoint = Endpoint::healthy();
    let text = format!(
        "[sources.a]\ntype = \"remote_write\"\naddress = \"INGEST\"\n\
         [sinks.z]\ntype = \"remote_write\"\ninputs = [\"a\"]\nendpoint = \"{}\"\n",
        endpoint.url()
    );
    let child = Metrifold::start(&text);
    let (code, out, err) = ask(&child, &["--sink", "y"]);
    assert_eq!((code, &*out), (1, ""));
    assert!(err.contains("there is no sink \"y\""), "{err}");
    let (code, _, err) = ask(&child, &["--tenants", "1001"]);
    assert_eq!(code, 1);
    assert!(err.contains("tenants must be from 0 to 1000"), "{err}");
    let answer = child.get("/api/v1/ledger?tenants=x");
    assert_eq!(answer.status, 400);
    let ledgers: Ledgers = serde_json::from_slice(&child.get("/api/v1/ledger").body).unwrap();
    assert_eq!(ledgers.balances, Balance::Known(true));
    assert_eq!(batches(&ledgers.sinks[0].total), [0; 4]);
    drop(child);
    let nobody = nobody().replace("http://", "").replace("/write", "");
    let output = run(&mut cli(&["ledger", "--address", &nobody]));
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("cannot reach"), "{err}");
}
