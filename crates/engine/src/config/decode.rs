//! Decodes tables into components and reports every error of a table.
//!
//! Serde stops at the first error. The key at fault is therefore removed from a copy of the table,
//! or replaced by a value that serde accepts, and the copy is read again until it is accepted.

use std::cell::Cell;
use std::ops::Range;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde_path_to_error::Track;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

use metrifold_base::Problem;
use metrifold_base::keys::{Entry, Keys, Listed, list};

use super::path::{KeyPath, Step, Under};
use super::tables::RootKeys;
use super::{suggest, words};

/// The most errors that are reported for one table.
const MAX_ERRORS: usize = 50;

/// An error in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path of the key at fault; empty for the table itself.
    pub(crate) path: String,
    /// Statement of the problem.
    pub(crate) message: String,
    /// Place of the key or value; `None` for the table itself.
    pub(crate) span: Option<Range<usize>>,
    pub(crate) help: Option<String>,
}

impl From<Problem> for Finding {
    /// Makes a finding without a place.
    fn from(problem: Problem) -> Self {
        Self {
            path: problem.path,
            message: problem.message,
            span: None,
            help: problem.help,
        }
    }
}

impl Finding {
    /// The message, with the full name of the key in front.
    pub(crate) fn describe(&self, table: &str) -> String {
        let dot = match self.path.starts_with('[') || self.path.is_empty() {
            true => "",
            false => ".",
        };
        format!("{table}{dot}{}: {}", self.path, self.message)
    }
}

/// Reason why one attempt to read a table failed.
#[derive(Debug)]
pub(crate) struct Failure {
    path: KeyPath,
    message: String,
    /// Whether the component type does not exist.
    pub(crate) unknown_type: bool,
}

