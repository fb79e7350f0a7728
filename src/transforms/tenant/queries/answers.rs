//! Filters answers whose queries cannot be narrowed. Kept parts of an answer stay byte for byte,
//! with unknown fields.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use serde_json::value::RawValue;

use metrifold_model::{Rejection, RejectionKind};
use metrifold_promql::Matcher;

/// The label and the names of the tenants that may see an item.
pub(super) struct Owner {
    label: String,
    names: Vec<String>,
}

/// A JSON object with its fields in their original order.
struct Object<'a>(Vec<(String, Part<'a>)>);

/// A field's value: the original text, or a replacement.
enum Part<'a> {
    Kept(&'a RawValue),
    New(String),
}

impl Owner {
    pub(super) fn new(label: &str, names: &[&str]) -> Self {
        Self {
            label: label.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The matcher that narrows a selector to the tenants.
    pub(super) fn matcher(&self) -> Matcher {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        Matcher::one_of(&self.label, &names)
    }

    /// A regular expression that matches exactly the names.
    pub(super) fn pattern(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        Matcher::pattern_of(&names)
    }

    /// Keeps the tenants' rules, and the groups that have any.
    pub(super) fn rules(&self, answer: &[u8]) -> Result<Vec<u8>, Rejection> {
        edit(answer, "groups", |groups: Vec<&RawValue>| {
            let mut kept = Vec::new();
            for group in groups {
                let mut group = object(group.get())?;
                let rules: Vec<&RawValue> = group.read("rules")?;
                let mut own = Vec::new();
                for rule in rules {
                    if self.owns(rule)? {
                        own.push(self.rule(rule)?);
                    }
                }
                if !own.is_empty() {
                    group.replace("rules", list(&own));
                    kept.push(group.to_string());
                }
            }
            Ok(list(&kept))
        })
    }

    /// Keeps the tenants' alerts.
    pub(super) fn alerts(&self, answer: &[u8]) -> Result<Vec<u8>, Rejection> {
        edit(answer, "alerts", |alerts| self.own(alerts))
    }

    /// A rule of the tenants, with its alerts filtered: their label may come from a template and
    /// differ.
    fn rule(&self, rule: &RawValue) -> Result<String, String> {
        let mut rule = object(rule.get())?;
        if rule.get("alerts").is_some_and(|alerts| alerts != "null") {
            let alerts: Vec<&RawValue> = rule.read("alerts")?;
            let own = self.own(alerts)?;
            rule.replace("alerts", own);
        }
        Ok(rule.to_string())
    }

    /// The items that belong to the tenants, as a JSON list.
    fn own(&self, all: Vec<&RawValue>) -> Result<String, String> {
        let mut own = Vec::new();
        for one in all {
            if self.owns(one)? {
                own.push(one.get());
            }
        }
        Ok(list(&own))
    }

    /// Whether a rule or an alert has the label with one of the tenants' names.
    fn owns(&self, it: &RawValue) -> Result<bool, String> {
        let it = object(it.get())?;
        if it.get("labels").is_none_or(|labels| labels == "null") {
            return Ok(false);
        }
        let labels: BTreeMap<String, String> = it.read("labels")?;
        let value = labels.get(&self.label);
        Ok(value.is_some_and(|value| self.names.contains(value)))
    }
}

/// Keeps metadata of families that the tenant has series of, at most `limit` families.
pub(super) fn metadata(
    answer: &[u8],
    names: &[u8],
    limit: Option<usize>,
) -> Result<Vec<u8>, Rejection> {
    #[derive(Deserialize)]
    struct Names {
        data: Option<HashSet<String>>,
    }
    let names = serde_json::from_slice::<Names>(names).map_err(|error| strange(&error))?;
    let names = names.data.unwrap_or_default();
    let edited = || -> Result<String, String> {
        let mut answer = object(text(answer)?)?;
        let Object(mut families) = object(answer.get("data").ok_or("it has no data")?)?;
        families.retain(|(family, entries)| is_known(family, entries.text(), &names));
        families.truncate(limit.unwrap_or(usize::MAX));
        let kept = Object(families).to_string();
        answer.replace("data", kept);
        Ok(answer.to_string())
    };
    edited().map(Into::into).map_err(|error| strange(&error))
}

/// Whether series of a family exist: under its own name, or with a suffix of its type.
fn is_known(family: &str, entries: &str, names: &HashSet<String>) -> bool {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(rename = "type", default)]
        kind: String,
    }
    if names.contains(family) {
        return true;
    }
    let entries: Vec<Entry> = serde_json::from_str(entries).unwrap_or_default();
    let suffixes = entries.iter().flat_map(|entry| match &*entry.kind {
        "histogram" => &["_bucket", "_sum", "_count"][..],
        "gaugehistogram" => &["_bucket", "_gsum", "_gcount"],
        "summary" => &["_sum", "_count"],
        "counter" => &["_total"],
        "info" => &["_info"],
        _ => &[],
    });
    suffixes.into_iter().any(|suffix| {
        let name = format!("{family}{suffix}");
        names.contains(&name)
    })
}

/// Edits a list in the `data` of an answer.
fn edit<'a>(
    answer: &'a [u8],
    name: &str,
    edit: impl FnOnce(Vec<&'a RawValue>) -> Result<String, String>,
) -> Result<Vec<u8>, Rejection> {
    let edited = || -> Result<String, String> {
        let mut answer = object(text(answer)?)?;
        let mut data = object(answer.get("data").ok_or("it has no data")?)?;
        let edited = edit(data.read(name)?)?;
        data.replace(name, edited);
        let data = data.to_string();
        answer.replace("data", data);
        Ok(answer.to_string())
    };
    edited().map(Into::into).map_err(|error| strange(&error))
}

fn strange(error: &dyn fmt::Display) -> Rejection {
    let reason = format!("the answer cannot be filtered: {error}");
    Rejection::new(RejectionKind::Unreachable, reason)
}

fn text(answer: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(answer).map_err(|_| "it is not UTF-8".to_owned())
}

fn list(values: &[impl AsRef<str>]) -> String {
    let mut list = String::from("[");
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            list.push(',');
        }
        list.push_str(value.as_ref());
    }
    list.push(']');
    list
}

fn object(text: &str) -> Result<Object<'_>, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Part<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Kept(value) => value.get(),
            Self::New(text) => text,
        }
    }
}

impl<'a> Object<'a> {
    /// The original text of a field.
    fn get(&self, name: &str) -> Option<&'a str> {
        let (_, part) = self.0.iter().find(|(it, _)| it == name)?;
        match part {
            Part::Kept(value) => Some(value.get()),
            Part::New(_) => None,
        }
    }

    fn read<T: Deserialize<'a>>(&self, name: &str) -> Result<T, String> {
        let value = self.get(name).ok_or_else(|| format!("it has no {name}"))?;
        serde_json::from_str(value).map_err(|error| format!("{name}: {error}"))
    }

    fn replace(&mut self, name: &str, text: String) {
        if let Some((_, part)) = self.0.iter_mut().find(|(it, _)| it == name) {
            *part = Part::New(text);
        }
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, part)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            let name = serde_json::Value::from(name.as_str());
            write!(f, "{name}:{}", part.text())?;
        }
        f.write_str("}")
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, Part<'de>)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    fields.push((name, Part::Kept(value)));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(Self)
    }
}
