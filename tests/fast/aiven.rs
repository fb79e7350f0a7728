//! Aiven's services found, integrated, published and scraped, in the whole program, with a test for
//! each fault of alphagov's loops.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use metrifold_testing::aiven::{Aiven, endpoint, error, service};
use metrifold_testing::edits::{edit, reloads};
use metrifold_testing::{
    Authority, Does, Endpoint, Kubernetes, Metrifold, Reply, cli, free_address, run, until,
    until_so,
};

const ON: &str = "integrate = \"on\"\nsettle = \"1m\"";

fn provider(aiven: &Aiven, keys: &str) -> String {
    format!(
        "[discovery.a]\ntype = \"aiven\"\napi = {:?}\ntoken = \"geheim\"\nprojects = [\"proj\"]\n\
         refresh_interval = \"100ms\"\nrequest_interval = \"0s\"\ndns_servers = [\"{}\"]\n{keys}\n",
        aiven.url(),
        aiven.names.address()
    )
}

fn status(running: &Metrifold) -> Value {
    running
        .get("/api/v1/discovery?provider=a&limit=1000")
        .json()
}

fn plan(running: &Metrifold) -> Value {
    running.get("/api/v1/aiven/plans").json()["providers"][0].clone()
}

/// Addresses of targets with the names of their services.
fn found(running: &Metrifold) -> Vec<String> {
    let found = status(running);
    let targets = found["targets"].as_array().unwrap().iter();
    let mut found: Vec<String> = targets
        .map(|it| {
            let text = |name: &str| it["labels"][name].as_str().unwrap_or_default().to_owned();
            format!("{} {}", text("aiven_service_name"), text("__address__"))
        })
        .collect();
    found.sort();
    found
}

#[track_caller]
fn until_found(running: &Metrifold, expected: &[&str]) {
    until_so(&format!("{expected:?} are found"), || {
        found(running) == expected
    });
}

#[track_caller]
fn until_integrated(aiven: &Aiven, expected: &[&str]) {
    until_so(&format!("{expected:?} are integrated"), || {
        aiven.integrated() == expected
    });
}

/// Waits for `count` further lists of services.
#[track_caller]
fn rounds(aiven: &Aiven, count: usize) {
    let lists = || {
        let seen = aiven.api.seen().into_iter();
        seen.filter(|it| it.path.ends_with("/proj/service")).count()
    };
    let before = lists();
    until_so("projects are read again", || lists() >= before + count);
}

/// An account with a service of each type and an endpoint, but no integration.
fn account() -> Aiven {
    let aiven = Aiven::new();
    aiven
        .state()
        .project()
        .endpoints
        .push(endpoint("e1", "metrifold"));
    for (at, kind) in ["elasticsearch", "opensearch", "influxdb", "pg", "kafka"]
        .iter()
        .enumerate()
    {
        let addresses = [format!("10.0.{at}.1"), format!("10.0.{at}.2")];
        aiven.add(
            &format!("s-{kind}"),
            kind,
            &addresses.each_ref().map(|it| it.as_str()),
        );
    }
    aiven
}

const ALL: [&str; 5] = [
    "s-elasticsearch",
    "s-influxdb",
    "s-kafka",
    "s-opensearch",
    "s-pg",
];

#[test]
fn every_eligible_service_is_integrated_once_though_it_shows_late() {
    let aiven = account();
    aiven.add("s-flink", "flink", &["10.9.9.9"]);
    aiven.state().lag = 5;
    let child = Metrifold::start(&provider(&aiven, ON));
    until_integrated(&aiven, &ALL);
    // The old loop requested an integration again and again until its list was refreshed.
    rounds(&aiven, 7);
    let mut posts = aiven.posts();
    posts.sort();
    assert_eq!(posts, ALL);
    // Targets are all nodes, those of OpenSearch included.
    until_so("all nodes are found", || found(&child).len() == 10);
    let expected = json!({
        "__address__": "10.0.1.2:9273", "__scheme__": "https", "__metrics_path__": "/metrics",
        "aiven_service_name": "s-opensearch", "aiven_service_type": "opensearch",
        "aiven_hostname": "s-opensearch-proj.aivencloud.test", "aiven_plan": "business-4",
        "aiven_cloud": "aws-eu-west-1", "aiven_node_count": "2",
        "__meta_aiven_project": "proj", "__meta_aiven_state": "RUNNING", "__meta_aiven_usage": "primary",
        "__meta_aiven_host": "s-opensearch-proj.aivencloud.test", "__meta_aiven_endpoint_id": "e1",
        "__meta_aiven_tag_deploy_env": "prod", "__meta_aiven_tag_organization_id": "org-of-s-opensearch"
    });
    let targets = status(&child)["targets"].clone();
    let found = targets
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["labels"].clone());
    let mut found = found.filter(|it| it["__address__"] == "10.0.1.2:9273");
    let mut found = found.next().unwrap();
    found
        .as_object_mut()
        .unwrap()
        .remove("__meta_aiven_integration_id");
    assert_eq!(found, expected);
    let plan = plan(&child);
    assert_eq!(plan["plan"]["integrated"], 5);
    assert_eq!(plan["plan"]["steps"], json!([]));
    let left = plan["plan"]["left"][0].clone();
    assert_eq!(left["what"], "proj/s-flink");
    assert_eq!(
        left["why"],
        "services of type flink cannot be integrated with Prometheus"
    );
    assert_eq!(plan["done"].as_array().unwrap().len(), 5);
    let of = [("discovery", "a")];
    assert_eq!(
        child.metric("metrifold_aiven_integrations_created_total", &of),
        5.0
    );
    // Also counted while nothing changes.
    for (name, most) in [
        ("metrifold_aiven_fetches_total", 7.0),
        ("metrifold_aiven_resolves_total", 10.0),
    ] {
        until_so(name, || child.metric(name, &of) >= most);
    }
    let said = child.get("/api/v1/aiven/plans").text() + &child.get("/api/v1/discovery").text();
    assert!(!said.contains("geheim"));
}

