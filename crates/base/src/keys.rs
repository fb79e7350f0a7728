//! Keys of the configuration: name, type, default and documentation of each, stated once.
//!
//! [`keys!`](crate::keys!) makes a struct, its deserialization and its table of [`Entry`]s from one
//! list, and [`words!`](crate::words!) does so for an enum whose values are written as words.
//! Reference pages, `list`, `generate` and the JSON Schema are rendered from these tables.
//! Deserialization buffers nothing, so that every error is at the key that caused it.

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
    /// A single key.
    Key(Key),
    /// Keys of a group that is stated elsewhere; they stand in the same table.
    Include(&'static [Entry]),
}

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// Its default, or an example if it has none.
    pub default: KeyDefault,
    /// Its effect, with unit and bounds, in one sentence.
    pub doc: &'static str,
    /// The form of its value.
    pub shape: Shape,
}

/// The value of an absent key. The text is TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyDefault {
    /// No default: the key is required. The text is an example.
    Required(&'static str),
    /// The default value.
    Value(&'static str),
    /// No default: the key may be absent. The text is an example.
    Unset(&'static str),
    /// As `Unset`, and `generate` writes the example into a first configuration.
    Suggested(&'static str),
    /// The key is a table, whose own keys have defaults.
    Table,
    /// The key is a table of an optional feature, which is off without the table.
    Off,
}

/// A key with its full path, as lists and reference pages show it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its path in the component's table, such as `tls.ca_file`.
    pub name: String,
    /// Its default. A required key of an optional table is not required while the table is absent.
    pub default: KeyDefault,
    /// Whether its own table, if present, must have it.
    pub needed: bool,
    /// Its effect, in one sentence.
    pub doc: &'static str,
    /// The form of its value.
    pub shape: Shape,
}

impl KeyDefault {
    /// A valid value as TOML; `None` for a table, whose keys have examples of their own.
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

/// All keys of a table, with those of included groups.
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

/// All keys of a table and of the tables in it, with their full paths.
pub fn list(entries: &'static [Entry]) -> Vec<Listed> {
    let mut listed = Vec::new();
    add(entries, "", false, &plain, &mut listed);
    listed
}

/// [`list`], with the keys of tables that stand in lists and under names of the user's choice:
/// `rulers[].url`, `tenants.NAME.limit`.
pub fn list_nested(entries: &'static [Entry]) -> Vec<Listed> {
    let mut listed = Vec::new();
    add(entries, "", false, &innermost, &mut listed);
    listed
}

fn plain(shape: Shape) -> (String, Shape) {
    (String::new(), shape)
}

/// The shape within lists and maps, and the path to it.
fn innermost(shape: Shape) -> (String, Shape) {
    let (step, of) = match shape {
        Shape::List(of) | Shape::OneOrMany(of) => ("[]", of),
        Shape::Map(of) => (".NAME", of),
        shape => return plain(shape),
    };
    let (path, shape) = innermost(*of);
    (format!("{step}{path}"), shape)
}

fn add(
    entries: &'static [Entry],
    prefix: &str,
    off: bool,
    within: &dyn Fn(Shape) -> (String, Shape),
    listed: &mut Vec<Listed>,
) {
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
        if let (path, Shape::Table(entries)) = within(key.shape) {
            // What an item of a list must have is required wherever the list stands.
            let off = path.is_empty() && (off || key.default == KeyDefault::Off);
            add(entries, &format!("{name}{path}."), off, within, listed);
        }
    }
}

#[cfg(test)]
mod tests;
