//! Prometheus' form of targets in files and over HTTP, and lists with one target per line.
//!
//! As in Prometheus, one wrong entry refuses the whole text: half of an answer would look like
//! targets that have gone. JSON and YAML are read as strictly as Prometheus reads them
//! (`tests/file_sd.rs` compares the verdicts).

mod json;
mod yaml;

use std::collections::BTreeMap;

use super::answer::{Failure, Reason};
use super::labels::{ADDRESS, Labels, LabelsBuilder, Target};
use super::limits::Limits;

/// A `file_sd` group: addresses of targets and the labels that they share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) targets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl Group {
    /// Adds its targets to `into`. Labels in `meta` take precedence over the group's.
    pub(crate) fn into_targets(self, meta: &[(&str, &str)], into: &mut Vec<Labels>) {
        let mut common = LabelsBuilder::default();
        for (name, value) in self.labels {
            common.push(name, value);
        }
        for (name, value) in meta {
            common.push(*name, *value);
        }
        into.extend(self.targets.into_iter().map(|address| {
            let mut labels = common.clone();
            labels.push(ADDRESS, address);
            labels.build()
        }));
    }
}

/// The targets of all groups, within the limit on their number.
pub(crate) fn targets(
    groups: Vec<Group>,
    meta: &[(&str, &str)],
    limits: &Limits,
) -> Result<Vec<Labels>, Failure> {
    // Checked before the labels of a group are copied for each of its targets.
    limits.check_count(groups.iter().map(|group| group.targets.len()).sum())?;
    let mut targets = Vec::new();
    for group in groups {
        group.into_targets(meta, &mut targets);
    }
    Ok(targets)
}

/// Reads JSON: a list of groups.
pub(crate) fn from_json(text: &[u8]) -> Result<Vec<Group>, Failure> {
    json::read(text).map_err(invalid)
}

/// Reads YAML: a list of groups.
pub(crate) fn from_yaml(text: &[u8]) -> Result<Vec<Group>, Failure> {
    yaml::read(text).map_err(invalid)
}

/// Reads one target per line. Empty lines and those that begin with `#` are skipped.
pub(crate) fn from_lines(text: &[u8]) -> Result<Vec<Group>, Failure> {
    let text = std::str::from_utf8(text).map_err(invalid)?;
    let mut group = Group::default();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains(char::is_whitespace) || line.contains(char::is_control) {
            return Err(invalid(format!(
                "line {}: a target has no space in it: write one per line",
                at + 1
            )));
        }
        group.targets.push(line.to_owned());
    }
    Ok(vec![group])
}

fn invalid(reason: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::Invalid, reason)
}

/// Writes JSON: targets whose labels are equal but for the address form a group, sorted by labels
/// and then by address, one group per line. Copies no labels but to the text, for which `room` bytes
/// are expected: there may be many targets.
pub fn to_json<'a>(targets: impl Iterator<Item = &'a Target>, room: usize) -> Vec<u8> {
    let mut targets: Vec<&Target> = targets.collect();
    targets.sort_unstable_by(|a, b| {
        let by_labels = others(a).cmp(others(b));
        by_labels.then_with(|| a.address().cmp(b.address()))
    });
    targets.dedup();
    if targets.is_empty() {
        return b"[]\n".to_vec();
    }
    let mut text = Vec::with_capacity(room);
    text.push(b'[');
    let groups = targets.chunk_by(|a, b| others(a).eq(others(b)));
    for (at, group) in groups.enumerate() {
        let start: &[u8] = if at == 0 { b"\n  {" } else { b",\n  {" };
        text.extend_from_slice(start);
        let mut before: &[u8] = b"\"labels\":{";
        for (name, value) in others(group[0]) {
            text.extend_from_slice(before);
            push_text(&mut text, name);
            text.push(b':');
            push_text(&mut text, value);
            before = b",";
        }
        if before == b"," {
            text.extend_from_slice(b"},");
        }
        let mut before: &[u8] = b"\"targets\":[";
        for target in group {
            text.extend_from_slice(before);
            push_text(&mut text, target.address());
            before = b",";
        }
        text.extend_from_slice(b"]}");
    }
    text.extend_from_slice(b"\n]\n");
    text
}