#[test]
fn nothing_is_changed_unless_it_is_told_to_be_and_the_plan_says_what_would_be() {
    let aiven = account();
    for integrate in ["off", "dry_run"] {
        let keys = format!("integrate = {integrate:?}");
        let child = Metrifold::start(&provider(&aiven, &keys));
        let steps = until("there is a plan", || {
            let steps = plan(&child)["plan"]["steps"].as_array()?.clone();
            (!steps.is_empty()).then_some(steps)
        });
        assert_eq!(steps.len(), 5);
        assert_eq!(
            steps[0],
            json!({ "change": "integrate", "project": "proj", "service": "s-elasticsearch",
                    "endpoint": "e1", "why": "the service has no integration with Prometheus" })
        );
        rounds(&aiven, 2);
        let logged = child
            .log()
            .matches("dry run: the change was not made")
            .count();
        assert_eq!(logged, if integrate == "off" { 0 } else { 5 });
    }
    // Neither the command nor `discover` changes anything, whatever the configuration says.
    aiven.state().project().endpoints.clear();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrifold.toml");
    fs::write(&file, provider(&aiven, ON)).unwrap();
    let file = file.to_str().unwrap();
    let output = run(&mut cli(&["-c", file, "aiven", "plan"]));
    let (text, said) = [output.stdout, output.stderr]
        .map(|it| String::from_utf8(it).unwrap())
        .into();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let first = "+ proj: create the endpoint metrifold: the project has no Prometheus endpoint named metrifold\n\
                 + proj/s-elasticsearch: integrate: the service has no integration with Prometheus\n";
    assert!(text.starts_with(first), "{text}");
    assert!(
        text.ends_with("a: 6 changes, 0 integrated, 0 left\n"),
        "{text}"
    );
    let output = run(&mut cli(&[
        "-c", file, "aiven", "plan", "a", "--format", "json",
    ]));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        printed["providers"][0]["plan"]["steps"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
    run(&mut cli(&["-c", file, "discover", "a"]));
    assert!(aiven.api.seen().iter().all(|it| it.method == "GET"));
    aiven.state().fails = Some(500);
    let output = run(&mut cli(&["-c", file, "aiven", "plan"]));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_endpoint_is_created_where_there_is_none_and_matched_by_its_id() {
    let aiven = account();
    {
        let mut state = aiven.state();
        let project = state.project();
        project.endpoints[0] = endpoint("foreign", "somebody-else-s");
        project.services.truncate(2);
    }
    // The old loop accepted any Prometheus integration as its own.
    aiven.integrate("s-elasticsearch", "foreign");
    let child = Metrifold::start(&provider(&aiven, ON));
    until_integrated(
        &aiven,
        &["s-elasticsearch", "s-elasticsearch", "s-opensearch"],
    );
    let mut state = aiven.state();
    let made = state
        .project()
        .endpoints
        .iter()
        .find(|it| it["endpoint_name"] == "metrifold");
    let made = made.unwrap()["endpoint_id"].as_str().unwrap().to_owned();
    let ours = state
        .project()
        .integrations
        .iter()
        .filter(|it| it.endpoint == made)
        .count();
    assert_eq!(ours, 2);
    drop(state);
    until_so("its services are found", || found(&child).len() == 4);
    let created = aiven.api.seen().into_iter();
    let created =
        created.filter(|it| it.method == "POST" && it.path.ends_with("integration_endpoint"));
    assert_eq!(created.count(), 1);
    let done = plan(&child)["done"].clone();
    let whys: Vec<&str> = done
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["why"].as_str().unwrap())
        .collect();
    assert!(
        whys.contains(&"the service is integrated only with other endpoints: foreign"),
        "{whys:?}"
    );
}

#[test]
fn what_is_disabled_or_powered_off_is_left_alone() {
    let aiven = account();
    aiven.state().project().services.truncate(3);
    aiven.integrate("s-elasticsearch", "e1");
    aiven.state().project().integrations[0].enabled = false;
    aiven.state().service("s-opensearch")["state"] = "POWEROFF".into();
    let child = Metrifold::start(&provider(&aiven, ON));
    until_integrated(&aiven, &["s-elasticsearch", "s-influxdb"]);
    until_found(
        &child,
        &["s-influxdb 10.0.2.1:9273", "s-influxdb 10.0.2.2:9273"],
    );
    let left = plan(&child)["plan"]["left"].clone();
    let whys: BTreeMap<&str, &str> = left
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["what"].as_str().unwrap(), it["why"].as_str().unwrap()))
        .collect();
    assert!(
        whys["proj/s-elasticsearch"].ends_with("is disabled"),
        "{whys:?}"
    );
    assert_eq!(whys["proj/s-opensearch"], "the service is powered off");
    assert_eq!(aiven.posts(), ["s-influxdb"]);
}

