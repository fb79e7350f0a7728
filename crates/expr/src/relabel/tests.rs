use proptest::prelude::*;

use metrifold_base::Problems;
use metrifold_codec::Arena;
use metrifold_codec::testing::{Labels, arena_v1, arena_v2, labels, leaves_v1, leaves_v2};

use metrifold_regex::{Regex, Template};

use super::*;

fn compile(rules: &[RuleConfig]) -> Result<Program, Vec<String>> {
    let mut problems = Problems::new(false);
    let program = Program::compile(rules, Validation::Utf8, "rules", &mut problems);
    let list = problems.into_list().into_iter();
    let list: Vec<_> = list.map(|p| format!("{}: {}", p.path, p.message)).collect();
    assert_eq!(program.is_none(), !list.is_empty(), "{list:?}");
    program.ok_or(list)
}

/// Parses a list of rules in TOML.
fn rules(text: &str) -> Vec<RuleConfig> {
    #[derive(serde::Deserialize)]
    struct Rules {
        rules: Vec<RuleConfig>,
    }
    toml::from_str::<Rules>(text).unwrap().rules
}

/// Labels edited as Prometheus edits them: the original ones, the removed ones, and the added ones
/// in the order of addition.
#[derive(Default)]
struct Naive {
    base: Labels,
    added: Vec<(String, String)>,
}

impl Naive {
    fn get(&self, name: &str) -> String {
        let added = self.added.iter().find(|(other, _)| other == name);
        let found = added
            .map(|(_, value)| value)
            .or_else(|| self.base.get(name));
        found.cloned().unwrap_or_default()
    }

    fn set(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.added.retain(|(other, _)| other != name);
            self.base.remove(name);
        } else if let Some(added) = self.added.iter_mut().find(|(other, _)| other == name) {
            added.1 = value.into();
        } else {
            self.base.remove(name);
            self.added.push((name.into(), value.into()));
        }
    }

    fn all(&self) -> Vec<(String, String)> {
        let base = self.base.iter().map(|(n, v)| (n.clone(), v.clone()));
        base.chain(self.added.iter().cloned()).collect()
    }

    fn relabel(&mut self, rule: &RuleConfig) -> bool {
        let regex = Regex::new(rule.regex.as_deref().unwrap_or("(.*)")).unwrap();
        let values: Vec<_> = rule
            .source_labels
            .iter()
            .flatten()
            .map(|l| self.get(l))
            .collect();
        let value = values.join(rule.separator.as_deref().unwrap_or(";"));
        let target = rule.target_label.as_deref().unwrap_or_default();
        let replacement = rule.replacement.as_deref().unwrap_or("$1");
        // None without a match; does not use the matcher under test.
        let expand = |template: &str, text: &str| {
            let mut locations = regex.locations();
            regex.captures(text.as_bytes(), &mut locations).then(|| {
                let mut out = Vec::new();
                Template::new(template, &regex).expand(text.as_bytes(), &locations, &mut out);
                String::from_utf8(out).unwrap()
            })
        };
        let matches = |text: &str| expand("", text).is_some();
        match rule.action {
            Action::Keep => return matches(&value),
            Action::Drop => return !matches(&value),
            Action::KeepEqual => return self.get(target) == value,
            Action::DropEqual => return self.get(target) != value,
            Action::Replace => {
                if let Some(name) = expand(target, &value).filter(|name| !name.is_empty()) {
                    self.set(&name, &expand(replacement, &value).unwrap());
                }
            }
            Action::HashMod => {
                let digest = md5::Digest::finalize({
                    let mut hasher = md5::Md5::default();
                    md5::Digest::update(&mut hasher, &value);
                    hasher
                });
                let number = digest[8..].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
                self.set(target, &(number % rule.modulus.unwrap()).to_string());
            }
            Action::Lowercase => self.set(target, &value.to_ascii_lowercase()),
            Action::Uppercase => self.set(target, &value.to_ascii_uppercase()),
            Action::LabelMap => {
                for (name, value) in self.all() {
                    if let Some(to) = expand(replacement, &name).filter(|to| !to.is_empty()) {
                        self.set(&to, &value);
                    }
                }
            }
            Action::LabelDrop | Action::LabelKeep => {
                for (name, _) in self.all() {
                    if matches(&name) == (rule.action == Action::LabelDrop) {
                        self.set(&name, "");
                    }
                }
            }
        }
        true
    }
}

