//! Parsing of files, and the messages for invalid ones.

use super::*;

fn parse(text: &str) -> Result<Parsed, Vec<Problem>> {
    let expr = |text: &str| match text.contains("bad") {
        true => Err("it is bad".to_owned()),
        false => Ok(CheckedExpr::default()),
    };
    RuleFile::parse(text.as_bytes(), &Checks::new(&expr))
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).unwrap_err();
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn every_problem_is_found_with_its_line_and_key() {
    let found = problems(
        "groups:
- name: a
  intervall: 1m
  limit: many
  rules:
  - record: x{y}
    expr: bad(
    for: 1m
  - alert: z
    expr: up
    keep_firing_for: 5
    labels: {__name__: q, ok: [1]}
- name: a
  rules: up
grups: []
",
    );
    let expected = [
        ("3:3: groups[0]: ", "did you mean `interval`?"),
        ("4:10: groups[0].limit: ", "whole number"),
        ("6:13: groups[0].rules[0].record: ", "braces"),
        ("7:11: groups[0].rules[0].expr: ", "it is bad"),
        ("8:5: groups[0].rules[0].for: ", "recording rule"),
        (
            "11:22: groups[0].rules[1].keep_firing_for: ",
            "number and a unit",
        ),
        ("12:14: groups[0].rules[1].labels.__name__: ", "__name__"),
        ("12:31: groups[0].rules[1].labels.ok: ", "found a list"),
        ("13:3: groups[1].name: ", "already stands at line 2"),
        ("14:10: groups[1].rules: ", "a list"),
        ("15:1: ", "did you mean `groups`?"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, (start, part)) in found.iter().zip(expected) {
        assert!(
            found.starts_with(start) && found.contains(part),
            "{found} {start}"
        );
    }
}

#[test]
fn what_prometheus_passes_over_is_a_warning() {
    let parsed = parse("groups:\n- ~\n- name: a\n  rules:\n  -\n---\nmore: [").unwrap();
    let lines = parsed.warnings.iter().map(|warning| warning.problem.line);
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines, [2, 5, 6], "{:?}", parsed.warnings);
    assert!(
        parsed
            .warnings
            .iter()
            .all(|warning| warning.lint == Lint::Ignored)
    );
    assert_eq!(parsed.file.groups.len(), 1);
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = String::from("x0: &x0 {a: b}\n");
    for level in 1..=12 {
        let list = vec![format!("*x{}", level - 1); 10].join(", ");
        text += &format!("x{level}: &x{level} {{<<: [{list}]}}\n");
    }
    let text = format!("{text}groups:\n- labels: *x12\n  name: a\n");
    let found = problems(&text);
    assert!(
        found
            .iter()
            .any(|problem| problem.contains("aliases expanded") || problem.contains("unknown key")),
        "{found:?}"
    );
    let rules = "groups:\n- name: a\n  rules: &r\n".to_owned()
        + &"  - {record: b, expr: up}\n".repeat(30_000)
        + "- name: b\n  rules: *r\n";
    assert!(problems(&rules)[0].contains("more than 50000 rules"));
}

#[test]
fn a_long_text_that_aliases_repeat_is_refused() {
    let long = "x".repeat(100_000);
    let labels: String = (0..100).map(|i| format!(", l{i}: *x")).collect();
    let text = format!("groups:\n- name: a\n  labels: {{l: &x '{long}'{labels}}}\n");
    let found = problems(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("bytes, aliases expanded"), "{found:?}");
}

#[test]
fn a_merge_that_contains_itself_or_goes_too_deep_is_refused() {
    assert!(problems("groups:\n- &a {<<: *a, name: b}\n")[0].contains("contain themselves"));
    let chain: String = (1..40)
        .map(|i| format!("- &m{i} {{<<: *m{}, name: n{i}}}\n", i - 1))
        .collect();
    let found = problems(&format!("groups:\n- &m0 {{name: n0}}\n{chain}"));
    assert!(found[0].contains("more than 16"), "{found:?}");
}

#[test]
fn bounds_hold_and_problems_are_counted() {
    let mut checks = Checks::new(&any_expr);
    checks.limits = Limits {
        bytes: 200,
        groups: 2,
        rules: 2,
        nodes: 60,
        problems: 2,
    };
    let read = |text: &str| RuleFile::parse(text.as_bytes(), &checks).unwrap_err();
    assert!(read(&" ".repeat(201))[0].message.contains("200 bytes"));
    let groups = "groups: [{name: a}, {name: b}, {name: c}]";
    assert!(read(groups)[0].message.contains("more than 2 groups"));
    let many = "{a: , b: , c: , d: , e: }";
    let found = read(many);
    assert_eq!(found.len(), 3);
    assert!(found[2].message.starts_with("3 more problems"));
    assert!(
        read(&format!("[{}]", "1,".repeat(70)))[0]
            .message
            .contains("60 YAML nodes")
    );
}

#[test]
fn foreign_encodings_and_control_characters_are_placed() {
    let read = |text: &[u8]| RuleFile::parse(text, &Checks::new(&any_expr)).unwrap_err();
    let found = read(b"groups:\n- name: \xff\n");
    assert_eq!((found[0].line, found[0].column), (2, 9), "{found:?}");
    let found = read(b"groups: [] # \x07\n# \x08\n");
    assert_eq!(found.iter().map(|p| p.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn templates_are_those_of_alerting_rules_alone() {
    let checks = Checks::new(&any_expr);
    let text = "groups:\n- name: a\n  labels: {l: '{{'}\n  rules:\n  - {record: b, expr: up, labels: {l: '{{'}}\n  - {alert: b, expr: up, labels: {l: '{{'}, annotations: {a: '{{'}}\n";
    let found = RuleFile::parse(text.as_bytes(), &checks).unwrap_err();
    let keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "groups[0].rules[1].labels.l",
            "groups[0].rules[1].annotations.a"
        ]
    );
}

#[test]
fn only_thanos_knows_what_becomes_of_partial_answers() {
    let mut checks = Checks::new(&any_expr);
    let text = |strategy: &str| {
        format!("groups: [{{name: a, partial_response_strategy: {strategy}}}]").into_bytes()
    };
    let refused = RuleFile::parse(&text("warn"), &checks).unwrap_err();
    assert!(refused[0].message.contains("only Thanos"), "{refused:?}");
    checks.thanos = true;
    let read = |strategy| {
        let parsed = RuleFile::parse(&text(strategy), &checks);
        parsed.map(|parsed| parsed.file.groups[0].partial_response)
    };
    assert_eq!(read("WARN"), Ok(Some(PartialResponse::Warn)));
    assert_eq!(read("abort"), Ok(Some(PartialResponse::Abort)));
    assert_eq!(read("''"), Ok(None));
    assert!(
        read("wran").unwrap_err()[0]
            .message
            .contains("warn or abort")
    );
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let expr = |text: &str| match text {
        "odd" => Ok(CheckedExpr {
            lints: vec![(Lint::RateOfGauge, "it is odd".to_owned())],
            places: None,
        }),
        _ => any_expr(text),
    };
    let text = "groups:
- name: a
  labels: {x: '1', y: '1'}
  rules:
  - {record: r, expr: up, labels: {x: '2'}}
  - {record: r, expr: odd, labels: {y: '2'}}
  - {alert: s, expr: up}
  - {alert: t, expr: up, labels: {severity: page}}
- name: b
  labels: {severity: page}
  rules:
  - {record: r, expr: up, labels: {x: '2', y: '1'}}
  - {alert: u, expr: up}
- name: c
  rules:
  - {record: r, expr: up, labels: {y: '1', x: '2'}}
";
    let parsed = RuleFile::parse(text.as_bytes(), &Checks::new(&expr)).unwrap();
    let found: Vec<_> = parsed
        .warnings
        .iter()
        .map(|w| (w.problem.line, w.lint))
        .collect();
    let expected = [
        (6, Lint::RateOfGauge),
        (7, Lint::NoSeverity),
        (16, Lint::DuplicateRules),
    ];
    assert_eq!(found, expected, "{:#?}", parsed.warnings);
}

#[test]
fn unknown_keys_can_be_notes() {
    let mut checks = Checks::new(&any_expr);
    checks.ignore_unknown = true;
    let text = b"groups: [{name: a, owner: b, rules: [{record: c, expr: up, why: d}]}]\nx: y";
    let parsed = RuleFile::parse(text, &checks).unwrap();
    assert_eq!(parsed.warnings.len(), 3, "{:?}", parsed.warnings);
    assert_eq!(parsed.file.rules(), 1);
}

#[test]
fn names_of_old_can_be_demanded() {
    let checks = Checks {
        names: Names::Legacy,
        ..Checks::new(&any_expr)
    };
    let text = "groups: [{name: a, labels: {a.b: c}, rules: [{record: a-b, expr: up}]}]";
    assert_eq!(
        RuleFile::parse(text.as_bytes(), &checks).unwrap_err().len(),
        2
    );
}

#[test]
fn arbitrary_text_never_panics() {
    use proptest::prelude::*;
    proptest!(|(text in "[\\PC\n\t {}\\[\\]:,&*!|>'\"%#?-]{0,200}")| {
        let _ = parse(&text);
    });
}