#[test]
fn a_change_that_is_answered_badly_is_made_once_all_the_same() {
    // Reaction of the API to the first request, and whether the request creates the integration.
    let slow = error(429, "Too many requests").header("retry-after", "1");
    let cases: [(&str, bool, Does); 12] = [
        (
            "a failure before it is made",
            false,
            error(500, "oops").into(),
        ),
        (
            "a failure after it is made",
            true,
            error(502, "oops").into(),
        ),
        (
            "a duplicate",
            true,
            error(409, "Service integration already exists").into(),
        ),
        (
            "a service that lags",
            false,
            error(404, "Service s-pg does not exist").into(),
        ),
        (
            "a conflict",
            false,
            error(409, "Service is being modified").into(),
        ),
        ("a connection that breaks", true, Does::Close),
        ("a token that is refused", false, error(401, "no").into()),
        ("a pause that is asked for", false, slow.into()),
        (
            "a request that was too slow",
            false,
            error(408, "no").into(),
        ),
        (
            "no answer, after it is made",
            true,
            Does::Hang(Reply::new(200)),
        ),
        (
            "no answer, before it is made",
            false,
            Does::Hang(Reply::new(200)),
        ),
        (
            "an answer that is cut off",
            true,
            Reply::new(200).body("{").into(),
        ),
    ];
    for (case, happens, does) in cases {
        let aiven = Aiven::new();
        aiven
            .state()
            .project()
            .endpoints
            .push(endpoint("e1", "metrifold"));
        aiven.add("s-pg", "pg", &["10.0.0.1"]);
        aiven.state().lag = 2;
        aiven.once("POST /v1/project/proj/integration", happens, does);
        let keys = "integrate = \"on\"\nsettle = \"2s\"\ntimeout = \"1s\"";
        let child = Metrifold::start(&provider(&aiven, keys));
        until_integrated(&aiven, &["s-pg"]);
        until_found(&child, &["s-pg 10.0.0.1:9273"]);
        rounds(&aiven, 3);
        assert_eq!(aiven.integrated(), ["s-pg"], "{case}");
        let posts = aiven.posts().len();
        assert_eq!(posts, if happens { 1 } else { 2 }, "{case}");
    }
}

#[test]
fn with_changes_on_no_fault_of_the_api_takes_a_node_away_or_integrates_a_service_twice() {
    let services = "GET /v1/project/proj/service";
    let endpoints = "GET /v1/project/proj/integration_endpoint";
    let slow = error(429, "Too many requests").header("retry-after", "1");
    let empty = |list: &str| {
        let reply = Reply::new(200).header("content-type", "application/json");
        Does::from(reply.body(json!({ list: [] }).to_string()))
    };
    let broken = || Does::from(error(500, "oops"));
    let faults: Vec<(&str, Does)> = vec![
        (services, error(401, "Authentication failed").into()),
        (services, slow.into()),
        (services, broken()),
        (services, Does::Hang(Reply::new(200))),
        (services, empty("services")),
        (services, Reply::new(200).body("[{").into()),
        (services, Does::Close),
        (endpoints, error(403, "Forbidden").into()),
        (endpoints, empty("service_integration_endpoints")),
        ("GET /v1/project/proj/integration_endpoint/e1", broken()),
        ("GET /v1/project/proj/integration_endpoint_types", broken()),
        ("GET /v1/project/proj/kms/ca", broken()),
    ];
    for (request, does) in faults {
        let case = format!("{request}: {does:?}");
        let aiven = Aiven::new();
        aiven
            .state()
            .project()
            .endpoints
            .push(endpoint("e1", "metrifold"));
        aiven.add("old", "opensearch", &["10.0.0.1"]);
        aiven.integrate("old", "e1");
        aiven.state().lag = 2;
        let keys = format!("{ON}\ntimeout = \"1s\"\nmetadata_interval = \"100ms\"");
        let child = Metrifold::start(&provider(&aiven, &keys));
        until_found(&child, &["old 10.0.0.1:9273"]);
        aiven.once(request, false, does);
        aiven.add("new", "pg", &["10.0.0.2"]);
        until_so(&case, || {
            let found = found(&child);
            assert_eq!(found.last().unwrap(), "old 10.0.0.1:9273", "{case}");
            found.len() == 2
        });
        rounds(&aiven, 3);
        assert!(aiven.state().script.is_empty(), "{case}");
        assert_eq!(aiven.integrated(), ["new", "old"], "{case}");
        assert_eq!(aiven.posts(), ["new"], "{case}");
        assert_eq!(aiven.state().project().endpoints.len(), 1, "{case}");
    }
}

