//! The metrics page matches the table of metrics, and passes Prometheus' own checker.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use metrifold_telemetry::Metric;
use metrifold_testing::config::{ingest, sink};
use metrifold_testing::{Endpoint, Metrifold, Sender, expect, nobody, until_so, up};

/// The metric whose name `promtool` dislikes; the Observatorium proposal defines it.
const EXCEPTION: &str = "remote_write_requests_count";

/// A process that has received, delivered, retried, stored and lost batches.
fn busy(endpoint: &Endpoint) -> Metrifold {
    let away = "required = false\nqueue = { type = \"disk\" }";
    let config = format!(
        r#"data_dir = "data"
{}{}{}
[sources.own]
type = "internal_metrics"
interval = "100ms"
[transforms.edited]
type = "relabel"
inputs = ["ingest", "own"]
rules = [{{ action = "labeldrop", regex = "secret" }}]
"#,
        ingest(""),
        sink("well", "edited", &endpoint.url(), ""),
        sink("away", "edited", &nobody(), away),
    );
    let child = Metrifold::start(&config);
    let mut sender = Sender::new(child.ingest);
    expect(&sender.write(&up(1)), 204);
    expect(&sender.write(&up(2)), 400);
    let names = ["well", "away"];
    until_so("both sinks have made requests", || {
        let made = |sink| child.metric("remote_write_requests_total", &[("name", sink)]);
        names.into_iter().all(|sink| made(sink) > 0.0)
    });
    child
}

fn refuses_the_second() -> Endpoint {
    Endpoint::new(|seen| {
        let series = seen.series();
        let bad = series
            .iter()
            .any(|it| it.name() == "up" && it.times().any(|time| time == 2));
        if bad { 400 } else { 204 }
    })
}

#[test]
fn the_page_holds_what_the_table_of_metrics_says_and_nothing_else() {
    let endpoint = refuses_the_second();
    let child = busy(&endpoint);
    let page = child.get("/metrics").text();
    let known: BTreeMap<_, _> = Metric::ALL
        .iter()
        .map(|metric| (metric.describe().name, metric.describe()))
        .collect();
    let mut families = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let described = known
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(described.kind.as_str(), kind, "{name}");
        assert!(page.contains(&format!("# HELP {name} {}", described.help)));
        families += 1;
    }
    assert!(families > 40, "{families}");
}

#[test]
fn requests_to_an_endpoint_are_counted_under_both_names() {
    let endpoint = refuses_the_second();
    let child = busy(&endpoint);
    let page = child.get("/metrics").text();
    for series in [
        r#"remote_write_requests_count{name="well",code="204"}"#,
        r#"remote_write_requests_total{proxy="metricsv1-remotewrite",name="well",code="204"}"#,
        r#"remote_write_requests_count{name="well",code="400"}"#,
        r#"remote_write_requests_total{proxy="metricsv1-remotewrite",name="away",code="<error>"}"#,
    ] {
        assert!(page.contains(series), "{series} of\n{page}");
    }
}

#[test]
fn the_process_is_measured_under_the_usual_names() {
    let child = busy(&refuses_the_second());
    let of = |name| child.metric(name, &[]);
    let started = of("process_start_time_seconds");
    assert_eq!(started, of("metrifold_start_time_seconds"));
    assert!(of("process_cpu_seconds_total") > 0.0);
    assert!(of("process_open_fds") < of("process_max_fds"));
    assert!(of("process_threads") >= 2.0);
    assert!(of("process_resident_memory_bytes") > 1e6);
}

#[test]
fn promtool_likes_the_page_but_for_the_one_name_that_the_proposal_gives() {
    let endpoint = refuses_the_second();
    let child = busy(&endpoint);
    let page = child.get("/metrics").body;
    let mut tool = Command::new("promtool");
    let spawned = tool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match spawned {
        Ok(tool) => tool,
        Err(error) => {
            eprintln!("LEFT OUT: promtool cannot be started ({error}); `make peers` installs it");
            return;
        }
    };
    tool.stdin.take().unwrap().write_all(&page).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let faults = said.lines().filter(|line| !line.starts_with(EXCEPTION));
    assert_eq!(faults.collect::<Vec<_>>(), [""; 0]);
    assert!(said.contains(EXCEPTION), "it has looked: {said:?}");
}

#[test]
fn bytes_do_not_depend_on_who_encodes_and_no_transform_counts_none() {
    let (one, two) = (Endpoint::healthy(), Endpoint::healthy());
    let config = format!(
        r#"{}{}{}
[transforms.edited]
type = "relabel"
inputs = ["ingest"]
rules = [
    {{ action = "labeldrop", regex = "secret" }},
    {{ source_labels = ["__name__"], regex = "dropped", action = "drop" }},
]
[sinks.nothing]
type = "blackhole"
inputs = ["edited"]
[sinks.raw]
type = "blackhole"
inputs = ["ingest"]
"#,
        ingest(""),
        sink("new", "edited", &one.url(), "protocol = \"1.0\""),
        sink(
            "old",
            "edited",
            &two.url(),
            "protocol = \"1.0\"\nmerge_bytes = \"0B\""
        ),
    );
    let child = Metrifold::start(&config);
    let series = ["kept", "dropped"].map(|name| metrifold_testing::one(name, 1));
    let request = metrifold_testing::body(&series);
    expect(&Sender::new(child.ingest).write(&request), 204);
    let bytes = |which: &str, id: &str| {
        let name = format!("metrifold_component_{which}_bytes_total");
        child.metric(&name, &[("component_id", id)])
    };
    let whole = request.len() as f64;
    for (which, id) in [
        ("received", "ingest"),
        ("sent", "ingest"),
        ("received", "edited"),
        ("received", "raw"),
    ] {
        assert_eq!(bytes(which, id), whole, "{which} {id}");
    }
    let half = (whole / 2.0).floor();
    for (which, id) in [
        ("sent", "edited"),
        ("received", "new"),
        ("received", "old"),
        ("received", "nothing"),
    ] {
        assert_eq!(bytes(which, id), half, "{which} {id}");
    }
    for (id, endpoint) in [("new", &one), ("old", &two)] {
        let sent: usize = endpoint.seen().iter().map(|seen| seen.body.len()).sum();
        assert_eq!(bytes("sent", id), sent as f64, "{id}");
    }
}
