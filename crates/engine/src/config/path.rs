//! Paths of keys, and their places in a file.

use std::fmt;
use std::ops::Range;

use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A step from a table or array to one of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// The way from a component's table to a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyPath(pub(crate) Vec<Step>);

/// The part of an entry that a caret marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Key,
    Value,
}

impl KeyPath {
    /// Parses a path such as `tls.ca_file` or `rules[2].regex`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let mut pieces = part.split('[');
            let key = pieces.next().unwrap_or_default();
            if !key.is_empty() {
                steps.push(Step::Key(key.to_owned()));
            }
            for piece in pieces {
                if let Ok(index) = piece.trim_end_matches(']').parse() {
                    steps.push(Step::Index(index));
                }
            }
        }
        Self(steps)
    }

    /// Converts a tracked path, up to its first unknown step.
    pub(crate) fn tracked(path: &serde_path_to_error::Path) -> Self {
        let steps = path.iter().map_while(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        });
        Self(steps.collect())
    }

    /// The path of a key below this one.
    pub(crate) fn join(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The path of the enclosing table or array, and the last step.
    pub(crate) fn split_last(&self) -> Option<(Self, &Step)> {
        let (last, rest) = self.0.split_last()?;
        Some((Self(rest.to_vec()), last))
    }

    /// Whether this path is `other` or below it.
    pub(crate) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The span of the entry, or of its nearest parent that exists; `None` for the component
    /// itself.
    pub(crate) fn locate(&self, table: &DeTable<'_>, under: Under) -> Option<Range<usize>> {
        let mut found = None;
        let mut here: Option<&Spanned<DeValue<'_>>> = None;
        for (depth, step) in self.0.iter().enumerate() {
            let next = match (step, here.map(Spanned::get_ref)) {
                (Step::Key(key), None) if depth == 0 => table.get_key_value(key.as_str()),
                (Step::Key(key), Some(DeValue::Table(table))) => table.get_key_value(key.as_str()),
                (Step::Index(index), Some(DeValue::Array(array))) => {
                    let Some(item) = array.get(*index) else { break };
                    found = Some((None, item));
                    here = Some(item);
                    continue;
                }
                _ => None,
            };
            let Some((key, value)) = next else { break };
            found = Some((Some(key.span()), value));
            here = Some(value);
        }
        let (key, value) = found?;
        let exact = key.is_some() && under == Under::Key;
        // A table is marked at its name: its own span may be a header or many lines.
        let by_name = exact || matches!(value.get_ref(), DeValue::Table(_));
        Some(key.filter(|_| by_name).unwrap_or_else(|| value.span()))
    }

    /// Removes the entry, or its nearest parent that exists; returns the path of what was removed.
    pub(crate) fn remove(&self, table: &mut DeTable<'_>) -> Option<Self> {
        for length in (1..=self.0.len()).rev() {
            let path = Self(self.0[..length].to_vec());
            let (parent, last) = path.split_last()?;
            let removed = match (parent.value_mut(table), last) {
                (Some(Holder::Table(table)), Step::Key(key)) => {
                    table.remove(key.as_str()).is_some()
                }
                (Some(Holder::Value(DeValue::Table(table))), Step::Key(key)) => {
                    table.remove(key.as_str()).is_some()
                }
                (Some(Holder::Value(DeValue::Array(array))), Step::Index(index)) => {
                    let exists = *index < array.len();
                    if exists {
                        let rest = array.iter().enumerate().filter(|(at, _)| at != index);
                        *array = rest.map(|(_, value)| value.clone()).collect();
                    }
                    exists
                }
                _ => false,
            };
            if removed {
                return Some(path);
            }
        }
        None
    }

    /// This path with the array indexes from before the elements at `removed` were removed.
    pub(crate) fn before_removal(&self, removed: &[Self]) -> Self {
        let mut original = Self::default();
        for step in &self.0 {
            let step = match step {
                Step::Key(key) => Step::Key(key.clone()),
                Step::Index(index) => {
                    let mut gone: Vec<usize> = removed
                        .iter()
                        .filter_map(|path| match path.0.split_last()? {
                            (Step::Index(at), parent) if *parent == *original.0 => Some(*at),
                            _ => None,
                        })
                        .collect();
                    gone.sort_unstable();
                    Step::Index(
                        gone.iter()
                            .fold(*index, |at, gone| at + usize::from(*gone <= at)),
                    )
                }
            };
            original.0.push(step);
        }
        original
    }

    /// Sets a key if the table that contains it exists; returns whether it did.
    pub(crate) fn set<'i>(&self, table: &mut DeTable<'i>, value: Spanned<DeValue<'i>>) -> bool {
        let Some((parent, Step::Key(key))) = self.split_last() else {
            return false;
        };
        let holder = match parent.value_mut(table) {
            Some(Holder::Table(table) | Holder::Value(DeValue::Table(table))) => table,
            _ => return false,
        };
        holder.insert(Spanned::new(value.span(), key.clone().into()), value);
        true
    }

    fn value_mut<'t, 'i>(&self, table: &'t mut DeTable<'i>) -> Option<Holder<'t, 'i>> {
        let mut here = Holder::Table(table);
        for step in &self.0 {
            let next = match (here, step) {
                (Holder::Table(table) | Holder::Value(DeValue::Table(table)), Step::Key(key)) => {
                    table.get_mut(key.as_str())
                }
                (Holder::Value(DeValue::Array(array)), Step::Index(index)) => array.get_mut(*index),
                _ => None,
            };
            here = Holder::Value(next?.get_mut());
        }
        Some(here)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A container of keys or elements: the component's own table, or a value in it.
enum Holder<'t, 'i> {
    Table(&'t mut DeTable<'i>),
    Value(&'t mut DeValue<'i>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\nrules = [{ regex = 'x' }, { regex = 'y' }]\n[tls]\nca_file = 'f'\n";

    fn found(path: &str, under: Under) -> Option<&'static str> {
        let table = DeTable::parse(TEXT).unwrap();
        let span = KeyPath::parse(path).locate(table.get_ref(), under)?;
        Some(&TEXT[span])
    }

    #[test]
    fn paths_are_found_or_their_nearest_parents() {
        assert_eq!(found("a", Under::Value), Some("1"));
        assert_eq!(found("a", Under::Key), Some("a"));
        assert_eq!(found("rules[1].regex", Under::Value), Some("'y'"));
        assert_eq!(
            found("rules[1].action", Under::Value),
            Some("{ regex = 'y' }")
        );
        assert_eq!(found("tls.ca_file", Under::Value), Some("'f'"));
        assert_eq!(found("tls.key_file", Under::Value), Some("tls"));
        assert_eq!(found("queue.max_bytes", Under::Value), None);
        assert_eq!(found("", Under::Value), None);
    }

    #[test]
    fn removal_takes_the_nearest_parent_that_exists() {
        let mut table = DeTable::parse(TEXT).unwrap().into_inner();
        let mut remove = |path: &str| {
            KeyPath::parse(path)
                .remove(&mut table)
                .map(|p| p.to_string())
        };
        assert_eq!(remove("rules[0].regex").as_deref(), Some("rules[0].regex"));
        assert_eq!(remove("rules[0].regex").as_deref(), Some("rules[0]"));
        assert_eq!(remove("rules[0].regex").as_deref(), Some("rules[0].regex"));
        assert_eq!(remove("tls.x").as_deref(), Some("tls"));
        assert_eq!(remove("tls.x"), None);
    }
}