#[test]
fn lists_that_are_empty_without_a_permission_change_nothing_and_what_was_made_is_not_forgotten() {
    let aiven = account();
    aiven.state().project().services.truncate(2);
    let folder = tempfile::tempdir().unwrap();
    let lease = folder.path().join("lease");
    let keys = format!(
        "integrate = \"on\"\nsettle = \"100ms\"\ncleanup = true\nlease_path = {lease:?}\ntags = {{ deploy_env = \"prod\" }}"
    );
    let child = Metrifold::start(&provider(&aiven, &keys));
    let names = ["s-elasticsearch", "s-opensearch"];
    until_integrated(&aiven, &names);
    until_so("all are found", || found(&child).len() == 4);
    let posts = || {
        let seen = aiven.api.seen().into_iter();
        seen.filter(|it| it.method == "POST").count()
    };
    let posted = posts();
    let is_refused = || {
        let provider = status(&child)["providers"][0].clone();
        provider["stale"] == true && provider["last_error"]["reason"] == "empty"
    };
    // Without the endpoints, a plan would begin with another endpoint, and integrate all with it.
    let endpoints = std::mem::take(&mut aiven.state().project().endpoints);
    until_so("no endpoints are no answer", is_refused);
    rounds(&aiven, 3);
    assert_eq!((posts(), found(&child).len()), (posted, 4));
    assert_eq!(plan(&child)["plan"]["steps"], json!([]));
    let error = plan(&child)["error"].to_string();
    assert!(error.contains("has no endpoints any more"), "{error}");
    aiven.state().project().endpoints = endpoints;
    until_so("it is well", || {
        status(&child)["providers"][0]["stale"] == false
    });
    let services = std::mem::take(&mut aiven.state().project().services);
    until_so("no services are no answer", is_refused);
    rounds(&aiven, 3);
    assert_eq!((posts(), found(&child).len()), (posted, 4));
    aiven.state().project().services = services;
    until_so("it is well", || {
        status(&child)["providers"][0]["stale"] == false
    });
    aiven.state().service(names[0])["tags"]["deploy_env"] = "gone".into();
    until_integrated(&aiven, &names[1..]);
    assert_eq!(posts(), posted);
}

#[test]
fn a_long_pause_is_a_fault_at_once_in_which_nothing_is_sent_and_nothing_is_lost() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    aiven.integrate("s-elasticsearch", "e1");
    let child = Metrifold::start(&provider(&aiven, ON));
    until_so("the nodes are found", || found(&child).len() == 2);
    let long = error(429, "Too many requests").header("retry-after", "3600");
    let failures = || child.metric("metrifold_aiven_fetch_failures_total", &[]);
    aiven.once("GET /v1/project/proj/service", false, long);
    until_so("the pause is asked for", || failures() >= 1.0);
    let (asked, before) = (aiven.api.count(), failures());
    until_so("it goes on", || failures() > before + 3.0);
    assert_eq!(aiven.api.count(), asked);
    let provider = status(&child)["providers"][0].clone();
    assert_eq!(provider["last_error"]["reason"], "refused");
    let said = provider["last_error"]["text"].to_string();
    assert!(said.contains("pause"), "{said}");
    assert_eq!(found(&child).len(), 2);
}

#[test]
fn a_request_whose_answer_a_reload_cuts_off_is_not_sent_again_though_there_is_no_lease() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    aiven.state().lag = 1_000_000;
    let made = Does::Hang(Reply::new(200));
    aiven.once("POST /v1/project/proj/integration", true, made);
    let child = Metrifold::start(&provider(&aiven, ON));
    until_integrated(&aiven, &["s-elasticsearch"]);
    edit(&child, &provider(&aiven, &format!("{ON}\nmax_changes = 7")));
    until_so("it is reloaded", || reloads(&child, "applied") >= 1.0);
    until_so("the request is remembered", || {
        let left = plan(&child)["plan"]["left"][0]["why"].to_string();
        left.contains("was requested")
    });
    rounds(&aiven, 4);
    assert_eq!(aiven.posts(), ["s-elasticsearch"]);
    aiven.state().project().integrations[0].hidden = 0;
    until_so("its nodes are found", || found(&child).len() == 2);
    assert_eq!(aiven.posts(), ["s-elasticsearch"]);
}

