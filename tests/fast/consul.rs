//! Discovery of Consul, in the whole program.

use serde_json::Value;

use metrifold_testing::consul::{Consul, instance};
use metrifold_testing::{Metrifold, until_so};

fn provider(consul: &Consul, keys: &str) -> String {
    format!(
        "[discovery.c]\ntype = \"consul\"\nserver = {:?}\nrefresh_interval = \"100ms\"\n{keys}\n",
        consul.url()
    )
}

fn status(running: &Metrifold) -> Value {
    let found = running.get("/api/v1/discovery?limit=1000&provider=c");
    found.json()
}

fn addresses(running: &Metrifold) -> Vec<String> {
    let found = status(running);
    let targets = found["targets"].as_array().unwrap().iter();
    let address = |it: &Value| it["labels"]["__address__"].as_str().unwrap().to_owned();
    let mut found: Vec<String> = targets.map(address).collect();
    found.sort();
    found
}

#[track_caller]
fn until_has(running: &Metrifold, expected: &[&str]) {
    until_so(&format!("{expected:?} are found"), || {
        addresses(running) == expected
    });
}

fn is_stale(running: &Metrifold) -> bool {
    status(running)["providers"][0]["stale"] == true
}

#[test]
fn services_are_followed_by_questions_that_are_held_back() {
    let consul = Consul::new();
    consul.register(
        "web",
        vec![instance("web", "w1", "10.0.0.1", 80, &["a", "b"])],
    );
    consul.register("db", vec![instance("db", "d1", "10.0.0.2", 5432, &[])]);
    let child = Metrifold::start(&provider(&consul, ""));
    until_has(&child, &["10.0.0.1:80", "10.0.0.2:5432"]);
    let found = status(&child);
    let web = found["targets"].as_array().unwrap().iter();
    let web = web
        .map(|it| &it["labels"])
        .find(|it| it["__meta_consul_service"] == "web");
    let expected = serde_json::json!({
        "__address__": "10.0.0.1:80", "__meta_consul_address": "10.0.0.1", "__meta_consul_dc": "dc1",
        "__meta_consul_health": "passing", "__meta_consul_metadata_rack_no": "r 1",
        "__meta_consul_node": "node-w1", "__meta_consul_service": "web", "__meta_consul_service_id": "w1",
        "__meta_consul_service_metadata_team": "a \"b\"", "__meta_consul_service_port": "80",
        "__meta_consul_tagged_address_lan": "10.0.0.1",
        "__meta_consul_tagged_address_wan_ipv4": "198.51.100.7", "__meta_consul_tags": ",a,b,"
    });
    assert_eq!(web.unwrap(), &expected);
    // While nothing changes, all requests are blocking queries.
    until_so("all questions are held back", || {
        let held = consul.endpoint.seen().into_iter();
        let held = held.filter(|seen| seen.path.contains("index=1"));
        held.count() == 4
    });
    let asked = consul.endpoint.count();
    consul.register("web", vec![instance("web", "w2", "10.0.0.3", 80, &[])]);
    until_has(&child, &["10.0.0.2:5432", "10.0.0.3:80"]);
    until_so("the question is asked again", || {
        consul.endpoint.count() > asked
    });
    let since: Vec<String> = consul.endpoint.seen()[asked..]
        .iter()
        .map(|it| it.path.clone())
        .collect();
    assert!(
        since
            .iter()
            .all(|path| path.starts_with("/v1/health/service/web?")),
        "{since:?}"
    );
    assert!(
        since[0].contains("wait=120000ms") && since[0].contains("&stale"),
        "{since:?}"
    );
    // One service is added and another removed.
    consul.register("new", vec![instance("new", "n1", "10.0.0.4", 1, &[])]);
    consul.deregister("db");
    until_has(&child, &["10.0.0.3:80", "10.0.0.4:1"]);
    // The servers restart their indexes.
    consul.restore();
    consul.register("web", vec![instance("web", "w3", "10.0.0.5", 80, &[])]);
    until_has(&child, &["10.0.0.4:1", "10.0.0.5:80"]);
}

