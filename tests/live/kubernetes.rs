//! Targets of a cluster, compared with those of Prometheus' own discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use metrifold_testing::kubernetes::{
    Kubernetes, endpoints, endpointslice, ingress, namespace, node, owned, pod, service,
};
use metrifold_testing::peers::Prometheus;
use metrifold_testing::{cli, get, run, until};

type Targets = BTreeSet<BTreeMap<String, String>>;

/// Whether a label comes from discovery, and not from the scraper.
fn is_found(name: &str) -> bool {
    let of_scraper = name == "job" || (name.starts_with("__") && !name.starts_with("__meta_"));
    name == "__address__" || !of_scraper
}

fn labels(found: &Value) -> BTreeMap<String, String> {
    let found = found.as_object().unwrap().iter();
    let found = found.filter(|(name, _)| is_found(name));
    let pairs = found.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
    // A label without a value counts as absent, though Prometheus shows it.
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// A cluster with objects of every kind.
fn cluster() -> Kubernetes {
    let cluster = Kubernetes::new();
    let ports = [("web", 8080), ("admin", 9090)];
    let shop = pod("sales", "shop-0", "10.0.0.1", "node-1", &ports);
    cluster.put("pods", owned(shop, "apps/v1", "ReplicaSet", "shop-abc"));
    let mut other = pod("sales", "shop-1", "10.0.0.2", "node-2", &ports);
    other["spec"]["initContainers"] = json!([{ "name": "init", "image": "i", "ports": [{ "containerPort": 1, "protocol": "TCP" }] }]);
    other["status"]["conditions"] = json!([{ "type": "Ready", "status": "False" }]);
    cluster.put("pods", owned(other, "batch/v1", "Job", "nightly-1"));
    let mut bare = pod("sales", "bare", "2001:db8::7", "node-1", &[]);
    bare["status"]["conditions"] = Value::Null;
    bare["metadata"]["labels"] = Value::Null;
    cluster.put("pods", bare);
    cluster.put("pods", pod("sales", "starting", "", "node-1", &ports));
    let of = |name: &str| json!({ "metadata": { "name": name, "namespace": "sales" } });
    cluster.put(
        "replicasets",
        owned(of("shop-abc"), "apps/v1", "Deployment", "shop"),
    );
    cluster.put(
        "jobs",
        owned(of("nightly-1"), "batch/v1", "CronJob", "nightly"),
    );
    cluster.put("nodes", node("node-1", "192.0.2.1"));
    cluster.put("nodes", node("node-2", "192.0.2.2"));
    for name in ["sales", "other"] {
        cluster.put("namespaces", namespace(name));
    }
    cluster.put("services", service("sales", "shop", &[("web", 80)]));
    let mut balanced = service("other", "front", &[("web", 80), ("tls", 443)]);
    balanced["spec"]["type"] = json!("LoadBalancer");
    balanced["spec"]["loadBalancerIP"] = json!("192.0.2.9");
    cluster.put("services", balanced);
    let mut external = service("other", "outside", &[("web", 80)]);
    external["spec"] = json!({ "type": "ExternalName", "externalName": "db.example",
        "ports": [{ "port": 5432, "protocol": "TCP" }] });
    cluster.put("services", external);
    let pods = [("shop-0", "10.0.0.1"), ("shop-1", "10.0.0.2")];
    let mut slice = endpointslice("sales", "shop", 0, &pods, &[("web", 8080)]);
    slice["ports"][0]["appProtocol"] = json!("http");
    slice["endpoints"][1]["conditions"] = json!({ "ready": false, "terminating": true });
    slice["endpoints"][1]["hostname"] = json!("shop-1.host");
    slice["endpoints"][1]["deprecatedTopology"] = json!({ "topology.kubernetes.io/region": "r" });
    cluster.put("endpointslices", slice);
    let mut foreign = endpointslice("other", "front", 0, &[("gone", "10.0.0.9")], &[("web", 1)]);
    foreign["endpoints"][0]["targetRef"] = Value::Null;
    foreign["ports"] = json!([{ "name": "", "protocol": "TCP" }]);
    cluster.put("endpointslices", foreign);
    let mut empty = endpointslice("other", "none", 0, &[], &[]);
    empty["endpoints"] = Value::Null;
    empty["ports"] = Value::Null;
    cluster.put("endpointslices", empty);
    let (ready, not) = ([pods[0]], [pods[1]]);
    cluster.put(
        "endpoints",
        endpoints("sales", "shop", &ready, &not, &[("web", 8080)]),
    );
    // One number for two protocols.
    let mut dns = pod("sales", "dns-0", "10.0.0.5", "node-1", &[]);
    dns["spec"]["containers"][0]["ports"] = json!([{ "name": "dns", "containerPort": 53, "protocol": "UDP" },
        { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" }]);
    cluster.put("pods", dns);
    let behind = [("dns-0", "10.0.0.5")];
    let named = endpoints("sales", "dns", &behind, &[], &[("tcp", 53)]);
    cluster.put("endpoints", named);
    let mut both = service("sales", "dns", &[("dns", 53)]);
    both["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    both["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    cluster.put("services", both);
    cluster.put(
        "endpointslices",
        endpointslice("sales", "dns", 0, &behind, &[("dns", 53)]),
    );
    let behind = [("dns-0", "2001:db8::5")];
    let mut primary = endpointslice("sales", "dns", 1, &behind, &[("dns", 53)]);
    primary["addressType"] = json!("IPv6");
    cluster.put("endpointslices", primary);
    let mut outside = endpointslice(
        "other",
        "outside",
        0,
        &[("", "db.example")],
        &[("db", 5432)],
    );
    outside["addressType"] = json!("FQDN");
    outside["endpoints"][0]["targetRef"] = json!({ "kind": "Node", "name": "node-2" });
    cluster.put("endpointslices", outside);
    cluster.put(
        "ingresses",
        ingress("sales", "in", "a.example", &["*.example"], &["/x", ""]),
    );
    cluster.put(
        "ingresses",
        ingress("sales", "out", "b.c.example", &["*.example"], &["/"]),
    );
    cluster
}

/// Prometheus takes targets for one that differ in nothing but labels it drops: the paths of an ingress are kept, and
/// the protocols of a port.
const DISTINCT: &str = "  relabel_configs: [{action: labelmap, regex: __meta_kubernetes_(ingress_path|pod_container_port_protocol)}]\n";

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn prometheus_finds_the_same_targets_with_the_same_labels_in_every_role() {
    let cluster = cluster();
    compare(&Cluster {
        theirs: format!("api_server: {}", cluster.url()),
        ours: format!("api_server = {:?}", cluster.url()),
    });
}

/// How a cluster is reached: keys of Prometheus' discovery and of ours.
pub(crate) struct Cluster {
    pub(crate) theirs: String,
    pub(crate) ours: String,
}

/// Compares the targets of both discoveries in every role.
pub(crate) fn compare(cluster: &Cluster) {
    let attach = "attach_metadata: {node: true, namespace: true, deployment: true, job: true, cronjob: true}";
    let cases = [
        "endpointslice",
        "endpoints",
        "pod",
        "service",
        "node",
        "ingress",
    ];
    let mut theirs = String::from("scrape_configs:\n");
    let mut ours = String::new();
    for role in cases {
        for (name, more, key) in [
            ("plain", "", ""),
            (
                "attached",
                attach,
                "attach_metadata = { node = true, namespace = true, deployment = true, job = true, cronjob = true }\n",
            ),
            (
                "named",
                "namespaces: {names: [sales]}",
                "namespaces = [\"sales\"]\n",
            ),
        ] {
            if role == "node" && name == "named" {
                continue;
            }
            let reached = &cluster.theirs;
            theirs.push_str(&format!(
                "- job_name: {role}-{name}\n  kubernetes_sd_configs:\n  - role: {role}\n    {reached}\n    {more}\n{DISTINCT}"
            ));
            let reached = &cluster.ours;
            ours.push_str(&format!(
                "[discovery.{role}-{name}]\ntype = \"kubernetes\"\nrole = \"{role}\"\n{reached}\n{key}"
            ));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrifold.toml");
    fs::write(&file, &ours).unwrap();
    let prometheus = Prometheus::start_3(&theirs);
    let names: Vec<&str> = ours
        .lines()
        .filter_map(|line| line.strip_prefix("[discovery.")?.strip_suffix(']'))
        .collect();
    for name in names {
        let file = file.to_str().unwrap();
        let output = run(&mut cli(&[
            "-c", file, "discover", name, "--format", "json",
        ]));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found["targets"].as_array().unwrap();
        let ours: Targets = found.iter().map(labels).collect();
        assert!(!ours.is_empty(), "{name}");
        let mut last = Targets::new();
        let same = until_same(&prometheus, name, &ours, &mut last);
        assert!(same, "{name}:\nours {ours:#?}\nPrometheus' {last:#?}");
    }
}

/// Waits until Prometheus has found as many targets; returns whether they are equal.
fn until_same(prometheus: &Prometheus, job: &str, ours: &Targets, last: &mut Targets) -> bool {
    let url = format!("{}/api/v1/targets?scrapePool={job}", prometheus.url());
    until(&format!("{} targets of {job}", ours.len()), || {
        let found = get(&url).json()["data"].clone();
        let active = found["activeTargets"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        *last = active
            .iter()
            .map(|it| labels(&it["discoveredLabels"]))
            .collect();
        (last.len() == ours.len()).then_some(())
    });
    last == ours
}
