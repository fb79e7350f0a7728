//! Tenants' rules in a real Prometheus 3 and a real Thanos Ruler, and promtool's verdict on a
//! corpus.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use metrifold_testing::peers::{Prometheus, ThanosRule, now, promtool, schemathesis};
use metrifold_testing::{Metrifold, cli, encode, fetch, get, request, run, until_so};

/// A configuration from the API to rulers, restricted to tenants.
fn config(place: &Path, rulers: &[(String, &str)]) -> String {
    let rulers: Vec<_> = rulers
        .iter()
        .map(|(url, folder)| format!("{{ url = {url:?}, directory = {:?} }}", place.join(folder)))
        .collect();
    format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\n\
         enable_features = [\"promql-experimental-functions\"]\n\
         [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"rules\"]\nfrom = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.ruler]\ntype = \"ruler\"\ninputs = [\"tenant\"]\nrulers = [{}]\nstatus_interval = \"500ms\"\n",
        place.join("store"),
        rulers.join(", ")
    )
}

fn put(program: &Metrifold, tenant: &str, rules: &str) -> u16 {
    let path = format!("/api/metrics/v1/{tenant}/rules");
    let answer = request("PUT", program.ingest, &path, &[], rules.as_bytes()).unwrap();
    answer.status
}

/// The ruler's state of a tenant's groups, by group.
fn states(program: &Metrifold, tenant: &str) -> BTreeMap<String, Value> {
    let path = format!("/api/metrics/v1/{tenant}/rules?status=true");
    let status = fetch(program.ingest, &path).unwrap().json();
    let groups = status["files"][0]["groups"].as_array().unwrap().clone();
    let state = |group: Value| {
        let name = group["group"].as_str().unwrap().to_owned();
        (name, group["rulers"][0]["state"].clone())
    };
    groups.into_iter().map(state).collect()
}

const OWN: &str = "groups:
- name: own
  rules:
  - {record: secret, expr: vector(42)}
  - {record: seen, expr: secret}
";
const HOSTILE: &str = "groups:
- name: hostile
  labels: {group_label: '{{ query \"secret\" | len }}'}
  rules:
  - {record: stolen, expr: 'secret{tenant_id=\"a\"} or {__name__=\"secret\"}'}
  - {record: mine, expr: vector(7), labels: {tenant_id: a}}
  - alert: Told
    expr: vector(1)
    labels: {tenant_id: a, severity: none}
    annotations:
      text: 'found {{ query \"secret\" | len }} {{ \"{tenant_id=~`.+`,__name__=`secret`}\" | query | len }}'
