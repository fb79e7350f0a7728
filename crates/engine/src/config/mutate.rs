//! Damages configurations for tests: an unknown key must be refused at every level.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The key that is inserted.
const KEY: &str = "key_that_nothing_knows";

/// A configuration with an unknown key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Table that contains the key; empty for the top of the file.
    pub table: String,
    /// The whole text of the configuration.
    pub text: String,
    /// Line of the key, counted from 1.
    pub line: usize,
}

/// Inserts an unknown key into every table of a text: headers, arrays of tables, inline tables.
///
/// Tables that are only implied by the name of another table are left out, since they have no place
/// of their own. Returns nothing if the text is not TOML.
pub fn unknown_keys(text: &str) -> Vec<Mutation> {
    let Ok(root) = DeTable::parse(text) else {
        return Vec::new();
    };
    let mut tables = vec![(String::new(), 0)];
    for (key, value) in root.get_ref().iter() {
        collect(value, key.get_ref(), &mut tables);
    }
    // Spans that start otherwise belong to tables that a header or a dotted key implies.
    tables.retain(|(name, at)| name.is_empty() || text[*at..].starts_with(['[', '{']));
    tables.sort_by_key(|(_, at)| *at);
    tables
        .into_iter()
        .map(|(table, at)| mutation(text, table, at))
        .collect()
}

fn mutation(text: &str, table: String, at: usize) -> Mutation {
    let (at, inserted) = if table.is_empty() {
        (0, format!("{KEY} = 1\n"))
    } else if text[at..].starts_with('{') {
        let separator = match text[at + 1..].trim_start().starts_with('}') {
            true => "",
            false => ",",
        };
        (at + 1, format!(" {KEY} = 1{separator}"))
    } else {
        let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
        (end, format!("\n{KEY} = 1"))
    };
    let line = 1 + text[..at].matches('\n').count() + usize::from(inserted.starts_with('\n'));
    Mutation {
        table,
        text: format!("{}{inserted}{}", &text[..at], &text[at..]),
        line,
    }
}

/// Collects the places of the tables in a value. The parser bounds the recursion.
fn collect(value: &Spanned<DeValue<'_>>, name: &str, tables: &mut Vec<(String, usize)>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            tables.push((name.to_owned(), value.span().start));
            for (key, value) in table.iter() {
                collect(value, &format!("{name}.{}", key.get_ref()), tables);
            }
        }
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                collect(item, &format!("{name}[{index}]"), tables);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_gets_the_key_and_its_line_is_right() {
        let text =
            "a = 1\n[x.y] # note\nb = { c = [{ d = 1 }, {}] }\n\n[[x.z]]\n[[x.z]]\ne.f = 1\n";
        let mutations = unknown_keys(text);
        let tables: Vec<_> = mutations.iter().map(|m| (&*m.table, m.line)).collect();
        assert_eq!(
            tables,
            [
                ("", 1),
                ("x.y", 3),
                ("x.y.b", 3),
                ("x.y.b.c[0]", 3),
                ("x.y.b.c[1]", 3),
                ("x.z[0]", 6),
                ("x.z[1]", 7),
            ]
        );
        for mutation in mutations {
            assert!(DeTable::parse(&mutation.text).is_ok(), "{}", mutation.text);
            let line = mutation.text.lines().nth(mutation.line - 1);
            assert!(line.is_some_and(|line| line.contains(KEY)), "{mutation:?}");
        }
    }
}
