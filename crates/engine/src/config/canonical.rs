//! Tables as text in which equal configurations are equal.

use std::fmt;

use toml::de::{DeTable, DeValue};

/// A table in the form in which equal ones are equal. It may hold secrets, and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Canonical(String);

impl Canonical {
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

/// The table as text in which equal configurations are equal, for finding what changed.
pub(crate) fn canonical(table: &DeTable<'_>) -> String {
    let mut out = String::new();
    write_table(&mut out, table);
    out
}

/// The same of a component or table, without `inputs`, which change nothing of itself.
pub(crate) fn effective(table: &DeTable<'_>) -> Canonical {
    let mut table = table.clone();
    table.remove("inputs");
    Canonical(canonical(&table))
}

fn write_table(out: &mut String, table: &DeTable<'_>) {
    out.push('{');
    for (at, (key, value)) in table.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(&format!("{:?} = ", key.get_ref()));
        write_value(out, value.get_ref());
    }
    out.push('}');
}

fn write_value(out: &mut String, value: &DeValue<'_>) {
    match value {
        DeValue::String(text) => out.push_str(&format!("{text:?}")),
        DeValue::Integer(number) => out.push_str(&number.to_string()),
        DeValue::Float(number) => out.push_str(&number.to_string()),
        DeValue::Boolean(value) => out.push_str(&value.to_string()),
        DeValue::Datetime(value) => out.push_str(&value.to_string()),
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
        DeValue::Table(table) => write_table(out, table),
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
