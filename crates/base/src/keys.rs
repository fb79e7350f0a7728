//! Keys of the configuration: name, type, default and documentation of each, stated once.
//!
//! [`keys!`](crate::keys!) makes a struct, its deserialization and its table of [`Entry`]s from one
//! list, and [`words!`](crate::words!) does so for an enum that is written as a word. Reference
//! pages, `list`, `generate` and the JSON Schema are renderings of these tables. Nothing is
//! buffered in between, so that every error is at the key that caused it.

mod literal;
mod read;
mod shape;
mod statement;

pub use literal::{Literal, Pairs};
pub use read::{Keys, default_value, defaults, deserialize, word};
pub use shape::{Shape, Shaped};

/// A line of a table of keys.
#[derive(Clone, Copy, Debug)]
pub enum Entry {
    /// A key.
    Key(Key),
    /// Keys that are stated elsewhere and stand in the same table.
    Include(&'static [Entry]),
}

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// Its default, or what stands in for it.
    pub default: KeyDefault,
    /// What it does, with unit and bounds, in one sentence.
    pub doc: &'static str,
    /// What its value looks like.
    pub shape: Shape,
}

/// What holds when a key is absent. The text is TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// The key must be given; an example.
    Required(&'static str),
    /// This value.
    Value(&'static str),
    /// Nothing; an example.
    Unset(&'static str),
    /// Nothing; an example that a first configuration is to begin with.
    Suggested(&'static str),
    /// The key is a table, and what holds is said by each of its keys.
    Table,
    /// The key is a table that is off when it is absent.
    Off,
}

/// A key as it is listed, with its full name.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its path in the component's table, such as `tls.ca_file`.
    pub name: String,
    /// Its default. What a table that may be off requires is not required of its owner.
    pub default: KeyDefault,
    /// Whether its own table cannot be without it.
    pub needed: bool,
    /// What it does.
    pub doc: &'static str,
    /// What its value looks like.
    pub shape: Shape,
}

impl KeyDefault {
    /// A value that the key can have, as TOML; none for a table, whose keys have theirs.
    pub fn example(self) -> Option<&'static str> {
        match self {
            Self::Required(text)
            | Self::Value(text)
            | Self::Unset(text)
            | Self::Suggested(text) => Some(text),
            Self::Table | Self::Off => None,
        }
    }
}

/// All keys of a table, those of groups among them, without names for the groups themselves.
pub fn each(entries: &'static [Entry]) -> Vec<&'static Key> {
    let mut keys = Vec::new();
    for entry in entries {
        match entry {
            Entry::Key(key) => keys.push(key),
            Entry::Include(entries) => keys.extend(each(entries)),
        }
    }
    keys
}

/// All keys of a table and of the tables in it, by their full names.
pub fn list(entries: &'static [Entry]) -> Vec<Listed> {
    let mut listed = Vec::new();
    add(entries, "", false, &mut listed);
    listed
}

fn add(entries: &'static [Entry], prefix: &str, off: bool, listed: &mut Vec<Listed>) {
    for key in each(entries) {
        let name = format!("{prefix}{}", key.name);
        listed.push(Listed {
            name: name.clone(),
            default: match key.default {
                KeyDefault::Required(example) if off => KeyDefault::Unset(example),
                default => default,
            },
            needed: matches!(key.default, KeyDefault::Required(_)),
            doc: key.doc,
            shape: key.shape,
        });
        if let Shape::Table(entries) = key.shape {
            let off = off || key.default == KeyDefault::Off;
            add(entries, &format!("{name}."), off, listed);
        }
    }
}

#[cfg(test)]
mod tests;
