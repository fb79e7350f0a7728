//! Rules made at random from the grammar of expressions and templates: whatever a source lets pass reads
//! series of its tenant alone, in parsers with and without the features that rulers can enable.

use metrifold_promql::{Expr, MatchOp, NodeKind, Options, parse};
use metrifold_rules::{Checks, Template};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::{Strategy, Union};
use serde_json::json;

use super::*;
use crate::rules::{Feature, checker};

const FEATURES: [Feature; 3] = [
    Feature::PromqlExperimentalFunctions,
    Feature::PromqlBinopFillModifiers,
    Feature::PromqlUnquotedUtf8Names,
];

fn text(of: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(of).prop_map(str::to_owned)
}

fn selector() -> impl Strategy<Value = String> + Clone {
    let name = text(&[
        "up",
        "secret",
        "a:b",
        "bool5",
        "http.requests",
        "offset_",
        "tenant_id",
        "sum",
        "inf",
        "",
    ]);
    let label = text(&[
        "tenant_id",
        "job",
        "__name__",
        "\"a.b\"",
        "\"tenant_id\"",
        "\"tenant\\x5fid\"",
        "service.name",
    ]);
    let value = text(&[
        "\"a\"",
        "'b'",
        "`.*`",
        "\".+\"",
        "\"\"",
        "\"x\\\"}\"",
        "'{'",
        "`}`",
        "\"a|b\"",
        "\"\\u0061\"",
        "'#'",
    ]);
    let matcher = (label, text(&["=", "!=", "=~", "!~", " = "]), value)
        .prop_map(|(label, op, value)| format!("{label}{op}{value}"));
    let quoted = text(&["\"secret\"", "'up'", "\"http.requests\""]);
    let matcher = prop_oneof![9 => matcher, 1 => quoted];
    let matchers = prop::collection::vec(matcher, 0..4);
    let space = text(&["", " ", "\n", " # {\n"]);
    (name, prop::option::of(matchers), space, any::<bool>()).prop_map(
        |(name, matchers, space, comma)| match matchers {
            None => name,
            Some(matchers) => {
                let comma = if comma && !matchers.is_empty() {
                    ","
                } else {
                    ""
                };
                format!("{name}{space}{{{}{comma}{space}}}", matchers.join(", "))
            }
        },
    )
}

fn modified(of: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let behind = text(&[
        "",
        "",
        "",
        " offset 5m",
        " offset -1h",
        " @ 5",
        " @ end()",
        " offset 1h @ start()",
        " offset (5m+1m)",
    ]);
    (of, behind).prop_map(|(of, behind)| of + &behind)
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => modified(selector()),
        1 => text(&["1", ".5", "0x1f", "Inf", "vector(1)", "time()", "scalar(up)", "pi()", "\"s\""]),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let range = (
            selector(),
            text(&[
                "[5m]",
                "[5m:1m]",
                "[5m+1m]",
                "[5m] smoothed",
                "[1h] anchored",
            ]),
        )
            .prop_map(|(of, range)| of + &range);
        let subquery = inner.clone().prop_map(|of| format!("({of})[1h:5m]"));
        let range = modified(prop_oneof![3 => range, 1 => subquery]);
        let of_range = text(&[
            "rate",
            "increase",
            "last_over_time",
            "absent_over_time",
            "mad_over_time",
            "count_over_time",
        ]);
        let call = text(&[
            "abs",
            "absent",
            "sort",
            "timestamp",
            "-",
            "+",
            "",
            "info",
            "scalar",
            "sgn",
        ]);
        let aggregate = text(&[
            "sum",
            "sum by (job)",
            "count without (tenant_id)",
            "topk(2, ",
            "limitk(1, ",
            "max by (a.b)",
            "SUM",
        ]);
        let op = text(&[
            " + ",
            "/",
            " and ",
            " or ",
            " unless ",
            " == bool ",
            " == bool.5 + ",
            " > BOOL.5 or ",
            " ^ ",
            " % ",
            " / on (job) group_left (x) ",
            " * ignoring (tenant_id) ",
            " + fill(0) ",
            " atan2 ",
            ">=",
            " trim_upper ",
        ]);
        let pair = (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a}{op}{b}"));
        let joined =
            (inner.clone(), selector()).prop_map(|(of, data)| format!("info({of}, {data})"));
        let replaced = inner
            .clone()
            .prop_map(|of| format!("label_replace({of}, \"tenant_id\", \"a\", \"job\", \".*\")"));
        prop_oneof![
            3 => (of_range, range).prop_map(|(call, range)| format!("{call}({range})")),
            3 => (call, inner.clone()).prop_map(|(call, of)| format!("{call}({of})")),
            3 => (aggregate, inner).prop_map(|(of, inner)| match of.strip_suffix(' ') {
                Some(of) => format!("{of} {inner})"),
                None => format!("{of} ({inner})"),
            }),
            4 => pair,
            1 => joined,
            1 => replaced,
        ]
    })
}

