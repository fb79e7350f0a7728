//! The API of rules, with the folder behind it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use metrifold_testing::{Answer, Endpoint, Metrifold, Reply, Seen, request, until_so};

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
    let lost = place.send("PUT", PATH, &[("if-match", "\"0000\"")], &other);
    assert_eq!(lost.status, 412, "{}", lost.text());
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
    assert!(warned("one").contains("before another file is corrected"));
    assert!(!warned("two").contains("another file"));
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
    let added = place.send("POST", &format!("{ruler}/team%20ns"), &scope, group);
    assert_eq!(added.status, 400, "a blank is no part of a file's name");
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
        "/prometheus/config/v1/rules/{file}/{group}",
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
    assert_eq!(place.put(&format!("{PATH}/other"), RULES).status, 400);
    assert_eq!(place.put(PATH, "groups: [").status, 400);
    assert_eq!(place.send("DELETE", PATH, &[], "").status, 204);
    assert_eq!(place.get(PATH).status, 404);
    until_so("it is gone", || published() == 1);
    backend.now(|_: &Seen| Reply::new(500));
    assert_eq!(place.put(PATH, RULES).status, 503);
    assert_eq!(published(), 1);
}
