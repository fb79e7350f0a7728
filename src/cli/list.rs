//! `list`: the types that a configuration can use, and their keys.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use metrifold_base::KeyDefault;
use metrifold_base::keys::{Entry, Listed, list_nested};
use metrifold_engine::component::ComponentInfo;
use metrifold_engine::config::TableInfo;

use super::{EXIT_USAGE, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold list
  metrifold list sinks.remote_write
  metrifold list --format json | jq -r '.[].name'";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ListArgs {
    /// Types, such as `remote_write`, `sinks.remote_write` or `discovery.http`, of which to list the keys
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text: the types, or the keys of the types that are named
    Text,
    /// JSON: types and keys
    Json,
}

pub(super) fn execute(args: &ListArgs) -> u8 {
    let mut chosen = Vec::new();
    for name in &args.names {
        let found: Vec<Listing> = types().into_iter().filter(|it| it.is(name)).collect();
        if found.is_empty() {
            report::complain(&format!("there is no type `{name}`: see metrifold list"));
            return EXIT_USAGE;
        }
        chosen.extend(found);
    }
    let all = chosen.is_empty();
    let types = if all { types() } else { chosen };
    match args.format {
        Format::Text if all => report::print(&overview(&types)),
        Format::Text => {
            let texts: Vec<String> = types.iter().map(details).collect();
            report::print(&texts.join("\n"))
        }
        Format::Json => {
            let list: Vec<Value> = types.iter().map(as_json).collect();
            report::print(&format!("{:#}\n", Value::Array(list)))
        }
    }
}

/// A listed type: of a component, or of another table whose entries have types.
struct Listing {
    /// The configuration's top-level table that holds it.
    table: &'static str,
    /// Kind in the JSON output.
    kind: &'static str,
    name: &'static str,
    summary: &'static str,
    keys: &'static [Entry],
}

impl Listing {
    /// Whether `name` refers to this type.
    fn is(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some((table, name)) => self.table == table && self.name == name,
            None => self.name == name,
        }
    }

    fn keys(&self) -> Vec<Listed> {
        list_nested(self.keys)
    }
}

/// All types: components by kind and name, then those of other tables.
fn types() -> Vec<Listing> {
    let components = components().into_iter().map(|info| Listing {
        table: info.kind.table(),
        kind: info.kind.as_str(),
        name: info.name,
        summary: info.summary,
        keys: info.keys,
    });
    let tables = TableInfo::all().into_iter();
    let tables = tables.flat_map(|table| {
        (table.types)().into_iter().map(|it| Listing {
            table: table.name,
            kind: table.name,
            name: it.name,
            summary: it.summary,
            keys: it.keys,
        })
    });
    components.chain(tables).collect()
}

/// All component types, by kind and name.
pub(super) fn components() -> Vec<&'static ComponentInfo> {
    let mut infos: Vec<_> = inventory::iter::<ComponentInfo>.into_iter().collect();
    infos.sort_by_key(|info| (info.kind, info.name));
    infos
}

/// Component types that `name` refers to, with or without its kind: `remote_write`,
/// `sinks.remote_write`.
pub(super) fn named(name: &str) -> Vec<&'static ComponentInfo> {
    let mut infos = components();
    infos.retain(|info| match name.split_once('.') {
        Some((table, name)) => info.kind.table() == table && info.name == name,
        None => info.name == name,
    });
    infos
}

fn overview(types: &[Listing]) -> String {
    let width = types
        .iter()
        .map(|it| it.name.len())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    let mut table = "";
    for it in types {
        if it.table != table {
            let separator = if table.is_empty() { "" } else { "\n" };
            table = it.table;
            out.push_str(&format!("{separator}{table}:\n"));
        }
        out.push_str(&format!("  {:<width$}  {}\n", it.name, it.summary));
    }
    out.push_str("\nSee the keys of one with: metrifold list NAME\n");
    out
}

fn details(info: &Listing) -> String {
    let mut out = format!("{}.{}: {}\n", info.table, info.name, info.summary);
    for key in info.keys() {
        let default = match key.default {
            KeyDefault::Required(example) => format!("required, such as {example}"),
            KeyDefault::Value(value) => format!("default {value}"),
            KeyDefault::Unset(example) | KeyDefault::Suggested(example) => {
                format!("not set, such as {example}")
            }
            KeyDefault::Table => "a table".to_owned(),
            KeyDefault::Off => "a table, not set".to_owned(),
        };
        out.push_str(&format!("\n  {}  ({default})\n", key.name));
        for line in wrap(key.doc, 90) {
            out.push_str(&format!("      {line}\n"));
        }
    }
    out
}

fn as_json(info: &Listing) -> Value {
    let keys: Vec<Value> = info
        .keys()
        .iter()
        .map(|key| {
            let (required, default, example) = match key.default {
                KeyDefault::Required(example) => (true, None, Some(example)),
                KeyDefault::Value(value) => (false, Some(value), None),
                KeyDefault::Unset(example) | KeyDefault::Suggested(example) => {
                    (false, None, Some(example))
                }
                KeyDefault::Table | KeyDefault::Off => (false, None, None),
            };
            json!({
                "name": key.name,
                "required": required,
                "default": default,
                "example": example,
                "doc": key.doc,
            })
        })
        .collect();
    json!({
        "kind": info.kind,
        "name": info.name,
        "summary": info.summary,
        "keys": keys,
    })
}

/// Wraps text at a width.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_name_with_and_without_kind() {
        assert_eq!(named("blackhole").len(), 1);
        assert_eq!(named("sinks.blackhole").len(), 1);
        assert!(named("sources.blackhole").is_empty());
    }

    #[test]
    fn keys_are_listed_with_defaults() {
        for info in types() {
            let text = details(&info);
            let name = format!("{}.{}: ", info.table, info.name);
            assert!(text.starts_with(&name), "{text}");
            for key in info.keys() {
                let shown = match key.default {
                    KeyDefault::Required(text) => format!("(required, such as {text})"),
                    KeyDefault::Value(text) => format!("(default {text})"),
                    KeyDefault::Unset(text) | KeyDefault::Suggested(text) => {
                        format!("(not set, such as {text})")
                    }
                    KeyDefault::Table => "(a table)".to_owned(),
                    KeyDefault::Off => "(a table, not set)".to_owned(),
                };
                let line = format!("\n  {}  {shown}", key.name);
                assert!(text.contains(&line), "{line:?} is not in {text}");
            }
        }
    }
}
