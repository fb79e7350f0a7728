//! What is published, as a real Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use metrifold_testing::consul::{Consul, instance};
use metrifold_testing::peers::Prometheus;
use metrifold_testing::{Endpoint, Metrifold, Reply, free_address, get, until_so};

/// The targets of a job in a Prometheus, with a label of each.
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
    let prometheus = Prometheus::start(&format!(
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
    // The server fails, and Metrifold starts again meanwhile.
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

/// The labels of targets as they are discovered, with an address.
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
}
