//! Groups in YAML.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Group;

/// A group as it is written. Keys are case-sensitive, and a repeated key is an error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    targets: Option<Vec<Option<String>>>,
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// Reads a list of groups.
pub(super) fn read(text: &[u8]) -> Result<Vec<Group>, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let groups: Option<Vec<Option<Written>>> =
        serde_saphyr::from_str(text).map_err(|error| error.without_snippet().to_string())?;
    let groups = groups.unwrap_or_default().into_iter().enumerate();
    groups
        .map(|(at, group)| {
            let group = group.ok_or_else(|| format!("group {at} is null"))?;
            let targets = group.targets.unwrap_or_default().into_iter();
            let labels = group.labels.unwrap_or_default().into_iter();
            let group = Group {
                targets: targets.map(Option::unwrap_or_default).collect(),
                labels: labels
                    .map(|(name, value)| (name, value.unwrap_or_default()))
                    .collect(),
            };
            match group.labels.contains_key("") {
                true => Err(format!("group {at}: a label has no name")),
                false => Ok(group),
            }
        })
        .collect()
}
