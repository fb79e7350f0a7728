//! Published targets, read by a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use metrifold_testing::aiven::{Aiven, endpoint};
use metrifold_testing::consul::{Consul, instance};
use metrifold_testing::peers::Prometheus;
use metrifold_testing::{Endpoint, Metrifold, Reply, free_address, get, until_so};

/// Targets of a job in a Prometheus, each with one of its labels.
fn targets(prometheus: &Prometheus, job: &str) -> BTreeSet<(String, String)> {
    let answer = get(&format!("{}/api/v1/targets", prometheus.url())).json();
    let active = answer["data"]["activeTargets"].as_array().unwrap().clone();
    let of_job = active.iter().filter(|it| it["labels"]["job"] == job);
    let pair = of_job.map(|it| {
        let text = |key: &str| it["labels"][key].as_str().unwrap_or_default().to_owned();
        (text("instance"), text("env"))
    });
    pair.collect()
}

#[test]
fn prometheus_reads_the_published_file_and_the_served_list_and_keeps_both_through_failures() {
    reads_what_is_published(Prometheus::start);
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn prometheus_3_reads_the_published_file_and_the_served_list_and_keeps_both_through_failures() {
    reads_what_is_published(Prometheus::start_3);
}

fn reads_what_is_published(start: fn(&str) -> Prometheus) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.json");
    let list = |body: &str| {
        let body = body.to_owned();
        move |_: &metrifold_testing::Seen| {
            Reply::new(200)
                .header("content-type", "application/json")
                .body(body.clone())
        }
    };
    let first = r#"[{"targets":["127.0.0.1:1","127.0.0.1:2"],"labels":{"env":"a \"b\" \\ ü"}}]"#;
    let server = Endpoint::new(list(first));
    let address = free_address();
    let config = format!(
        "data_dir = {:?}\n[discovery.h]\ntype = \"http\"\nurl = {:?}\nrefresh_interval = \"100ms\"\n\
         [publish.p]\ndiscovery = \"h\"\nfile = {file:?}\nhttp_sd = {{ address = \"{address}\", path = \"/t\" }}\n",
        folder.path().join("data"),
        server.url_of("/list")
    );
    let mut child = Metrifold::start(&config);
    until_so("it is published", || fs::metadata(&file).is_ok());
    let prometheus = start(&format!(
        "scrape_configs:\n\
         - job_name: file\n  file_sd_configs: [{{ files: [{file:?}], refresh_interval: 1s }}]\n\
         - job_name: http\n  http_sd_configs: [{{ url: 'http://{address}/t', refresh_interval: 1s }}]\n"
    ));
    let expected = |ports: &[u16]| -> BTreeSet<(String, String)> {
        let env = "a \"b\" \\ ü".to_owned();
        let one = |port: &u16| (format!("127.0.0.1:{port}"), env.clone());
        ports.iter().map(one).collect()
    };
    let until_has = |ports: &[u16]| {
        for job in ["file", "http"] {
            until_so(&format!("{job} has {ports:?}"), || {
                targets(&prometheus, job) == expected(ports)
            });
        }
    };
    until_has(&[1, 2]);
    server.now(list(&first.replace("127.0.0.1:2", "127.0.0.1:3")));
    until_has(&[1, 3]);
    // The server fails, and Metrifold restarts meanwhile.
    server.now(|_| Reply::new(500));
    child.kill();
    child.start_again();
    until_so("it is served again", || {
        get(&format!("http://{address}/t")).status == 200
    });
    until_has(&[1, 3]);
    server.now(list(&first.replace("127.0.0.1:2", "127.0.0.1:4")));
    until_has(&[1, 4]);
}

/// Labels of the discovered targets that have an address.
fn discovered(targets: &Value, labels: &str) -> BTreeSet<BTreeMap<String, String>> {
    let targets = targets.as_array().unwrap().iter();
    let of = targets.map(|target| {
        let labels = target[labels].as_object().unwrap().iter();
        let kept = labels.filter(|(name, _)| name.starts_with("__meta_") || *name == "__address__");
        let text =
            |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().to_owned());
        kept.map(text).collect()
    });
    of.collect()
}

/// How alphagov's Prometheus scraped the nodes of Aiven's services.
const ALPHAGOV: &str = "scrape_configs:
- job_name: aiven
  scheme: https
  basic_auth: {username: prom, password: endpunkt-geheim}
  tls_config: {insecure_skip_verify: true}
  file_sd_configs: [{files: [FILE], refresh_interval: 1s}]
  relabel_configs:
  - {source_labels: [__address__], regex: '(.*)', target_label: __address__, replacement: '${1}:9273'}
  - {source_labels: [aiven_cloud], regex: aws-eu-west-1, action: keep}
