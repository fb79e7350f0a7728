//! Queries to replicas through the program: failover, retries, affinity, and compatibility with
//! mpp.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrifold_testing::{
    Answer, Does, Endpoint, Metrifold, Reply, Seen, expect, fetch, nobody, request, until_so,
};

const QUERY: &str = "/api/v1/query?query=up";

/// Answers of a Prometheus to probes: ready, with this number of samples and an oldest one.
fn prometheus(
    samples: u64,
    oldest: u64,
    answer: impl Fn(&Seen) -> Does + Send + Sync + 'static,
) -> Endpoint {
    Endpoint::new(move |seen| probe(seen, samples, oldest).unwrap_or_else(|| answer(seen)))
}

fn probe(seen: &Seen, samples: u64, oldest: u64) -> Option<Does> {
    let path = seen
        .path
        .rsplit_once("/-/")
        .map_or(&*seen.path, |_| "/-/ready");
    let reply = match path {
        "/-/ready" => Reply::new(200).body("Prometheus Server is Ready.\n"),
        "/metrics" => Reply::new(200).body(format!(
            "prometheus_tsdb_lowest_timestamp_seconds {oldest}\n\
             prometheus_tsdb_head_max_time_seconds 1.7e9\n\
             prometheus_tsdb_head_samples_appended_total {samples}\n"
        )),
        "/api/v1/status/tsdb/blocks" => Reply::new(404),
        _ => return None,
    };
    Some(Does::Answer(reply))
}

fn says(text: &'static str) -> impl Fn(&Seen) -> Does + Send + Sync + 'static {
    move |_| Does::Answer(Reply::new(200).body(text))
}

fn config(endpoints: &[String], keys: &str) -> String {
    let replicas = endpoints
        .iter()
        .map(|url| format!("{{ endpoint = {url:?} }}"));
    let replicas = replicas.collect::<Vec<_>>().join(", ");
    format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nreplicas = [{replicas}]\n{keys}\n"
    )
}

/// A gateway whose replicas have all been probed once.
fn gateway(endpoints: &[&Endpoint], keys: &str) -> Metrifold {
    let urls: Vec<String> = endpoints.iter().map(|it| it.url_of("")).collect();
    started(&urls, keys)
}

fn started(urls: &[String], keys: &str) -> Metrifold {
    let gateway = Metrifold::start(&config(urls, keys));
    until_so("all replicas have been probed", || {
        let routers = gateway.get("/api/v1/replicas").json();
        let replicas = routers["routers"][0]["fleet"]["replicas"]
            .as_array()
            .unwrap()
            .clone();
        replicas.len() == urls.len()
            && replicas
                .iter()
                .all(|it| !it["probes"].as_array().unwrap().is_empty())
    });
    gateway
}

#[track_caller]
fn ask(gateway: &Metrifold, target: &str, headers: &[(&str, &str)]) -> Answer {
    request("GET", gateway.ingest, target, headers, b"").unwrap()
}