/// An error message of serde's, parsed.
enum Complaint<'a> {
    UnknownKey(&'a str, Vec<&'a str>),
    UnknownValue(&'a str, Vec<&'a str>),
    Missing(&'a str),
    Other(&'a str),
}

/// Reads the externally tagged `{type_name: table}`.
pub(crate) fn component<'de, T: Deserialize<'de>>(
    type_name: &str,
    table: DeTable<'de>,
) -> Result<T, Failure> {
    let mut track = Track::new();
    let reached = Cell::new(false);
    let entry = Tagged {
        type_name: Some(type_name),
        value: Some(Spanned::new(0..0, DeValue::Table(table))),
        track: &mut track,
        reached: &reached,
    };
    T::deserialize(TaggedDeserializer(entry)).map_err(|error| Failure {
        path: KeyPath::tracked(&track.path()),
        message: error.message().to_owned(),
        unknown_type: !reached.get(),
    })
}

/// Reads a table that is not a component.
pub(crate) fn plain<'de, T: Deserialize<'de>>(table: DeTable<'de>) -> Result<T, Failure> {
    let value = Spanned::new(0..0, DeValue::Table(table));
    serde_path_to_error::deserialize(ValueDeserializer::from(value)).map_err(|error| Failure {
        path: KeyPath::tracked(error.path()),
        message: error.inner().message().to_owned(),
        unknown_type: false,
    })
}

/// Reads a table, and repeatedly if it has errors, until all of them are found. `entries` are its
/// keys. Those in `removed` were taken out earlier, for errors of their own, and are not reported as
/// missing.
pub(crate) fn all_errors<'i, T>(
    table: &DeTable<'i>,
    removed: &[KeyPath],
    entries: &'static [Entry],
    read: &dyn Fn(DeTable<'i>) -> Result<T, Failure>,
) -> Result<T, Vec<Finding>> {
    let failure = match read(table.clone()) {
        Ok(value) if removed.is_empty() => return Ok(value),
        Ok(_) => return Err(Vec::new()),
        Err(failure) => failure,
    };
    let (mut table, mut removed) = (table.clone(), removed.to_vec());
    let keys = &*list(entries);
    let mut findings: Vec<Finding> = Vec::new();
    let mut next = Some(failure);
    for _ in 0..MAX_ERRORS {
        let failure = match next.take().map_or_else(|| read(table.clone()), Err) {
            Ok(_) => return Err(findings),
            Err(failure) => failure,
        };
        match complaint(&failure.message) {
            Complaint::Missing(field) => {
                let path = failure.path.join(field);
                let shown = path.before_removal(&removed);
                if !removed.contains(&shown) {
                    findings.push(missing(&failure.path, &shown, field, &table, keys));
                    removed.push(shown);
                }
                if fill(&mut table, &path, keys, read) {
                    continue;
                }
                // No value fits, so the enclosing table is removed.
                match failure.path.remove(&mut table) {
                    Some(path) => removed.push(path.before_removal(&removed)),
                    None => return Err(findings),
                }
            }
            complaint => {
                findings.push(describe(&complaint, &failure.path, &removed, &table));
                let mut path = failure.path;
                if let Complaint::UnknownKey(key, expected) = &complaint {
                    let around = around(&path, key, &table);
                    path = around.join(key);
                    if let Some(meant) = suggest::meant(key, expected) {
                        // The misspelt key stands for this one, which is not missing then.
                        removed.push(around.before_removal(&removed).join(meant));
                    }
                }
                match path.remove(&mut table) {
                    Some(path) => removed.push(path.before_removal(&removed)),
                    None => return Err(findings),
                }
            }
        }
    }
    Err(findings)
}

/// Inserts a value for a missing key so that the reader gets past it.
fn fill<'i, T>(
    table: &mut DeTable<'i>,
    path: &KeyPath,
    keys: &[Listed],
    read: &dyn Fn(DeTable<'i>) -> Result<T, Failure>,
) -> bool {
    let name = path.to_string();
    let example = keys
        .iter()
        .find(|key| key.name == name)
        .and_then(|key| key.default.example());
    let guesses = [
        "\"x\"",
        "\"127.0.0.1:1\"",
        "\"http://localhost\"",
        "\"1s\"",
        "\"1MiB\"",
        "1",
        "true",
        "[]",
        "[\"x\"]",
        "{}",
    ];
    for text in example.into_iter().chain(guesses) {
        let Ok(value) = DeValue::parse(text) else {
            continue;
        };
        let value = Spanned::new(0..0, value.into_inner());
        let mut filled = table.clone();
        if !path.set(&mut filled, value) {
            return false;
        }
        let accepted = match read(filled.clone()) {
            Ok(_) => true,
            Err(failure) => {
                let at = match complaint(&failure.message) {
                    Complaint::Missing(field) => failure.path.join(field),
                    _ => failure.path.clone(),
                };
                // An error about the table as a whole may be caused by the inserted value.
                !at.starts_with(path) && (!at.0.is_empty())
            }
        };
        if accepted {
            *table = filled;
            return true;
        }
    }
    false
}

fn missing(
    table_path: &KeyPath,
    shown: &KeyPath,
    field: &str,
    table: &DeTable<'_>,
    keys: &[Listed],
) -> Finding {
    let name = shown.to_string();
    let example = keys.iter().find(|key| key.name == name);
    let example = example.and_then(|key| key.default.example());
    let around = shown
        .split_last()
        .map(|(around, _)| around)
        .unwrap_or_default();
    Finding {
        path: around.to_string(),
        message: format!("key `{field}` is missing"),
        span: table_path.locate(table, Under::Key),
        help: Some(match example {
            Some(text) => format!("add {field} = {text}"),
            None => format!("add `{field}`"),
        }),
    }
}

/// The table that contains an unknown key; serde's path sometimes ends with the key and sometimes
/// with the table.
fn around(path: &KeyPath, key: &str, table: &DeTable<'_>) -> KeyPath {
    let below = path.join(key);
    if below.remove(&mut table.clone()).as_ref() == Some(&below) {
        return path.clone();
    }
    match path.split_last() {
        Some((around, Step::Key(last))) if last == key => around,
        _ => path.clone(),
    }
}

fn describe(
    complaint: &Complaint<'_>,
    path: &KeyPath,
    removed: &[KeyPath],
    table: &DeTable<'_>,
) -> Finding {
    let (message, help) = match complaint {
        Complaint::UnknownKey(key, expected) => {
            let around = around(path, key, table);
            let span = around.join(key).locate(table, Under::Key);
            return Finding {
                path: around.before_removal(removed).to_string(),
                message: format!("unknown key `{key}`"),
                span,
                help: Some(match is_of_the_file(key) {
                    true => {
                        format!("move `{key}` to the top of the file, in front of its first table")
                    }
                    false => choices(key, expected, "known keys"),
                }),
            };
        }
        Complaint::UnknownValue(value, expected) => (
            format!("unknown value `{value}`"),
            Some(choices(value, expected, "possible values")),
        ),
        Complaint::Missing(text) | Complaint::Other(text) => (words::of(text), None),
    };
    Finding {
        path: path.before_removal(removed).to_string(),
        message,
        span: path.locate(table, Under::Value),
        help,
    }
}

/// Whether it is a key of the file, which in TOML ends up in whichever table it stands behind.
fn is_of_the_file(key: &str) -> bool {
    list(RootKeys::ENTRIES).iter().any(|it| it.name == key)
}

/// Help text with the most similar name, or with all names.
pub(crate) fn choices(wrong: &str, names: &[&str], what: &str) -> String {
    match suggest::meant(wrong, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "none is possible here".to_owned(),
        None => format!("{what}: {}", suggest::by_relevance(wrong, names)),
    }
}

/// Parses the first line of an error message; further lines are ignored.
fn complaint(message: &str) -> Complaint<'_> {
    let line = message.lines().next().unwrap_or_default();
    let quoted = |start: &str| -> Option<(&str, Vec<&str>)> {
        let rest = line.strip_prefix(start)?.strip_prefix('`')?;
        // The name may contain anything, the list behind it may not.
        let (name, expected) = ["`, expected ", "`, there are no "]
            .iter()
            .find_map(|between| rest.rsplit_once(between))?;
        Some((name, expected.split('`').skip(1).step_by(2).collect()))
    };
    if let Some((key, expected)) = quoted("unknown field ") {
        Complaint::UnknownKey(key, expected)
    } else if let Some((value, expected)) = quoted("unknown variant ") {
        Complaint::UnknownValue(value, expected)
    } else if let Some(field) = line
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
    {
        Complaint::Missing(field)
    } else {
        Complaint::Other(line)
    }
}

/// A map with one entry, whose value keeps its span.
struct Tagged<'a, 'de> {
    type_name: Option<&'a str>,
    value: Option<Spanned<DeValue<'de>>>,
    track: &'a mut Track,
    reached: &'a Cell<bool>,
}

struct TaggedDeserializer<'a, 'de>(Tagged<'a, 'de>);

impl<'de> Deserializer<'de> for TaggedDeserializer<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier
        ignored_any
    }
}

impl<'de> MapAccess<'de> for Tagged<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.type_name.take() else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        self.reached.set(true);
        let Some(value) = self.value.take() else {
            return Err(serde::de::Error::custom("the value was read twice"));
        };
        let value = ValueDeserializer::from(value);
        seed.deserialize(serde_path_to_error::Deserializer::new(value, self.track))
    }
}

#[cfg(test)]
mod tests;
