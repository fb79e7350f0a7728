//! The API of rules, with the folder behind it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use metrifold_testing::{Answer, Does, Endpoint, Metrifold, Reply, Seen, request, until_so};

const PATH: &str = "/api/metrics/v1/team-a/rules";
const RULES: &str = "# Of us all.
groups:
- name: g
  rules:
  - {record: r, expr: sum(up)}
";

struct Place {
    folder: TempDir,
    program: Metrifold,
}

impl Place {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Metrifold::start(&Self::config(&folder, more));
        Self { folder, program }
    }

    fn config(folder: &TempDir, more: &str) -> String {
        let (store, out) = (folder.path().join("store"), folder.path().join("out"));
        format!(
            "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {store:?}\n{more}\n\
             [transforms.tenant]\ntype = \"tenant\"\ninputs = [\"rules\"]\n\
             from = [{{ path = \"tenant\" }}]\nlabel = \"tenant_id\"\n\
             [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"tenant\"]\npath = {out:?}\n"
        )
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request(method, self.program.ingest, path, headers, body.as_bytes()).unwrap()
    }

    fn put(&self, path: &str, body: &str) -> Answer {
        self.send("PUT", path, &[], body)
    }

    fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    #[track_caller]
    fn stored(&self, path: &str, body: &str) -> String {
        let answer = self.put(path, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("etag").unwrap().to_owned()
    }

    /// A file in the folder that a ruler reads.
    fn written(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.path().join("out").join(name)).ok()
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store/metrics/rules")
    }
}

#[test]
fn a_tenants_file_is_written_read_changed_on_a_condition_and_removed() {
    let place = Place::new("");
    assert_eq!(place.get(PATH).status, 404);
    let tag = place.stored(PATH, RULES);
    let got = place.get(PATH);
    assert_eq!((got.status, got.text().as_str()), (200, RULES.trim()));
    assert_eq!(got.header("content-type"), Some("application/yaml"));
    assert_eq!(got.header("etag"), Some(&*tag));
    assert_eq!(
        place
            .send("GET", PATH, &[("if-none-match", &tag)], "")
            .status,
        304
    );
    let json = place
        .send("GET", PATH, &[("accept", "application/json")], "")
        .json();
    assert_eq!(json["groups"][0]["rules"][0]["expr"], "sum(up)");
    until_so("it is what a ruler reads", || {
        let written = place.written("team-a~rules~.yaml").unwrap_or_default();
        written.contains("sum(up{tenant_id=\"team-a\"})") && written.contains("tenant_id: team-a")
    });

    let other = RULES.replace("sum", "max");
    // A weak tag matches nothing, be it that of the present version.
    for stale in ["\"0000\"", &format!("W/{tag}")] {
        let lost = place.send("PUT", PATH, &[("if-match", stale)], &other);
        assert_eq!(lost.status, 412, "{stale}: {}", lost.text());
    }
    assert_eq!(
        place
            .send("PUT", PATH, &[("if-none-match", "*")], &other)
            .status,
        412
    );
    let changed = place.send("PUT", PATH, &[("if-match", &tag)], &other);
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(
        place.send("DELETE", PATH, &[("if-match", &tag)], "").status,
        412
    );
    assert_eq!(place.send("DELETE", PATH, &[], "").status, 204);
    assert_eq!(place.get(PATH).status, 404);
    assert_eq!(place.send("DELETE", PATH, &[], "").status, 404);
    until_so("its file is gone", || {
        place.written("team-a~rules~.yaml").is_none()
    });
}

#[test]
fn what_is_wrong_with_a_request_is_told_before_its_condition_is_looked_at() {
    let place = Place::new("ruler_path = \"/prometheus/config/v1/rules\"");
    place.stored(PATH, RULES);
    place.stored(&format!("{PATH}/more"), "groups: [{name: h}]");
    let group = "name: g\nrules: [{record: r, expr: up}]";
    let (ruler, raw) = (
        "/prometheus/config/v1/rules",
        "/api/metrics/v1/team-a/api/v1/rules/raw",
    );
    let stale = ("if-match", "\"0000\"");
    let send = |method: &str, path: &str, body: &str| {
        let headers = [stale, ("x-scope-orgid", "team-a")];
        let answer = place.send(method, path, &headers, body);
        (answer.status, answer.text())
    };
    let history = place.get(&format!("{PATH}/rules?history=true")).json();
    let id = history["versions"][0]["id"].as_str().unwrap().to_owned();
    let refused = "groups: [{name: a, rules: [{alert: b, expr: up, annotations: {t: '{{ query $value }}'}}]}]";
    for (method, path, body, status) in [
        ("PUT", PATH, "groups: [", 400),
        ("PUT", PATH, "", 400),
        ("PUT", PATH, refused, 400),
        ("PUT", PATH, RULES, 412),
        // A caller who lost a race need not hear of files that others have changed since.
        ("PUT", PATH, "groups: [{name: more/changed}]", 412),
        ("PUT", raw, "groups: [", 400),
        ("PUT", raw, RULES, 412),
        ("PUT", &format!("{PATH}?dryrun=1"), RULES, 400),
        ("PUT", &format!("{PATH}/rules"), "groups: [", 400),
        ("PUT", &format!("{PATH}/rules"), refused, 400),
        ("PUT", &format!("{PATH}/rules"), RULES, 412),
        ("PUT", &format!("{PATH}/.hidden"), RULES, 400),
        ("PUT", &format!("{PATH}/rules/g"), "name: g\nrule: []", 400),
        ("PUT", &format!("{PATH}/rules/g"), "name: other", 400),
        ("PUT", &format!("{PATH}/rules/g"), group, 412),
        ("DELETE", PATH, "", 412),
        ("DELETE", "/api/metrics/v1/nobody/rules", "", 404),
        ("DELETE", &format!("{PATH}?dry_run=yes"), "", 400),
        ("DELETE", &format!("{PATH}/rules"), "", 412),
        ("DELETE", &format!("{PATH}/rules?dry_run=true"), "", 412),
        ("DELETE", &format!("{PATH}/nothing"), "", 404),
        ("DELETE", &format!("{PATH}/nothing?dry_run=true"), "", 404),
        ("DELETE", &format!("{PATH}/rules/g"), "", 412),
        ("DELETE", &format!("{PATH}/rules/nothing"), "", 404),
        ("POST", &format!("{PATH}/rules"), "", 400),
        ("POST", &format!("{PATH}/rules?rollback=1-1"), "", 404),
        ("POST", &format!("{PATH}/rules?rollback={id}"), "", 412),
        ("POST", &format!("{ruler}/rules"), "name: [", 400),
        ("POST", &format!("{ruler}/rules"), group, 412),
        ("DELETE", &format!("{ruler}/rules/nothing"), "", 404),
        ("DELETE", &format!("{ruler}/rules/g"), "", 412),
        ("DELETE", &format!("{ruler}/nothing"), "", 404),
        ("DELETE", &format!("{ruler}/rules"), "", 412),
    ] {
        let (seen, text) = send(method, path, body);
        assert_eq!(seen, status, "{method} {path} {body:?}: {text}");
    }
    // A header that is no condition is wrong by itself.
    let broken = place.send("PUT", PATH, &[("if-match", "0000")], RULES);
    assert_eq!(broken.status, 400, "{}", broken.text());
    assert_eq!(place.get(&format!("{PATH}/rules")).text(), RULES.trim());
}

