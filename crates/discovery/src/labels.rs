//! The labels of a target: sorted, unique, none without a value.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The address to connect to, `host:port`.
pub(crate) const ADDRESS: &str = "__address__";

/// A target, described by its labels. A clone shares them.
pub type Target = Arc<Labels>;

/// Labels sorted by name, held in one string.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    text: Box<str>,
    /// End of each name and each value in `text`, alternating.
    ends: Box<[u32]>,
}

/// Builds [`Labels`] from pairs in any order. If a name is pushed twice, the last value holds.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl Labels {
    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.chunks_exact(2).map(move |ends| {
            let (name, value) = (ends[0] as usize, ends[1] as usize);
            let pair = (&self.text[start..name], &self.text[name..value]);
            start = value;
            pair
        })
    }

    /// The value of the label with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The address to connect to, empty if there is none.
    pub fn address(&self) -> &str {
        self.get(ADDRESS).unwrap_or_default()
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the text occurs in a name or in a value.
    pub fn contain(&self, text: &str) -> bool {
        self.iter()
            .any(|(name, value)| name.contains(text) || value.contains(text))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Labels as PromQL writes them.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl LabelsBuilder {
    /// Adds a label. A label with an empty value counts as absent, as everywhere in Prometheus.
    pub fn push(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.pairs.push((name.into(), value.into()));
        self
    }

    /// Sorts and deduplicates the labels, and leaves out those with an empty value.
    pub fn build(mut self) -> Labels {
        // Stable, so that the last value of a name stays behind its others.
        self.pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        let last_of_name = |at: usize| {
            let next = self.pairs.get(at + 1);
            next.is_none_or(|(name, _)| *name != self.pairs[at].0)
        };
        let kept = self.pairs.iter().enumerate();
        let kept: Vec<_> = kept
            .filter(|(at, (_, value))| last_of_name(*at) && !value.is_empty())
            .map(|(_, pair)| pair)
            .collect();
        let mut text = String::with_capacity(kept.iter().map(|(n, v)| n.len() + v.len()).sum());
        let mut ends = Vec::with_capacity(2 * kept.len());
        for (name, value) in kept {
            for part in [name, value] {
                text.push_str(part);
                ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
            }
        }
        Labels {
            text: text.into(),
            ends: ends.into(),
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.push(name, value);
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_unique_and_have_values() {
        let labels: Labels = [("b", "1"), ("a", "2"), ("c", ""), ("b", "3")]
            .into_iter()
            .collect();
        let pairs: Vec<_> = labels.iter().collect();
        assert_eq!(pairs, [("a", "2"), ("b", "3")]);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.to_string(), r#"{a="2", b="3"}"#);
        let emptied: Labels = [("a", "1"), ("a", "")].into_iter().collect();
        assert!(emptied.is_empty());
    }

    #[test]
    fn the_order_is_that_of_names_and_then_values() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
        let sorted = [
            of(&[]),
            of(&[("a", "1")]),
            of(&[("a", "1"), ("b", "1")]),
            of(&[("a", "10")]),
            of(&[("a", "2")]),
            of(&[("ab", "1")]),
        ];
        for pair in sorted.windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
    }
}