#[test]
fn a_pause_that_aiven_asks_for_is_kept_and_a_refused_token_keeps_everything() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    aiven.integrate("s-elasticsearch", "e1");
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "geheim\n").unwrap();
    let config =
        provider(&aiven, ON).replace("token = \"geheim\"", &format!("token_file = {token:?}"));
    let child = Metrifold::start(&config);
    let nodes = [
        "s-elasticsearch 10.0.0.1:9273",
        "s-elasticsearch 10.0.0.2:9273",
    ];
    until_found(&child, &nodes);
    // The token is read anew for each request.
    fs::write(&token, "another").unwrap();
    until_so("it is refused", || {
        status(&child)["providers"][0]["last_error"]["reason"] == "credentials"
    });
    assert_eq!(found(&child), nodes);
    fs::write(&token, "geheim").unwrap();
    until_so("it is well", || {
        status(&child)["providers"][0]["stale"] == false
    });
    let slow = error(429, "Too many requests").header("retry-after", "2");
    let failures = || child.metric("metrifold_aiven_fetch_failures_total", &[]);
    let before = failures();
    aiven.once("GET /v1/project/proj/service", false, slow);
    until_so("the pause is asked for", || failures() > before);
    assert_eq!(found(&child), nodes);
    let seen = aiven.api.seen();
    let at = seen.len() - 1;
    until_so("it asks again", || aiven.api.count() > at + 1);
    let seen = aiven.api.seen();
    assert!(
        seen[at + 1].at - seen[at].at >= Duration::from_secs(1),
        "it has not waited"
    );
}

#[test]
fn a_service_list_that_hangs_or_is_empty_takes_no_target_away_and_neither_does_a_restart() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    aiven.integrate("s-elasticsearch", "e1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("targets.json");
    // The form that alphagov's Prometheus reads: addresses without a port, and only these labels.
    let config = format!(
        "data_dir = {:?}\n{}\n[publish.p]\ndiscovery = \"a\"\nfile = {file:?}\nrelabel = [\n\
         {{ source_labels = [\"__address__\"], regex = \"(.+):[0-9]+\", target_label = \"__address__\" }},\n\
         {{ regex = \"__address__|aiven_.*\", action = \"labelkeep\" }},\n]\n",
        folder.path().join("data"),
        provider(&aiven, "timeout = \"1s\"")
    );
    let expected = json!([{
        "targets": ["10.0.0.1", "10.0.0.2"],
        "labels": {
            "aiven_service_name": "s-elasticsearch", "aiven_service_type": "elasticsearch",
            "aiven_hostname": "s-elasticsearch-proj.aivencloud.test", "aiven_plan": "business-4",
            "aiven_cloud": "aws-eu-west-1", "aiven_node_count": "2"
        }
    }]);
    let published = |path: &Path| -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    };
    let mut child = Metrifold::start(&config);
    until_so("it is published", || {
        published(&file).as_ref() == Some(&expected)
    });
    aiven.once(
        "GET /v1/project/proj/service",
        false,
        Does::Hang(Reply::new(200)),
    );
    // The project is stale only until the next attempt, which may end before the test looks.
    until_so("it has failed", || {
        child.metric("metrifold_aiven_fetch_failures_total", &[]) >= 1.0
    });
    until_so("it is well", || {
        status(&child)["providers"][0]["stale"] == false
    });
    let services = std::mem::take(&mut aiven.state().project().services);
    until_so("an empty list is no answer", || {
        status(&child)["providers"][0]["last_error"]["reason"] == "empty"
    });
    rounds(&aiven, 2);
    assert_eq!(published(&file), Some(expected.clone()));
    // The old discoverer wrote an empty list at every restart.
    let kept = folder.path().join("data/discovery/a.json");
    until_so("the targets are kept", || kept.exists());
    child.kill();
    fs::remove_file(&file).unwrap();
    aiven.state().fails = Some(503);
    child.start_again();
    until_so("it is published again", || {
        published(&file).as_ref() == Some(&expected)
    });
    aiven.state().fails = None;
    aiven.state().project().services = services;
    until_so("it is well", || {
        status(&child)["providers"][0]["stale"] == false
    });
    assert_eq!(published(&file), Some(expected));
}

