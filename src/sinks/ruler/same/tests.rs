//! Groups as files and as the answers of rulers.

use std::sync::Arc;

use serde_json::{Value, json};

use metrifold_rules::{Checks, RuleFile, StoredFile, TenantRules, any_expr};

use super::*;
use crate::sinks::ruler::client::Listing;

const FILE: &str = "\
groups:
- name: g
  interval: 1m
  limit: 7
  labels: { tenant: a }
  rules:
  - record: r
    expr: sum by (job) (rate(errors_total{code=~\"5..\"}[300s]))
  - alert: Down
    expr: up == 0
    for: 5m
    keep_firing_for: 90s
    labels: { severity: page, empty: '' }
    annotations: { summary: '{{ $labels.instance }} is down' }
";

fn set(text: &str) -> RuleSet {
    let checks = Checks::new(&any_expr);
    let file = RuleFile::parse(text.as_bytes(), &checks).unwrap().file;
    let file = (Arc::from("f"), Arc::new(StoredFile::new(file)));
    RuleSet::default().with("t".into(), Arc::new(TenantRules::new([file])))
}

/// The group of [`FILE`] as Prometheus lists it.
fn listed() -> Value {
    json!({
        "name": "g", "file": "/rules/t~f", "interval": 60, "limit": 7,
        "lastEvaluation": "2026-01-01T00:00:00Z",
        "rules": [
            {
                "name": "r", "query": "sum by (job) (rate(errors_total{code=~\"5..\"}[5m]))",
                "labels": { "tenant": "a" }, "health": "ok", "type": "recording",
            },
            {
                "name": "Down", "query": "up == 0", "duration": 300, "keepFiringFor": 90,
                "labels": { "severity": "page", "tenant": "a" },
                "annotations": { "summary": "{{ $labels.instance }} is down" },
                "lastError": "too many series", "type": "alerting", "alerts": [],
            },
        ],
    })
}

/// The groups that are found loaded, and the missing one.
fn found(set: &RuleSet, groups: &[Value]) -> (Vec<String>, Option<String>) {
    let answer = json!({ "status": "success", "data": { "groups": groups } }).to_string();
    let listing = Listing::of(answer);
    let own = listing.groups().unwrap().into_iter();
    let own = own.map(|group| ("t".to_owned(), "f".to_owned(), group));
    let (said, missing) = compare(set, own.collect(), |_, _| true).unwrap();
    (said.into_iter().map(|said| said.group).collect(), missing)
}

#[test]
fn a_group_is_the_one_that_the_ruler_prints_in_its_own_form() {
    let set = set(FILE);
    assert_eq!(found(&set, &[listed()]), (vec!["g".to_owned()], None));
    let missing = Some("group \"g\" of tenant \"t\"".to_owned());
    assert_eq!(found(&set, &[]), (Vec::new(), missing));
}

#[test]
fn any_field_of_another_version_is_noticed() {
    let set = set(FILE);
    let changes: [(&str, Value); 12] = [
        ("/interval", json!(30)),
        ("/limit", json!(0)),
        ("/rules/0/name", json!("other")),
        (
            "/rules/0/query",
            json!("sum by (job) (rate(errors_total[5m]))"),
        ),
        ("/rules/0/type", json!("alerting")),
        ("/rules/0/labels", json!({ "tenant": "b" })),
        ("/rules/0/labels", json!({})),
        ("/rules/0/labels", json!({ "tenant": "a", "more": "x" })),
        ("/rules/1/duration", json!(0)),
        ("/rules/1/keepFiringFor", json!(0)),
        ("/rules/1/annotations", json!({})),
        ("/rules", json!([])),
    ];
    for (pointer, value) in changes {
        let mut group = listed();
        *group.pointer_mut(pointer).unwrap() = value;
        let missing = Some("this version of group \"g\" of tenant \"t\"".to_owned());
        assert_eq!(found(&set, &[group]), (Vec::new(), missing), "{pointer}");
    }
}

#[test]
fn labels_that_a_thanos_ruler_adds_to_all_rules_are_no_difference() {
    let set = set(FILE);
    let mut group = listed();
    for rule in 0..2 {
        group["rules"][rule]["labels"]["ruler"] = json!("x");
    }
    assert_eq!(found(&set, &[group.clone()]).0.len(), 0);
    group["partialResponseStrategy"] = json!("ABORT");
    assert_eq!(found(&set, &[group.clone()]), (vec!["g".to_owned()], None));
    group["rules"][1]["labels"]["ruler"] = json!("y");
    assert_eq!(found(&set, &[group]).0.len(), 0);
}

#[test]
fn a_thanos_ruler_lists_rules_in_an_order_of_its_own() {
    let set = set(FILE);
    let mut group = listed();
    group["rules"].as_array_mut().unwrap().reverse();
    assert_eq!(found(&set, &[group.clone()]).0.len(), 0);
    group["partialResponseStrategy"] = json!("ABORT");
    assert_eq!(found(&set, &[group.clone()]), (vec!["g".to_owned()], None));
    group["rules"][1]["query"] = json!("up");
    assert_eq!(found(&set, &[group.clone()]).0.len(), 0);
    group["rules"].as_array_mut().unwrap().pop();
    assert_eq!(found(&set, &[group]).0.len(), 0);
}

#[test]
fn a_stored_group_is_compared_in_all_fields_or_in_its_rules() {
    let group = |text: &str| {
        let set = set(text);
        set.get("t").unwrap().file("f").unwrap().file().groups[0].clone()
    };
    let own = group(FILE);
    let printed = group(&FILE.replace("[300s]", "[5m]"));
    assert!(is_same(&own, &printed) && has_rules(&own, &printed));
    let shortened = group(&FILE.replace("    keep_firing_for: 90s\n", ""));
    assert!(!is_same(&own, &shortened) && has_rules(&own, &shortened));
    let other = group(&FILE.replace("up == 0", "up == 1"));
    assert!(!is_same(&own, &other) && !has_rules(&own, &other));
}
