//! A real API server: its targets, compared with those of Prometheus' own discovery, watches that go on
//! through a restart with another token, PrometheusRule objects, and a lease.

use std::fs;

use serde_json::{Value, json};

use metrifold_testing::aiven::Aiven;
use metrifold_testing::kubernetes::{
    endpoints, endpointslice, ingress, namespace, node, owned, pod, service,
};
use metrifold_testing::peers::ApiServer;
use metrifold_testing::{Metrifold, until_so};

use super::kubernetes::{Cluster, compare};

const TOKEN: &str = "first-token-of-the-test";

/// The object without keys that a client does not set.
fn bare(mut object: Value, keys: &[&str]) -> Value {
    for key in keys {
        let (parent, name) = key.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.remove(name);
    }
    object
}

/// A pod as a client may create it, with addresses as a kubelet writes them.
fn real_pod(name: &str, ip: &str, node: &str) -> Value {
    let ports = [("web", 8080), ("admin", 9090)];
    let pod = pod("sales", name, ip, node, &ports);
    let mut pod = bare(pod, &["/metadata/managedFields", "/metadata/uid"]);
    pod["status"]["podIPs"] = json!([{ "ip": ip }]);
    pod["status"]["hostIPs"] = json!([{ "ip": "192.0.2.1" }]);
    pod
}

const PODS: &str = "/api/v1/namespaces/sales/pods";