#[test]
fn nodes_are_followed_and_a_name_that_fails_keeps_them() {
    let aiven = Aiven::new();
    aiven
        .state()
        .project()
        .endpoints
        .push(endpoint("e1", "metrifold"));
    aiven.add("es", "opensearch", &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    aiven.add("pg", "pg", &["10.0.1.1", "10.0.1.2"]);
    aiven.integrate("es", "e1");
    aiven.integrate("pg", "e1");
    // The old resolver missed standbys, which have a host name of their own.
    aiven.names.set("pg-proj.aivencloud.test", &["10.0.1.1"]);
    aiven
        .names
        .set("replica-pg-proj.aivencloud.test", &["10.0.1.2"]);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = format!("data_dir = {data:?}\n{}", provider(&aiven, ""));
    let mut child = Metrifold::start(&config);
    let pg = ["pg 10.0.1.1:9273", "pg 10.0.1.2:9273"];
    let with = |es: &[&'static str]| [es, &pg[..]].concat();
    until_found(
        &child,
        &with(&["es 10.0.0.1:9273", "es 10.0.0.2:9273", "es 10.0.0.3:9273"]),
    );
    aiven
        .names
        .set("es-proj.aivencloud.test", &["10.0.0.1", "10.0.0.4"]);
    let two = with(&["es 10.0.0.1:9273", "es 10.0.0.4:9273"]);
    until_found(&child, &two);
    aiven.names.fail("es-proj.aivencloud.test");
    aiven.names.fail("replica-pg-proj.aivencloud.test");
    until_so("it is stale", || {
        status(&child)["providers"][0]["stale"] == true
    });
    rounds(&aiven, 2);
    assert_eq!(found(&child), two);
    let failures = child.metric(
        "metrifold_aiven_resolve_failures_total",
        &[("discovery", "a")],
    );
    assert!(failures >= 1.0);
    // An endpoint for metrics in the API's answer has precedence.
    aiven.names.set("es-proj.aivencloud.test", &["10.0.0.4"]);
    aiven
        .names
        .set("replica-pg-proj.aivencloud.test", &["10.0.1.2"]);
    aiven.state().service("es")["components"].as_array_mut().unwrap().push(json!({
        "component": "prometheus", "host": "es-proj.aivencloud.test", "port": 9999, "route": "dynamic",
        "usage": "primary", "path": "/m"
    }));
    until_found(&child, &with(&["es 10.0.0.4:9999"]));
    // Not even a restart forgets the standby.
    let kept = folder.path().join("data/discovery/a.json");
    until_so("the targets are kept", || {
        fs::read_to_string(&kept).is_ok_and(|text| text.contains("10.0.0.4:9999"))
    });
    child.kill();
    aiven.names.fail("replica-pg-proj.aivencloud.test");
    child.start_again();
    until_so("the standby's name has failed", || {
        child.metric("metrifold_aiven_resolve_failures_total", &[]) >= 1.0
    });
    rounds(&aiven, 2);
    assert_eq!(found(&child), with(&["es 10.0.0.4:9999"]));
    // A service that is powered off has no nodes, which is not a failure.
    aiven.state().service("es")["state"] = "POWEROFF".into();
    until_found(&child, &pg);
    until_so("it is well", || {
        status(&child)["providers"][0]["stale"] == false
    });
}

#[test]
fn one_of_two_instances_makes_changes_and_one_that_is_killed_in_the_middle_leaves_word_of_it() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    aiven.state().lag = 3;
    let folder = tempfile::tempdir().unwrap();
    let lease = folder.path().join("lease");
    let config = provider(&aiven, &format!("{ON}\nlease_path = {lease:?}"));
    // The integration is created, but the request never gets its answer.
    let made = Does::Hang(Reply::new(200));
    aiven.once("POST /v1/project/proj/integration", true, made);
    let mut first = Metrifold::start(&config);
    until_integrated(&aiven, &["s-elasticsearch"]);
    let second = Metrifold::start(&config);
    until_so("the other has a plan", || {
        plan(&second)["observed"].is_number()
    });
    assert_eq!(plan(&second)["leads"], false);
    rounds(&aiven, 4);
    aiven.state().project().integrations[0].hidden = 6;
    first.kill();
    until_so("the other has the lease", || plan(&second)["leads"] == true);
    until_so("its nodes are found", || found(&second).len() == 2);
    rounds(&aiven, 3);
    assert_eq!(aiven.integrated(), ["s-elasticsearch"]);
    assert_eq!(aiven.posts(), ["s-elasticsearch"]);
    let of = [("discovery", "a")];
    assert_eq!(second.metric("metrifold_aiven_leader", &of), 1.0);
}

#[test]
fn a_request_that_was_lost_with_the_instance_that_sent_it_is_sent_by_the_next() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    let folder = tempfile::tempdir().unwrap();
    let lease = folder.path().join("lease");
    let keys = format!("integrate = \"on\"\nsettle = \"3s\"\nlease_path = {lease:?}");
    let config = provider(&aiven, &keys);
    // Aiven never gets it.
    let lost = Does::Hang(Reply::new(200));
    aiven.once("POST /v1/project/proj/integration", false, lost);
    let mut first = Metrifold::start(&config);
    until_so("it is requested", || aiven.posts().len() == 1);
    let second = Metrifold::start(&config);
    first.kill();
    until_integrated(&aiven, &["s-elasticsearch"]);
    until_so("its nodes are found", || found(&second).len() == 2);
    rounds(&aiven, 3);
    assert_eq!(aiven.posts().len(), 2);
}

