//! Groups in JSON, as Go reads them: keys in any case, `null` for an absent value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::Group;

/// Reads a list of groups.
pub(super) fn read(text: &[u8]) -> Result<Vec<Group>, String> {
    // Go puts the replacement character in the place of bytes that are not UTF-8.
    let text = String::from_utf8_lossy(text);
    let groups: Option<Vec<Option<Group>>> =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let groups = groups.unwrap_or_default().into_iter().enumerate();
    groups
        .map(|(at, group)| group.ok_or_else(|| format!("group {at} is null")))
        .collect()
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(GroupVisitor)
    }
}

struct GroupVisitor;

impl<'de> Visitor<'de> for GroupVisitor {
    type Value = Group;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group with the keys targets and labels")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Group, A::Error> {
        let mut group = Group::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if folded(&key) == "targets" {
                let targets: Option<Vec<Option<String>>> = map.next_value()?;
                let targets = targets.unwrap_or_default().into_iter();
                group.targets = targets.map(Option::unwrap_or_default).collect();
            } else if folded(&key) == "labels" {
                let labels: Option<BTreeMap<String, Option<String>>> = map.next_value()?;
                let labels = labels.unwrap_or_default().into_iter();
                group.labels = labels
                    .map(|(name, value)| (name, value.unwrap_or_default()))
                    .collect();
                if group.labels.contains_key("") {
                    return Err(A::Error::custom("a label has no name"));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
                let text = format!("unknown key {key:?}: a group has targets and labels");
                return Err(A::Error::custom(text));
            }
        }
        Ok(group)
    }
}

/// The name of a key as Go compares it: in lower case, with the two letters beyond ASCII that fold
/// to an ASCII letter.
fn folded(key: &str) -> String {
    let plain = key.chars().map(|c| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    plain.collect()
}