/// Creates objects of every kind.
fn fill(server: &ApiServer) {
    for name in ["sales", "other"] {
        server.create("/api/v1/namespaces", &namespace(name));
    }
    for (name, ip) in [("node-1", "192.0.2.1"), ("node-2", "192.0.2.2")] {
        server.create("/api/v1/nodes", &node(name, ip));
    }
    let of = |kind: &str| format!("/api/v1/namespaces/sales/{kind}");
    let shop = real_pod("shop-0", "10.0.0.1", "node-1");
    server.create(PODS, &owned(shop, "apps/v1", "ReplicaSet", "shop-abc"));
    let mut other = real_pod("shop-1", "10.0.0.2", "node-2");
    other["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
    server.create(PODS, &owned(other, "batch/v1", "Job", "nightly-1"));
    let shop = service("sales", "shop", &[("web", 80)]);
    server.create(&of("services"), &bare(shop, &["/spec/clusterIP"]));
    let mut balanced = service("other", "front", &[("web", 80), ("tls", 443)]);
    balanced["spec"]["type"] = json!("LoadBalancer");
    let balanced = bare(balanced, &["/spec/clusterIP"]);
    server.create("/api/v1/namespaces/other/services", &balanced);
    let pods = [("shop-0", "10.0.0.1"), ("shop-1", "10.0.0.2")];
    let mut slice = endpointslice("sales", "shop", 0, &pods, &[("web", 8080)]);
    slice["endpoints"][1]["conditions"] = json!({ "ready": false, "terminating": true });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/sales/endpointslices";
    server.create(slices, &slice);
    let (ready, not) = ([pods[0]], [pods[1]]);
    let older = endpoints("sales", "shop", &ready, &not, &[("web", 8080)]);
    server.create(&of("endpoints"), &older);
    let ingress = ingress("sales", "in", "a.example", &["*.example"], &["/x"]);
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/sales/ingresses";
    server.create(ingresses, &ingress);
}

/// Keys of a connection, one per line.
fn keys(server: &ApiServer, authorization: &str) -> String {
    format!(
        "api_server = {:?}\nauthorization = {{ {authorization} }}\ntls = {{ ca_file = {:?} }}\n",
        server.url(),
        server.ca()
    )
}

fn by_token(server: &ApiServer) -> String {
    keys(server, &format!("credentials = {TOKEN:?}"))
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn prometheus_finds_the_same_targets_in_a_real_cluster() {
    let server = ApiServer::start(TOKEN);
    fill(&server);
    let ca = server.ca();
    compare(&Cluster {
        theirs: format!(
            "api_server: {:?}\n    authorization: {{credentials: {TOKEN}}}\n    tls_config: {{ca_file: {ca:?}}}",
            server.url(),
        ),
        ours: by_token(&server),
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn watches_go_on_after_a_restart_that_forgets_the_history_and_the_token() {
    let mut server = ApiServer::start(TOKEN);
    fill(&server);
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    let running = Metrifold::start(&format!(
        "[discovery.k]\ntype = \"kubernetes\"\nrole = \"pod\"\nwatch_timeout = \"3s\"\n{}",
        keys(&server, &format!("credentials_file = {file:?}"))
    ));
    let found = |address: &str| {
        let found = running.get("/api/v1/discovery?limit=1000").json();
        let targets = found["targets"].as_array().unwrap().clone();
        targets
            .iter()
            .any(|it| it["labels"]["__address__"] == address)
    };
    until_so("the pods are found", || found("10.0.0.1:8080"));
    server.create(PODS, &real_pod("late", "10.0.0.77", "node-1"));
    until_so("a new pod is found", || found("10.0.0.77:8080"));
    server.delete(&format!("{PODS}/late"));
    until_so("a deleted pod is not", || !found("10.0.0.77:8080"));

    // The version that the watch of pods has seen last, and changes of other objects since.
    let listed: Value = serde_json::from_str(&server.get(PODS)).unwrap();
    let seen = listed["metadata"]["resourceVersion"].as_str().unwrap();
    for turn in 0..20 {
        let fields = json!({ "metadata": { "annotations": { "turn": turn.to_string() } } });
        server.change("/api/v1/namespaces/other", &fields);
    }
    fs::write(&file, "second-token-of-the-test").unwrap();
    server.start_again("second-token-of-the-test");
    let watch = format!("{PODS}?watch=1&timeoutSeconds=1&resourceVersion={seen}");
    let answer = server.get(&watch);
    assert!(answer.contains("\"code\":410"), "{answer}");
    server.create(PODS, &real_pod("later", "10.0.0.78", "node-1"));
    until_so("a pod of the new process is found", || {
        found("10.0.0.78:8080")
    });
    assert!(found("10.0.0.1:8080"));
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn rules_are_read_from_objects_of_a_real_cluster_once_it_knows_their_kind() {
    let server = ApiServer::start(TOKEN);
    for name in ["sales", "other"] {
        server.create("/api/v1/namespaces", &namespace(name));
    }
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let running = Metrifold::start(&format!(
        "[sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n\
         [sources.rules]\ntype = \"rules_poll\"\n[sources.rules.kubernetes]\n{}",
        by_token(&server)
    ));
    // Prometheus' operator is not installed yet.
    running.until_logged("404");
    let definition = json!({
        "metadata": { "name": "prometheusrules.monitoring.coreos.com" },
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": { "kind": "PrometheusRule", "plural": "prometheusrules", "singular": "prometheusrule" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            } } }],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.create(definitions, &definition);
    let rules = "/apis/monitoring.coreos.com/v1/namespaces/sales/prometheusrules";
    until_so("the kind is known", || {
        server.get(rules).contains("PrometheusRuleList")
    });
    let object = |record: &str, expression: &str| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
            "metadata": { "name": "shop" },
            "spec": { "groups": [{ "name": "g", "rules": [{ "record": record, "expr": expression }] }] },
        })
    };
    // The text of all files.
    let written = || {
        let files = fs::read_dir(&out).into_iter().flatten().flatten();
        let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
        texts.collect::<String>()
    };
    server.create(rules, &object("first", "up"));
    until_so("the rules are written", || written().contains("first"));
    let path = format!("{rules}/shop");
    server.change(&path, &object("wrong", "up{"));
    running.until_logged("sales/shop");
    assert!(written().contains("first"));
    server.change(&path, &object("second", "up"));
    until_so("a change is written", || written().contains("second"));
    server.delete(&path);
    until_so("deleted rules are removed", || {
        !written().contains("second")
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_lease_of_a_real_cluster_elects_one_of_two_instances() {
    let server = ApiServer::start(TOKEN);
    server.create("/api/v1/namespaces", &namespace("mon"));
    let aiven = Aiven::new();
    let config = format!(
        "[discovery.a]\ntype = \"aiven\"\napi = {:?}\ntoken = \"geheim\"\nprojects = [\"proj\"]\nintegrate = \"on\"\n\
         refresh_interval = \"100ms\"\nrequest_interval = \"0s\"\ndns_servers = [\"{}\"]\n\
         [discovery.a.kubernetes_lease]\nname = \"aiven\"\nnamespace = \"mon\"\nduration = \"2s\"\n{}",
        aiven.url(),
        aiven.names.address(),
        by_token(&server)
    );
    let leads = |running: &Metrifold| {
        let plans = running.get("/api/v1/aiven/plans").json();
        plans["providers"][0]["leads"] == true
    };
    let mut first = Metrifold::start(&config);
    until_so("the first leads", || leads(&first));
    let second = Metrifold::start(&config);
    until_so("the second has a plan", || {
        let plans = second.get("/api/v1/aiven/plans").json();
        plans["providers"][0]["observed"].is_number()
    });
    assert!(leads(&first) && !leads(&second));
    first.kill();
    until_so("the second leads", || leads(&second));
    let path = "/apis/coordination.k8s.io/v1/namespaces/mon/leases/aiven";
    let lease: Value = serde_json::from_str(&server.get(path)).unwrap();
    assert_eq!(lease["spec"]["leaseTransitions"], 1, "{lease}");
}
