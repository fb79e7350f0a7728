//! Prometheus and promtool read the rule files of `rules_directory` and of `ruler`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use metrifold_testing::peers::{Prometheus, ThanosRule, promtool};
use metrifold_testing::{Metrifold, fetch, get, request, run, until_so};

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

/// Rules loaded by the ruler at a URL, by group and name.
fn loaded(url: &str) -> BTreeMap<String, String> {
    let answer = get(&format!("{url}/api/v1/rules")).json();
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
    let expected = loaded(&original.url());
    assert_eq!(expected.len(), 2);
    assert_eq!(loaded(&copy.url()), expected);

    // A reload by signal follows the link.
    fs::write(files.join("more.yaml"), RECORDING.replace("ratios", "more")).unwrap();
    until_so("the new file arrives", || out.join("more.yaml").is_file());
    copy.process.signal("HUP");
    until_so("it is loaded", || loaded(&copy.url()).len() == 3);
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_real_prometheus_and_a_real_thanos_ruler_load_one_file_with_groups_of_one_name() {
    let place = tempfile::tempdir().unwrap();
    let [files, for_prometheus, for_thanos] =
        ["in", "prometheus.yaml", "thanos.yaml"].map(|name| place.path().join(name));
    fs::create_dir_all(files.join("team b")).unwrap();
    let copy = RECORDING.replace("job:errors:ratio_rate5m", "job:errors:copy");
    fs::write(files.join("recording.yaml"), RECORDING).unwrap();
    fs::write(files.join("copy.yaml"), copy).unwrap();
    fs::write(files.join("team b/alerts.yaml"), ALERTING).unwrap();
    let original = Prometheus::start_3(&format!(
        "rule_files: {:?}\n",
        [files.join("*.yaml"), files.join("team b/*.yaml")]
    ));
    let prometheus = Prometheus::start_3(&format!("rule_files: [{for_prometheus:?}]\n"));
    let thanos = ThanosRule::start(for_thanos.to_str().unwrap(), &prometheus);
    let sink = |name: &str, url: String, file: &Path| {
        format!(
            "[sinks.{name}]\ntype = \"ruler\"\ninputs = [\"in\"]\nstatus_interval = \"500ms\"\n\
             rulers = [{{ url = {url:?}, file = {file:?} }}]\n"
        )
    };
    let program = Metrifold::start(&format!(
        "[sources.in]\ntype = \"rules_file\"\nfiles = [{:?}]\n{}{}",
        files.join("**/*.yaml"),
        sink("prometheus", prometheus.url(), &for_prometheus),
        sink("thanos", thanos.url(), &for_thanos)
    ));
    let names = |url: &str| loaded(url).into_keys().collect::<Vec<_>>();
    let expected = [
        "/copy.yaml/ratios/job:errors:copy",
        "/recording.yaml/ratios/job:errors:ratio_rate5m",
        "alerts/Down",
    ];
    until_so("Prometheus has loaded all", || {
        names(&prometheus.url()) == expected
    });
    until_so("Thanos has loaded all", || names(&thanos.url()) == expected);
    // The rules are those of the files, but for the names of their groups.
    let rules = |url: &str| -> BTreeMap<String, String> {
        let rules = loaded(url).into_iter();
        let rule = |(name, rule): (String, String)| {
            let (_group, name) = name.rsplit_once('/').unwrap();
            (name.to_owned(), rule)
        };
        rules.map(rule).collect()
    };
    assert_eq!(rules(&prometheus.url()), rules(&original.url()));
    for file in [&for_prometheus, &for_thanos] {
        let output = run(promtool().args(["check", "rules"]).arg(file));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(said.contains("SUCCESS: 3 rules found"), "{said}");
    }

    // A group that is alone with its name has it again.
    fs::remove_file(files.join("copy.yaml")).unwrap();
    let expected = ["alerts/Down", "ratios/job:errors:ratio_rate5m"];
    until_so("Prometheus has loaded the rest", || {
        names(&prometheus.url()) == expected
    });
    until_so("Thanos has loaded the rest", || {
        names(&thanos.url()) == expected
    });
    assert!(!program.log().contains("lacks rules"), "{}", program.log());
}

/// The groups of which the API says that they are in a state at each ruler, by tenant.
fn in_state(program: &Metrifold, tenant: &str, state: &str) -> Vec<String> {
    let path = format!("/api/metrics/v1/{tenant}/rules?status=true");
    let status = fetch(program.ingest, &path).unwrap().json();
    let groups = status["files"][0]["groups"].as_array().unwrap().clone();
    let is_in_state = |group: &serde_json::Value| {
        let rulers = group["rulers"].as_array().unwrap();
        !rulers.is_empty() && rulers.iter().all(|ruler| ruler["state"] == state)
    };
    let found = groups.iter().filter(|group| is_in_state(group));
    found
        .map(|group| group["group"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn what_a_real_prometheus_or_thanos_ruler_refuses_is_found_and_the_rest_goes_on() {
    for is_thanos in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("out");
        let pattern = folder.join("*.yaml");
        let prometheus = Prometheus::start_3(&format!(
            "global: {{ evaluation_interval: 1s }}\nrule_files: [{pattern:?}]\n"
        ));
        let thanos = is_thanos.then(|| ThanosRule::start(pattern.to_str().unwrap(), &prometheus));
        let url = thanos
            .as_ref()
            .map_or_else(|| prometheus.url(), ThanosRule::url);
        let config = format!(
            "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\n\
             enable_features = [\"promql-experimental-functions\"]\n\
             [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nstatus_interval = \"500ms\"\n\
             rulers = [{{ url = {url:?}, directory = {folder:?} }}]\n",
            place.path().join("store")
        );
        let mut program = Metrifold::start(&config);
        let put = |program: &Metrifold, tenant: &str, text: &str| {
            let path = format!("/api/metrics/v1/{tenant}/rules");
            let answer = request("PUT", program.ingest, &path, &[], text.as_bytes()).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        let group = |name: &str, expr: &str| {
            format!("- {{name: {name}, rules: [{{record: {name}, expr: '{expr}'}}]}}\n")
        };
        // Written in another form than they are printed by the ruler.
        let good = "- name: good\n  rules:\n  - {record: good, expr: 'sum(rate(up[60s]))  by (job)>bool 0'}\n  \
                    - {alert: Pending, expr: vector(1), for: 1h}\n";
        let pending_since = || {
            let answer = get(&format!("{url}/api/v1/rules")).json();
            let groups = answer["data"]["groups"].as_array().unwrap().clone();
            let rules = groups.iter().flat_map(|it| it["rules"].as_array().unwrap());
            let alerts = rules.filter(|rule| rule["name"] == "Pending");
            let since = alerts.filter_map(|rule| rule["alerts"][0]["activeAt"].as_str());
            since.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let before = group("other", "vector( 1 )");
        put(&program, "a", &format!("groups:\n{good}"));
        put(&program, "b", &format!("groups:\n{good}{before}"));
        until_so("all is loaded", || {
            in_state(&program, "a", "loaded") == ["good"]
                && in_state(&program, "b", "loaded") == ["good", "other"]
        });
        until_so("alerts of both are pending", || pending_since().len() == 2);
        let pending = pending_since();
        let bad = group("other", "sort_by_label(up, \"job\")");
        let (worse, fine) = (
            group("worse", "mad_over_time(up[5m])"),
            group("fine", "vector(3)"),
        );
        put(&program, "b", &format!("groups:\n{good}{bad}{fine}{worse}"));
        let new = group("new", "vector(4)");
        put(&program, "a", &format!("groups:\n{good}{new}"));
        let are_found = |program: &Metrifold| {
            in_state(program, "a", "loaded") == ["good", "new"]
                && in_state(program, "b", "loaded") == ["good", "fine"]
                && in_state(program, "b", "refused") == ["other", "worse"]
        };
        until_so("the ones at fault are found", || are_found(&program));
        let expected = [
            "fine/fine",
            "good/Pending",
            "good/good",
            "new/new",
            "other/other",
        ];
        let names = |url: &str| loaded(url).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&url), expected, "{}", program.log());
        assert_eq!(loaded(&url)["other/other"], "vector(1)null");
        // A restart finds them again, and unloads nothing that is good.
        program.kill();
        program.start_again();
        until_so("they are found again", || are_found(&program));
        assert_eq!(names(&url), expected);
        // None of the reloads has any alert pending anew.
        assert_eq!(pending_since(), pending);
        assert!(
            !program.log().contains("does not have"),
            "{}",
            program.log()
        );
    }
}
