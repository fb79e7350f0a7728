//! `first` behaves like Caddy: in front of the same two replicas, with the same faults, both choose
//! the same.

use std::net::SocketAddr;

use metrifold_testing::peers::Caddy;
use metrifold_testing::{Does, Endpoint, Metrifold, Reply, Seen, request, until_so};

const QUERY: &str = "/api/v1/query?query=up";

/// State of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Replays its log: readiness says so, and queries fail.
    Starting,
    /// Ready, but fails every query.
    Fails,
    /// Answers readiness with an unexpected text.
    Other,
    /// Breaks every connection.
    Breaks,
    /// Breaks connections with a query.
    BreaksQueries,
}

fn set(replica: &Endpoint, name: &'static str, mood: Mood) {
    replica.now(move |seen: &Seen| -> Does {
        let ready = seen.path == "/-/ready";
        match (mood, ready) {
            (Mood::Well | Mood::Fails | Mood::BreaksQueries, true) => {
                Reply::new(200).body("Prometheus Server is Ready.\n").into()
            }
            (Mood::Well | Mood::Other, false) => Reply::new(200).body(name).into(),
            (Mood::Starting, _) => Reply::new(503).body("Service Unavailable").into(),
            (Mood::Fails, false) => Reply::new(500).body(name).into(),
            (Mood::Other, true) => Reply::new(200).body("a page").into(),
            (Mood::Breaks, _) | (Mood::BreaksQueries, false) => Does::Close,
        }
    });
}

/// Status and text of an answer. Without an available upstream it is 502 without text, also where
/// Caddy answers 503 because it did not try.
fn ask(address: SocketAddr) -> (u16, String) {
    let answer = request("GET", address, QUERY, &[], b"").unwrap();
    match answer.status {
        502 | 503 => (502, String::new()),
        status => (status, answer.text()),
    }
}

#[test]
fn first_chooses_as_caddy_does_through_the_same_faults() {
    let replicas = [
        Endpoint::new(|_| Reply::new(503)),
        Endpoint::new(|_| Reply::new(503)),
    ];
    let urls = replicas.each_ref().map(|it| it.url_of(""));
    set(&replicas[0], "first", Mood::Well);
    set(&replicas[1], "second", Mood::Well);
    let caddy = Caddy::first_of(
        &urls.each_ref().map(String::as_str),
        "lb_try_duration 400ms\n lb_try_interval 100ms\n fail_duration 3s\n max_fails 5\n \
         health_uri /-/ready\n health_interval 300ms\n health_timeout 2s\n health_body Ready",
    );
    let gateway = Metrifold::start(&format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n\
         [sinks.router]\ntype = \"replica_router\"\ninputs = [\"api\"]\nstrategy = \"first\"\n\
         replicas = [{{ endpoint = \"{}\" }}, {{ endpoint = \"{}\" }}]\n\
         probe = {{ interval = \"300ms\", timeout = \"2s\" }}\n\
         max_fails = 5\nfail_timeout = \"3s\"\nretry = {{ duration = \"400ms\", interval = \"100ms\" }}\n",
        urls[0], urls[1]
    ));
    let script: &[(Mood, Mood)] = &[
        (Mood::Well, Mood::Well),
        (Mood::Starting, Mood::Well),
        (Mood::Well, Mood::Well),
        (Mood::Fails, Mood::Well),
        (Mood::Other, Mood::Well),
        (Mood::Other, Mood::Fails),
        (Mood::Breaks, Mood::Well),
        (Mood::Breaks, Mood::Breaks),
        (Mood::Starting, Mood::Starting),
        (Mood::Breaks, Mood::Well),
        (Mood::Well, Mood::Starting),
        (Mood::BreaksQueries, Mood::Well),
        (Mood::BreaksQueries, Mood::Breaks),
        (Mood::Well, Mood::Well),
    ];
    for (number, (first, second)) in script.iter().enumerate() {
        set(&replicas[0], "first", *first);
        set(&replicas[1], "second", *second);
        // Both check three times a second, and forget failures after three seconds.
        let expected = match (first, second) {
            (Mood::Well, _) => (200, "first"),
            (Mood::Fails, _) => (500, "first"),
            (_, Mood::Well) => (200, "second"),
            (_, Mood::Fails) => (500, "second"),
            _ => (502, ""),
        };
        let expected = (expected.0, expected.1.to_owned());
        for (who, address) in [("Caddy", caddy.address), ("Metrifold", gateway.ingest)] {
            let what = format!("{who} at step {number} ({first:?}, {second:?}): {expected:?}");
            until_so(&what, || ask(address) == expected);
            // And stays there.
            for _ in 0..10 {
                assert_eq!(ask(address), expected, "{what}");
            }
        }
    }
}