#[test]
fn of_two_instances_with_a_lease_of_kubernetes_one_is_killed_and_one_integration_is_made() {
    let aiven = account();
    aiven.state().project().services.truncate(1);
    aiven.state().lag = 3;
    let cluster = Kubernetes::new();
    let config = provider(
        &aiven,
        &format!(
            "{ON}\nkubernetes_lease = {{ name = \"aiven\", namespace = \"mon\", duration = \"2s\", api_server = {:?} }}",
            cluster.url()
        ),
    );
    // The integration is created, but the replica that requested it gets no answer.
    let made = Does::Hang(Reply::new(200));
    aiven.once("POST /v1/project/proj/integration", true, made);
    let mut first = Metrifold::start(&config);
    until_integrated(&aiven, &["s-elasticsearch"]);
    let second = Metrifold::start(&config);
    until_so("the other has a plan", || {
        plan(&second)["observed"].is_number()
    });
    assert_eq!(plan(&second)["leads"], false);
    assert_eq!(plan(&second)["lease"], "Lease mon/aiven");
    let lease = || cluster.state().object("leases", "mon", "aiven").unwrap();
    let holder = lease()["spec"]["holderIdentity"].clone();
    let notes = lease()["metadata"]["annotations"]["metrifold/notes"].clone();
    assert!(
        notes.as_str().unwrap().contains("proj/s-elasticsearch"),
        "what is asked for is written down before: {notes}"
    );
    rounds(&aiven, 4);
    assert_eq!(lease()["spec"]["holderIdentity"], holder, "it is renewed");
    aiven.state().project().integrations[0].hidden = 6;
    first.kill();
    until_so("the other has the lease", || plan(&second)["leads"] == true);
    assert_ne!(lease()["spec"]["holderIdentity"], holder);
    until_so("its nodes are found", || found(&second).len() == 2);
    rounds(&aiven, 3);
    assert_eq!(aiven.integrated(), ["s-elasticsearch"]);
    assert_eq!(aiven.posts(), ["s-elasticsearch"]);
    // Without the cluster no replica leads, and known targets stay.
    cluster.state().down = true;
    until_so("it does not lead any more", || {
        plan(&second)["leads"] == false
    });
    assert_eq!(found(&second).len(), 2);
    cluster.state().down = false;
    until_so("it leads again", || plan(&second)["leads"] == true);
    assert_eq!(aiven.posts(), ["s-elasticsearch"]);
}

#[test]
fn what_was_made_here_is_removed_when_it_is_not_wanted_any_more_and_nothing_else() {
    let aiven = account();
    aiven.state().project().services.truncate(3);
    aiven.integrate("s-influxdb", "e1");
    let folder = tempfile::tempdir().unwrap();
    let lease = folder.path().join("lease");
    let keys = format!(
        "integrate = \"on\"\nsettle = \"100ms\"\ncleanup = true\nlease_path = {lease:?}\ntags = {{ deploy_env = \"prod\" }}"
    );
    let config = provider(&aiven, &keys);
    let mut child = Metrifold::start(&config);
    until_integrated(&aiven, &["s-elasticsearch", "s-influxdb", "s-opensearch"]);
    until_so("all are found", || found(&child).len() == 6);
    // Created integrations are remembered across a restart.
    child.kill();
    child.start_again();
    for name in ["s-elasticsearch", "s-influxdb"] {
        aiven.state().service(name)["tags"]["deploy_env"] = "gone".into();
    }
    until_integrated(&aiven, &["s-influxdb", "s-opensearch"]);
    rounds(&aiven, 3);
    assert_eq!(aiven.integrated(), ["s-influxdb", "s-opensearch"]);
    until_found(
        &child,
        &["s-opensearch 10.0.1.1:9273", "s-opensearch 10.0.1.2:9273"],
    );
}

#[test]
fn a_list_of_thousands_without_pages_is_taken_and_a_project_that_fails_keeps_its_own() {
    let aiven = Aiven::new();
    {
        let mut state = aiven.state();
        state.project().endpoints.push(endpoint("e1", "metrifold"));
        for number in 0..5000 {
            let name = format!("s{number}");
            let mut it = service("proj", &name, "opensearch", 1);
            it["service_uri_params"]["host"] = "all-proj.aivencloud.test".into();
            state.project().services.push(it);
        }
        let mut other = metrifold_testing::aiven::Project::default();
        other.endpoints.push(endpoint("e2", "metrifold"));
        other.services.push(service("other", "x", "opensearch", 1));
        state.projects.insert("other".to_owned(), other);
    }
    for number in 0..5000 {
        aiven.integrate(&format!("s{number}"), "e1");
    }
    aiven.state().project().integrations.truncate(5000);
    aiven.names.set("all-proj.aivencloud.test", &["10.0.0.1"]);
    let config = provider(&aiven, "").replace("[\"proj\"]", "[\"proj\", \"other\"]");
    let child = Metrifold::start(&config);
    let targets = || status(&child)["matched"].as_u64().unwrap();
    until_so("all are found", || targets() == 5000);
    let lists = aiven
        .api
        .seen()
        .into_iter()
        .filter(|it| it.path.contains("/service?"));
    assert_eq!(lists.count(), 0, "the list is asked for without a limit");
    // The token loses access to the project.
    aiven.state().projects.remove("other");
    aiven.state().project().services.truncate(4000);
    until_so("the other project is followed", || targets() == 4000);
    assert_eq!(status(&child)["providers"][0]["stale"], true);
}

