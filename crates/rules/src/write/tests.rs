//! Parsing the canonical text gives the same file.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::PromDuration;
use crate::file::{Alerting, Checks, Kind, Lint, PartialResponse, Warning, any_expr};

pub(crate) fn read(text: &str) -> RuleFile {
    let checks = Checks {
        thanos: true,
        ..Checks::new(&any_expr)
    };
    let parsed = RuleFile::parse(text.as_bytes(), &checks);
    let parsed = parsed.unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"));
    let ignored = |warning: &Warning| warning.lint == Lint::Ignored;
    assert!(
        !parsed.warnings.iter().any(ignored),
        "{:?}",
        parsed.warnings
    );
    parsed.file
}

/// Texts with characters that are hard to quote, and arbitrary ones.
pub(crate) fn hard() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n"),
        Just(" "),
        Just("\t"),
        Just(": "),
        Just("#"),
        Just("'"),
        Just("\""),
        Just("\\"),
        Just("- "),
        Just("{{ $value }}"),
        Just("null"),
        Just("é"),
        Just("\u{85}"),
        Just("\u{2028}"),
        Just("\u{feff}"),
        Just("\u{7f}"),
        Just("\u{0}"),
        Just("🦀"),
        Just("\r"),
        Just("5"),
        Just("~"),
        Just("a"),
        Just("<<"),
        Just("\u{ffff}"),
    ];
    prop_oneof![
        prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat()),
        any::<String>()
            .prop_filter("empty", |text| !text.is_empty())
            // Two braces would begin an action of a template.
            .prop_map(|text| text.replace("{", "{ ")),
        "[a-z_:]{1,20}",
    ]
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof![Just(String::new()), hard()];
    prop::collection::btree_map(hard(), value, 0..4).prop_map(|mut map| {
        map.remove("__name__");
        map.into_iter().collect()
    })
}

fn duration() -> impl Strategy<Value = Option<PromDuration>> {
    prop::option::of(
        (1u64..10_000_000_000).prop_map(|millis| PromDuration::from_millis(millis).unwrap()),
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let alerting =
        (duration(), duration(), labels()).prop_map(|(hold, keep_firing_for, annotations)| {
            Kind::Alerting(Arc::new(Alerting {
                hold,
                keep_firing_for,
                annotations,
            }))
        });
    let kind = prop_oneof![Just(Kind::Recording), alerting];
    (hard(), hard(), labels(), kind).prop_map(|(name, expr, labels, kind)| Rule {
        name: match kind {
            Kind::Recording => name.replace(['{', '}'], "_"),
            Kind::Alerting(_) => name,
        }
        .into(),
        expr: expr.into(),
        labels,
        kind,
    })
}

pub(crate) fn file() -> impl Strategy<Value = RuleFile> {
    let group = (
        hard(),
        duration(),
        duration(),
        any::<i64>(),
        prop::option::of(prop_oneof![
            Just(PartialResponse::Warn),
            Just(PartialResponse::Abort)
        ]),
        labels(),
        prop::collection::vec(rule(), 0..4),
    )
        .prop_map(
            |(name, interval, query_offset, limit, partial_response, labels, rules)| Group {
                name,
                interval,
                query_offset,
                limit,
                partial_response,
                labels,
                rules,
            },
        );
    prop::collection::vec(group, 0..4).prop_map(|mut groups| {
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups.dedup_by(|a, b| a.name == b.name);
        RuleFile { groups }
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(file in file()) {
        let text = file.to_yaml();
        prop_assert_eq!(&read(&text), &file, "{}", text);
        prop_assert_eq!(read(&text).to_yaml(), text);
    }
}

#[test]
fn a_file_is_written_as_people_write_it() {
    let text = "groups:
  - name: node
    interval: 1m30s
    limit: 5
    labels:
      source: 'a b'
    rules:
      - record: 'instance:up:sum'
        expr: 'sum(up{job=\"x\"})'
      - alert: Down
        expr: |-
          up
            == 0

          # twice
        for: 5m
        annotations:
          text: |
            It is down.
            Look there.
          tab: \"a\\tb\"
  - name: empty
    query_offset: 0s
    rules: []
";
    let file = read(text);
    let written = file.to_yaml();
    // Annotations are sorted.
    let (tab, block) = (
        "          tab: \"a\\tb\"\n",
        "          text: |\n            It is down.\n            Look there.\n",
    );
    assert_eq!(
        written,
        text.replace(&format!("{block}{tab}"), &format!("{tab}{block}"))
    );
    assert_eq!(RuleFile::default().to_yaml(), "groups: []\n");
}

#[test]
fn a_key_that_readers_would_not_find_the_end_of_is_marked() {
    let mut file = read("groups: [{name: abc}]");
    let long = "ä".repeat(2000);
    file.groups[0].labels = [(long, "x")].into_iter().collect();
    assert!(file.to_yaml().contains("? 'ää"));
    assert_eq!(read(&file.to_yaml()), file);
}