#[test]
fn what_fails_and_what_cannot_be_seen_any_more_stays() {
    let consul = Consul::new();
    consul.register("web", vec![instance("web", "w1", "10.0.0.1", 80, &[])]);
    let folder = tempfile::tempdir().unwrap();
    let config = format!("data_dir = {:?}\n{}", folder.path(), provider(&consul, ""));
    let child = Metrifold::start(&config);
    until_has(&child, &["10.0.0.1:80"]);
    consul.change(|state| state.fails = Some(500));
    until_so("it is stale", || is_stale(&child));
    assert_eq!(addresses(&child), ["10.0.0.1:80"]);
    consul.change(|state| state.fails = None);
    until_so("it is well", || !is_stale(&child));
    // A token without permissions sees empty lists.
    consul.change(|state| state.blind = true);
    consul.register("web", vec![]);
    until_so("it is stale", || is_stale(&child));
    assert_eq!(addresses(&child), ["10.0.0.1:80"]);
    until_so("they are on disk", || {
        folder.path().join("discovery/c.json").exists()
    });
    drop(child);
    let child = Metrifold::start(&config);
    until_so("it has asked", || {
        is_stale(&child) && status(&child)["providers"][0]["last_error"].is_object()
    });
    assert_eq!(addresses(&child), ["10.0.0.1:80"]);
    // A single service scaled to zero, beside others, is believed.
    consul.change(|state| state.blind = false);
    consul.register("web", vec![instance("web", "w1", "10.0.0.9", 80, &[])]);
    consul.register("db", vec![instance("db", "d1", "10.0.0.2", 1, &[])]);
    until_has(&child, &["10.0.0.2:1", "10.0.0.9:80"]);
    consul.register("web", vec![]);
    until_has(&child, &["10.0.0.2:1"]);
}

#[test]
fn what_is_asked_for_is_what_the_keys_say() {
    let consul = Consul::new();
    consul.change(|state| state.token = Some("geheim".to_owned()));
    consul.register(
        "web",
        vec![
            instance("web", "w1", "10.0.0.1", 80, &["metrics", "x"]),
            instance("web", "w2", "10.0.0.2", 80, &["x"]),
        ],
    );
    consul.register("db", vec![instance("db", "d1", "10.0.0.3", 1, &["x"])]);
    let child = Metrifold::start(&provider(
        &consul,
        "token = \"geheim\"\nservices = [\"web\", \"db\"]\ntags = [\"metrics\"]\n\
         node_meta = { rack-no = \"r 1\" }\nfilter = \"ServiceName != \\\"x\\\"\"\nhealth_filter = \"a == b\"\n\
         namespace = \"n\"\npartition = \"p\"\ndatacenter = \"dc1\"\nallow_stale = false\nwait = \"3s\"",
    ));
    until_has(&child, &["10.0.0.1:80"]);
    let seen = consul.endpoint.seen();
    let path = |start: &str| {
        let found = seen.iter().find(|it| it.path.starts_with(start));
        found.unwrap_or_else(|| panic!("{start}")).path.clone()
    };
    assert_eq!(
        path("/v1/catalog"),
        "/v1/catalog/services?index=0&wait=3000ms&dc=dc1&ns=n&partition=p\
         &filter=ServiceName%20%21%3D%20%22x%22&node-meta=rack-no%3Ar%201"
    );
    assert_eq!(
        path("/v1/health"),
        "/v1/health/service/web?index=0&wait=3000ms&dc=dc1&ns=n&partition=p&filter=a%20%3D%3D%20b\
         &node-meta=rack-no%3Ar%201&tag=metrics"
    );
    assert!(
        !seen
            .iter()
            .any(|it| it.path.contains("/db") || it.path.contains("/self"))
    );
    consul.change(|state| state.token = Some("another".to_owned()));
    consul.register("web", vec![]);
    until_so("it is refused", || {
        status(&child)["providers"][0]["last_error"]["reason"] == "credentials"
    });
    assert_eq!(addresses(&child), ["10.0.0.1:80"]);
    assert!(!child.get("/api/v1/discovery").text().contains("geheim"));
}
