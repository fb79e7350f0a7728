//! Rules between an Observatorium API in front of the backend contract and a thanos-rule-syncer behind it,
//! whose requests this test sends as they do, with a real Thanos Ruler at the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use metrifold_testing::peers::{Prometheus, ThanosRule, promtool};
use metrifold_testing::{Answer, Metrifold, get, request, run, until_so};

/// Headers of Go's client of HTTP.
const GO: [(&str, &str); 2] = [
    ("user-agent", "Go-http-client/1.1"),
    ("accept-encoding", "gzip"),
];

/// Writes a tenant's rules as an Observatorium API does: it has forced the tenant's matcher and label
/// and written the document anew, and passes the caller's type of content on.
fn observatorium_puts(
    program: &Metrifold,
    tenant: &str,
    content_type: &str,
    rules: &str,
) -> Answer {
    let path = format!("/api/v1/rules/{tenant}");
    let headers = [&GO[..], &[("content-type", content_type)]].concat();
    request("PUT", program.ingest, &path, &headers, rules.as_bytes()).unwrap()
}

/// Reads a tenant's rules as an Observatorium API does, which parses those that are called YAML.
fn observatorium_gets(program: &Metrifold, tenant: &str) -> (u16, String) {
    let path = format!("/api/v1/rules/{tenant}");
    let answer = request("GET", program.ingest, &path, &GO, b"").unwrap();
    if answer.status == 200 {
        assert!(answer.header("content-type").unwrap().contains("yaml"));
    }
    assert_eq!(answer.header("content-encoding"), None);
    (answer.status, answer.text())
}

/// One round of thanos-rule-syncer: all rules are written over the file, whatever they are, and the ruler
/// is reloaded. An answer other than 2xx ends the round.
fn syncer_syncs(program: &Metrifold, path: &str, file: &Path, ruler: &str) -> bool {
    let answer = request("GET", program.ingest, path, &GO, b"").unwrap();
    if answer.status / 100 != 2 {
        return false;
    }
    fs::write(file, answer.text()).unwrap();
    let reload = ruler.strip_prefix("http://").unwrap().trim_end_matches('/');
    let reloaded = request("POST", reload.parse().unwrap(), "/-/reload", &GO, b"").unwrap();
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    true
}

/// Names of the groups that a ruler has loaded.
fn loaded(ruler: &str) -> BTreeSet<String> {
    let rules = get(&format!("{}/api/v1/rules", ruler.trim_end_matches('/'))).json();
    let groups = rules["data"]["groups"].as_array().cloned();
    let name = |group: Value| group["name"].as_str().unwrap().to_owned();
    groups.unwrap_or_default().into_iter().map(name).collect()
}

/// A tenant's rules as an Observatorium API has written them.
fn enforced(tenant: &str, group: &str) -> String {
    format!(
        "groups:\n- interval: 1s\n  name: {group}\n  rules:\n  - expr: vector(1) or up{{tenant_id=\"{tenant}\"}}\n    labels:\n      tenant_id: {tenant}\n    record: {group}:recorded\n  - alert: Down\n    annotations:\n      summary: 'down: {{{{ $labels.job }}}}'\n    expr: up{{tenant_id=\"{tenant}\"}} == 0\n    for: 5m\n    labels:\n      severity: page\n      tenant_id: {tenant}\n"
    )
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn rules_pass_from_an_observatorium_api_to_a_thanos_ruler_through_a_syncer() {
    let place = tempfile::tempdir().unwrap();
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\nbackend_path = \"/api/v1/rules\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {:?}\n",
        place.path().join("store"),
        place.path().join("out")
    ));
    let file = place.path().join("rules.yaml");
    fs::write(&file, "groups: []").unwrap();
    let prometheus = Prometheus::start_3("");
    let thanos = ThanosRule::start(file.to_str().unwrap(), &prometheus);
    let ruler = &thanos.url();
    let sync = || syncer_syncs(&program, "/api/v1/rules", &file, ruler);
    let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect();

    // Its client takes any 2xx, and the caller may have sent any type of content.
    assert_eq!(observatorium_gets(&program, "a").0, 404);
    for (tenant, content_type) in [("a", "application/yaml"), ("b.c", "text/plain")] {
        let rules = enforced(tenant, "g");
        let put = observatorium_puts(&program, tenant, content_type, &rules);
        assert_eq!(put.status, 200, "{}", put.text());
        let (status, text) = observatorium_gets(&program, tenant);
        assert_eq!((status, text.as_str()), (200, rules.trim()));
    }
    until_so("both are listed", || {
        assert!(sync());
        loaded(ruler) == names(&["a/g", "b.c/g"])
    });
    let mut tool = promtool();
    tool.args(["check", "rules"]).arg(&file);
    assert!(run(&mut tool).status.success());

    // What is wrong is refused as the API passes it on, and costs nobody anything.
    let wrong = observatorium_puts(
        &program,
        "a",
        "application/yaml",
        "groups:\n- name: g\n  interval: \"\"\n",
    );
    assert_eq!(wrong.status, 400, "{}", wrong.text());
    let empty = observatorium_puts(&program, "a", "application/yaml", "groups: null\n");
    assert_eq!(
        empty.status, 400,
        "a misspelt document does not remove rules"
    );
    assert!(sync());
    assert_eq!(loaded(ruler), names(&["a/g", "b.c/g"]));

    let cleared = observatorium_puts(&program, "a", "application/yaml", "groups: []\n");
    assert_eq!(cleared.status, 200, "{}", cleared.text());
    let put = observatorium_puts(&program, "b.c", "application/yaml", &enforced("b.c", "h"));
    assert_eq!(put.status, 200, "{}", put.text());
    until_so("the changes are loaded", || {
        assert!(sync());
        loaded(ruler) == names(&["b.c/h"])
    });

    // The syncer's other mode: one tenant, at the path of an Observatorium API.
    let raw = |tenant: &str| format!("/api/metrics/v1/{tenant}/api/v1/rules/raw");
    assert!(!syncer_syncs(&program, &raw("nobody"), &file, ruler));
    assert!(syncer_syncs(&program, &raw("b.c"), &file, ruler));
    assert_eq!(loaded(ruler), names(&["h"]));
}