/// The page of a node, protected with the endpoint's credentials.
fn node(authority: &Authority, names: &[&str], address: std::net::SocketAddr) -> Endpoint {
    let tls = authority.server_of(names);
    Endpoint::tls_at(address, tls, |seen| match seen.header("authorization") {
        // prom:endpunkt-geheim
        Some("Basic cHJvbTplbmRwdW5rdC1nZWhlaW0=") => Reply::new(200)
            .header("content-type", "text/plain; version=0.0.4")
            .body("up_time 1\n"),
        _ => Reply::new(401),
    })
}

#[test]
fn nodes_are_scraped_at_their_addresses_and_verified_against_the_name_of_their_service() {
    let authority = Authority::new();
    let aiven = Aiven::new();
    {
        let mut state = aiven.state();
        state.project().endpoints.push(endpoint("e1", "metrifold"));
        state.project().authority = fs::read_to_string(authority.ca()).unwrap();
    }
    aiven.add("es", "opensearch", &["127.0.0.1"]);
    aiven.add("bad", "opensearch", &["127.0.0.1"]);
    aiven.integrate("es", "e1");
    aiven.integrate("bad", "e1");
    let good = node(&authority, &["es-proj.aivencloud.test"], free_address());
    // A certificate of the same authority with another name.
    let bad = node(&authority, &["somebody.aivencloud.test"], free_address());
    for (name, port) in [("es", good.address().port()), ("bad", bad.address().port())] {
        aiven.state().service(name)["components"].as_array_mut().unwrap().push(json!({
            "component": "prometheus", "host": format!("{name}-proj.aivencloud.test"), "port": port,
            "route": "dynamic", "usage": "primary"
        }));
    }
    let sink = Endpoint::healthy();
    let config = |keys: &str| {
        format!(
            "{}\n[sources.s]\ntype = \"aiven_scrape\"\ndiscovery = \"a\"\nscrape_interval = \"1s\"\n{keys}\n\
             [transforms.t]\ntype = \"tenant\"\ninputs = [\"s\"]\nfrom = [{{ label = \"tenant\", remove = true }}]\nlabel = \"tenant_id\"\n\
             [sinks.out]\ntype = \"remote_write\"\ninputs = [\"t\"]\nendpoint = {:?}\n",
            provider(&aiven, "tag_labels = { tenant = \"organization_id\" }"),
            sink.url()
        )
    };
    let child = Metrifold::start(&config(""));
    let series = || -> BTreeSet<(String, String, String)> {
        let seen = sink.seen().into_iter();
        seen.flat_map(|it| it.checked())
            .filter(|series| ["up_time", "up"].contains(&series.name()))
            .map(|series| {
                let get = |name: &str| {
                    let found = series.labels.iter().find(|(known, _)| known == name);
                    found.map(|(_, value)| value.clone()).unwrap_or_default()
                };
                (
                    series.name().to_owned(),
                    get("aiven_service_name"),
                    get("tenant_id"),
                )
            })
            .collect()
    };
    let is = |name: &str, service: &str| {
        (
            name.to_owned(),
            service.to_owned(),
            format!("org-of-{service}"),
        )
    };
    until_so("the nodes are scraped", || {
        series().is_superset(&BTreeSet::from([
            is("up_time", "es"),
            is("up", "es"),
            is("up", "bad"),
        ]))
    });
    assert!(!series().contains(&is("up_time", "bad")));
    until_so("the handshake is said to have failed", || {
        let failing = child.get("/api/v1/targets?health=down").json();
        let failing = failing["data"]["activeTargets"].as_array().unwrap();
        let mut errors = failing.iter().map(|it| it["lastError"].to_string());
        errors.any(|error| error.contains("tls handshake"))
    });
    // The endpoint gets another password, which its nodes require from then on.
    aiven.state().project().endpoints[0]["user_config"]["basic_auth_password"] =
        "neu-geheim".into();
    let before = good.count();
    until_so("the new password is shown", || {
        let seen = good.seen();
        // prom:neu-geheim
        let new = Some("Basic cHJvbTpuZXUtZ2VoZWlt");
        seen[before..]
            .iter()
            .any(|it| it.header("authorization") == new)
    });
    drop(child);
    // The switch that accepts certificates without the name.
    aiven.state().project().endpoints[0] = endpoint("e1", "metrifold");
    let _child = Metrifold::start(&config("tls.insecure_skip_verify = true"));
    until_so("the other is scraped, too", || {
        series().contains(&is("up_time", "bad"))
    });
}