#[test]
fn the_rulers_configuration_keeps_conditions_and_dry_runs_and_no_empty_namespace() {
    let place = Place::new("ruler_path = \"/prometheus/config/v1/rules\"");
    let ruler = "/prometheus/config/v1/rules";
    let scope = ("x-scope-orgid", "team-a");
    let group = |name: &str| format!("name: {name}\nrules: [{{record: r, expr: up}}]");
    let send = |method: &str, path: &str, more: &[(&str, &str)], body: &str| {
        let headers = [&[scope], more].concat();
        place
            .send(method, &format!("{ruler}/{path}"), &headers, body)
            .status
    };
    let only_new = [("if-none-match", "*")];
    assert_eq!(send("POST", "ns", &only_new, &group("g")), 202);
    assert_eq!(send("POST", "ns", &only_new, &group("g")), 412);
    assert_eq!(send("POST", "ns", &only_new, &group("h")), 202);
    let tag = place.get(&format!("{PATH}/ns/g"));
    let tag = [("if-match", tag.header("etag").unwrap())];
    for path in ["ns?dry_run=true", "ns/g?dry_run=true"] {
        assert_eq!(send("DELETE", path, &[], ""), 202, "{path}");
    }
    assert_eq!(send("POST", "new?dry_run=true", &[], &group("g")), 202);
    assert_eq!(send("GET", "new", &[], ""), 404);
    assert_eq!(send("GET", "ns/g", &[], ""), 200);
    assert_eq!(send("DELETE", "ns/h", &tag, ""), 412);
    assert_eq!(send("DELETE", "ns/g", &tag, ""), 202);
    assert_eq!(send("GET", "ns/h", &[], ""), 200);
    assert_eq!(send("DELETE", "ns/h", &[], ""), 202);
    assert_eq!(send("GET", "ns", &[], ""), 404);
    assert_eq!(place.get(&format!("{PATH}/ns")).status, 404);
}

#[test]
fn of_two_files_that_a_transform_refuses_each_can_be_mended_alone() {
    let place = Place::new("poll_interval = \"100ms\"");
    let refused = "groups: [{name: a, rules: [{alert: b, expr: up, annotations: {t: '{{ query $value }}'}}]}]";
    // As they are after the transform was added, or became stricter.
    for name in ["one", "two"] {
        let folder = place.store().join("team-a");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{name}.yaml")), refused).unwrap();
    }
    let warned = |name: &str| {
        let answer = place.put(&format!("{PATH}/{name}"), RULES);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["warnings"].to_string()
    };
    assert!(warned("one").contains("before others of the tenant are corrected"));
    assert!(!warned("two").contains("corrected"));
    until_so("both are passed on", || {
        let is_written = |name: &&str| place.written(&format!("team-a~{name}~.yaml")).is_some();
        ["one", "two"].iter().all(is_written)
    });
}

