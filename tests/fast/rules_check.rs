//! `metrifold rules check`: its page shows its real output, and its exit codes are those of
//! promtool.

use std::io::Write;
use std::process::Stdio;

use crate::pages::{printed, shows_what_is_printed};

#[test]
fn the_page_shows_what_is_printed() {
    let page = include_str!("../../docs/rules.md");
    let failed = |printed: &str| printed.contains(": invalid");
    assert_eq!(shows_what_is_printed(page, failed), 3);
}

/// Runs `rules check` with a text on stdin; returns its output and its exit code.
fn check(arguments: &[&str], text: &str) -> (String, i32) {
    let words = [&["rules", "check"], arguments].concat();
    let mut child = metrifold_testing::cli(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // With wrong arguments it ends without reading stdin.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    (printed(&output), output.status.code().unwrap())
}

#[test]
fn what_is_odd_fails_only_when_asked_to() {
    let odd = include_str!("rules/odd.yaml");
    let unsevere = "groups: [{name: a, rules: [{alert: b, expr: up}]}]";
    for (arguments, text, code, warnings) in [
        (&[][..], odd, 0, 3),
        (&["--lint-fatal"], odd, 3, 3),
        (&["--lint-fatal"], unsevere, 0, 1),
        (&["--lint-fatal", "--lint=all"], unsevere, 3, 1),
        (&["--lint-fatal", "--lint=none", "-"], odd, 0, 0),
        (
            &["--lint-fatal"],
            "groups: [{name: a, rules: [{alert: b}]}]",
            1,
            1,
        ),
        (
            &["--lint-fatal", "tests/fast/rules/bad.yaml", "-"],
            odd,
            1,
            3,
        ),
        (&["tests/fast/rules/absent.yaml", "-"], odd, 1, 3),
    ] {
        let (said, got) = check(arguments, text);
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert_eq!(
            said.matches("stdin:").count().saturating_sub(1).min(3),
            warnings,
            "{said}"
        );
    }
}

#[test]
fn what_the_rulers_have_enabled_decides() {
    let rule =
        |expr: &str| format!("groups: [{{name: a, rules: [{{record: b, expr: '{expr}'}}]}}]");
    let experimental = rule("mad_over_time(up[5m])");
    assert_eq!(check(&[], &experimental).1, 1);
    let feature = "--enable-feature=promql-delayed-name-removal,promql-experimental-functions";
    assert_eq!(check(&[feature], &experimental).1, 0);
    let thanos = "groups: [{name: a, partial_response_strategy: abort, owner: b}]";
    assert_eq!(check(&[], thanos).1, 1);
    assert_eq!(check(&["--thanos"], thanos).1, 1);
    assert_eq!(check(&["--ignore-unknown-fields"], thanos).1, 1);
    assert_eq!(check(&["--thanos", "--ignore-unknown-fields"], thanos).1, 0);
}