/// Templates that query by an expression, of which some cannot be known before they are evaluated.
fn template() -> impl Strategy<Value = String> {
    let around = [
        "{{ query Q }}",
        "{{ Q | query | len }}",
        "{{ (query (Q)) | first | value }}",
        "{{ $q := Q }}{{ query $q }}",
        "{{ $q := Q }}{{ if true }}{{ $q = \"secret\" }}{{ end }}{{ query $q }}",
        "{{ define \"x\" }}{{ query Q }}{{ end }}{{ template \"x\" }}",
        "{{ define \"x\" }}{{ query . }}{{ end }}{{ template \"x\" Q }}",
        "{{ with Q }}{{ query . }}{{ end }}",
        "{{ range query Q }}{{ .Value }}{{ end }}",
        "{{ printf \"%s\" Q | query }}",
        "{{ query (printf \"%s\" Q) }}",
        "{{- /* query */ -}} {{ call query Q }}",
        "{{ and Q (query Q) }}",
        "{{ block \"b\" Q }}{{ query . }}{{ end }}",
        "{{ if eq 1 1 }}{{ else with query Q }}{{ . }}{{ end }}",
    ];
    let around = Union::new(around.map(Just));
    (around, expression(), any::<bool>()).prop_map(|(around, query, raw)| {
        let quoted = match raw && !query.contains('`') {
            true => format!("`{query}`"),
            false => json!(query).to_string(),
        };
        around.replace('Q', &quoted)
    })
}

/// What an expression reads beyond the series with the tenant's matcher, if a parser accepts it.
fn beyond(text: &str, options: &Options) -> Option<String> {
    let expr: Expr = parse(text, options).ok()?;
    for (_, node) in expr.nodes() {
        match &node.kind {
            NodeKind::Selector(selector) => {
                let is_own = selector.matchers.iter().any(|matcher| {
                    matcher.op == MatchOp::Equal
                        && matcher.name.to_str() == Some("tenant_id")
                        && matcher.value.to_str() == Some("a")
                });
                if !is_own {
                    return Some(format!("a selector of {text}"));
                }
            }
            // Without a selector, it reads every `target_info`.
            NodeKind::Call(call) if call.function.name == "info" && call.arguments.len() < 2 => {
                return Some(format!("info in {text}"));
            }
            _ => {}
        }
    }
    None
}

/// As [`beyond`], of every parser that a ruler can have.
fn beyond_in_any(text: &str) -> Option<String> {
    let all = crate::promql::options();
    let unquoted = Options {
        unquoted_names: true,
        ..all
    };
    beyond(text, &all).or_else(|| beyond(text, &unquoted))
}

/// Whether the transform lets a rule pass, and what it then reads of others.
fn passes(rule: &serde_json::Value, features: &[Feature]) -> (bool, Option<String>) {
    let file = json!({ "groups": [{ "name": "g", "labels": rule["labels"], "rules": [rule] }] });
    let expr = checker(features);
    let Ok(parsed) = RuleFile::parse(file.to_string().as_bytes(), &Checks::new(&*expr)) else {
        return (false, None);
    };
    let file = Arc::new(StoredFile::new(parsed.file));
    let rules = Arc::new(TenantRules::new([("f".into(), file)]));
    let transform = super::tests::transform(None);
    let Ok(made) = transform.apply(&Tenant::from("a"), &rules) else {
        return (false, None);
    };
    let mut found = None;
    let mut look = |query: &str| {
        found = found.take().or_else(|| beyond_in_any(query));
    };
    let file = made.file("f").unwrap();
    for group in &file.file().groups {
        for rule in &group.rules {
            look(&rule.expr);
            let annotations = rule.alerting().map(|alerting| &alerting.annotations);
            let texts = [Some(&group.labels), Some(&rule.labels), annotations];
            for (_, text) in texts.into_iter().flatten().flat_map(|labels| labels.iter()) {
                let Ok(template) = Template::parse(text, "A") else {
                    continue;
                };
                let mapped = template.map_queries(&mut |query| {
                    look(query);
                    Ok(query.to_owned())
                });
                assert!(mapped.is_ok(), "a query that is not known: {text}");
            }
        }
    }
    (true, found)
}

/// Number of rules of each kind.
const CASES: u32 = 4000;

fn run(strategy: impl Strategy<Value = serde_json::Value>, least: u32) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let passed = std::cell::Cell::new(0);
    let ran = runner.run(&(strategy, any::<bool>()), |(rule, stock)| {
        let features = if stock { &[][..] } else { &FEATURES };
        let (is_passed, read) = passes(&rule, features);
        passed.set(passed.get() + u32::from(is_passed));
        prop_assert_eq!(read, None, "{}", rule);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
    assert!(passed.get() > least, "only {} were let pass", passed.get());
}

#[test]
fn no_expression_reads_series_of_others() {
    let rules = expression().prop_map(|expr| json!({ "record": "r", "expr": expr }));
    run(rules, CASES / 20);
}

#[test]
fn no_template_reads_series_of_others() {
    let rules = (template(), template()).prop_map(|(one, two)| {
        json!({
            "alert": "A",
            "expr": "up",
            "labels": { "one": one },
            "annotations": { "two": two },
        })
    });
    run(rules, CASES / 200);
}

#[test]
fn what_reads_series_of_others_would_be_found() {
    let own = "up{tenant_id=\"a\"}";
    assert_eq!(beyond_in_any(own), None);
    for hostile in [
        "up".to_owned(),
        format!("{own} or secret"),
        "up{tenant_id=~\"a\"}".to_owned(),
        format!("info({own})"),
        format!("{own} == bool.5"),
    ] {
        assert!(beyond_in_any(&hostile).is_some(), "{hostile}");
    }
}
