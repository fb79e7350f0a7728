//! Discovery of Marathon, in the whole program.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use metrifold_testing::{Does, Endpoint, Metrifold, Reply, Seen, cli, free_address, run, until_so};

fn app(id: &str, tasks: Value) -> Value {
    json!({ "id": id, "labels": { "team.name": "a" }, "container": { "docker": { "image": "prom:3" } },
            "tasks": tasks })
}

fn task(app: &str, id: &str, host: &str, ports: &[u16]) -> Value {
    json!({ "id": id, "appId": app, "host": host, "ports": ports, "state": "TASK_RUNNING",
            "ipAddresses": [{ "ipAddress": "172.17.0.3", "protocol": "IPv4" }],
            "healthCheckResults": [{ "taskId": id, "alive": true, "consecutiveFailures": 0 }] })
}

fn reply(body: &Value) -> Reply {
    let reply = Reply::new(200).header("content-type", "application/json");
    reply.body(body.to_string())
}

/// A master with these applications.
fn serve(seen: &Seen, apps: &[Value]) -> Reply {
    let path = seen.path.trim_start_matches("/marathon");
    if path == "/v2/apps/?embed=apps.tasks" {
        return reply(&json!({ "apps": apps }));
    }
    let id = path.strip_prefix("/v2/apps").unwrap_or_default();
    match apps.iter().find(|app| app["id"] == id) {
        Some(app) => reply(&json!({ "app": app })),
        None => Reply::new(404).body(r#"{"message":"App does not exist"}"#),
    }
}

fn labels(running: &Metrifold) -> Vec<Value> {
    let found = running
        .get("/api/v1/discovery?provider=m&limit=1000")
        .json();
    let targets = found["targets"].as_array().unwrap().iter();
    targets.map(|it| it["labels"].clone()).collect()
}

#[track_caller]
fn until_has(running: &Metrifold, expected: &[&str]) {
    until_so(&format!("{expected:?} are found"), || {
        let mut found: Vec<String> = labels(running)
            .iter()
            .map(|it| it["__address__"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        found == expected
    });
}

fn provider(servers: &[String], keys: &str) -> String {
    format!(
        "[discovery.m]\ntype = \"marathon\"\nservers = {servers:?}\nrefresh_interval = \"100ms\"\n{keys}\n"
    )
}

#[test]
fn tasks_are_found_at_whichever_master_answers() {
    let apps = [
        app(
            "/prom",
            json!([
                task("/prom", "p1", "h1", &[31001, 31002]),
                task("/prom", "p2", "h2", &[31003, 31004])
            ]),
        ),
        app("/db", json!([])),
    ];
    let (first, second) = (apps.clone(), apps);
    let master = Endpoint::new(move |seen| serve(seen, &first));
    let other = Endpoint::new(|_| 503);
    let servers = [
        free_address().to_string(),
        other.address().to_string(),
        master.address().to_string(),
    ];
    let servers = servers.map(|it| format!("http://{it}"));
    let child = Metrifold::start(&provider(&servers, ""));
    until_has(&child, &["h1:31001", "h1:31002", "h2:31003", "h2:31004"]);
    let expected = json!({
        "__address__": "h1:31001", "__meta_marathon_app": "/prom", "__meta_marathon_image": "prom:3",
        "__meta_marathon_app_label_team_name": "a", "__meta_marathon_task": "p1",
        "__meta_marathon_port_index": "0"
    });
    assert!(labels(&child).contains(&expected), "{:?}", labels(&child));
    // Only the master that answered is queried, until it fails.
    let asked = other.count();
    master.wait_requests(master.count() + 3);
    assert_eq!(other.count(), asked);
    let moved = [app("/prom", json!([task("/prom", "p3", "h3", &[1])]))];
    master.now(|_| 502);
    other.now(move |seen| serve(seen, &moved));
    until_has(&child, &["h3:1"]);
    // An empty list is not believed.
    other.now(move |seen| serve(seen, &[second[1].clone()]));
    until_so("it is stale", || {
        let found = child.get("/api/v1/discovery?provider=m").json();
        found["providers"][0]["last_error"]["reason"] == "empty"
    });
    until_has(&child, &["h3:1"]);
}

#[test]
fn a_master_that_redirects_is_passed_over_and_while_none_answers_one_application_is_enough() {
    let apps = [
        app("/a", json!([task("/a", "a1", "h1", &[1])])),
        app("/b", json!([task("/b", "b1", "h2", &[2])])),
        app("/c", json!([task("/c", "c1", "h3", &[3])])),
    ];
    let standby = Endpoint::new(|_| Reply::new(302).header("location", "http://leader/v2/apps"));
    let (first, second) = (apps.clone(), apps);
    let leader = Endpoint::new(move |seen| serve(seen, &first));
    let servers = [standby.url_of(""), leader.url_of("")];
    let keys = "apps = [\"/a\", \"/b\", \"/c\"]\ntimeout = \"300ms\"";
    let child = Metrifold::start(&provider(&servers, keys));
    let all = ["h1:1", "h2:2", "h3:3"];
    until_has(&child, &all);
    // Both hang: nobody waits for three applications at two masters, one after another.
    for master in [&standby, &leader] {
        master.now(|_| Does::Hang(Reply::new(204)));
    }
    let failing = || {
        let found = child.get("/api/v1/discovery?provider=m").json();
        found["providers"][0]["failing"].clone()
    };
    until_so("no master answers", || failing()[0]["source"] == "masters");
    let asked = leader.count();
    leader.wait_requests(asked + 3);
    let paths: Vec<String> = leader.seen()[asked..]
        .iter()
        .map(|it| it.path.clone())
        .collect();
    assert!(paths.iter().all(|path| path == "/v2/apps/a"), "{paths:?}");
    until_has(&child, &all);
    // One that may not be read costs no other.
    let moved = [app("/b", json!([task("/b", "b2", "h4", &[4])]))];
    leader.now(move |seen| match seen.path.as_str() {
        "/v2/apps/a" => Reply::new(403),
        "/v2/apps/b" => serve(seen, &moved),
        _ => serve(seen, &second),
    });
    until_has(&child, &["h1:1", "h3:3", "h4:4"]);
    assert_eq!(failing()[0]["reason"], "credentials");
}

#[test]
fn a_service_account_logs_in_and_does_so_again_when_it_is_refused() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let logins = Arc::new(AtomicUsize::new(0));
    let counted = logins.clone();
    let login = Endpoint::new(move |seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(body["uid"], "metrifold");
        assert_eq!(body["token"].as_str().unwrap().split('.').count(), 3);
        let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
        reply(&json!({ "token": format!("geheim-{number}") }))
    });
    let apps = [app(
        "/prom",
        json!([task("/prom", "p1", "h1", &[31001, 31002])]),
    )];
    let good = Arc::new(AtomicUsize::new(1));
    let taken = good.clone();
    let master = Endpoint::new(move |seen| {
        let token = format!("token=geheim-{}", taken.load(Ordering::SeqCst));
        match seen.header("authorization") == Some(&token) && seen.path.starts_with("/marathon/v2")
        {
            true => serve(seen, &apps),
            false => Reply::new(401),
        }
    });
    let secret = json!({ "scheme": "RS256", "uid": "metrifold",
        "login_endpoint": login.url_of("/acs/api/v1/auth/login"), "private_key": key.serialize_pem() });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principal.json");
    std::fs::write(&file, secret.to_string()).unwrap();
    let keys = format!("apps = [\"/prom\"]\nport_index = 0\nprincipal_secret_file = {file:?}");
    let child = Metrifold::start(&provider(&[master.url_of("")], &keys));
    until_has(&child, &["h1:31001"]);
    assert_eq!(logins.load(Ordering::SeqCst), 1);
    good.store(2, Ordering::SeqCst);
    master.wait_requests(master.count() + 3);
    until_so("it has logged in again", || {
        logins.load(Ordering::SeqCst) == 2
    });
    until_so("it is well", || {
        let found = child.get("/api/v1/discovery?provider=m").json();
        found["providers"][0]["stale"] == false
    });
    assert!(!child.get("/api/v1/discovery").text().contains("geheim"));
}

#[test]
fn a_locator_of_mpp_becomes_a_router_over_marathon() {
    let folder = tempfile::tempdir().unwrap();
    let secret = r#"{"uid":"u","login_endpoint":"https://leader.mesos/acs/api/v1/auth/login","password":"x"}"#;
    let arguments = [
        "convert",
        "mpp",
        "--marathon-url",
        "http://m1:8080,http://m2:8080",
        "--marathon-apps",
        "/prom",
        "--marathon-principal-secret",
        secret,
    ];
    let output = run(&mut cli(&arguments));
    let (toml, said) = (
        output.stdout,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("does not validate"), "{said}");
    let file = folder.path().join("metrifold.toml");
    std::fs::write(&file, &toml).unwrap();
    let mut validate = cli(&["validate", "--deny-warnings", file.to_str().unwrap()]);
    let output = run(validate.env("MPP_MARATHON_PRINCIPAL_SECRET", secret));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        String::from_utf8_lossy(&toml)
    );
}
