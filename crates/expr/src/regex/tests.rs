use serde::Deserialize;

use super::*;
use crate::relabel::template::Template;

#[derive(Deserialize)]
struct Entry {
    pattern: String,
    ok: bool,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    templates: Vec<String>,
    #[serde(default)]
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    r#in: String,
    #[serde(default)]
    r#match: Option<Vec<i64>>,
    #[serde(default)]
    out: Vec<String>,
}

/// `../../tests/data/golden.go` says what stands in it.
const GOLDEN: &str = include_str!("../../tests/data/regex.jsonl");

fn indexes(regex: &Regex, text: &str) -> Option<Vec<i64>> {
    let mut locations = regex.locations();
    regex.captures(text.as_bytes(), &mut locations).then(|| {
        (0..regex.groups())
            .flat_map(|group| match locations.get(group) {
                Some((start, end)) => [start as i64, end as i64],
                None => [-1, -1],
            })
            .collect()
    })
}

#[test]
fn patterns_compile_match_and_expand_as_in_go() {
    let mut lines = GOLDEN.lines();
    let inputs: Vec<String> = serde_json::from_str(lines.next().unwrap()).unwrap();
    let mut wrong = Vec::new();
    let (mut patterns, mut checks) = (0, 0);
    for line in lines {
        let entry: Entry = serde_json::from_str(line).unwrap();
        let pattern = &entry.pattern;
        patterns += 1;
        let regex = match Regex::new(pattern) {
            Ok(regex) => regex,
            Err(error) => {
                if entry.ok {
                    wrong.push(format!("{pattern:?}: {error}"));
                }
                assert!(error.offset <= pattern.len(), "{pattern:?}: {error}");
                continue;
            }
        };
        if !entry.ok {
            wrong.push(format!("{pattern:?}: accepted"));
            continue;
        }
        let names: Vec<_> = regex
            .names
            .iter()
            .map(|n| n.as_deref().unwrap_or(""))
            .collect();
        assert_eq!(names, entry.names, "{pattern:?}");
        let mut check = |input: &str, expected: &Option<Vec<i64>>| {
            checks += 1;
            let matched = regex.is_match(input.as_bytes());
            let found = indexes(&regex, input);
            if matched != expected.is_some() || &found != expected {
                wrong.push(format!(
                    "{pattern:?} on {input:?}: {found:?}, {matched} by {:?}, Go {expected:?}",
                    regex.matcher
                ));
            }
        };
        for case in &entry.cases {
            check(&case.r#in, &case.r#match);
        }
        if entry.templates.is_empty() {
            for input in &inputs {
                if !entry.cases.iter().any(|case| &case.r#in == input) {
                    check(input, &None);
                }
            }
        }
        let mut locations = regex.locations();
        for case in entry.cases.iter().filter(|case| case.r#match.is_some()) {
            regex.captures(case.r#in.as_bytes(), &mut locations);
            for (text, expected) in entry.templates.iter().zip(&case.out) {
                checks += 1;
                let template = Template::new(text, &regex);
                let mut out = Vec::new();
                template.expand(case.r#in.as_bytes(), &locations, &mut out);
                let out = String::from_utf8(out).unwrap();
                if out != *expected {
                    wrong.push(format!(
                        "{pattern:?} on {:?} with {text:?}: {out:?}, Go {expected:?}",
                        case.r#in
                    ));
                }
                if let Some(constant) = template.constant() {
                    assert_eq!(constant, expected.as_bytes());
                }
            }
        }
    }
    assert!(patterns > 2000 && checks > 60_000, "{patterns} {checks}");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn the_errors_name_the_place() {
    for (pattern, offset) in [
        ("a(b", 1),
        ("ab)", 2),
        ("a[b", 1),
        (r"ab\q", 2),
        ("a**", 2),
        ("a{1001}", 1),
        ("(?x)a", 0),
        ("a[c-b]", 2),
        (r"a\p{Foo}", 1),
        ("日(?P<n", 3),
    ] {
        assert_eq!(Regex::new(pattern).unwrap_err().offset, offset, "{pattern}");
    }
}

#[test]
fn patterns_are_bounded() {
    let deep = |n| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert!(Regex::new(&deep(MAX_DEPTH)).is_ok());
    assert!(Regex::new(&deep(MAX_DEPTH + 1)).is_err());
    assert!(Regex::new(&deep(MAX_LEN)).is_err());
    assert!(Regex::new(&"a".repeat(MAX_LEN)).is_ok());
    assert!(Regex::new(&"a".repeat(MAX_LEN + 1)).is_err());
    assert!(Regex::new(r"(?:\pL{1000}|b){1}(?:\pL{1000}){1}\pL{1000}").is_err());
    let many = format!("a{}", "(?i)*".repeat(5));
    assert!(Regex::new(&many).is_ok());
}

#[test]
fn plain_patterns_need_no_automaton() {
    let name = |pattern: &str| match Regex::new(pattern).unwrap().matcher {
        Matcher::Any => "any",
        Matcher::NonEmpty => "nonempty",
        Matcher::Exact(_) => "exact",
        Matcher::OneOf(_) => "oneof",
        Matcher::Set(_) => "set",
        Matcher::Prefix(_) => "prefix",
        Matcher::Suffix(_) => "suffix",
        Matcher::Contains(_) => "contains",
        Matcher::AnyOf(_) => "anyof",
        Matcher::Regex(_) => "regex",
    };
    for (pattern, expected) in [
        ("(.*)", "any"),
        ("(?:(.+))", "nonempty"),
        ("up", "exact"),
        ("", "exact"),
        (r"a\.b", "exact"),
        ("(up|down)", "oneof"),
        ("node_(cpu|mem)_[ab]", "oneof"),
        ("a[0-9]", "set"),
        ("go_gc_.*", "prefix"),
        (".*_total", "suffix"),
        (".*_gc_.*", "contains"),
        ("go_.*|.*_total|up", "anyof"),
        ("(go|node)_.*", "anyof"),
        ("(?i)up", "oneof"),
        ("(?i)ups", "set"),
        ("(?-s)go_.*", "regex"),
        (r"\d+", "regex"),
        ("go_.+", "regex"),
    ] {
        assert_eq!(name(pattern), expected, "{pattern}");
    }
}

#[derive(Deserialize)]
struct Tables {
    categories: Vec<String>,
    aliases: std::collections::BTreeMap<String, String>,
    scripts: Vec<String>,
    samples: std::collections::BTreeMap<String, Option<Vec<[u32; 2]>>>,
}

#[test]
fn unicode_classes_hold_what_they_hold_in_go() {
    let text = include_str!("../../tests/data/unicode.json");
    let tables: Tables = serde_json::from_str(text).unwrap();
    // What is assigned since is not Go's yet.
    let known = regex::Regex::new(r"\A\p{age=15.0}\z").unwrap();
    for name in tables.categories.iter().chain(&tables.scripts) {
        let class = Regex::new(&format!(r"\p{{{name}}}")).unwrap();
        let ranges = tables.samples[name].as_deref().unwrap_or_default();
        let end = ranges.last().map_or(0, |range| range[1]);
        let mut ranges = ranges.iter().peekable();
        for c in ('\0'..=char::from_u32(end).unwrap()).take(70_000) {
            while ranges.next_if(|range| range[1] < c as u32).is_some() {}
            let expected = ranges.peek().is_some_and(|range| range[0] <= c as u32);
            let text = c.to_string();
            if name != "Cn" && !known.is_match(&text) {
                continue;
            }
            if class.is_match(text.as_bytes()) != expected && known.is_match(&text) {
                panic!("{name} {c:?} {expected}");
            }
        }
    }
    for (alias, to) in &tables.aliases {
        let compiled = Regex::new(&format!(r"\p{{{alias}}}")).unwrap();
        let same = Regex::new(&format!(r"\p{{{to}}}")).unwrap();
        for c in ["a", "A", "1", "٣", "é", " ", "\n", "ǅ", "_", "€", "\u{301}"] {
            assert_eq!(compiled.is_match(c.as_bytes()), same.is_match(c.as_bytes()));
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_pattern_makes_it_panic_and_what_is_translated_compiles(
        pattern in r"([\[\](){}|*+?^$.\\a-cA-CQEpPxdDwW0-9:<>!,é&~-]|\(\?|\[\[:|\\p\{|\\Q|\{1,|[\PC]){0,24}"
    ) {
        match Regex::new(&pattern) {
            Ok(regex) => {
                for text in ["", "a", "aé0-", &pattern] {
                    let matched = indexes(&regex, text).is_some();
                    assert_eq!(regex.is_match(text.as_bytes()), matched, "{pattern:?} {text:?}");
                }
            }
            // The translator explains every refusal itself; the crate's messages span lines.
            Err(error) => assert!(!error.reason.contains('\n'), "{pattern:?}: {error}"),
        }
        let _ = crate::matchers::Matchers::parse(&pattern);
    }
}