/// mpp's own test of its router, with a bounded number of requests: many clients, several replicas
/// of which every second one always answers 502, and no client sees a 502.
#[test]
fn one_replica_that_always_answers_502_is_seen_by_no_client() {
    let good = prometheus(1, 1, says("good"));
    let bad = prometheus(1, 1, |_| Does::Answer(Reply::new(502).body("bad")));
    let keys = "strategy = \"random\"\naffinity = []\nretry.budget_percent = 100";
    let gateway = gateway(&[&good, &bad], keys);
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..15 {
            scope.spawn(|| {
                for _ in 0..17 {
                    let answer = ask(&gateway, QUERY, &[]);
                    if (answer.status, &*answer.text()) != (200, "good") {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0);
    let tried = bad.seen().iter().filter(|seen| seen.path == QUERY).count();
    assert!(tried > 0);
}

#[test]
fn first_asks_the_second_while_the_first_is_away_and_goes_back() {
    let (first, second) = (
        prometheus(1, 1, says("first")),
        prometheus(1, 1, says("second")),
    );
    let keys = "strategy = \"first\"\nprobe.interval = \"50ms\"";
    let gateway = gateway(&[&first, &second], keys);
    let answers = |expected: &str| {
        until_so(expected, || {
            let answer = ask(&gateway, QUERY, &[]);
            expect(&answer, 200);
            answer.text() == expected
        })
    };
    answers("first");
    first.now(|seen: &Seen| match &*seen.path {
        "/-/ready" => Reply::new(503).body("Service Unavailable"),
        _ => Reply::new(200).body("first"),
    });
    answers("second");
    first.now(|seen: &Seen| {
        probe(seen, 1, 1).unwrap_or(Does::Answer(Reply::new(200).body("first")))
    });
    answers("first");
    let events = gateway.get("/api/v1/replicas").text();
    assert!(
        events.contains("is down: /-/ready answered 503"),
        "{events}"
    );
}

#[test]
fn most_data_asks_one_and_a_dead_one_costs_nobody_an_answer() {
    let (less, most) = (
        prometheus(10, 1, says("less")),
        prometheus(30, 1, says("most")),
    );
    let gateway = gateway(&[&less, &most], "strategy = \"most_data\"");
    for _ in 0..5 {
        let answer = ask(&gateway, QUERY, &[]);
        assert_eq!((answer.status, &*answer.text()), (200, "most"));
        assert_eq!(answer.header("x-served-by"), Some(&*most.url_of("")));
    }
    drop(most);
    for _ in 0..20 {
        assert_eq!(ask(&gateway, QUERY, &[]).text(), "less");
    }
}

#[test]
fn minimum_history_asks_whoever_goes_back_far_enough() {
    let old = prometheus(1, 1_000_000_000, says("old"));
    let young = prometheus(1, 9_000_000_000, says("young"));
    let keys = "strategy = \"minimum_history\"\nminimum_history = \"1h\"\naffinity = []";
    let gateway = gateway(&[&young, &old], keys);
    for _ in 0..10 {
        assert_eq!(ask(&gateway, QUERY, &[]).text(), "old");
    }
}

#[test]
fn a_path_in_front_credentials_and_headers_are_the_replica_s_own() {
    let replica = prometheus(1, 1, says("answer"));
    let url = replica.url_of("/prefix/");
    let config = format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/in\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nstrategy = \"first\"\n\
         headers = {{ X-Scope-OrgID = \"t\" }}\n\
         [[sinks.router.replicas]]\nendpoint = \"{url}\"\n\
         client = {{ basic_auth = {{ username = \"u\", password = \"p\" }} }}\n"
    );
    let gateway = Metrifold::start(&config);
    let headers = [("authorization", "Bearer caller"), ("cookie", "a=b")];
    expect(&ask(&gateway, "/in/api/v1/query?query=up", &headers), 200);
    let seen = replica.seen();
    let query = seen
        .iter()
        .find(|seen| seen.path.contains("query="))
        .unwrap();
    assert_eq!(query.path, "/prefix/api/v1/query?query=up");
    assert_eq!(query.header("authorization"), Some("Basic dTpw"));
    assert_eq!(query.header("x-scope-orgid"), Some("t"));
    assert_eq!(query.header("cookie"), None);
    let ready = seen.iter().find(|seen| seen.path.ends_with("/-/ready"));
    if let Some(ready) = ready {
        assert_eq!(ready.path, "/prefix/-/ready");
        assert_eq!(ready.header("authorization"), Some("Basic dTpw"));
    }
}

#[test]
fn a_dashboard_stays_at_its_replica_and_moves_only_with_it() {
    let replicas = [
        prometheus(1, 1, says("0")),
        prometheus(1, 1, says("1")),
        prometheus(1, 1, says("2")),
    ];
    let all: Vec<&Endpoint> = replicas.iter().collect();
    let gateway = gateway(&all, "strategy = \"random\"\nprobe.interval = \"100ms\"");
    let owners = || -> BTreeMap<usize, String> {
        let owner =
            |n: usize| ask(&gateway, QUERY, &[("x-dashboard-uid", &format!("d{n}"))]).text();
        (0..30).map(|n| (n, owner(n))).collect()
    };
    let before = owners();
    assert_eq!(owners(), before);
    replicas[1].now(|_| Reply::new(503).body("Service Unavailable"));
    until_so("the replica is out", || {
        gateway.metric(
            "metrifold_replica_up",
            &[("replica", &replicas[1].url_of(""))],
        ) == 0.0
    });
    for (n, owner) in owners() {
        assert_ne!(owner, "1");
        assert!(before[&n] == "1" || before[&n] == owner, "{n}");
    }
}

#[test]
fn mpp_s_pages_tell_the_truth() {
    let good = prometheus(1, 1, says("good"));
    let dead = nobody();
    let keys = "probe = { interval = \"50ms\", fall = 1 }\nmpp = { address = \"INGEST\" }";
    let gateway = started(&[good.url_of(""), dead.clone()], keys);
    let page = |path: &str| fetch(gateway.ingest, path).unwrap();
    let health = page("/mpp/health");
    assert_eq!((health.status, &*health.text()), (200, "OK"));
    expect(&ask(&gateway, QUERY, &[]), 200);
    let metrics = page("/mpp/metrics").text();
    for line in [
        "mpp_selected_backends 1",
        "mpp_affinity_hits{type=\"cookie\"} 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line}: {metrics}");
    }
    let requests = format!("mpp_requests{{backend=\"{}\"}} 1", good.url_of(""));
    assert!(metrics.contains(&requests), "{metrics}");
    let status = page("/mpp/status").text();
    assert!(
        status.contains("not available") && status.contains(&dead),
        "{status}"
    );
    // Without a replica health is bad, and a query is refused in the format of the API.
    good.now(|_| Reply::new(500));
    until_so("health is bad", || page("/mpp/health").status == 503);
    assert!(
        page("/mpp/metrics")
            .text()
            .contains("mpp_selected_backends 0\n")
    );
    let refused = ask(&gateway, QUERY, &[]);
    expect(&refused, 503);
    let error = refused.json();
    assert_eq!(error["errorType"], "unavailable");
    let text = error["error"].as_str().unwrap();
    assert!(
        text.contains("no replica can be queried") && text.contains("/-/ready answered 500"),
        "{text}"
    );
}

#[test]
fn replicas_come_from_a_file_whose_lines_are_urls_with_paths_and_cr_lf() {
    let (a, b) = (prometheus(1, 1, says("a")), prometheus(1, 1, says("b")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints");
    let write = |lines: &[String]| std::fs::write(&file, lines.join("\r\n") + "\r\n").unwrap();
    write(&[a.url_of("/x")]);
    let gateway = Metrifold::start(&format!(
        "[discovery.file]\ntype = \"file\"\nformat = \"lines\"\nfiles = [{file:?}]\n\
         [sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\ndiscovery = \"file\"\n"
    ));
    let answers =
        |expected: &str| until_so(expected, || ask(&gateway, QUERY, &[]).text() == expected);
    answers("a");
    assert!(
        a.seen()
            .iter()
            .any(|seen| seen.path == "/x/api/v1/query?query=up")
    );
    write(&[b.url_of("")]);
    answers("b");
}

#[test]
fn a_provider_that_there_is_not_is_told_of_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrifold.toml");
    for names in ["\"flie\"", "[\"file\", \"flie\"]"] {
        let text = format!(
            "[discovery.file]\ntype = \"static\"\ntargets = [\"a:1\"]\n\
             [sources.api]\ntype = \"prometheus_api\"\naddress = \"127.0.0.1:1\"\n\
             [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\ndiscovery = {names}\n"
        );
        std::fs::write(&file, text).unwrap();
        let output = metrifold_testing::run(&mut metrifold_testing::cli(&[
            "validate",
            "-c",
            file.to_str().unwrap(),
        ]));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78));
        assert!(errors.contains("did you mean `file`?"), "{errors}");
    }
}

#[test]
fn a_reload_of_something_else_keeps_what_is_known_of_replicas() {
    let replica = prometheus(1, 1, says("answer"));
    let gateway = gateway(&[&replica], "");
    for _ in 0..3 {
        expect(&ask(&gateway, QUERY, &[]), 200);
    }
    let text = config(&[replica.url_of("")], "").replace("[sinks", "timeout = \"1m\"\n[sinks");
    metrifold_testing::edits::edit(&gateway, &text);
    metrifold_testing::edits::post_expecting(&gateway, 200, "applied: changed sources.api");
    let fleet = gateway.get("/api/v1/replicas").json();
    assert_eq!(
        fleet["routers"][0]["fleet"]["replicas"][0]["counts"]["requests"],
        3
    );
}
