//! The admin address: access, and events.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Output;
use std::time::Duration;

use metrifold_testing::config::{blackhole, smallest};
use metrifold_testing::edits::*;
use metrifold_testing::{Answer, Authority, Metrifold, Sender, cli, request, run, until};

const TOKEN: &str = "[api.authorization]\ncredentials = \"t0ken\"\n";

fn ask(method: &str, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(method, address, path, headers, b"").unwrap()
}

/// Status of a request with this `Host`.
fn by_name(address: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line[9..12].to_owned()
}

fn reload(child: &Metrifold, arguments: &[&str]) -> Output {
    run(cli(&["reload"])
        .args(["--address", &child.api.to_string()])
        .args(arguments))
}

#[test]
fn nothing_is_changed_by_a_foreign_page_or_read_by_a_rebound_name() {
    let child = unwatched(&smallest(""));
    for (headers, status) in [
        (&[][..], 200),
        (&[("origin", "http://evil.example")], 403),
        (&[("origin", "null"), ("content-type", "text/plain")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
    ] {
        let answer = ask("POST", child.api, "/-/reload", headers);
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text());
    }
    let own = format!("http://{}", child.api);
    let same = ask("POST", child.api, "/-/reload", &[("origin", &own)]);
    assert_eq!(same.status, 200);
    for (path, status) in [
        ("/", "403"),
        ("/api/v1/topology", "403"),
        ("/api/v1/ledger", "403"),
        ("/api/v1/dead-letters", "403"),
        ("/api/v1/events", "403"),
        ("/metrics", "200"),
        ("/-/healthy", "200"),
        ("/-/ready", "200"),
        ("/api/v1/nothing", "404"),
    ] {
        assert_eq!(
            by_name(child.api, "rebound.example", path),
            status,
            "{path}"
        );
    }
    assert_eq!(by_name(child.api, "localhost", "/api/v1/topology"), "200");
}

#[test]
fn methods_are_told_where_they_are_wrong() {
    let child = unwatched(&smallest(""));
    for (method, path, allow) in [
        ("GET", "/-/reload", "POST"),
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/api/v1/dead-letters", "GET, HEAD"),
        ("GET", "/api/v1/dead-letters/resend", "POST"),
    ] {
        let answer = ask(method, child.api, path, &[]);
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[test]
fn what_changes_something_needs_the_token_and_commands_show_it() {
    let child = unwatched(&smallest(TOKEN));
    assert_eq!(ask("POST", child.api, "/-/reload", &[]).status, 401);
    let wrong = [("authorization", "Bearer other")];
    let refused = ask("POST", child.api, "/api/v1/dead-letters/discard", &wrong);
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Bearer realm=\"metrifold\"")
    );
    assert_eq!(child.get("/api/v1/topology").status, 200);

    assert!(!reload(&child, &[]).status.success());
    let token = child.folder().join("token");
    fs::write(&token, "t0ken\n").unwrap();
    let token = token.to_str().unwrap();
    let done = reload(&child, &["--token-file", token]);
    assert!(done.status.success(), "{done:?}");
    // The command finds the token in the configuration as well.
    let done = run(cli(&["-c"]).arg(file(&child)).arg("reload"));
    assert!(done.status.success(), "{done:?}");

    // A new token is valid from the reload on that brings it.
    edit(&child, &smallest(&TOKEN.replace("t0ken", "other")));
    assert!(reload(&child, &["--token-file", token]).status.success());
    assert!(!reload(&child, &["--token-file", token]).status.success());
    let answer = ask("POST", child.api, "/-/reload", &wrong);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn the_admin_address_has_tls_whose_certificate_the_command_line_knows() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (cert, key) = authority.issue("server");
    let child = unwatched(&smallest(""));
    let tls =
        format!("[api]\naddress = \"API\"\ntls = {{ cert_file = {cert:?}, key_file = {key:?} }}\n");
    edit(&child, &smallest(&tls));
    assert!(reload(&child, &[]).status.success());
    // In plain text from here on, there is no answer.
    assert!(!reload(&child, &[]).status.success());
    let address = format!("https://{}", child.api);
    let by = |ca: &Authority| {
        let ca = ca.ca();
        let arguments = [
            "reload",
            "--address",
            &address,
            "--ca-file",
            ca.to_str().unwrap(),
        ];
        run(&mut cli(&arguments)).status.success()
    };
    assert!(by(&authority));
    assert!(!by(&other));
    let configured = || {
        run(cli(&["-c"]).arg(file(&child)).arg("reload"))
            .status
            .success()
    };
    assert!(configured());
    // The old certificate is shown until the reload, and no other one is accepted.
    let old = fs::read(&cert).unwrap();
    authority.issue("server");
    assert!(by(&authority));
    assert!(configured());
    fs::write(&cert, old).unwrap();
    assert!(!configured());
    // The certificate's expiry is a metric as that of any listener.
    let get = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", child.api);
    until("the metric is there", || {
        let mut sender = Sender::tls(child.api, &authority.client(None));
        sender.send(get.as_bytes()).unwrap();
        let page = sender.read().unwrap().text();
        let metric = "certificate_expiry_timestamp_seconds{address=";
        page.contains(metric).then_some(())
    });
}

#[test]
fn events_tell_of_reloads_and_of_components() {
    let child = unwatched(&smallest(""));
    let mut stream = TcpStream::connect(child.api).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", child.api);
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut until = |text: &str| {
        let found = lines.find(|line| line.contains(text));
        assert!(found.is_some(), "the answer ended before {text:?}");
    };
    until("content-type: text/event-stream");
    edit(&child, &smallest(&blackhole("late")));
    post_expecting(&child, 200, "applied: added sinks.late");
    let state = r#"{"id":"late","kind":"sink","type":"blackhole","state":"running"}"#;
    // They come from two channels, in any order.
    let mut seen = [false; 2];
    for line in lines {
        seen[0] |= line.contains(state);
        seen[1] |= line.contains("added sinks.late");
        if seen == [true; 2] {
            return;
        }
    }
    panic!("the answer ended before all was told: {seen:?}");
}
