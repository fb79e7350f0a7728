//! All files of a tenant as one document, and back; files as JSON.
//!
//! In a document of several files, a group of `rules.yaml` keeps its name, and a group of another file
//! is called `FILE/GROUP`. Slashes and percent signs in names are then escaped as `%2F` and `%25`, so
//! that each name is unambiguous. A document of `rules.yaml` alone is that file, unescaped.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use metrifold_rules::{Group, Kind, Rule, RuleFile};

/// Name of the file that a PUT of a tenant's document replaces.
pub(super) const MAIN: &str = "rules";

/// Joins files into one document.
pub(super) fn join<'f>(files: impl IntoIterator<Item = (&'f str, &'f RuleFile)>) -> RuleFile {
    let files: Vec<_> = files.into_iter().collect();
    if let [(MAIN, file)] = &files[..] {
        return (*file).clone();
    }
    let groups = files.iter().flat_map(|(name, file)| {
        file.groups.iter().map(move |group| Group {
            name: match *name {
                MAIN => escape(&group.name),
                name => format!("{}/{}", escape(name), escape(&group.name)),
            },
            ..group.clone()
        })
    });
    RuleFile {
        groups: groups.collect(),
    }
}

/// The part of a document that belongs to the file [`MAIN`], given the other files.
///
/// # Errors
///
/// Fails if the document adds or changes a group of another file.
pub(super) fn split(
    document: RuleFile,
    others: &BTreeMap<String, RuleFile>,
) -> Result<RuleFile, String> {
    if others.is_empty() {
        return Ok(document);
    }
    let mut groups = Vec::new();
    for group in document.groups {
        let Some((file, name)) = group.name.split_once('/') else {
            let name = unescape(&group.name)?;
            groups.push(Group { name, ..group });
            continue;
        };
        let (file, name) = (unescape(file)?, unescape(name)?);
        let there = others.get(&file);
        let there = there.and_then(|file| file.groups.iter().find(|group| group.name == name));
        let full = group.name.clone();
        if there != Some(&Group { name, ..group }) {
            return Err(format!(
                "group {full:?} belongs to the file {file:?} and differs from the group there: change it in that file, or leave it out"
            ));
        }
    }
    Ok(RuleFile { groups })
}

pub(super) fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

fn unescape(name: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        rest = match (after.strip_prefix("2F"), after.strip_prefix("25")) {
            (Some(after), _) => {
                out.push('/');
                after
            }
            (_, Some(after)) => {
                out.push('%');
                after
            }
            _ => {
                return Err(format!(
                    "name {name:?} contains a %, which is written %25 where a tenant has several files"
                ));
            }
        };
    }
    out.push_str(rest);
    Ok(out)
}

/// A file as JSON, with the keys of the YAML.
pub(super) fn to_json(file: &RuleFile) -> Value {
    json!({ "groups": file.groups.iter().map(group_to_json).collect::<Vec<_>>() })
}

/// A group as JSON.
pub(super) fn group_to_json(group: &Group) -> Value {
    let mut map = Map::new();
    map.insert("name".into(), json!(group.name));
    if let Some(interval) = group.interval {
        map.insert("interval".into(), json!(interval.to_string()));
    }
    if let Some(offset) = group.query_offset {
        map.insert("query_offset".into(), json!(offset.to_string()));
    }
    if group.limit != 0 {
        map.insert("limit".into(), json!(group.limit));
    }
    if let Some(strategy) = group.partial_response {
        map.insert("partial_response_strategy".into(), json!(strategy.as_str()));
    }
    if !group.labels.is_empty() {
        map.insert("labels".into(), json!(group.labels));
    }
    let rules: Vec<_> = group.rules.iter().map(rule_to_json).collect();
    map.insert("rules".into(), json!(rules));
    Value::Object(map)
}

fn rule_to_json(rule: &Rule) -> Value {
    let mut map = Map::new();
    let key = match rule.kind {
        Kind::Recording => "record",
        Kind::Alerting(_) => "alert",
    };
    map.insert(key.into(), json!(*rule.name));
    map.insert("expr".into(), json!(*rule.expr));
    if !rule.labels.is_empty() {
        map.insert("labels".into(), json!(rule.labels));
    }
    if let Some(alerting) = rule.alerting() {
        if let Some(hold) = alerting.hold {
            map.insert("for".into(), json!(hold.to_string()));
        }
        if let Some(keep) = alerting.keep_firing_for {
            map.insert("keep_firing_for".into(), json!(keep.to_string()));
        }
        if !alerting.annotations.is_empty() {
            map.insert("annotations".into(), json!(alerting.annotations));
        }
    }
    Value::Object(map)
}

/// Wraps a group's text as a file that `RuleFile::parse` reads. This shifts positions by one line and
/// four columns.
pub(super) fn wrap_group(text: &str) -> String {
    let text = text.strip_prefix("---\n").unwrap_or(text);
    let mut out = String::from("groups:\n");
    for (index, line) in text.lines().enumerate() {
        out.push_str(if index == 0 { "  - " } else { "    " });
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrifold_rules::{Checks, any_expr};

    fn file(text: &str) -> RuleFile {
        let parsed = RuleFile::parse(text.as_bytes(), &Checks::new(&any_expr));
        parsed
            .unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
            .file
    }

    fn named(groups: &[&str]) -> RuleFile {
        let groups = groups.iter().map(|name| Group {
            name: (*name).to_owned(),
            ..Group::default()
        });
        RuleFile {
            groups: groups.collect(),
        }
    }

    fn names(file: &RuleFile) -> Vec<&str> {
        file.groups.iter().map(|group| &*group.name).collect()
    }

    #[test]
    fn a_document_of_several_files_is_split_into_the_same() {
        let main = named(&["b/c", "x%y", "plain"]);
        let (a, ab) = (named(&["b.c", "b/c"]), named(&["c"]));
        let joined = join([(MAIN, &main), ("a", &a), ("a.b", &ab)]);
        assert_eq!(
            names(&joined),
            ["b%2Fc", "x%25y", "plain", "a/b.c", "a/b%2Fc", "a.b/c"]
        );
        let others = BTreeMap::from([("a".to_owned(), a), ("a.b".to_owned(), ab)]);
        assert_eq!(split(joined.clone(), &others), Ok(main.clone()));
        let mut changed = joined.clone();
        changed.groups[3].limit = 5;
        assert!(
            split(changed, &others)
                .unwrap_err()
                .contains("\"a/b.c\" belongs to the file \"a\"")
        );
        assert!(split(named(&["z/b"]), &others).is_err());
        assert!(split(named(&["100%"]), &others).is_err());
        // A single file is its own document.
        assert_eq!(join([(MAIN, &main)]), main);
        assert_eq!(split(main.clone(), &BTreeMap::new()), Ok(main));
    }

    #[test]
    fn json_and_single_groups_read_back_the_same() {
        let text = "groups:
- name: a
  interval: 1m30s
  query_offset: 0s
  limit: 3
  labels: {x: y}
  rules:
  - {record: r, expr: up, labels: {a: b}}
  - alert: s
    expr: |-
      up
        == 0
    for: 5m
    keep_firing_for: 1h
    annotations: {t: '{{ $value }}'}
";
        let whole = file(text);
        assert_eq!(file(&to_json(&whole).to_string()), whole);
        let alone = whole.groups[0].to_yaml();
        assert!(alone.starts_with("name: 'a'\n"), "{alone}");
        assert_eq!(file(&wrap_group(&alone)), whole);
        let json = group_to_json(&whole.groups[0]).to_string();
        assert_eq!(file(&wrap_group(&json)), whole);
    }
}