/// All labels but the address.
fn others(target: &Labels) -> impl Iterator<Item = (&str, &str)> {
    target.iter().filter(|(name, _)| *name != ADDRESS)
}

/// Writes a JSON string.
fn push_text(text: &mut Vec<u8>, value: &str) {
    // Writing to a `Vec` cannot fail.
    let _ = serde_json::to_writer(text, value);
}

/// Writes one address per line, sorted and without duplicates.
pub fn to_lines<'a>(targets: impl Iterator<Item = &'a Target>) -> String {
    let mut addresses: Vec<&str> = targets.map(|target| target.address()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
        .iter()
        .flat_map(|address| [*address, "\n"])
        .collect()
}

/// A group as it was read: addresses, and the labels that they share.
type ReadGroup = (Vec<String>, BTreeMap<String, String>);

/// Reads a text as JSON or YAML, for the comparison with Prometheus.
#[doc(hidden)]
pub fn verdict(text: &[u8], yaml: bool) -> Result<Vec<ReadGroup>, String> {
    let groups = match yaml {
        true => from_yaml(text),
        false => from_json(text),
    };
    let groups = groups.map_err(|failure| failure.text)?;
    Ok(groups
        .into_iter()
        .map(|group| (group.targets, group.labels))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn lines_are_targets_and_a_space_in_one_costs_all() {
        let groups = from_lines(b"\xef\xbb\xbfa:1\r\n\n  # none\n b:2 \n").unwrap();
        assert_eq!(groups[0].targets, ["a:1", "b:2"]);
        assert_eq!(from_lines(b"").unwrap()[0].targets, Vec::<String>::new());
        let error = from_lines(b"a:1\nb:2 c:3\n").unwrap_err();
        assert!(error.text.starts_with("line 2: "), "{error}");
        assert!(from_lines(b"\xff").is_err());
    }

    #[test]
    fn what_is_written_is_sorted_grouped_and_read_back() {
        let target = |pairs: &[(&str, &str)]| Arc::new(pairs.iter().copied().collect::<Labels>());
        let targets = [
            target(&[(ADDRESS, "b:1"), ("env", "x")]),
            target(&[(ADDRESS, "c:1")]),
            target(&[(ADDRESS, "a:1"), ("env", "x")]),
        ];
        let text = String::from_utf8(to_json(targets.iter(), 0)).unwrap();
        assert_eq!(
            text,
            "[\n  {\"targets\":[\"c:1\"]},\n  {\"labels\":{\"env\":\"x\"},\"targets\":[\"a:1\",\"b:1\"]}\n]\n"
        );
        let groups = from_json(text.as_bytes()).unwrap();
        let mut read = super::targets(groups, &[], &Limits::default()).unwrap();
        read.sort();
        let mut sorted: Vec<Labels> = targets.iter().map(|it| (**it).clone()).collect();
        sorted.sort();
        assert_eq!(read, sorted);
        assert_eq!(to_json([].iter(), 0), b"[]\n");
        assert_eq!(to_lines(targets.iter()), "a:1\nb:1\nc:1\n");
    }

    #[test]
    fn a_label_of_the_answer_cannot_pass_for_where_it_came_from() {
        let text = br#"[{"targets":["a:1"],"labels":{"__meta_url":"x","__address__":"y","e":""}}]"#;
        let groups = from_json(text).unwrap();
        let targets = super::targets(groups, &[("__meta_url", "u")], &Limits::default()).unwrap();
        let expected = [(ADDRESS, "a:1"), ("__meta_url", "u")];
        assert_eq!(targets, [expected.into_iter().collect()]);
    }
}
