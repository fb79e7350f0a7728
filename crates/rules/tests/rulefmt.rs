//! Compares parsing with Prometheus v0.316's own parser of rule files, the oracle:
//! `oracle/rulefmt/golden.json` holds its verdicts, and the parsed content of the files that it
//! accepted. To write it again, run `go run . write golden.json` in that folder; `go run . templates
//! templates.json` writes the verdicts on templates. With `RULEFMT_WRITTEN=FILE`, this test writes the
//! canonical texts, and `go run . accept FILE` checks that Prometheus reads each as the original file.

use std::collections::{BTreeMap, BTreeSet};

use metrifold_rules::{Checks, Labels, PromDuration, RuleFile, Template, any_expr};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Golden {
    bad_exprs: BTreeSet<String>,
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Case {
    name: String,
    text: String,
    ok: bool,
    #[serde(default)]
    warned: bool,
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
struct Group {
    name: String,
    interval: u64,
    query_offset: Option<u64>,
    limit: i64,
    labels: BTreeMap<String, String>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
struct Rule {
    record: String,
    alert: String,
    expr: String,
    r#for: u64,
    keep_firing_for: u64,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// Converts a file to the oracle's format.
fn flatten(file: &RuleFile) -> Vec<Group> {
    let millis = |duration: Option<PromDuration>| duration.map_or(0, PromDuration::as_millis);
    let map = |labels: &Labels| {
        let labels = labels.iter();
        let labels = labels.map(|(name, value)| (name.to_string(), value.to_string()));
        labels.collect()
    };
    let rule = |rule: &metrifold_rules::Rule| {
        let mut flat = Rule {
            expr: rule.expr.to_string(),
            labels: map(&rule.labels),
            ..Rule::default()
        };
        match rule.alerting() {
            None => flat.record = rule.name.to_string(),
            Some(alerting) => {
                flat.alert = rule.name.to_string();
                flat.r#for = millis(alerting.hold);
                flat.keep_firing_for = millis(alerting.keep_firing_for);
                flat.annotations = map(&alerting.annotations);
            }
        }
        flat
    };
    let group = |group: &metrifold_rules::Group| Group {
        name: group.name.clone(),
        interval: millis(group.interval),
        query_offset: group.query_offset.map(PromDuration::as_millis),
        limit: group.limit,
        labels: map(&group.labels),
        rules: group.rules.iter().map(rule).collect(),
    };
    file.groups.iter().map(group).collect()
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("oracle/rulefmt/golden.json")).unwrap()
}

/// A file that is empty although it has text.
const EMPTY: &str = "...\n";

/// Cases with a different verdict, by a part of their text, each with the reason.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "!!binary",
        "we refuse: nobody writes base64 into a rule, and what it says need not be UTF-8",
    ),
    (
        "[]#x",
        "we refuse: a comment without a blank before it is none in YAML 1.2",
    ),
    (
        "|#",
        "we refuse: a comment without a blank before it is none in YAML 1.2",
    ),
    (
        "&x: x",
        "we refuse: the colon is part of the anchor's name in YAML 1.2, and a missing key in 1.1",
    ),
];

#[test]
fn verdict_and_content_are_those_of_prometheus() {
    let golden = golden();
    let expr = |text: &str| match golden.bad_exprs.contains(text) {
        true => Err("not PromQL".to_owned()),
        false => any_expr(text),
    };
    let checks = Checks::new(&expr);
    let (mut wrong, mut accepted, mut written) = (Vec::new(), 0, Vec::new());
    let mut seen = BTreeSet::new();
    for case in &golden.cases {
        let parsed = RuleFile::parse(case.text.as_bytes(), &checks);
        let differs = match &parsed {
            // A document that ends before it begins is empty, and has no rules.
            Ok(_) if case.text == EMPTY => false,
            Ok(parsed) => !case.ok || flatten(&parsed.file) != case.groups,
            Err(_) => case.ok,
        };
        let known = DIFFERENCES
            .iter()
            .find(|(part, _)| case.text.contains(part));
        match (differs, known) {
            (true, Some((part, _))) => {
                seen.insert(*part);
            }
            (true, None) => wrong.push(format!(
                "{}: they {}, we {:?}\n{:?}",
                case.name,
                if case.ok { "accept" } else { "refuse" },
                parsed.as_ref().map(|parsed| flatten(&parsed.file)),
                case.text,
            )),
            (false, _) => {}
        }
        if let (Ok(parsed), true, false) = (&parsed, case.ok, differs) {
            accepted += 1;
            if case.warned {
                assert!(!parsed.warnings.is_empty(), "{}", case.name);
            }
            let text = parsed.file.to_yaml();
            let again = RuleFile::parse(text.as_bytes(), &checks).unwrap();
            assert_eq!(again.file, parsed.file, "{text}");
            written.push(Case {
                text,
                ..case.clone()
            });
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(
        seen.len(),
        DIFFERENCES.len(),
        "a difference is gone: {seen:?}"
    );
    assert!(accepted > 400, "{accepted} of {}", golden.cases.len());
    if let Some(path) = std::env::var_os("RULEFMT_WRITTEN") {
        std::fs::write(path, serde_json::to_string(&written).unwrap()).unwrap();
    }
}

/// A label or annotation of the alert `Alert`.
#[derive(Deserialize)]
struct Text {
    text: String,
    ok: bool,
    #[serde(default)]
    reason: String,
}

/// Templates with a different verdict, by a part of their text.
const TEMPLATE_DIFFERENCES: &[(&str, &str)] = &[(
    "((((((((((((((((((((((((((((((",
    "we refuse: no template needs parentheses a hundred deep",
)];

#[test]
fn verdicts_on_templates_are_those_of_prometheus() {
    let cases: Vec<Text> =
        serde_json::from_str(include_str!("oracle/rulefmt/templates.json")).unwrap();
    let (mut wrong, mut accepted) = (Vec::new(), 0);
    for case in &cases {
        let parsed = Template::parse(&case.text, "Alert");
        assert_eq!(
            Template::check(&case.text, "Alert").err(),
            parsed.as_ref().err().cloned(),
            "{}",
            case.text
        );
        accepted += usize::from(parsed.is_ok());
        let known = TEMPLATE_DIFFERENCES
            .iter()
            .any(|(part, _)| case.text.contains(part));
        if parsed.is_ok() != case.ok && !known {
            wrong.push(format!(
                "{:?}\n  they: {} {}\n  we: {parsed:?}",
                case.text, case.ok, case.reason
            ));
        }
        if let Ok(template) = parsed {
            // The text with rewritten queries must still be a valid template.
            let mapped = template.map_queries(&mut |query| Ok(format!("({query})")));
            if let Ok(mapped) = mapped {
                assert!(Template::parse(&mapped, "Alert").is_ok(), "{mapped}");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(accepted > 500, "{accepted} of {}", cases.len());
}