";

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn alphagov_s_prometheus_reads_the_file_with_aiven_s_nodes_without_a_change() {
    let aiven = Aiven::new();
    aiven
        .state()
        .project()
        .endpoints
        .push(endpoint("e1", "alphagov"));
    aiven.add("es", "opensearch", &["127.0.0.1", "127.0.0.2"]);
    aiven.add("far", "elasticsearch", &["127.0.0.3"]);
    aiven.state().service("far")["cloud_name"] = "aws-us-east-1".into();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aiven.json");
    // The provider integrates the services, though nothing but the publisher reads its targets.
    let config = format!(
        "data_dir = {:?}\n[discovery.aiven]\ntype = \"aiven\"\napi = {:?}\ntoken = \"geheim\"\nprojects = [\"proj\"]\n\
         endpoint_id = \"e1\"\nintegrate = \"on\"\nrefresh_interval = \"100ms\"\nrequest_interval = \"0s\"\ndns_servers = [\"{}\"]\n\
         [publish.aiven]\ndiscovery = \"aiven\"\nfile = {file:?}\nrelabel = [\n\
         {{ source_labels = [\"__address__\"], regex = \"(.+):[0-9]+\", target_label = \"__address__\" }},\n\
         {{ regex = \"__address__|aiven_.*\", action = \"labelkeep\" }},\n]\n",
        folder.path().join("data"),
        aiven.url(),
        aiven.names.address()
    );
    let mut child = Metrifold::start(&config);
    until_so("both are published", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains("127.0.0.3"))
    });
    assert_eq!(aiven.integrated(), ["es", "far"]);
    let theirs = ALPHAGOV.replace("FILE", file.to_str().unwrap());
    let prometheus = Prometheus::start_3(&theirs);
    let labels = || -> BTreeSet<BTreeMap<String, String>> {
        let answer = get(&format!("{}/api/v1/targets", prometheus.url())).json();
        let active = answer["data"]["activeTargets"].as_array().unwrap().clone();
        let of = active.iter().map(|target| {
            let labels = target["labels"].as_object().unwrap().iter();
            let text = |(name, value): (&String, &Value)| {
                (name.clone(), value.as_str().unwrap().to_owned())
            };
            labels.map(text).collect()
        });
        of.collect()
    };
    let expected = |addresses: &[&str]| -> BTreeSet<BTreeMap<String, String>> {
        let of = addresses.iter().map(|address| {
            let instance = format!("{address}:9273");
            let pairs = [
                ("job", "aiven"),
                ("instance", instance.as_str()),
                ("aiven_service_name", "es"),
                ("aiven_service_type", "opensearch"),
                ("aiven_hostname", "es-proj.aivencloud.test"),
                ("aiven_plan", "business-4"),
                ("aiven_cloud", "aws-eu-west-1"),
                ("aiven_node_count", "2"),
            ];
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        });
        of.collect()
    };
    let both = expected(&["127.0.0.1", "127.0.0.2"]);
    until_so("its targets are these", || labels() == both);
    // Aiven fails, and Metrifold restarts: the old program then wrote an empty list.
    aiven.state().fails = Some(503);
    child.kill();
    child.start_again();
    until_so("it has failed", || {
        child.metric("metrifold_aiven_fetch_failures_total", &[]) >= 2.0
    });
    aiven
        .names
        .set("es-proj.aivencloud.test", &["127.0.0.1", "127.0.0.4"]);
    assert_eq!(labels(), both);
    aiven.state().fails = None;
    let moved = expected(&["127.0.0.1", "127.0.0.4"]);
    until_so("a replaced node is found", || labels() == moved);
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn prometheus_finds_the_same_in_marathon_with_the_same_labels() {
    let task = |id: &str, host: &str, ports: &[u16]| {
        json!({ "id": id, "host": host, "ports": ports, "state": "TASK_RUNNING",
                "ipAddresses": [{ "ipAddress": "172.17.0.3", "protocol": "IPv4" }] })
    };
    let apps = json!({ "apps": [
        { "id": "/plain", "labels": { "team.name": "a" }, "container": { "docker": { "image": "prom:3" } },
          "tasks": [task("p1", "h1", &[31001, 31002])] },
        { "id": "/defined", "portDefinitions": [{ "port": 10000, "labels": { "metrics-path": "/m" } }, { "port": 10001 }],
          "tasks": [task("d1", "h1", &[31003, 31004]), task("d2", "h2", &[31005, 31006])] },
        { "id": "/required", "requirePorts": true, "portDefinitions": [{ "port": 9100, "labels": { "a": "b" } }],
          "tasks": [task("r1", "h3", &[9100])] },
        { "id": "/mapped", "container": { "docker": { "image": "i", "portMappings": [
              { "containerPort": 80, "hostPort": 0, "labels": { "x": "y" } }, { "containerPort": 81, "hostPort": 9 }] } },
          "tasks": [task("m1", "h1", &[31007, 9])] },
        { "id": "/inside", "networks": [{ "mode": "container", "name": "n" }], "container": { "portMappings": [
              { "containerPort": 80, "hostPort": 0, "labels": { "x": "y" } }] },
          "tasks": [task("i1", "h1", &[31008])] },
        { "id": "/none", "tasks": [] },
    ] });
    let text = apps.to_string();
    let master = Endpoint::new(move |seen| match seen.path.as_str() {
        "/v2/apps/?embed=apps.tasks" => Reply::new(200)
            .header("content-type", "application/json")
            .body(text.clone()),
        _ => Reply::new(404),
    });
    let server = master.url_of("");
    let prometheus = Prometheus::start_3(&format!(
        "scrape_configs:\n- job_name: m\n  marathon_sd_configs: [{{ servers: ['{server}'], refresh_interval: 1s }}]\n"
    ));
    let child = Metrifold::start(&format!(
        "[discovery.m]\ntype = \"marathon\"\nservers = [{server:?}]\nrefresh_interval = \"100ms\"\n"
    ));
    until_so("both find the same ten targets", || {
        let found = child.get("/api/v1/discovery?provider=m&limit=1000").json();
        let ours = discovered(&found["targets"], "labels");
        let url = format!("{}/api/v1/targets?scrapePool=m", prometheus.url());
        let active = get(&url).json()["data"]["activeTargets"].clone();
        let theirs = discovered(&active, "discoveredLabels");
        // A label without a value counts as absent, though Prometheus shows it.
        let full = |labels: BTreeMap<String, String>| {
            let pairs = labels.into_iter().filter(|(_, value)| !value.is_empty());
            pairs.collect()
        };
        let theirs: BTreeSet<_> = theirs.into_iter().map(full).collect();
        ours.len() == 10 && ours == theirs
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn prometheus_finds_the_same_in_consul_with_the_same_labels() {
    let consul = Consul::new();
    let mut down = instance("web", "w2", "10.0.0.2", 80, &[]);
    down["Service"]["Address"] = "fd00::2".into();
    down["Service"]["Tags"] = Value::Null;
    down["Checks"][0]["Status"] = "critical".into();
    consul.register(
        "web",
        vec![instance("web", "w1", "10.0.0.1", 80, &["a", "b"]), down],
    );
    consul.register("db", vec![instance("db", "d1", "10.0.0.3", 5432, &["a"])]);
    let server = consul.endpoint.address();
    let jobs = [
        ("all", ""),
        ("tagged", "tags: [a]"),
        ("named", "services: [web]"),
    ];
    let theirs: String = jobs
        .iter()
        .map(|(job, keys)| {
            format!(
                "- job_name: {job}\n  consul_sd_configs: [{{ server: '{server}', refresh_interval: 100ms, {keys} }}]\n"
            )
        })
        .collect();
    let prometheus = Prometheus::start_3(&format!("scrape_configs:\n{theirs}"));
    let ours = jobs.map(|(job, keys)| {
        let keys = keys.replace(": [", " = [\"").replace(']', "\"]");
        format!("[discovery.{job}]\ntype = \"consul\"\nserver = \"http://{server}\"\nrefresh_interval = \"100ms\"\n{keys}\n")
    });
    let child = Metrifold::start(&ours.concat());
    let same = |counts: [usize; 3]| {
        for ((job, _), count) in jobs.iter().zip(counts) {
            until_so(&format!("{job} are {count}, the same in both"), || {
                let url = format!("{}/api/v1/targets?scrapePool={job}", prometheus.url());
                let theirs = get(&url).json()["data"]["activeTargets"].clone();
                let theirs = discovered(&theirs, "discoveredLabels");
                let found = child.get(&format!("/api/v1/discovery?provider={job}&limit=1000"));
                let ours = discovered(&found.json()["targets"], "labels");
                ours == theirs && ours.len() == count
            });
        }
    };
    same([3, 2, 2]);
    consul.register("web", vec![instance("web", "w3", "10.0.0.4", 81, &["a"])]);
    consul.register("new", vec![instance("new", "n", "10.0.0.5", 1, &[])]);
    same([3, 2, 1]);
    consul.deregister("db");
    same([2, 1, 1]);
    // The servers begin their indexes anew.
    consul.restore();
    consul.register(
        "web",
        vec![
            instance("web", "w4", "10.0.0.6", 81, &["a"]),
            instance("web", "w5", "10.0.0.7", 81, &[]),
        ],
    );
    same([3, 1, 2]);
}
