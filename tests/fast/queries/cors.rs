//! Queries from the scripts of web pages (CORS).

use metrifold_testing::{Endpoint, Metrifold, Reply, expect, request};

use super::gateway;

/// Prometheus with its default, `.*`.
fn upstream() -> Endpoint {
    Endpoint::new(|_| {
        Reply::new(200)
            .header("Access-Control-Allow-Origin", "*")
            .header("Access-Control-Allow-Headers", "Accept")
            .header("Vary", "Accept-Encoding")
            .body("whole")
    })
}

const ALLOWED: (&str, &str) = ("origin", "https://grafana-2.example");
const OTHER: (&str, &str) = ("origin", "https://grafana-2.example.evil");
const PAGES: &str = "cors_origin = 'https://grafana(-\\d)?\\.example'";
const QUERY: &str = "/api/v1/query?query=up";

#[test]
fn a_browser_asks_without_credentials_whether_a_page_may_query() {
    let upstream = upstream();
    let keys = format!("{PAGES}\nbasic_auth = {{ username = \"u\", password = \"p\" }}");
    let gateway = Metrifold::start(&gateway(&keys, &upstream.url_of(""), ""));
    let ask =
        |headers: &[(&str, &str)]| request("OPTIONS", gateway.ingest, QUERY, headers, b"").unwrap();
    let wanted = "authorization,x-dashboard-uid";
    let answer = ask(&[ALLOWED, ("access-control-request-headers", wanted)]);
    expect(&answer, 204);
    for (name, value) in [
        ("access-control-allow-origin", ALLOWED.1),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", wanted),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    for headers in [&[OTHER][..], &[]] {
        let answer = ask(headers);
        expect(&answer, 204);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("access-control-allow-headers"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    assert!(upstream.seen().is_empty(), "the server is not asked");
    let answer = request("GET", gateway.ingest, QUERY, &[ALLOWED], b"").unwrap();
    expect(&answer, 401);
}

#[test]
fn answers_are_for_pages_of_the_origins_that_are_allowed() {
    let upstream = upstream();
    let gateway = Metrifold::start(&gateway(PAGES, &upstream.url_of(""), ""));
    let ask =
        |target: &str, origin| request("GET", gateway.ingest, target, &[origin], b"").unwrap();
    for (target, status) in [(QUERY, 200), ("/api/v1/nothing", 404)] {
        let answer = ask(target, ALLOWED);
        expect(&answer, status);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(ALLOWED.1)
        );
        assert_eq!(answer.header("access-control-expose-headers"), Some("Date"));
        let answer = ask(target, OTHER);
        expect(&answer, status);
        // Not even by the server's word.
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("access-control-allow-headers"), None);
        let varies = answer.headers.iter().filter(|(name, _)| name == "vary");
        assert!(varies.clone().any(|(_, value)| value == "Origin"));
    }
}

#[test]
fn without_the_key_the_server_decides_and_no_preflight_is_answered() {
    let upstream = upstream();
    let gateway = Metrifold::start(&gateway("", &upstream.url_of(""), ""));
    let answer = request("GET", gateway.ingest, QUERY, &[OTHER], b"").unwrap();
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let answer = request("OPTIONS", gateway.ingest, QUERY, &[ALLOWED], b"").unwrap();
    expect(&answer, 405);
}