fn naive(rules: &[RuleConfig], labels: &Labels) -> Option<Labels> {
    let mut naive = Naive {
        base: labels.clone(),
        ..Naive::default()
    };
    let kept = rules.iter().all(|rule| naive.relabel(rule));
    let labels: Labels = naive.all().into_iter().collect();
    (kept && !labels.is_empty()).then_some(labels)
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "__name__", "a", "ab", "b", "c", "instance", "job", "le", "é", "z",
    ])
    .prop_map(String::from)
}

fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "", "a", "b", "ab", "aab", "up", "go_gc_x", "go_gc_", "x_total", "foo:80", "A b", "12",
    ])
    .prop_map(String::from)
}

fn series() -> impl Strategy<Value = Labels> {
    let filled = || value().prop_filter("empty", |value| !value.is_empty());
    let labels = prop::collection::btree_map(name(), filled(), 0..8);
    (labels, filled()).prop_map(|(mut labels, name)| {
        labels.entry("__name__".into()).or_insert(name);
        labels
    })
}

fn rule() -> impl Strategy<Value = RuleConfig> {
    let regex = prop::sample::select(vec![
        "(.*)",
        "(.+)",
        "",
        "a",
        "a|b",
        "a|b|ab|up|12",
        "go_gc_.*",
        ".*_total",
        ".*a.*",
        "(.*):(.*)",
        "(a*)(b?)",
        "(?i)A.*",
        r"\d+",
        "(a|ab|b|c|job)",
        "(?P<n>.)(.*)",
        ".+;.*",
        "[^_].*",
        "__name__",
        "a.*|b",
        "le",
        "(.)(.*)",
    ]);
    let replacement = prop::sample::select(vec![
        "", "$1", "$2", "x", "$1_x", "${1}_x", "$n", "$2$1", "b", "a",
    ]);
    let target = prop::sample::select(vec![
        "a", "ab", "b", "__name__", "new", "$1", "${1}_t", "z", "${3}", "$$",
    ]);
    let actions = prop::sample::select(Action::ALL.to_vec());
    (
        actions,
        prop::option::of(prop::collection::vec(name(), 0..4)),
        prop::option::of(prop::sample::select(vec!["", ";", "-"])),
        prop::option::of(regex),
        1u64..20,
        target,
        prop::option::of(replacement),
    )
        .prop_map(
            |(action, source_labels, separator, regex, modulus, target, replacement)| {
                let text = |text: Option<&str>| text.map(String::from);
                let mut rule = RuleConfig {
                    source_labels,
                    separator: text(separator),
                    regex: text(regex),
                    modulus: Some(modulus),
                    target_label: text(Some(target)),
                    replacement: text(replacement),
                    action,
                };
                match action {
                    Action::KeepEqual | Action::DropEqual => {
                        rule = RuleConfig {
                            source_labels: rule.source_labels,
                            target_label: rule.target_label,
                            action,
                            ..RuleConfig::default()
                        }
                    }
                    Action::LabelDrop | Action::LabelKeep => {
                        rule = RuleConfig {
                            regex: rule.regex,
                            action,
                            ..RuleConfig::default()
                        }
                    }
                    Action::Lowercase | Action::Uppercase => rule.replacement = None,
                    Action::LabelMap if rule.replacement.as_deref() == Some("") => {
                        rule.replacement = None;
                    }
                    _ => {}
                }
                rule
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn programs_do_what_the_naive_model_does(
        batches in prop::collection::vec(prop::collection::vec(series(), 0..12), 1..4),
        rules in prop::collection::vec(rule(), 0..6),
    ) {
        let program = compile(&rules).unwrap();
        let mut scratch = program.scratch();
        for series in &batches {
            let expected: Vec<_> = series
                .iter()
                .enumerate()
                .filter_map(|(number, labels)| Some((naive(&rules, labels)?, number)))
                .collect();
            for mut arena in [arena_v1(series), arena_v2(series)] {
                apply(&program, &mut arena, &mut scratch);
                let left = arena.counts();
                prop_assert_eq!(left.series as usize, expected.len());
                prop_assert_eq!(left.samples, left.series);
                prop_assert_eq!(&leaves_v1(&arena), &expected);
                prop_assert_eq!(&leaves_v2(&arena), &expected);
            }
        }
    }
}

/// Relabels all series, like a walk over a batch.
fn apply(program: &Program, arena: &mut Arena, scratch: &mut Scratch) {
    scratch.begin();
    arena.retain(|series| program.run(series, scratch));
}

fn relabel(text: &str, pairs: &[(&str, &str)]) -> Option<Labels> {
    let program = compile(&rules(text)).unwrap();
    let mut arena = arena_v1(&[labels(pairs)]);
    apply(&program, &mut arena, &mut program.scratch());
    leaves_v1(&arena).pop().map(|(labels, _)| labels)
}

#[test]
fn hashmod_gives_the_buckets_of_prometheus() {
    // The last 16 digits of `printf %s foo | md5sum`, modulo N.
    for (value, modulus, bucket) in [("foo", 1000, "696"), ("", 7, "1")] {
        let rule = format!(
            "rules = [{{ source_labels = ['x'], action = 'hashmod', modulus = {modulus}, target_label = 'h' }}]"
        );
        let found = relabel(&rule, &[("__name__", "up"), ("x", value)]);
        assert_eq!(found.unwrap()["h"], bucket);
    }
}

#[test]
fn a_series_without_a_name_stays_and_one_without_labels_goes() {
    let found = relabel(
        "rules = [{ regex = '__name__', action = 'labeldrop' }]",
        &[("__name__", "up"), ("a", "b")],
    );
    assert_eq!(found, Some(labels(&[("a", "b")])));
    let found = relabel(
        "rules = [{ regex = '.*', action = 'LabelDrop' }]",
        &[("__name__", "up"), ("a", "b")],
    );
    assert_eq!(found, None);
}

#[test]
fn case_is_mapped_character_by_character() {
    let found = relabel(
        "rules = [{ source_labels = ['a'], target_label = 'u', action = 'uppercase' }, { source_labels = ['a'], target_label = 'l', action = 'lowercase' }]",
        &[("__name__", "up"), ("a", "straße İΣ")],
    );
    let found = found.unwrap();
    assert_eq!((&*found["u"], &*found["l"]), ("STRAßE İΣ", "straße iσ"));
}

#[test]
fn an_empty_pattern_matches_only_nothing() {
    let rule =
        "rules = [{ source_labels = ['a'], regex = '', target_label = 'b', replacement = 'none' }]";
    assert_eq!(relabel(rule, &[("__name__", "up")]).unwrap()["b"], "none");
    assert!(
        !relabel(rule, &[("__name__", "up"), ("a", "1")])
            .unwrap()
            .contains_key("b")
    );
}

#[test]
fn legacy_validation_refuses_names_that_utf8_takes() {
    for (text, utf8, legacy) in [
        ("a", true, true),
        ("_a1", true, true),
        ("1a", true, false),
        ("a.b", true, false),
        ("$1", true, true),
        ("${1}_b", true, true),
        ("a$1b", true, true),
        ("1$1", true, false),
        ("$", true, false),
        ("a$", true, false),
        ("${1", true, false),
        ("${}", true, false),
        ("a-$1", true, false),
        ("$$", true, false),
        ("${1}.b", true, false),
        ("", false, false),
    ] {
        for (validation, expected) in [(Validation::Utf8, utf8), (Validation::Legacy, legacy)] {
            let rule = RuleConfig {
                replacement: Some(text.into()),
                action: Action::LabelMap,
                ..RuleConfig::default()
            };
            let mut problems = Problems::new(false);
            let program = Program::compile(&[rule], validation, "rules", &mut problems);
            assert_eq!(program.is_some(), expected, "{text:?} {validation:?}");
        }
    }
}

#[test]
fn what_prometheus_refuses_is_refused_at_its_key() {
    let problem = |rule: &str| {
        compile(&rules(&format!("rules = [{rule}]")))
            .unwrap_err()
            .join("; ")
    };
    for (rule, expected) in [
        ("{}", "rules[0]: action replace needs target_label"),
        (
            "{ target_label = '' }",
            "rules[0].target_label: action replace needs target_label",
        ),
        (
            "{ target_label = 'a', regex = '(' }",
            "rules[0].regex: invalid regular expression at byte 0: group is not closed: add )",
        ),
        (
            "{ action = 'hashmod', target_label = 'a' }",
            "rules[0]: action hashmod needs a modulus above 0",
        ),
        (
            "{ action = 'hashmod', target_label = 'a', modulus = 0 }",
            "rules[0].modulus: action hashmod needs a modulus above 0",
        ),
        (
            "{ action = 'labeldrop', source_labels = [] }",
            "rules[0].source_labels: action labeldrop takes no source_labels",
        ),
        (
            "{ action = 'labelkeep', separator = '' }",
            "rules[0].separator: action labelkeep takes no separator",
        ),
        (
            "{ action = 'labelkeep', target_label = 'a' }",
            "rules[0].target_label: action labelkeep takes no target_label",
        ),
        (
            "{ action = 'labelmap', replacement = '' }",
            "rules[0].replacement: \"\" makes no label names for labelmap",
        ),
        (
            "{ action = 'keepequal', target_label = 'a', regex = '(.*)' }",
            "rules[0].regex: action keepequal takes no regex",
        ),
        (
            "{ action = 'dropequal', target_label = 'a', replacement = 'x' }",
            "rules[0].replacement: action dropequal takes no replacement",
        ),
        (
            "{ action = 'dropequal' }",
            "rules[0]: action dropequal needs target_label",
        ),
        (
            "{ action = 'uppercase', target_label = 'a', replacement = '' }",
            "rules[0].replacement: action uppercase takes no replacement",
        ),
        (
            "{ action = 'keep', source_labels = [''] }",
            "rules[0].source_labels[0]: \"\" is not a label name",
        ),
    ] {
        assert_eq!(problem(rule), expected, "{rule}");
    }
    for fine in [
        "{ action = 'keepequal', target_label = 'a', separator = ';', replacement = '$1' }",
        "{ action = 'LABELDROP', separator = ';', replacement = '$1', target_label = '' }",
        "{ action = 'keep', target_label = '' }",
    ] {
        assert!(
            compile(&rules(&format!("rules = [{fine}]"))).is_ok(),
            "{fine}"
        );
    }
    let error = toml::from_str::<RuleConfig>("action = 'dorp'").unwrap_err();
    assert!(
        error.message().contains("\"dorp\" is not a relabel action"),
        "{error}"
    );
    assert!(toml::from_str::<RuleConfig>("source_label = ['a']").is_err());
}

#[test]
fn nothing_that_stays_the_same_counts_as_an_edit() {
    let program = compile(&rules(
        "rules = [{ target_label = 'a', replacement = '1' }, { regex = 'zz', action = 'labeldrop' }, { source_labels = ['a'], target_label = 'a' }]",
    ))
    .unwrap();
    let mut arena = arena_v1(&[labels(&[("__name__", "up"), ("a", "1")])]);
    arena.mark_unchanged();
    apply(&program, &mut arena, &mut program.scratch());
    assert!(!arena.is_changed());
}