";

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_real_prometheus_loads_what_tenants_write_and_shows_none_what_is_anothers() {
    let place = tempfile::tempdir().unwrap();
    let files = place.path().join("out/*.yaml");
    let prometheus = Prometheus::start_3(&format!(
        "global: {{ evaluation_interval: 1s }}\nrule_files: [{files:?}]\n"
    ));
    let program = Metrifold::start(&config(place.path(), &[(prometheus.url(), "out")]));
    assert_eq!(put(&program, "a", OWN), 200);
    assert_eq!(put(&program, "b", HOSTILE), 200);
    until_so("all is loaded", || {
        let is_loaded = |tenant| {
            states(&program, tenant)
                .values()
                .all(|state| state == "loaded")
        };
        is_loaded("a") && is_loaded("b")
    });
    let value = |expression: &str| prometheus.value(expression, now());
    until_so("a has its own", || {
        value("seen{tenant_id=\"a\"}") == Some(42.0)
    });
    until_so("b has what it makes", || {
        value("mine{tenant_id=\"b\"}") == Some(7.0)
    });
    let alerts =
        || get(&format!("{}/api/v1/alerts", prometheus.url())).json()["data"]["alerts"].clone();
    until_so("its alert fires", || alerts()[0]["state"] == "firing");
    let alert = alerts()[0].clone();
    assert_eq!(alert["labels"]["tenant_id"], "b", "{alert}");
    assert_eq!(alert["labels"]["group_label"], "0", "{alert}");
    assert_eq!(alert["annotations"]["text"], "found 0 0", "{alert}");
    assert_eq!(value("stolen"), None);
    assert_eq!(value("mine{tenant_id=\"a\"}"), None);

    // A group that this Prometheus refuses, since a feature is not enabled.
    let odd = format!(
        "{OWN}- name: odd\n  rules:\n  - {{record: odd, expr: 'mad_over_time(secret[1m])'}}\n- name: more\n  rules:\n  - {{record: more, expr: vector(1)}}\n"
    );
    assert_eq!(put(&program, "a", &odd), 200);
    until_so(
        "the one at fault is known, and the others are loaded",
        || {
            let states = states(&program, "a");
            states["odd"] == "refused" && states["more"] == "loaded" && states["own"] == "loaded"
        },
    );
    until_so("they are evaluated", || {
        value("more{tenant_id=\"a\"}") == Some(1.0)
    });
    assert_eq!(put(&program, "b", "groups: []"), 200);
    until_so("what is gone is unloaded", || {
        let rules = get(&format!("{}/api/v1/rules", prometheus.url())).text();
        !rules.contains("hostile") && rules.contains("\"own\"")
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_real_thanos_ruler_loads_what_tenants_write() {
    let place = tempfile::tempdir().unwrap();
    let files = place.path().join("out/*.yaml");
    let prometheus = Prometheus::start_3("");
    let ruler = ThanosRule::start(files.to_str().unwrap(), &prometheus);
    let program = Metrifold::start(&config(place.path(), &[(ruler.url(), "out")]));
    assert_eq!(put(&program, "a", OWN), 200);
    until_so("it is loaded", || states(&program, "a")["own"] == "loaded");
    let changed = OWN.replace("name: own", "name: other");
    assert_eq!(put(&program, "a", &changed), 200);
    until_so("the change is loaded", || {
        states(&program, "a")["other"] == "loaded"
    });
    until_so("it evaluates", || {
        let path = "/api/metrics/v1/a/rules?status=true";
        let status = fetch(program.ingest, path).unwrap().json();
        let last = &status["files"][0]["groups"][0]["rulers"][0]["last_evaluation"];
        last.as_str().is_some_and(|last| !last.starts_with("0001"))
    });
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn a_tenant_reads_through_thanos_what_its_rules_have_recorded_and_another_nothing() {
    let place = tempfile::tempdir().unwrap();
    let files = place.path().join("out/*.yaml");
    let prometheus = Prometheus::start_3("");
    let ruler = ThanosRule::start(files.to_str().unwrap(), &prometheus);
    let (_query, thanos) = ruler.query();
    let program = Metrifold::start(&format!(
        "{}[sources.queries]\ntype = \"prometheus_api\"\naddress = \"INGEST\"\npath = \"/read/{{tenant}}\"\n\
         [transforms.own]\ntype = \"tenant\"\ninputs = [\"queries\"]\nfrom = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
         [sinks.thanos]\ntype = \"prometheus\"\ninputs = [\"own\"]\nendpoint = {:?}\n",
        config(place.path(), &[(ruler.url(), "out")]),
        thanos.url()
    ));
    assert_eq!(put(&program, "a", OWN), 200);
    // The series that a tenant reads with an expression that selects all series, and another tenant's
    // by name.
    let read = |tenant: &str, expression: &str| {
        let path = format!("/read/{tenant}/api/v1/query?query={}", encode(expression));
        let answer = fetch(program.ingest, &path).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["data"]["result"].as_array().unwrap().clone()
    };
    until_so("it is recorded", || {
        read("a", "secret").first().is_some_and(|series| {
            series["metric"]["tenant_id"] == "a" && series["value"][1] == "42"
        })
    });
    for expression in [
        "secret",
        "{__name__=~\".+\"}",
        "secret{tenant_id=\"a\"}",
        "secret{tenant_id=~\".*\"} or {tenant_id=\"a\"}",
    ] {
        assert_eq!(read("b", expression), Vec::<Value>::new(), "{expression}");
    }
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    text: String,
}

/// Texts on which promtool's verdict differs, as `docs/rules.md` lists them.
const DIFFERENCES: [&str; 4] = ["!!binary", "[]#x", "|#", "&x: x"];

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn the_verdict_on_each_file_is_promtools() {
    let place = tempfile::tempdir().unwrap();
    let golden = include_str!("../../crates/rules/tests/oracle/rulefmt/golden.json");
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let texts: Vec<_> = golden.cases.iter().map(|case| &*case.text).collect();
    let (mut wrong, mut valid) = (Vec::new(), 0);
    for (case, (they, we)) in golden.cases.iter().zip(verdicts(place.path(), &texts)) {
        valid += usize::from(they);
        let known = case.text == "...\n" || DIFFERENCES.iter().any(|part| case.text.contains(part));
        if they != we && !known {
            wrong.push(format!("{}: they {they}, we {we}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(valid > 400, "{valid}");
}

/// Whether promtool accepts each text, and whether Metrifold does.
fn verdicts(place: &Path, texts: &[&str]) -> Vec<(bool, bool)> {
    verdicts_with(place, texts, None)
}

/// As [`verdicts`], with features enabled.
fn verdicts_with(place: &Path, texts: &[&str], features: Option<&str>) -> Vec<(bool, bool)> {
    let names: Vec<_> = (0..texts.len()).map(|at| format!("{at:04}.yaml")).collect();
    for (name, text) in names.iter().zip(texts) {
        fs::write(place.join(name), text).unwrap();
    }
    let said = |mut command: std::process::Command| {
        let output = run(command.args(&names).current_dir(place));
        String::from_utf8(output.stdout).unwrap()
    };
    let features = features.map(|features| format!("--enable-feature={features}"));
    let mut tool = promtool();
    tool.args(features.iter());
    tool.args(["check", "rules", "--lint=none"]);
    let theirs = said(tool);
    let mut own = cli(&["rules", "check", "--lint=none"]);
    own.args(features.iter());
    let ours = said(own);
    let verdict = |name: &String| {
        let they = theirs.contains(&format!("Checking {name}\n  SUCCESS"));
        (they, ours.contains(&format!("{name}: valid")))
    };
    names.iter().map(verdict).collect()
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn the_verdict_on_what_features_enable_is_promtools() {
    let exprs = [
        "limitk(3, up)",
        "limit_ratio(0.5, up)",
        "sort_by_label(up, 'job')",
        "sort_by_label_desc(up, 'job')",
        "info(up)",
        "mad_over_time(up[5m])",
        "ts_of_max_over_time(up[5m])",
        "first_over_time(up[5m])",
        "double_exponential_smoothing(up[5m], 0.5, 0.5)",
        "histogram_quantiles(up, 'q', 0.5, 0.9)",
        "rate(up[5m] smoothed)",
        "rate(up[5m] anchored)",
        "rate(up[5m + 1m])",
        "rate(up[max(5m, 1m)])",
        "up offset (1m * 2)",
        "rate(up[step() * 2])",
        "up + fill(0) up",
        "up + fill_left(0) fill_right(1) up",
        "http.requests",
        "sum by (service.name) (up)",
        "up{service.name='a'}",
        "sum by ('service.name') (up)",
        "start()",
        "holt_winters(up[5m], 0.5, 0.5)",
    ];
    let text =
        |expr: &&str| format!("groups: [{{name: g, rules: [{{record: r, expr: \"{expr}\"}}]}}]");
    let texts: Vec<_> = exprs.iter().map(text).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let place = tempfile::tempdir().unwrap();
    let mut valid = Vec::new();
    for features in [
        None,
        Some("promql-experimental-functions"),
        Some("promql-binop-fill-modifiers"),
        Some("promql-unquoted-utf8-names"),
        Some("promql-delayed-name-removal"),
        Some("promql-duration-expr"),
        Some("promql-extended-range-selectors"),
        Some(
            "promql-experimental-functions,promql-binop-fill-modifiers,promql-unquoted-utf8-names",
        ),
    ] {
        let verdicts = verdicts_with(place.path(), &texts, features);
        for (expr, (they, we)) in exprs.iter().zip(&verdicts) {
            assert_eq!(they, we, "{expr} with {features:?}: they {they}, we {we}");
        }
        valid.push(verdicts.iter().filter(|(they, _)| *they).count());
    }
    assert!(valid[0] > 3 && valid[0] < valid[7], "{valid:?}");
    assert!(valid[7] > 15, "{valid:?}");
}

/// Rule files in a peer's module: test data, and what its authors publish.
fn published(peer: &str, module: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/peers")
        .join(peer);
    let mut list = std::process::Command::new("go");
    list.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]);
    let listed = String::from_utf8(run(list.current_dir(folder)).stdout).unwrap();
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::from(listed.trim())]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let extension = path.extension().and_then(|it| it.to_str());
            if path.is_dir() {
                open.push(path);
            } else if matches!(extension, Some("yaml" | "yml" | "rules")) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn the_verdict_on_files_that_others_publish_is_promtools() {
    let mut files = Vec::new();
    for (peer, module) in [
        ("prometheus", "github.com/prometheus/prometheus"),
        ("thanos", "github.com/thanos-io/thanos"),
    ] {
        for path in published(peer, module) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if text.lines().any(|line| line.starts_with("groups:")) {
                files.push((path, text));
            }
        }
    }
    let place = tempfile::tempdir().unwrap();
    let texts: Vec<_> = files.iter().map(|(_, text)| &**text).collect();
    let (mut wrong, mut valid) = (Vec::new(), 0);
    for ((path, _), (they, we)) in files.iter().zip(verdicts(place.path(), &texts)) {
        valid += usize::from(they);
        if they != we {
            wrong.push(format!("{}: they {they}, we {we}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(valid > 20, "{valid}");
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn the_api_does_what_its_openapi_document_says() {
    let place = tempfile::tempdir().unwrap();
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\n\
         backend_path = \"/api/v1/rules\"\nruler_path = \"/prometheus/config/v1/rules\"\nthanos = true\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {:?}\n",
        place.path().join("store"),
        place.path().join("out")
    ));
    let url = format!("http://{}/openapi.json", program.ingest);
    let mut tries = schemathesis();
    tries.args(["run", &url, "--no-color", "--max-examples", "12"]);
    // No schema can express which text is valid PromQL or a valid template.
    tries.args(["--exclude-checks", "positive_data_acceptance"]);
    let output = run(tries.current_dir(place.path()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
