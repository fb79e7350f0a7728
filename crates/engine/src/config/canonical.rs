//! Canonical text of tables: equal configurations have equal texts.

use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use toml::de::{DeTable, DeValue};

/// A keyed hash of texts, by which versions of them are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print(pub(crate) u64);

/// One key for all, so that prints of different times can be compared.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Print {
    pub(crate) fn of<const N: usize>(texts: [&[u8]; N]) -> Self {
        Self(KEY.hash_one(texts))
    }
}

/// Canonical text of a table. It may hold secrets and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Canonical(String);

impl Canonical {
    /// A number that differs if the text does. Keyed by the process, as the text may hold secrets.
    pub(crate) fn print(&self) -> Print {
        Print::of([self.0.as_bytes()])
    }

    /// The text, for tests.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<canonical>")
    }
}

/// The canonical text of a table, for tests.
#[cfg(test)]
pub(crate) fn canonical(table: &DeTable<'_>) -> String {
    let mut out = String::new();
    write_table(&mut out, table, None);
    out
}

/// The canonical text of a component or table without `inputs`, which do not affect how it is
/// built.
pub(crate) fn effective(table: &DeTable<'_>) -> Canonical {
    let mut out = String::new();
    write_table(&mut out, table, Some("inputs"));
    Canonical(out)
}

fn write_table(out: &mut String, table: &DeTable<'_>, without: Option<&str>) {
    out.push('{');
    let entries = table.iter();
    let entries = entries.filter(|(key, _)| Some(&**key.get_ref()) != without);
    for (at, (key, value)) in entries.enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        add(out, format_args!("{:?} = ", key.get_ref()));
        write_value(out, value.get_ref());
    }
    out.push('}');
}

fn add(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

fn write_value(out: &mut String, value: &DeValue<'_>) {
    match value {
        DeValue::String(text) => add(out, format_args!("{text:?}")),
        DeValue::Integer(number) => add(out, format_args!("{number}")),
        DeValue::Float(number) => add(out, format_args!("{number}")),
        DeValue::Boolean(value) => add(out, format_args!("{value}")),
        DeValue::Datetime(value) => add(out, format_args!("{value}")),
        DeValue::Array(array) => {
            out.push('[');
            for (at, item) in array.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                write_value(out, item.get_ref());
            }
            out.push(']');
        }
        DeValue::Table(table) => write_table(out, table, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_a_table_is_written_makes_no_difference() {
        let inline = "a = { b = 1, 'c' = [true, \"x\"] }\nd = 2.5";
        let headers = "d = 2.5 # note\n[a]\nc = [\n true,\n 'x' ]\nb = 1\n";
        let text = |input| canonical(DeTable::parse(input).unwrap().get_ref());
        assert_eq!(text(inline), text(headers));
        assert_eq!(
            text(inline),
            r#"{"a" = {"b" = 1, "c" = [true, "x"]}, "d" = 2.5}"#
        );
        assert_ne!(text("a = 1"), text("a = '1'"));
    }
}