#[test]
fn nothing_is_lost_by_an_empty_body_or_a_misspelt_key() {
    let place = Place::new("");
    place.stored(PATH, RULES);
    for (body, why) in [
        ("", "no `groups`"),
        ("{}", "no `groups`"),
        ("groups:", "no `groups`"),
        ("group: []", "did you mean `groups`"),
        ("groups: [", "invalid YAML"),
        ("groups: []\n---\ngroups: []", "only the first document"),
        (
            "groups: [{name: a, rules: [{record: b, expr: 'sum('}]}]",
            "does not parse",
        ),
        (
            "groups: [{name: a, rules: [{alert: b, expr: up, annotations: {t: '{{ $x }}'}}]}]",
            "undefined variable",
        ),
        // Refused by the transform behind the source.
        (
            "groups: [{name: a, rules: [{alert: b, expr: up, annotations: {t: '{{ query $value }}'}}]}]",
            "write the expression as a string",
        ),
    ] {
        for path in [
            PATH,
            "/api/metrics/v1/team-a/api/v1/rules/raw",
            &format!("{PATH}/rules"),
        ] {
            let answer = place.put(path, body);
            assert_eq!(answer.status, 400, "{body}: {}", answer.text());
            assert!(answer.text().contains(why), "{body}: {}", answer.text());
        }
    }
    assert_eq!(place.get(PATH).text(), RULES.trim());
    let wrong = place
        .put(
            PATH,
            "groups:\n- name: a\n  bogus: 1\n  rules: [{expr: up}]\n",
        )
        .json();
    let lines: Vec<_> = wrong["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["line"])
        .collect();
    assert_eq!(lines, [3, 4], "{wrong}");
    // Explicit empty groups clear the rules, and the history stays.
    place.stored("/api/metrics/v1/team-a/api/v1/rules/raw", "groups: []");
    assert_eq!(place.get(PATH).text(), "groups: []");
}

#[test]
fn files_and_groups_are_changed_alone_and_join_to_a_document_that_can_be_put_back() {
    let place = Place::new("");
    place.stored(PATH, RULES);
    let file = format!("{PATH}/more.alerts");
    place.stored(
        &file,
        "groups: [{name: x/y, rules: [{alert: a, expr: up}]}]",
    );
    let group = format!("{file}/h");
    let tag = place.stored(
        &group,
        r#"{"name": "h", "rules": [{"record": "s", "expr": "up"}]}"#,
    );
    let got = place.get(&group);
    assert_eq!(got.header("etag"), Some(&*tag));
    assert!(got.text().starts_with("name: 'h'\n"), "{}", got.text());
    let wrong = place
        .put(&group, "name: h\nrules:\n- {record: s, expr: 'up{'}\n")
        .json();
    let problem = &wrong["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["key"]),
        (&3.into(), &"rules[0].expr".into()),
        "{wrong}"
    );
    assert_eq!(place.put(&group, "name: other").status, 400);

    let whole = place.get(PATH);
    let json = place
        .send("GET", PATH, &[("accept", "application/json")], "")
        .json();
    let names: Vec<_> = json["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert_eq!(names, ["more.alerts/x%2Fy", "more.alerts/h", "g"]);
    let tag = whole.header("etag").unwrap();
    let back = place.send("PUT", PATH, &[("if-match", tag)], &whole.text());
    assert_eq!(back.status, 200, "{}", back.text());
    let names = place
        .send("GET", PATH, &[("accept", "application/json")], "")
        .json();
    assert_eq!(names, json);
    let edited = whole
        .text()
        .replace("name: more.alerts/h", "name: more.alerts/i");
    assert_eq!(place.put(PATH, &edited).status, 400);

    assert_eq!(
        place
            .send("DELETE", &group, &[("if-match", "\"x\"")], "")
            .status,
        412
    );
    assert_eq!(place.send("DELETE", &group, &[], "").status, 204);
    assert_eq!(place.get(&group).status, 404);
    assert_eq!(place.send("DELETE", &file, &[], "").status, 204);
    // A single file is returned unchanged again.
    assert_eq!(place.get(PATH).status, 200);
}

#[test]
fn versions_say_who_and_when_and_can_be_gone_back_to() {
    let place = Place::new("basic_auth = { username = \"ann\", password = \"topsecret\" }");
    let authorization = ("authorization", "Basic YW5uOnRvcHNlY3JldA==");
    let file = format!("{PATH}/rules");
    assert_eq!(place.get(&file).status, 401);
    for expr in ["up", "down"] {
        let text = format!("groups: [{{name: g, rules: [{{record: r, expr: {expr}}}]}}]");
        assert_eq!(
            place.send("PUT", &file, &[authorization], &text).status,
            200
        );
    }
    let dry = place.send(
        "DELETE",
        &format!("{file}?dry_run=true"),
        &[authorization],
        "",
    );
    assert_eq!(dry.status, 204);
    let history = |query| place.send("GET", &format!("{file}?{query}"), &[authorization], "");
    let versions = history("history=true").json()["versions"].clone();
    let told: Vec<(&Value, &Value)> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|version| (&version["by"], &version["action"]))
        .collect();
    assert_eq!(
        told,
        [
            (&"ann".into(), &"put".into()),
            (&"ann".into(), &"put".into())
        ]
    );
    let first = versions[1]["id"].as_str().unwrap().to_owned();
    assert!(
        history(&format!("version={first}"))
            .text()
            .contains("expr: up")
    );
    let back = format!("{file}?rollback={first}");
    assert_eq!(place.send("POST", &back, &[authorization], "").status, 200);
    assert!(
        place
            .send("GET", &file, &[authorization], "")
            .text()
            .contains("expr: up")
    );
    let missing = format!("{file}?rollback=1-1");
    assert_eq!(
        place.send("POST", &missing, &[authorization], "").status,
        404
    );
    let status = place
        .send("GET", &format!("{PATH}?status=true"), &[authorization], "")
        .json();
    assert_eq!(
        status["files"][0]["stored"]["action"], "rollback",
        "{status}"
    );
}

#[test]
fn bounds_and_dry_runs_change_nothing() {
    let place =
        Place::new("max_rules_per_tenant = 2\nmax_files_per_tenant = 2\nmax_body_bytes = \"1KiB\"");
    let rules = |count: usize| {
        let rules: Vec<_> = (0..count)
            .map(|at| format!("{{record: r{at}, expr: up}}"))
            .collect();
        format!("groups: [{{name: g, rules: [{}]}}]", rules.join(", "))
    };
    let dry = place.put(&format!("{PATH}?dry_run=true"), &rules(1));
    assert_eq!((dry.status, &dry.json()["changed"]), (200, &true.into()));
    assert_eq!(place.get(PATH).status, 404);
    assert_eq!(
        place.put(&format!("{PATH}?dryrun=true"), &rules(1)).status,
        400
    );
    place.stored(&format!("{PATH}/a"), &rules(1));
    place.stored(&format!("{PATH}/b"), &rules(1));
    let more = place.put(&format!("{PATH}/b"), &rules(2));
    assert_eq!(more.status, 413, "{}", more.text());
    assert!(
        more.text().contains("max_rules_per_tenant is 2"),
        "{}",
        more.text()
    );
    assert_eq!(place.put(&format!("{PATH}/c"), "groups: []").status, 413);
    assert_eq!(
        place.put(&format!("{PATH}/b"), &"#".repeat(2000)).status,
        413
    );
    for wrong in [
        "/api/metrics/v1/a%2Fb/rules",
        "/api/metrics/v1/.a/rules",
        "/api/metrics/v1/a/rules/%2e%2e",
    ] {
        assert_eq!(place.put(wrong, RULES).status, 400, "{wrong}");
    }
}

#[test]
fn of_writers_that_race_in_two_processes_none_loses_what_another_wrote() {
    let place = Place::new("poll_interval = \"100ms\"");
    let other = Metrifold::start(
        &Place::config(&place.folder, "poll_interval = \"100ms\"").replace("/out", "/other"),
    );
    let addresses = [place.program.ingest, other.ingest];
    place.stored(PATH, "groups: []");
    let writers: Vec<_> = (0..4)
        .map(|writer: usize| {
            let address = addresses[writer % 2];
            thread::spawn(move || {
                let group = |at: usize| format!("w{writer}-{at}");
                for at in 0..10 {
                    let name = group(at);
                    let path = format!("{PATH}/rules/{name}");
                    let body = format!("name: {name}\nrules: [{{record: r, expr: up}}]\n");
                    let answer = request("PUT", address, &path, &[], body.as_bytes()).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let json = place
        .send("GET", PATH, &[("accept", "application/json")], "")
        .json();
    assert_eq!(json["groups"].as_array().unwrap().len(), 40);
    // Files accepted by one process arrive in the folder of the other.
    until_so("both have all", || {
        let at = |folder: &str| {
            let path = place.folder.path().join(folder).join("team-a~rules~.yaml");
            fs::read_to_string(path)
                .unwrap_or_default()
                .matches("- name: w")
                .count()
        };
        at("out") == 40 && at("other") == 40
    });
}

#[test]
fn a_damaged_file_costs_only_itself() {
    let place = Place::new("poll_interval = \"100ms\"");
    place.stored(PATH, RULES);
    fs::create_dir_all(place.store().join("team-b")).unwrap();
    fs::write(
        place.store().join("team-b/rules.yaml"),
        "groups: [{name: x}]",
    )
    .unwrap();
    until_so("what others wrote is read", || {
        place.written("team-b~rules~.yaml").is_some()
    });
    fs::write(place.store().join("team-b/rules.yaml"), "groups: [").unwrap();
    place.stored(&format!("{PATH}/more"), "groups: [{name: y}]");
    until_so("others go on", || {
        place.written("team-a~more~.yaml").is_some()
    });
    assert!(
        place.written("team-b~rules~.yaml").is_some(),
        "what it held before stays"
    );
    let other = "/api/metrics/v1/team-b/rules";
    assert_eq!(
        place.get(other).status,
        200,
        "it is returned as it is, to be mended"
    );
    assert_eq!(place.put(other, RULES).status, 200);
}

#[test]
fn a_file_that_is_too_large_can_be_replaced_and_removed() {
    let place = Place::new("max_body_bytes = \"1KiB\"");
    place.stored(PATH, RULES);
    let grow = || {
        let text = format!("{RULES}# {}\n", "x".repeat(2000));
        fs::create_dir_all(place.store().join("team-a")).unwrap();
        fs::write(place.store().join("team-a/rules.yaml"), text).unwrap();
    };
    let file = format!("{PATH}/rules");
    for (method, path, body, status) in [
        ("PUT", PATH, RULES, 200),
        ("PUT", &file, RULES, 200),
        ("PUT", &format!("{file}/g"), "name: g\nrules: []\n", 500),
        ("DELETE", &file, "", 204),
        ("DELETE", PATH, "", 204),
    ] {
        grow();
        for path in [PATH, &file] {
            let answer = place.get(path);
            let told = answer.text();
            assert_eq!(answer.status, 500, "{told}");
            assert!(
                told.contains("max_body_bytes = 1KiB: replace or delete it"),
                "{told}"
            );
        }
        let lost = place.send(method, path, &[("if-match", "\"0\"")], body);
        let answer = place.send(method, path, &[], body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        if status != 500 {
            assert_eq!(lost.status, 412, "{method} {path}: {}", lost.text());
        }
    }
    // Another file of the tenant is changed meanwhile.
    grow();
    place.stored(&format!("{PATH}/more"), RULES);
    assert_eq!(place.get(&format!("{PATH}/more")).status, 200);
}

#[test]
fn a_file_that_cannot_be_read_at_the_start_is_waited_for_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("store/metrics/rules");
    for tenant in ["team-a", "team-b"] {
        fs::create_dir_all(rules.join(tenant)).unwrap();
    }
    fs::write(rules.join("team-a/rules.yaml"), RULES).unwrap();
    // A link to itself cannot be opened by anybody.
    let broken = rules.join("team-b/rules.yaml");
    std::os::unix::fs::symlink("rules.yaml", &broken).unwrap();
    let poll = "poll_interval = \"100ms\"";
    let program = Metrifold::start(&Place::config(&folder, poll));
    let mut place = Place { folder, program };
    place.program.until_logged("a file of rules cannot be used");
    assert_eq!(place.put("/api/metrics/v1/team-c/rules", RULES).status, 200);
    assert!(
        place.written("team-a~rules~.yaml").is_none(),
        "not all is known yet"
    );
    let soon = format!("{poll}\nfirst_read_timeout = \"300ms\"");
    drop(place.program);
    place.program = Metrifold::start(&Place::config(&place.folder, &soon));
    until_so("the others are published", || {
        let is_written = |tenant: &&str| place.written(&format!("{tenant}~rules~.yaml")).is_some();
        ["team-a", "team-c"].iter().all(is_written)
    });
    fs::remove_file(&broken).unwrap();
    fs::write(&broken, RULES).unwrap();
    until_so("the file is published once it can be read", || {
        place.written("team-b~rules~.yaml").is_some()
    });
}

#[test]
fn the_contract_of_backends_and_the_rulers_configuration_are_the_same_store() {
    let place = Place::new(
        "backend_path = \"/api/v1/rules\"\nruler_path = \"/prometheus/config/v1/rules\"",
    );
    place.stored("/api/v1/rules/team-a", RULES);
    assert_eq!(place.get("/api/v1/rules/team-a").text(), RULES.trim());
    place.stored("/api/v1/rules/team-b", RULES);
    until_so("all are listed", || {
        let all = place.get("/api/v1/rules").text();
        all.contains("name: team-a/g\n") && all.contains("name: team-b/g\n")
    });
    let json = [("accept", "application/json")];
    let all = place.send("GET", "/api/v1/rules", &json, "").json();
    assert_eq!(all["groups"][1]["name"], "team-b/g");
    let ruler = "/prometheus/config/v1/rules";
    let scope = [("x-scope-orgid", "team-a")];
    assert_eq!(place.get(ruler).status, 401);
    assert!(
        place
            .send("GET", ruler, &scope, "")
            .text()
            .starts_with("\"rules\":\n  - name: 'g'\n")
    );
    let group = "name: many\ninterval: 1m\nrules:\n  - record: some\n    expr: 'count(up)'";
    assert_eq!(
        place
            .send("POST", &format!("{ruler}/ns"), &scope, group)
            .status,
        202
    );
    assert_eq!(
        place
            .send("GET", &format!("{ruler}/ns/many"), &scope, "")
            .text(),
        group
    );
    // Grafana names the kind of ruler.
    let named = format!("{ruler}/ns/many?subtype=mimir");
    assert_eq!(place.send("GET", &named, &scope, "").text(), group);
    assert_eq!(
        place
            .send("GET", &format!("{ruler}/nothing"), &scope, "")
            .status,
        404
    );
    assert_eq!(place.get(&format!("{PATH}/ns")).status, 200);
    assert_eq!(
        place
            .send("DELETE", &format!("{ruler}/ns/many"), &scope, "")
            .status,
        202
    );
    assert_eq!(
        place.send("GET", &format!("{ruler}/ns"), &scope, "").status,
        404
    );
    let openapi = place.get("/openapi.json").json();
    assert_eq!(openapi["openapi"], "3.1.0");
    let paths = openapi["paths"].as_object().unwrap();
    for path in [
        "/api/metrics/v1/{tenant}/rules/{file}/{group}",
        "/api/v1/rules/{tenant}",
        "/prometheus/config/v1/rules/{namespace}/{group}",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
}

#[test]
fn the_tenants_of_a_foreign_backend_are_found_in_its_list() {
    let folder = tempfile::tempdir().unwrap();
    // As rules-objstore lists them: a tenant's name, a dot, and the name of a group.
    let own = ["team-a", "team", "team.b"];
    let backend = Endpoint::new(
        move |seen: &Seen| match seen.path.strip_prefix("/api/v1/rules") {
            Some("") => {
                let group =
                    |name: &str| format!("- name: {name}\n  rules: [{{record: r, expr: up}}]\n");
                let names = ["team-a.x.y", "team.b.g", "team.b.c", "gone.g", "no dot"];
                let groups: Vec<_> = names.into_iter().map(group).collect();
                Reply::new(200).body(format!("groups:\n{}", groups.concat()))
            }
            Some(path) if own.contains(&&path[1..]) => Reply::new(200).body(RULES),
            _ => Reply::new(404),
        },
    );
    let (url, out) = (backend.url_of("/api/v1/rules"), folder.path().join("out"));
    let config = format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\nbackend = {{ url = {url:?} }}\npoll_interval = \"100ms\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    );
    let program = Metrifold::start(&config);
    let place = Place { folder, program };
    until_so("all tenants are published", || {
        let is_written = |tenant: &&str| place.written(&format!("{tenant}~rules~.yaml")).is_some();
        own.iter().all(is_written)
    });
    assert_eq!(
        fs::read_dir(&out).unwrap().count(),
        own.len() + 1,
        "and the manifest"
    );
    // One that cannot list is no reason to take all rules to be gone after a restart.
    drop(place.program);
    backend.now(|_: &Seen| Reply::new(500).body("one tenant cannot be read"));
    let program = Metrifold::start(&config);
    program.until_logged("name them in `backend.tenants`");
    assert_eq!(fs::read_dir(&out).unwrap().count(), own.len() + 1);
}

#[test]
fn a_foreign_backend_is_given_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    // As rules-objstore: one text per tenant, no DELETE, and a check of its own.
    let texts: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
    let own = texts.clone();
    let backend = Endpoint::new(move |seen: &Seen| {
        let mut texts = own.lock().unwrap();
        let tenant = seen.path.strip_prefix("/api/v1/rules/").unwrap().to_owned();
        match (&*seen.method, texts.get(&tenant)) {
            ("GET", Some(text)) => Reply::new(200).body(text.clone()),
            ("GET", None) => Reply::new(404),
            ("PUT", _) if String::from_utf8_lossy(&seen.body).contains("holt_winters") => {
                Reply::new(400).body("request body failed rule group validation")
            }
            ("PUT", _) => {
                texts.insert(tenant, seen.body.clone());
                Reply::new(200).body("successfully updated rules file")
            }
            _ => Reply::new(405),
        }
    });
    texts.lock().unwrap().insert("team-b".into(), RULES.into());
    let (url, out) = (backend.url_of("/api/v1/rules"), folder.path().join("out"));
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\nbackend = {{ url = {url:?}, tenants = [\"team-b\"] }}\npoll_interval = \"100ms\"\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    ));
    let place = Place { folder, program };
    let published = || {
        let tenants = ["team-a", "team-b"].into_iter();
        let has = |tenant: &&str| place.written(&format!("{tenant}~rules~.yaml")).is_some();
        tenants.filter(has).count()
    };
    until_so("what is there is published", || published() == 1);
    assert_eq!(place.get(PATH).status, 404);
    let tag = place.stored(PATH, RULES);
    assert_eq!(texts.lock().unwrap()["team-a"], RULES.as_bytes());
    until_so("what is changed here is published", || published() == 2);
    assert_eq!(
        place
            .send("PUT", PATH, &[("if-match", "\"0\"")], RULES)
            .status,
        412
    );
    let group = format!("{PATH}/rules/h");
    place.stored(&group, "name: h\nrules: [{record: s, expr: up}]\n");
    assert_eq!(
        place.send("DELETE", PATH, &[("if-match", &tag)], "").status,
        412
    );
    let refused = place.put(PATH, &RULES.replace("name: g", "name: holt_winters"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("failed rule group validation"),
        "{}",
        refused.text()
    );
    let other = place.put(&format!("{PATH}/other"), RULES);
    let reason = other.json()["error"].as_str().unwrap().to_owned();
    assert!(
        other.status == 400 && reason.starts_with("a rules backend has one file per tenant"),
        "{} {reason}",
        other.status
    );
    assert_eq!(place.put(PATH, "groups: [").status, 400);
    assert_eq!(place.send("DELETE", PATH, &[], "").status, 204);
    assert_eq!(place.get(PATH).status, 404);
    until_so("it is gone", || published() == 1);
    backend.now(|_: &Seen| Reply::new(500));
    assert_eq!(place.put(PATH, RULES).status, 503);
    assert_eq!(published(), 1);
}

/// A program that serves the rules of a foreign backend and writes them to a folder.
fn of_backend(folder: TempDir, keys: &str) -> Place {
    let out = folder.path().join("out");
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\nmax_body_bytes = \"1KiB\"\npoll_interval = \"100ms\"\nfirst_read_timeout = \"500ms\"\n\
         backend = {{ {keys} }}\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n"
    ));
    Place { folder, program }
}

#[test]
fn a_tenant_about_whom_a_foreign_backend_answers_badly_costs_no_other() {
    type Says = BTreeMap<String, (u16, String)>;
    let says: Arc<Mutex<Says>> = Arc::default();
    let own = says.clone();
    let backend = Endpoint::new(move |seen: &Seen| {
        let tenant = seen.path.strip_prefix("/rules/").unwrap();
        let mut own = own.lock().unwrap();
        if seen.method == "PUT" {
            let text = String::from_utf8(seen.body.clone()).unwrap();
            own.insert(tenant.to_owned(), (200, text));
        }
        match own.get(tenant).cloned() {
            None => Does::from(Reply::new(404)),
            Some((0, text)) => Does::Hang(Reply::new(200).body(text)),
            Some((status, text)) => Reply::new(status).body(text).into(),
        }
    });
    let say = |tenant: &str, status: u16, text: String| {
        let said = (status, text);
        says.lock().unwrap().insert(tenant.to_owned(), said);
    };
    let named = |name: &str| RULES.replace("record: r", &format!("record: {name}"));
    let bad = ["big", "denied", "hangs"];
    for tenant in bad.iter().chain(&["good"]) {
        say(tenant, 200, named("one"));
    }
    let keys = format!(
        "url = {:?}, tenants = [\"big\", \"denied\", \"good\", \"hangs\"], max_requests = 1",
        backend.url_of("/rules")
    );
    let place = of_backend(tempfile::tempdir().unwrap(), &keys);
    let has = |tenant: &str, name: &str| {
        let written = place.written(&format!("{tenant}~rules~.yaml"));
        written
            .unwrap_or_default()
            .contains(&format!("record: {name}\n"))
    };
    until_so("all are published", || {
        has("good", "one") && bad.iter().all(|tenant| has(tenant, "one"))
    });
    say("big", 200, format!("{}#{}", named("two"), "x".repeat(2000)));
    say("hangs", 0, named("two"));
    for status in [401, 403, 429, 503] {
        say("denied", status, String::new());
        let name = format!("at_{status}");
        say("good", 200, named(&name));
        until_so("the good one goes on", || has("good", &name));
        place.program.until_logged(&format!("answered {status}"));
        assert!(bad.iter().all(|tenant| has(tenant, "one")), "{status}");
    }
    place.program.until_logged("larger than 1024 bytes");
    place.program.until_logged("the backend does not answer");
    backend.release();
    for tenant in bad {
        say(tenant, 200, named("three"));
    }
    until_so("they are published when they can be read", || {
        bad.iter().all(|tenant| has(tenant, "three"))
    });
    // A file that is too large can be replaced.
    say("big", 200, "#".repeat(2000));
    assert_eq!(place.get("/api/metrics/v1/big/rules").status, 500);
    let answer = place.put("/api/metrics/v1/big/rules", &named("four"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(says.lock().unwrap()["big"].1, named("four"));
    say("big", 200, named("three"));
    say("denied", 404, String::new());
    until_so("only 404 says that a tenant has none", || {
        place.written("denied~rules~.yaml").is_none()
    });
    assert!(has("big", "three"));
}

#[test]
fn a_tenant_in_the_list_of_a_foreign_backend_is_not_gone_because_it_may_not_be_read() {
    let answer = Arc::new(Mutex::new((200, String::new())));
    let own = answer.clone();
    let backend = Endpoint::new(move |seen: &Seen| {
        let (status, text) = own.lock().unwrap().clone();
        match (&*seen.path, status) {
            ("/rules", _) if text.is_empty() => Reply::new(200),
            ("/rules", _) => Reply::new(200).body("groups: [{name: team-a.g}, {name: team-b.g}]"),
            ("/rules/team-b", 200) | ("/rules/team-a", _) => Reply::new(200).body(text),
            ("/rules/team-b", _) => Reply::new(status),
            _ => Reply::new(404),
        }
    });
    let keys = format!("url = {:?}", backend.url_of("/rules"));
    let place = of_backend(tempfile::tempdir().unwrap(), &keys);
    // Text without a list is no list of nobody.
    place
        .program
        .until_logged("its list of all rules is empty text");
    assert!(!place.folder.path().join("out").is_dir());
    *answer.lock().unwrap() = (403, RULES.to_owned());
    let is_written = |tenant: &str| place.written(&format!("{tenant}~rules~.yaml")).is_some();
    until_so("the other is published", || is_written("team-a"));
    *answer.lock().unwrap() = (200, RULES.to_owned());
    until_so("it is read when it may be", || is_written("team-b"));
}

#[test]
fn expressions_that_stock_rulers_refuse_are_refused_unless_the_feature_is_enabled() {
    let rules =
        |expr: &str| format!("groups: [{{name: g, rules: [{{record: r, expr: '{expr}'}}]}}]");
    let place = Place::new("");
    let refused = place.put(PATH, &rules("limitk(3, up)"));
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("promql-experimental-functions"),
        "{}",
        refused.text()
    );
    let place = Place::new(
        "enable_features = [\"promql-experimental-functions\", \"promql-unquoted-utf8-names\"]",
    );
    place.stored(PATH, &rules("limitk(3, up) or http.requests or info(up)"));
    until_so("it is written, and narrowed", || {
        let written = place.written("team-a~rules~.yaml").unwrap_or_default();
        written.contains("http.requests{tenant_id=\"team-a\"}")
    });
    assert_eq!(place.put(PATH, &rules("up + fill(0) up")).status, 400);
}

#[test]
fn whatever_is_read_has_a_tag_and_is_not_sent_again_to_who_has_it() {
    let place = Place::new(
        "backend_path = \"/api/v1/rules\"\nruler_path = \"/prometheus/config/v1/rules\"\n",
    );
    let file = format!("{PATH}/more");
    place.stored(&file, "groups: [{name: g}]");
    let history = place.get(&format!("{file}?history=true")).json();
    let id = history["versions"][0]["id"].as_str().unwrap().to_owned();
    let ruler = "/prometheus/config/v1/rules";
    until_so("the list is there", || {
        place.get("/api/v1/rules").text().contains("team-a/more/g")
    });
    let paths = [
        PATH.to_owned(),
        file.clone(),
        format!("{file}/g"),
        format!("{file}?version={id}"),
        "/api/metrics/v1/team-a/api/v1/rules/raw".to_owned(),
        "/api/v1/rules".to_owned(),
        "/api/v1/rules/team-a".to_owned(),
        ruler.to_owned(),
        format!("{ruler}/more"),
        format!("{ruler}/more/g"),
    ];
    let read = |path: &str, tag: &str| {
        let headers = [("x-scope-orgid", "team-a"), ("if-none-match", tag)];
        let answer = place.send("GET", path, &headers, "");
        let tag = answer.header("etag").unwrap_or_default().to_owned();
        (answer.status, tag)
    };
    let mut tags = Vec::new();
    for path in &paths {
        let (status, tag) = read(path, "\"other\"");
        assert_eq!(status, 200, "{path}");
        assert_eq!(read(path, &tag), (304, tag.clone()), "{path}");
        tags.push(tag);
    }
    // The tags are those that conditions of changes take, whichever API they come from.
    assert_eq!((&tags[1], &tags[2]), (&tags[8], &tags[9]));
    let scope = ("x-scope-orgid", "team-a");
    let group = "name: g\nrules: [{record: r, expr: up}]";
    let conditional = [scope, ("if-match", tags[9].as_str())];
    let changed = place.send("POST", &format!("{ruler}/more"), &conditional, group);
    assert_eq!(changed.status, 202, "{}", changed.text());
    let new = changed.header("etag").unwrap().to_owned();
    assert_eq!(read(&paths[9], &new).0, 304);
    until_so("the list has changed", || {
        read("/api/v1/rules", &tags[5]).0 == 200
    });
    for (path, tag) in paths.iter().zip(&tags) {
        let status = if path.contains("version=") { 304 } else { 200 };
        assert_eq!(read(path, tag).0, status, "{path}");
    }
    let stale = [scope, ("if-match", tags[8].as_str())];
    let lost = place.send("DELETE", &format!("{ruler}/more"), &stale, "");
    assert_eq!(lost.status, 412);
}

#[test]
fn a_parameter_that_a_resource_does_not_have_is_refused_by_name() {
    let place = Place::new(
        "backend_path = \"/api/v1/rules\"\nruler_path = \"/prometheus/config/v1/rules\"\n",
    );
    place.stored(PATH, RULES);
    let (ruler, raw) = (
        "/prometheus/config/v1/rules",
        "/api/metrics/v1/team-a/api/v1/rules/raw",
    );
    for (method, path, parameter) in [
        ("GET", PATH, "history=true"),
        ("GET", PATH, "dry_run=true"),
        ("PUT", PATH, "status=true"),
        ("DELETE", PATH, "rollback=1-1"),
        ("GET", raw, "status=true"),
        ("PUT", raw, "version=1-1"),
        ("GET", &format!("{PATH}/rules"), "status=true"),
        ("PUT", &format!("{PATH}/rules"), "rollback=1-1"),
        ("POST", &format!("{PATH}/rules"), "version=1-1"),
        ("GET", &format!("{PATH}/rules/g"), "version=1-1"),
        ("DELETE", &format!("{PATH}/rules/g"), "history=true"),
        ("GET", "/api/v1/rules", "tenant=team-a"),
        ("PUT", "/api/v1/rules/team-a", "subtype=mimir"),
        ("GET", ruler, "dry_run=true"),
        ("POST", &format!("{ruler}/rules"), "dryrun=true"),
    ] {
        let headers = [("x-scope-orgid", "team-a")];
        let answer = place.send(method, &format!("{path}?{parameter}"), &headers, RULES);
        let name = parameter.split('=').next().unwrap();
        assert!(
            answer.status == 400 && answer.text().contains(&format!("parameter \\\"{name}\\\"")),
            "{method} {path} {parameter}: {}",
            answer.text()
        );
    }
    assert_eq!(place.get(PATH).text(), RULES.trim());
}

#[test]
fn a_namespace_may_have_any_name() {
    let place = Place::new("ruler_path = \"/prometheus/config/v1/rules\"");
    let ruler = "/prometheus/config/v1/rules";
    let scope = [("x-scope-orgid", "team-a")];
    let group = "name: 'g'\nrules:\n  - record: 'r'\n    expr: 'up'";
    for (escaped, name, file) in [
        ("My%20Folder", "My Folder", "My!20Folder"),
        ("a%2Fb", "a/b", "a!2Fb"),
        ("%2E%2E%2Fetc", "../etc", "!2E.!2Fetc"),
        ("a!20b", "a!20b", "a!2120b"),
        ("%C3%A4", "ä", "!C3!A4"),
    ] {
        let path = format!("{ruler}/{escaped}");
        let answer = place.send("POST", &path, &scope, group);
        assert_eq!(answer.status, 202, "{name}: {}", answer.text());
        assert_eq!(
            place.send("GET", &format!("{path}/g"), &scope, "").text(),
            group
        );
        let listed = place.send("GET", &path, &scope, "").text();
        assert!(listed.starts_with(&format!("{name:?}:")), "{listed}");
        let all = place.send("GET", ruler, &scope, "").text();
        assert!(all.contains(&format!("{name:?}:\n")), "{all}");
        assert_eq!(place.get(&format!("{PATH}/{file}")).status, 200, "{file}");
        assert!(place.store().join(format!("team-a/{file}.yaml")).is_file());
        assert_eq!(place.send("DELETE", &path, &scope, "").status, 202);
        assert_eq!(place.send("GET", &path, &scope, "").status, 404);
    }
    // A name of a file is plain.
    assert_eq!(place.put(&format!("{PATH}/My%20File"), RULES).status, 400);
}

#[test]
fn a_group_that_another_group_of_its_file_holds_up_is_stored_with_a_warning() {
    let place =
        Place::new("poll_interval = \"100ms\"\nruler_path = \"/prometheus/config/v1/rules\"\n");
    let refused = "groups: [{name: a, rules: [{alert: b, expr: up, annotations: {t: '{{ query $value }}'}}]}]";
    let folder = place.store().join("team-a");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("rules.yaml"), refused).unwrap();
    let group = |name: &str| format!("name: {name}\nrules: [{{record: r, expr: up}}]");
    let warns = |answer: &Answer| {
        assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
        answer
            .text()
            .contains("before others of the tenant are corrected")
    };
    let put = |query: &str| place.put(&format!("{PATH}/rules/new{query}"), &group("new"));
    assert!(warns(&put("?dry_run=true")) && warns(&put("")));
    let scope = [("x-scope-orgid", "team-a")];
    let path = "/prometheus/config/v1/rules/rules";
    assert!(warns(&place.send("POST", path, &scope, &group("more"))));
    // The one at fault is mended alone.
    assert!(!warns(&place.put(&format!("{PATH}/rules/a"), &group("a"))));
    until_so("all are passed on", || {
        let written = place.written("team-a~rules~.yaml").unwrap_or_default();
        ["new", "more", "tenant_id"]
            .iter()
            .all(|name| written.contains(name))
    });
}

#[test]
fn a_dry_run_tells_the_version_that_the_change_would_make() {
    let place = Place::new("");
    place.stored(&format!("{PATH}/more"), "groups: [{name: h}]");
    for path in [PATH.to_owned(), format!("{PATH}/more")] {
        let dry = place.put(&format!("{path}?dry_run=true"), RULES);
        let tag = dry.header("etag").unwrap().to_owned();
        assert_eq!(
            tag,
            format!("\"{}\"", dry.json()["version"].as_str().unwrap())
        );
        assert_ne!(place.get(&path).header("etag"), Some(&*tag));
        assert_eq!(place.stored(&path, RULES), tag);
        assert_eq!(place.get(&path).header("etag"), Some(&*tag));
    }
}

#[test]
fn versions_of_removed_files_are_kept_for_as_many_as_are_configured() {
    let place = Place::new("removed_files = 2\nmax_names_per_tenant = 3\n");
    for at in 0..4 {
        let path = format!("{PATH}/f{at}");
        place.stored(&path, RULES);
        assert_eq!(place.send("DELETE", &path, &[], "").status, 204);
    }
    let has = |at: usize| place.get(&format!("{PATH}/f{at}?history=true")).status == 200;
    assert_eq!([0, 1, 2, 3].map(has), [false, false, true, true]);
    let history = place
        .folder
        .path()
        .join("store/metrics/rules-history/team-a");
    assert_eq!(fs::read_dir(history).unwrap().count(), 2);
    for at in 0..3 {
        place.stored(&format!("{PATH}/g{at}"), RULES);
    }
    let further = place.put(&format!("{PATH}/g3"), RULES);
    assert!(
        further.status == 413 && further.text().contains("max_names_per_tenant is 3"),
        "{}",
        further.text()
    );
}

#[test]
fn a_lock_that_another_process_keeps_fails_a_change_and_nothing_else() {
    let place = Place::new("");
    place.stored(PATH, RULES);
    let lock = fs::File::open(place.folder.path().join("store/.rules.lock")).unwrap();
    lock.lock().unwrap();
    let other = RULES.replace("sum", "max");
    let refused = place.put(PATH, &other);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(!refused.text().contains("lock"), "{}", refused.text());
    place.program.until_logged("kept .rules.lock locked");
    assert_eq!(place.get(PATH).text(), RULES.trim());
    drop(lock);
    place.stored(PATH, &other);
}

/// A ruler that loads the groups in a folder when it is reloaded.
fn ruler(folder: PathBuf) -> Endpoint {
    let loaded = Mutex::new(Vec::new());
    Endpoint::new(move |seen: &Seen| {
        let mut loaded = loaded.lock().unwrap();
        if seen.path == "/-/reload" {
            loaded.clear();
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap_or_default();
                let names = text.lines().filter_map(|it| it.strip_prefix("  - name: "));
                loaded.extend(names.map(|name| {
                    let rules = [json!({ "name": "r", "health": "ok" })];
                    let name = name.trim_matches('\'');
                    json!({ "name": name, "file": path, "rules": rules, "lastEvaluation": "2026-01-01T00:00:00Z" })
                }));
            }
            return Reply::new(200);
        }
        let answer = json!({ "status": "success", "data": { "groups": *loaded } });
        Reply::new(200).body(answer.to_string())
    })
}

#[test]
fn a_process_without_a_ruler_tells_what_the_rulers_behind_another_have_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let ruler = ruler(path("ruled"));
    let source = |keys: &str| {
        format!(
            "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\npoll_interval = \"100ms\"\n{keys}\n",
            path("store")
        )
    };
    let access = "basic_auth = { username = \"a\", password = \"topsecret\" }";
    let behind = Metrifold::start(&format!(
        "{}[sinks.ruler]\ntype = \"ruler\"\ninputs = [\"rules\"]\nrulers = [{{ url = {:?}, directory = {:?} }}]\nstatus_interval = \"100ms\"\n",
        source(access),
        ruler.url_of(""),
        path("ruled")
    ));
    let front = |keys: &str| {
        let out = path("out");
        Metrifold::start(&format!(
            "{}[sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {out:?}\n",
            source(keys)
        ))
    };
    let status = |program: &Metrifold| {
        let path = format!("{PATH}?status=true");
        request("GET", program.ingest, &path, &[], b"")
            .unwrap()
            .json()
    };
    let alone = front("");
    let put = |program: &Metrifold, body: &str| {
        let answer = request("PUT", program.ingest, PATH, &[], body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    put(&alone, RULES);
    let unknown = status(&alone);
    assert!(
        unknown["unknown"][0]
            .as_str()
            .unwrap()
            .contains("status_from"),
        "{unknown}"
    );
    assert_eq!(unknown["files"][0]["groups"][0]["rulers"], json!([]));
    drop(alone);
    let url = format!("http://{}/api/metrics/v1/{{tenant}}", behind.ingest);
    let asks = front(&format!("status_from = {{ urls = [{url:?}], {access} }}"));
    let rulers = |program: &Metrifold| status(program)["files"][0]["groups"][0]["rulers"].clone();
    until_so("it is loaded there", || {
        rulers(&asks)[0]["state"] == "loaded"
    });
    let told = status(&asks);
    assert_eq!(told["unknown"], json!([]), "{told}");
    assert_eq!(rulers(&asks)[0]["last_evaluation"], "2026-01-01T00:00:00Z");
    put(&asks, &RULES.replace("sum", "max"));
    until_so("the change is loaded there", || {
        rulers(&asks)[0]["state"] == "loaded"
            && fs::read_dir(path("ruled")).unwrap().any(|entry| {
                let text = fs::read_to_string(entry.unwrap().path());
                text.unwrap_or_default().contains("max(up)")
            })
    });
    // That it does not answer is told, and not where it is.
    let address = behind.ingest.to_string();
    drop(behind);
    let told = status(&asks);
    assert_eq!(told["unknown"].as_array().unwrap().len(), 1, "{told}");
    assert!(!told.to_string().contains(&address), "{told}");
    asks.until_logged(&format!(
        "{address}/api/metrics/v1/team-a/rules?status=local"
    ));
}

#[test]
fn a_process_in_front_of_another_by_the_contract_of_backends_changes_its_rules() {
    let behind = Place::new("backend_path = \"/api/v1/rules\"\npoll_interval = \"100ms\"");
    behind.stored("/api/metrics/v1/team-b/rules", RULES);
    until_so("it lists what it has", || {
        behind.get("/api/v1/rules").text().contains("team-b/g")
    });
    let url = format!("url = \"http://{}/api/v1/rules\"", behind.program.ingest);
    let front = of_backend(tempfile::tempdir().unwrap(), &url);
    until_so("what is there is found", || {
        front.written("team-b~rules~.yaml").is_some()
    });
    let tag = front.stored(PATH, RULES);
    assert_eq!(behind.get(PATH).header("etag"), Some(&*tag));
    let group = format!("{PATH}/rules/h");
    front.stored(&group, "name: h\nrules: [{record: s, expr: up}]\n");
    assert_eq!(behind.get(&group).status, 200);
    // Where the one behind keeps its history.
    let history = behind.get(&format!("{PATH}/rules?history=true")).json();
    assert_eq!(history["versions"].as_array().unwrap().len(), 2);
    // What only the one behind refuses is told with its words.
    let refused = "groups: [{name: a, rules: [{alert: b, expr: up, annotations: {t: '{{ query $value }}'}}]}]";
    let refused = front.put(PATH, refused);
    assert!(
        refused.status == 400 && refused.text().contains("write the expression as a string"),
        "{}",
        refused.text()
    );
    assert_eq!(front.send("DELETE", PATH, &[], "").status, 204);
    assert_eq!(front.get(PATH).status, 404);
    assert_eq!(behind.get(PATH).text(), "# removed\ngroups: []");
}
