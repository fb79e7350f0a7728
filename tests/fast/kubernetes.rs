//! Discovery of Kubernetes, in the whole program.

use std::fs;

use serde_json::{Value, json};

use metrifold_testing::kubernetes::{endpointslice, pod, service};
use metrifold_testing::{
    Authority, Endpoint, Kubernetes, Metrifold, Reply, cli, free_address, get, run, until_so,
};

/// Addresses in an `http_sd` list.
fn listed(list: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(list).unwrap_or_default();
    let groups = list.as_array().cloned().unwrap_or_default();
    let targets = groups
        .iter()
        .flat_map(|group| group["targets"].as_array().cloned());
    let mut found: Vec<String> = targets
        .flatten()
        .map(|target| target.as_str().unwrap().to_owned())
        .collect();
    found.sort();
    found
}

fn slice(cluster: &Kubernetes, addresses: &[(&str, &str)], port: u16) {
    let slice = endpointslice("mon", "prom", 0, addresses, &[("web", port)]);
    cluster.put("endpointslices", slice);
}

/// Environment of a pod: address of the API server, and the service account's folder.
fn in_a_pod(cluster: &Kubernetes, authority: &Authority, token: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(authority.ca(), folder.path().join("ca.crt")).unwrap();
    fs::write(folder.path().join("token"), token).unwrap();
    fs::write(folder.path().join("namespace"), "mon").unwrap();
    cluster.state().token = Some(token.to_owned());
    folder
}

#[test]
fn a_pod_finds_targets_in_its_namespace_and_they_stay_while_the_api_server_is_away() {
    let authority = Authority::new();
    let cluster = Kubernetes::tls(authority.server(None));
    let account = in_a_pod(&cluster, &authority, "geheim-token");
    slice(&cluster, &[("a", "10.0.0.1"), ("b", "10.0.0.2")], 9090);
    cluster.put("services", service("elsewhere", "x", &[("web", 1)]));
    let (folder, lists) = (tempfile::tempdir().unwrap(), free_address());
    let config = format!(
        "data_dir = {:?}\n[discovery.k]\ntype = \"kubernetes\"\nrole = \"endpointslice\"\n\
         own_namespace = true\nservice_account_directory = {:?}\n\
         [publish.k]\ndiscovery = \"k\"\nhttp_sd = {{ address = \"{lists}\", path = \"/k\" }}\n",
        folder.path(),
        account.path(),
    );
    let environment = format!(
        "export KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT={}",
        cluster.address().port()
    );
    let child = Metrifold::start_after(&environment, &config);
    let is = |expected: &[&str]| {
        until_so(&format!("{expected:?} is published"), || {
            listed(&get(&format!("http://{lists}/k")).text()) == expected
        });
    };
    is(&["10.0.0.1:9090", "10.0.0.2:9090"]);
    let everywhere = |asked: &String| asked.contains("/namespaces/mon/");
    assert!(
        cluster.asked().iter().all(everywhere),
        "{:?}",
        cluster.asked()
    );
    // The token is rotated, as a kubelet does.
    fs::write(account.path().join("token"), "another-token").unwrap();
    cluster.state().token = Some("another-token".to_owned());
    cluster.state().break_watches();
    slice(&cluster, &[("a", "10.0.0.1"), ("c", "10.0.0.3")], 9090);
    is(&["10.0.0.1:9090", "10.0.0.3:9090"]);
    cluster.state().down = true;
    cluster.state().break_watches();
    let provider = || child.get("/api/v1/discovery?provider=k").json()["providers"][0].clone();
    until_so("it is stale", || provider()["stale"] == true);
    is(&["10.0.0.1:9090", "10.0.0.3:9090"]);
    assert_eq!(
        child.metric("metrifold_discovery_stale", &[("discovery", "k")]),
        1.0
    );
    cluster.state().down = false;
    slice(&cluster, &[("c", "10.0.0.3")], 9090);
    is(&["10.0.0.3:9090"]);
    until_so("it is not stale", || provider()["stale"] == false);
    let page = child.get("/").text() + &child.log();
    assert!(!page.contains("geheim-token") && !page.contains("another-token"));
}

