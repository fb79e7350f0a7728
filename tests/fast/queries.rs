//! Queries through the program: unchanged bodies, refusals, timeouts, and reloads that cost no
//! answer.

mod cors;
mod label_proxy;
mod merges;
mod reload;
mod streams;
mod tenants;
mod upstream;

use std::time::{Duration, Instant};

use metrifold_testing::{
    Answer, Does, Endpoint, Metrifold, Reply, Seen, Sender, expect, hanging, nobody, request,
    until_so,
};

/// A gateway with an endpoint, and further keys of source and sink.
fn gateway(source: &str, endpoint: &str, sink: &str) -> String {
    format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n{source}\n\
         [sinks.upstream]\ntype = \"prometheus\"\ninputs = [\"api\"]\nendpoint = \"{endpoint}\"\n{sink}\n"
    )
}

#[track_caller]
fn ask(gateway: &Metrifold, method: &str, target: &str) -> Answer {
    request(method, gateway.ingest, target, &[], b"").unwrap()
}

/// Checks for an error in the format of Prometheus' API, with a message.
#[track_caller]
fn expect_error(answer: &Answer, status: u16, error_type: &str) {
    expect(answer, status);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let error = answer.json();
    assert_eq!(error["status"], "error", "{error}");
    assert_eq!(error["errorType"], error_type, "{error}");
    assert!(!error["error"].as_str().unwrap().is_empty(), "{error}");
}

fn headers_of(seen: &Seen) -> Vec<(&str, &str)> {
    let mut headers: Vec<_> = seen.headers.iter().map(|(k, v)| (&**k, &**v)).collect();
    headers.sort_unstable();
    headers
}

