//! mimirtool, the client of Grafana Mimir, at the configuration API of rulers.

use std::fs;
use std::process::Command;

use metrifold_testing::peers::mimirtool;
use metrifold_testing::{Metrifold, request, run};

/// Runs a command of mimirtool for a tenant; returns whether it succeeded, and what it printed.
fn mimirtool_rules(
    program: &Metrifold,
    tenant: &str,
    legacy: bool,
    words: &[&str],
) -> (bool, String) {
    let mut command: Command = mimirtool();
    command.arg("rules").args(words);
    command.arg(format!("--address=http://{}", program.ingest));
    command.arg(format!("--id={tenant}"));
    if legacy {
        command.args(["--use-legacy-routes", "--mimir-http-prefix="]);
    }
    let output = run(&mut command);
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Loads, lists, compares, changes and removes rules through one of the paths.
fn works(path: &str, legacy: bool) {
    let place = tempfile::tempdir().unwrap();
    let program = Metrifold::start(&format!(
        "[sources.rules]\ntype = \"rules_api\"\naddress = \"INGEST\"\ndirectory = {:?}\nruler_path = {path:?}\n\
         [sinks.out]\ntype = \"rules_directory\"\ninputs = [\"rules\"]\npath = {:?}\n",
        place.path().join("store"),
        place.path().join("out")
    ));
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let done = |words: &[&str]| {
        let (succeeded, said) = mimirtool_rules(&program, "team-a", legacy, words);
        assert!(succeeded, "{words:?}: {said}");
        said
    };
    let rules = "namespace: shop\ngroups:\n  - name: first\n    interval: 1m\n    rules:\n      - record: job:up:sum\n        expr: sum by (job) (up)\n  - name: \"second group\"\n    rules:\n      - alert: Down\n        expr: up == 0\n        for: 5m\n        labels: {severity: page}\n";
    let loaded = file("rules.yaml", rules);
    done(&["load", &loaded]);
    let listed = done(&["list", "--format=yaml"]);
    for part in ["shop", "first", "second group"] {
        assert!(listed.contains(part), "{listed}");
    }
    let printed = done(&["print", "--disable-color"]);
    assert!(
        printed.contains("job:up:sum") && printed.contains("for: 5m"),
        "{printed}"
    );
    let group = done(&["get", "shop", "second group", "--disable-color"]);
    assert!(
        group.contains("Down") && !group.contains("job:up:sum"),
        "{group}"
    );
    let said = done(&["diff", "--disable-color", &loaded]);
    assert!(said.contains("no changes detected"), "{said}");
    // A group changes, one goes, and a namespace comes.
    let changed = file(
        "changed.yaml",
        "namespace: shop\ngroups:\n  - name: first\n    rules:\n      - record: job:up:sum\n        expr: sum by (job) (up)\n        labels: {new: \"1\"}\n",
    );
    let other = file(
        "other.yaml",
        "namespace: other\ngroups:\n  - name: g\n    rules:\n      - record: r\n        expr: vector(1)\n",
    );
    let said = done(&["sync", &changed, &other]);
    assert!(
        said.contains("1 Groups Created, 1 Groups Updated, 1 Groups Deleted"),
        "{said}"
    );
    let whole = request(
        "GET",
        program.ingest,
        "/api/metrics/v1/team-a/rules/shop",
        &[],
        b"",
    );
    let whole = whole.unwrap().text();
    assert!(
        whole.contains("new:") && !whole.contains("second"),
        "{whole}"
    );
    // Another tenant does not see them.
    let (_, theirs) = mimirtool_rules(&program, "team-b", legacy, &["list", "--format=yaml"]);
    assert!(!theirs.contains("shop"), "{theirs}");
    // Invalid rules are refused, and nothing of them is stored.
    let (succeeded, said) = mimirtool_rules(
        &program,
        "team-a",
        legacy,
        &[
            "load",
            &file(
                "wrong.yaml",
                "namespace: shop\ngroups:\n  - name: first\n    rules:\n      - alert: A\n        expr: up\n        annotations: {text: '{{ humanise 1 }}'}\n",
            ),
        ],
    );
    assert!(!succeeded || said.contains("humanise"), "{said}");
    assert!(done(&["print", "--disable-color"]).contains("new:"));
    done(&["delete", "shop", "first"]);
    done(&["delete-namespace", "other"]);
    let (_, listed) = mimirtool_rules(&program, "team-a", legacy, &["list", "--format=yaml"]);
    assert!(
        !listed.contains("shop") && !listed.contains("other"),
        "{listed}"
    );
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn mimirtool_loads_compares_and_removes_rules() {
    works("/prometheus/config/v1/rules", false);
}

#[test]
#[ignore = "needs the peers that `make live` builds"]
fn mimirtool_does_the_same_by_the_paths_of_cortextool() {
    works("/api/v1/rules", true);
}