#[test]
fn discover_asks_a_cluster_once() {
    let cluster = Kubernetes::new();
    cluster.put("pods", pod("shop", "p", "10.0.0.1", "n", &[("web", 80)]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrifold.toml");
    let text = format!(
        "[discovery.k]\ntype = \"kubernetes\"\nrole = \"pod\"\napi_server = {:?}\n",
        cluster.url()
    );
    fs::write(&file, text).unwrap();
    let output = run(&mut cli(&["-c", file.to_str().unwrap(), "discover", "k"]));
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        found.contains("__meta_kubernetes_pod_name=\"p\""),
        "{found}"
    );
}

#[test]
fn what_mpp_found_in_kubernetes_answers_queries() {
    let cluster = Kubernetes::new();
    let replica = Endpoint::new(|seen| match seen.path.contains("/api/v1/query") {
        true => Reply::new(200)
            .header("content-type", "application/json")
            .body("{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}"),
        false => Reply::new(200).body(""),
    });
    let other = Endpoint::new(|_| Reply::new(200).body(""));
    let mut found = endpointslice(
        "mon",
        "prom",
        0,
        &[("prom-0", "127.0.0.1")],
        &[
            ("web", replica.address().port()),
            ("admin", other.address().port()),
        ],
    );
    found["ports"][1]["protocol"] = "UDP".into();
    cluster.put("endpointslices", found);
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "current-context: x\nclusters: [{{name: c, cluster: {{server: '{}'}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c}}}}]\n",
        cluster.url()
    );
    fs::write(&kubeconfig, text).unwrap();
    let port = free_address().port().to_string();
    let output = run(&mut cli(&[
        "convert",
        "mpp",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--kube-service-name",
        "prom",
        "--kube-namespace",
        "mon",
        "--routing-strategy",
        "random",
        "--port",
        &port,
    ]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).replace("0.0.0.0", "127.0.0.1");
    let _child = Metrifold::start(&text);
    until_so("a query is answered", || {
        let answer = get(&format!("http://127.0.0.1:{port}/api/v1/query?query=up"));
        answer.status == 200
    });
    assert!(
        replica
            .seen()
            .iter()
            .any(|seen| seen.path.contains("query=up"))
    );
    assert_eq!(other.count(), 0);
}

/// A PrometheusRule with one rule.
fn rule(namespace: &str, name: &str, tenant: Option<&str>, record: &str, expr: &str) -> Value {
    let mut object = json!({
        "metadata": { "name": name, "namespace": namespace, "labels": { "role": "rules" } },
        "spec": { "groups": [{ "name": "g", "interval": "30s", "rules": [{ "record": record, "expr": expr }] }] },
    });
    if let Some(tenant) = tenant {
        object["metadata"]["labels"]["example.org/tenant"] = tenant.into();
    }
    object
}

#[test]
fn rules_of_objects_reach_their_tenants_and_one_that_is_wrong_costs_no_other() {
    let cluster = Kubernetes::new();
    cluster.put(
        "prometheusrules",
        rule("shop", "one", Some("a"), "first", "up"),
    );
    cluster.put(
        "prometheusrules",
        rule("shop", "two", Some("b"), "second", "up{"),
    );
    cluster.put(
        "prometheusrules",
        rule("shop", "three", None, "third", "up"),
    );
    let mut elsewhere = rule("shop", "four", Some("a"), "fourth", "up");
    elsewhere["metadata"]["labels"]["role"] = "other".into();
    cluster.put("prometheusrules", elsewhere);
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_poll\"\n[sources.rules.kubernetes]\napi_server = {:?}\n\
         label_selector = \"role=rules\"\ntenant_from = \"label\"\ntenant_key = \"example.org/tenant\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n",
        cluster.url()
    ));
    let holds = |what: &str| {
        let files = fs::read_dir(&out).into_iter().flatten().flatten();
        let mut found = files.filter_map(|file| {
            let text = fs::read_to_string(file.path()).ok()?;
            let name = file.file_name().into_string().ok()?;
            text.contains(what).then_some(name)
        });
        found.next().unwrap_or_default()
    };
    until_so("the good one is there", || holds("first").starts_with("a~"));
    program.until_logged("shop/two: ");
    program.until_logged("shop/three: the object has no label");
    assert_eq!(
        (holds("second"), holds("third"), holds("fourth")),
        Default::default()
    );
    // Valid rules stay when their object becomes invalid, and other changes are published at once.
    cluster.put(
        "prometheusrules",
        rule("shop", "two", Some("b"), "second", "up"),
    );
    until_so("it is mended", || holds("second").starts_with("b~"));
    cluster.put(
        "prometheusrules",
        rule("shop", "two", Some("b"), "worse", "up{"),
    );
    cluster.put(
        "prometheusrules",
        rule("shop", "one", Some("a"), "changed", "up"),
    );
    until_so("the other changes", || holds("changed").starts_with("a~"));
    assert!(holds("second").starts_with("b~"));
    // An outage removes nothing.
    let errors = || {
        let labels = [("error_type", "invalid")];
        program.metric("metrifold_component_errors_total", &labels)
    };
    let before = errors();
    cluster.state().down = true;
    cluster.state().break_watches();
    until_so("it fails", || errors() > before);
    assert!(holds("changed").starts_with("a~"));
    cluster.state().down = false;
    cluster.delete("prometheusrules", "shop", "one");
    until_so("it goes", || holds("changed").is_empty());
    assert!(holds("second").starts_with("b~"));
}