#[test]
fn requests_and_answers_pass_as_they_are() {
    // Not in the format that its headers name: nothing on the way may decode it.
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let answered = body.clone();
    let upstream = Endpoint::new(move |seen| {
        let (_, status) = seen.path.rsplit_once("status=").unwrap();
        Reply::new(status.parse().unwrap())
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Content-Encoding", "gzip")
            .header("Vary", "Origin")
            .header("X-Twice", "1")
            .header("X-Twice", "2")
            .header("Date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .body(answered.clone())
    });
    let gateway = Metrifold::start(&gateway("", &upstream.url_of(""), ""));
    let host = upstream.address().to_string();
    let form = "query=up%7Bjob%3D%22a+b%22%7D&time=1.5&match[]=x";
    for status in [200, 201, 400, 404, 422, 500, 503] {
        for (method, path, sent) in [
            ("GET", "/api/v1/query", ""),
            ("GET", "/api/v1/label/a%20b/values", ""),
            ("GET", "/federate", ""),
            ("POST", "/api/v1/query_range", form),
            ("POST", "/api/v1/series", ""),
        ] {
            let target = format!("{path}?{form}&status={status}");
            let mut headers = vec![
                ("accept", "application/json"),
                ("accept-encoding", "gzip, zstd;q=0.5"),
                ("user-agent", "Grafana/12"),
                ("x-dashboard-uid", "7"),
            ];
            if !sent.is_empty() {
                headers.push(("content-type", "application/x-www-form-urlencoded"));
            }
            let answer = request(method, gateway.ingest, &target, &headers, sent.as_bytes());
            let answer = answer.unwrap();
            let seen = upstream.only();
            assert_eq!((&*seen.method, &*seen.path), (method, &*target));
            assert_eq!(seen.body, sent.as_bytes());
            let length = sent.len().to_string();
            if method == "POST" {
                headers.push(("content-length", &length));
            }
            headers.push(("host", &host));
            headers.sort_unstable();
            assert_eq!(headers_of(&seen), headers, "{method} {path}");

            assert_eq!(answer.status, status);
            assert_eq!(answer.body, body);
            let mut headers = answer.headers.clone();
            headers.sort_unstable();
            let headers: Vec<_> = headers.iter().map(|(k, v)| (&**k, &**v)).collect();
            let expected = [
                ("content-encoding", "gzip"),
                ("content-length", "100000"),
                ("content-type", "application/json; charset=utf-8"),
                ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ("vary", "Origin"),
                ("x-twice", "1"),
                ("x-twice", "2"),
            ];
            assert_eq!(headers, expected);
        }
    }
    let counted =
        |code: &str| gateway.metric("metrifold_component_queries_total", &[("code", code)]);
    assert_eq!((counted("200"), counted("503")), (5.0, 5.0));
}

#[test]
fn credentials_and_what_belongs_to_a_connection_end_at_the_gateway() {
    let upstream = Endpoint::new(|_| {
        Reply::new(200)
            .header("Connection", "X-Hop")
            .header("X-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("X-Kept", "1")
    });
    let sink = "authorization = { credentials = \"own\" }\n\
                headers = { X-Scope-OrgID = \"team-a\", X-Own = \"1\" }";
    let source = "basic_auth = { username = \"u\", password = \"p\" }\n\
                  forward_headers = [\"X-Kept\"]";
    let gateway = Metrifold::start(&gateway(source, &upstream.url_of(""), sink));
    let headers = [
        ("authorization", "Basic dTpw"),
        ("proxy-authorization", "Basic dTpw"),
        ("cookie", "session=1"),
        ("connection", "x-hop, keep-alive"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("x-scope-orgid", "team-b"),
        ("x-api-key", "secret"),
        ("x-forwarded-user", "root"),
        ("x-kept", "1"),
    ];
    let query = "/api/v1/query?query=up";
    let answer = request("GET", gateway.ingest, query, &headers, b"").unwrap();
    expect(&answer, 200);
    let host = upstream.address().to_string();
    let expected = [
        ("authorization", "Bearer own"),
        ("host", &host),
        ("x-kept", "1"),
        ("x-own", "1"),
        ("x-scope-orgid", "team-a"),
    ];
    assert_eq!(headers_of(&upstream.only()), expected);
    for name in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-kept"), Some("1"));

    let answer = request("GET", gateway.ingest, query, &headers[1..], b"").unwrap();
    expect(&answer, 401);
    assert_eq!(upstream.take().len(), 0);
}

#[test]
fn headers_that_choose_a_tenant_end_at_the_gateway_unless_they_are_configured() {
    let upstream = Endpoint::new(|_| Reply::new(200).body("{}"));
    let chosen = |source: &str, transform: &str, sink: &str| {
        let config = format!(
            "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n{source}\n\
             [transforms.t]\ntype = \"tenant\"\ninputs = [\"api\"]\nlabel = \"t\"\n{transform}\n\
             [sinks.o]\ninputs = [\"t\"]\n{sink}\n"
        );
        let gateway = Metrifold::start(&config);
        let headers = [
            ("x-scope-orgid", "b"),
            ("thanos-tenant", "a"),
            ("x-own", "a"),
        ];
        let answer = request(
            "GET",
            gateway.ingest,
            "/api/v1/query?query=up",
            &headers,
            b"",
        );
        expect(&answer.unwrap(), 200);
        // The probes of a replica_router as well.
        let seen = upstream.take().into_iter();
        let mut seen = seen.filter(|seen| seen.path.contains("t%3D%22"));
        let (seen, None) = (seen.next().unwrap(), seen.next()) else {
            panic!("more than one query");
        };
        let names = ["x-scope-orgid", "thanos-tenant", "x-own"];
        names.map(|name| seen.header(name).map(str::to_owned))
    };
    let a = || Some("a".to_owned());
    let from = "from = [{ header = \"X-Own\" }]";
    let one = format!(
        "type = \"prometheus\"\nendpoint = \"{}\"",
        upstream.url_of("")
    );
    let several = format!(
        "type = \"replica_router\"\nreplicas = [{{ endpoint = \"{}\" }}]",
        upstream.url_of("")
    );
    for sink in [one, several] {
        assert_eq!(chosen("", from, &sink), [None, None, None]);
        let named = format!("{sink}\ntenant_header = \"X-Scope-OrgID\"");
        assert_eq!(chosen("", from, &named), [a(), None, None]);
        // Those that the configuration lets pass still cannot name another tenant.
        let all = "forward_headers = [\"X-Scope-OrgID\", \"THANOS-TENANT\", \"X-Own\"]";
        assert_eq!(chosen(all, from, &sink), [None, a(), a()]);
        let other = "from = [{ value = \"c\" }, { header = \"X-Own\" }]";
        assert_eq!(chosen(all, other, &sink), [None, None, None]);
    }
}

#[test]
fn without_credentials_of_its_own_the_sink_sends_none() {
    let upstream = Endpoint::new(|_| 200);
    let gateway = Metrifold::start(&gateway("", &upstream.url_of(""), ""));
    let headers = [("authorization", "Bearer caller"), ("cookie", "a=b")];
    let answer = request("GET", gateway.ingest, "/api/v1/labels", &headers, b"");
    expect(&answer.unwrap(), 200);
    let seen = upstream.only();
    assert_eq!(
        (seen.header("authorization"), seen.header("cookie")),
        (None, None)
    );
}

#[test]
fn each_side_has_its_own_path_in_front() {
    let upstream = Endpoint::new(|_| 200);
    for (path, in_front) in [("/", ""), ("/prom", "/prom"), ("/a/b/", "/a/b")] {
        for (endpoint, behind) in [("", ""), ("/", ""), ("/x/y", "/x/y"), ("/x/", "/x")] {
            let source = format!("path = \"{path}\"");
            let gateway = Metrifold::start(&gateway(&source, &upstream.url_of(endpoint), ""));
            let target = "/api/v1/query?query=a%2Fb";
            expect(&ask(&gateway, "GET", &format!("{in_front}{target}")), 200);
            assert_eq!(upstream.only().path, format!("{behind}{target}"));
            for other in ["/other", &format!("{in_front}{in_front}/x")] {
                expect(&ask(&gateway, "GET", &format!("{other}{target}")), 404);
            }
            assert_eq!(upstream.take().len(), 0);
        }
    }
}

#[test]
fn what_is_no_query_is_refused_in_the_form_of_the_api() {
    let upstream = Endpoint::new(|_| 200);
    let gateway = Metrifold::start(&gateway("", &upstream.url_of(""), ""));
    for path in [
        "/",
        "/api/v1",
        "/api/v1/queries",
        "/api/v2/query",
        "/query/",
    ] {
        let answer = ask(&gateway, "GET", path);
        match path {
            // No source has paths below the root: the listener answers.
            "/" => expect(&answer, 404),
            _ => expect_error(&answer, 404, "not_found"),
        }
    }
    for (method, path) in [
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ("PUT", "/api/v1/admin/tsdb/snapshot"),
        ("POST", "/api/v1/write"),
        ("POST", "/api/v1/otlp/v1/metrics"),
        ("POST", "/-/reload"),
        ("PUT", "/-/quit"),
        ("GET", "/debug/pprof/heap"),
        ("GET", "/graph"),
        ("GET", "/assets/index.js"),
    ] {
        expect_error(&ask(&gateway, method, path), 403, "forbidden");
    }
    for (method, path, allow) in [
        ("PUT", "/api/v1/query", "GET, HEAD, POST"),
        ("DELETE", "/api/v1/series", "GET, HEAD, POST"),
        ("PATCH", "/api/v1/query", "GET, HEAD, POST"),
        ("POST", "/api/v1/rules", "GET, HEAD"),
        ("POST", "/api/v1/label/job/values", "GET, HEAD"),
        ("GET", "/api/v1/read", "POST"),
    ] {
        let answer = ask(&gateway, method, path);
        expect_error(&answer, 405, "bad_data");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn groups_of_endpoints_are_served_as_allow_says() {
    let upstream = Endpoint::new(|_| 200);
    let url = upstream.url_of("/prom");
    let status = "/api/v1/status/config";
    let open = Metrifold::start(&gateway("", &url, ""));
    expect(&ask(&open, "GET", status), 200);
    assert_eq!(upstream.only().path, format!("/prom{status}"));

    let keys = "path = \"/x\"\nallow = [\"ui\", \"admin\", \"lifecycle\"]";
    let gateway = Metrifold::start(&gateway(keys, &url, ""));
    let refused = ask(&gateway, "GET", "/x/api/v1/status/config");
    expect_error(&refused, 403, "forbidden");
    assert!(refused.text().contains("`allow`"), "{}", refused.text());
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/query?g0.expr=up"),
        ("HEAD", "/assets/index-1a.js"),
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ("PUT", "/-/reload"),
        ("GET", "/api/v1/status/buildinfo"),
    ] {
        expect(&ask(&gateway, method, &format!("/x{target}")), 200);
        let seen = upstream.only();
        assert_eq!(
            (&*seen.method, &*seen.path),
            (method, &*format!("/prom{target}"))
        );
    }
    let answer = ask(&gateway, "GET", "/x/-/reload");
    expect_error(&answer, 405, "bad_data");
    assert_eq!(answer.header("allow"), Some("POST, PUT"));
    assert_eq!(upstream.count(), 7, "the allowed ones alone");
}

#[test]
fn an_upstream_that_is_down_or_silent_or_talks_nonsense_is_told_of() {
    let target = "/api/v1/query?query=up";
    let down = Metrifold::start(&gateway("", &nobody(), ""));
    expect_error(&ask(&down, "GET", target), 502, "unavailable");

    let odd = Endpoint::new(|_| Does::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()));
    let nonsense = Metrifold::start(&gateway("", &odd.url_of(""), ""));
    expect_error(&ask(&nonsense, "GET", target), 502, "unavailable");
    odd.now(|_| Does::Close);
    expect_error(&ask(&nonsense, "GET", target), 502, "unavailable");

    let hanging = hanging();
    let silent = Metrifold::start(&gateway("timeout = \"300ms\"", &hanging.url_of(""), ""));
    let started = Instant::now();
    expect_error(&ask(&silent, "GET", target), 504, "timeout");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_query_too_many_is_refused_at_once_and_takes_nobody_s_place() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(200).body("late")));
    let gateway = Metrifold::start(&gateway("max_concurrent = 2", &hanging.url_of(""), ""));
    let address = gateway.ingest;
    let waiting = [1, 2].map(|n| {
        let target = format!("/api/v1/query?query={n}");
        std::thread::spawn(move || request("GET", address, &target, &[], b"").unwrap())
    });
    hanging.wait_requests(2);
    for _ in 0..10 {
        let started = Instant::now();
        let answer = ask(&gateway, "GET", "/api/v1/query?query=3");
        expect_error(&answer, 503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    // An answer that needs no upstream is given all the same.
    expect_error(&ask(&gateway, "GET", "/api/v1/nothing"), 404, "not_found");
    hanging.release();
    for waiting in waiting {
        assert_eq!(waiting.join().unwrap().text(), "late");
    }
    expect(&ask(&gateway, "GET", "/api/v1/query?query=4"), 200);
    assert_eq!(hanging.most_at_once(), 2);
}

#[test]
fn a_caller_may_wait_for_less_time_and_says_so_in_the_url_or_in_a_form() {
    let hanging = hanging();
    // Only the parameter can end the wait.
    let gateway = Metrifold::start(&gateway("timeout = \"1h\"", &hanging.url_of(""), ""));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (method, target, headers, body) in [
        ("GET", "/api/v1/query?query=up&timeout=100ms", &[][..], ""),
        ("GET", "/api/v1/query?query=up&timeout=0.1", &[], ""),
        ("POST", "/api/v1/query", &form, "query=up&timeout=100ms"),
        (
            "POST",
            "/api/v1/query?timeout=1h",
            &form,
            "query=up&timeout=100ms",
        ),
    ] {
        let answer = request(method, gateway.ingest, target, headers, body.as_bytes());
        expect_error(&answer.unwrap(), 504, "timeout");
    }
    let seen = hanging.seen();
    assert_eq!(seen.last().unwrap().body, b"query=up&timeout=100ms");
    // The configured timeout stays the upper bound.
    let short = Metrifold::start(&self::gateway(
        "timeout = \"100ms\"",
        &hanging.url_of(""),
        "",
    ));
    expect_error(
        &ask(&short, "GET", "/api/v1/query?query=up&timeout=1h"),
        504,
        "timeout",
    );
}

#[test]
fn queries_wait_for_their_turn_and_one_too_many_is_refused() {
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(200).body("late")));
    let keys =
        "max_concurrent = 2\nmax_concurrent_per_tenant = 1\nmax_waiting = 1\npath = \"/{tenant}\"";
    let config = format!(
        "[sources.api]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\n{keys}\n\
         [transforms.own]\ntype = \"tenant\"\ninputs = [\"api\"]\nfrom = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.upstream]\ntype = \"prometheus\"\ninputs = [\"own\"]\nendpoint = \"{}\"\n",
        hanging.url_of("")
    );
    let gateway = Metrifold::start(&config);
    let address = gateway.ingest;
    let asking = |tenant: &'static str| {
        let target = format!("/{tenant}/api/v1/query?query=up");
        std::thread::spawn(move || request("GET", address, &target, &[], b"").unwrap())
    };
    let first = asking("a");
    hanging.wait_requests(1);
    // One of these waits for its turn, and the queue has no room for the other.
    let rivals = [asking("a"), asking("a")];
    until_so("one too many is refused", || {
        rivals.iter().any(|rival| rival.is_finished())
    });
    // Another tenant has turns of its own.
    let other = asking("b");
    hanging.wait_requests(2);
    hanging.release();
    let mut statuses = rivals.map(|rival| rival.join().unwrap().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    for asked in [first, other] {
        assert_eq!(asked.join().unwrap().text(), "late");
    }
    assert_eq!(hanging.most_at_once(), 2);
}

#[test]
fn queries_are_logged_when_they_are_over_and_slow_ones_apart() {
    let upstream = Endpoint::new(|_| Reply::new(200).body("12345"));
    let keys = "log = { sample = 1, slow = \"1h\" }";
    let gateway = Metrifold::start(&gateway(keys, &upstream.url_of(""), ""));
    expect(
        &ask(
            &gateway,
            "GET",
            "/api/v1/query?query=up%7Ba%3D%22b%22%7D&secret=hidden",
        ),
        200,
    );
    gateway.until_logged("metrifold::queries");
    let log = gateway.log();
    let line = log
        .lines()
        .find(|line| line.contains("metrifold::queries"))
        .unwrap();
    for part in [
        "/api/v1/query",
        "up{a=",
        "status=200",
        "bytes=5",
        "127.0.0.1",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!log.contains("hidden"), "{log}");
    let hanging = hanging();
    let slow = Metrifold::start(&self::gateway(
        "log.slow = \"1ms\"",
        &hanging.url_of(""),
        "",
    ));
    expect_error(
        &ask(&slow, "GET", "/api/v1/query?query=up&timeout=50ms"),
        504,
        "timeout",
    );
    slow.until_logged("metrifold::slow_queries");
    let log = slow.log();
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("slow_queries")).unwrap();
    assert!(line.contains("status=504"), "{line}");
}

#[test]
fn a_body_is_taken_up_to_its_limit_announced_or_not() {
    let upstream = Endpoint::new(|_| 200);
    let keys = "max_body_bytes = \"1KiB\"";
    let direct = Metrifold::start(&gateway(keys, &upstream.url_of(""), ""));
    let post = |bytes: usize| {
        let body = vec![b'x'; bytes];
        request("POST", direct.ingest, "/api/v1/query", &[], &body).unwrap()
    };
    expect(&post(1024), 200);
    assert_eq!(upstream.only().body.len(), 1024);
    expect_error(&post(1025), 413, "bad_data");
    assert_eq!(upstream.take().len(), 0);

    // A chunked body exceeds the limit only on the way. The endpoint waits for its end, which never
    // comes.
    let hanging = Endpoint::new(|_| Does::Hang(Reply::new(200)));
    let chunked = Metrifold::start(&gateway(keys, &hanging.url_of(""), ""));
    let mut head =
        "POST /api/v1/query HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for _ in 0..3 {
        head += &format!("200\r\n{}\r\n", "x".repeat(512));
    }
    let answer = Sender::request(chunked.ingest, head.as_bytes()).unwrap();
    expect_error(&answer, 413, "bad_data");
}
