//! Prometheus and promtool read the rule files of `rules_directory`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use metrifold_testing::peers::Prometheus;
use metrifold_testing::{Metrifold, get, run, until_so};

const RECORDING: &str = "\
groups:
- name: ratios
  interval: 90s
  limit: 7
  rules:
  - record: job:errors:ratio_rate5m
    expr: |
      sum by (job) (rate(errors_total{code=~\"5..\"}[5m]))
        / # Of all of them.
      sum by (job) (rate(requests_total[5m] offset 1m))
    labels: { \"y\": 'no', n: '0x10', empty: '' }
- name: 'null'
  rules: []
";
const ALERTING: &str = "\
groups:
- name: alerts
  rules:
  - alert: Down
    expr: up{job!~\"a|b\"} == 0 unless on(instance) maintenance > bool 0
    for: 1h30m
    keep_firing_for: 5m
    labels: { severity: page }
    annotations:
      summary: '{{ $labels.instance }} is down: \"{{ $value | humanize }}\"'
      text: |+
        # No comment, and

        a line at the end.

";

/// Rules loaded by a Prometheus, by group and name.
fn loaded(prometheus: &Prometheus) -> BTreeMap<String, String> {
    let answer = get(&format!("{}/api/v1/rules", prometheus.url())).json();
    let groups = answer["data"]["groups"].as_array().unwrap().clone();
    let mut loaded = BTreeMap::new();
    for group in groups {
        for rule in group["rules"].as_array().unwrap() {
            let name = format!("{}/{}", group["name"], rule["name"]).replace('"', "");
            let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
            loaded.insert(name, text("query") + &rule["annotations"].to_string());
        }
    }
    loaded
}

#[track_caller]
fn check(files: &[impl AsRef<Path>]) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "rules"]);
    let output = run(command.args(files.iter().map(AsRef::as_ref)));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    said
}

#[test]
fn promtool_accepts_what_is_written_and_prometheus_loads_the_same_as_from_the_files() {
    let place = tempfile::tempdir().unwrap();
    let (files, out) = (place.path().join("in"), place.path().join("out"));
    fs::create_dir_all(files.join("team b")).unwrap();
    fs::write(files.join("recording.yaml"), RECORDING).unwrap();
    fs::write(files.join("team b/alerts.yaml"), ALERTING).unwrap();
    let pattern = files.join("**/*.yaml");
    let _child = Metrifold::start(&format!(
        "[sources.in]\ntype = \"rules_file\"\nfiles = [{pattern:?}]\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"in\"]\npath = {out:?}\n"
    ));
    until_so("the folder is there", || out.is_dir());
    let written = [
        out.join("recording.yaml"),
        out.join("team%20b%2falerts.yaml"),
    ];
    let said = check(&written);
    assert_eq!(said.matches("SUCCESS: 1 rules found").count(), 2, "{said}");

    let load = |patterns: &[&Path]| Prometheus::start(&format!("rule_files: {patterns:?}\n"));
    let original = load(&[&files.join("*.yaml"), &files.join("team b/*.yaml")]);
    let copy = load(&[&out.join("*.yaml")]);
    let expected = loaded(&original);
    assert_eq!(expected.len(), 2);
    assert_eq!(loaded(&copy), expected);

    // A reload by signal follows the link.
    fs::write(files.join("more.yaml"), RECORDING.replace("ratios", "more")).unwrap();
    until_so("the new file arrives", || out.join("more.yaml").is_file());
    copy.process.signal("HUP");
    until_so("it is loaded", || loaded(&copy).len() == 3);
}
