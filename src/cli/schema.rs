//! `schema`: a JSON Schema of the configuration, for editors and for checks without Metrifold.

use clap::Args;
use serde_json::{Map, Value, json};

use metrifold_base::KeyDefault;
use metrifold_base::keys::{Entry, Key, Keys, Shape, each};
use metrifold_engine::component::ComponentInfo;
use metrifold_engine::config::{RootKeys, TableInfo};
use metrifold_http::ListenerKeys;
use metrifold_model::Kind;

use super::{list, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold schema > metrifold.schema.json

  # In a configuration, for editors with taplo (Even Better TOML and others):
  #:schema ./metrifold.schema.json";

/// Pattern of the names of components and of entries in other tables.
const NAME: &str = "^[A-Za-z0-9_-]+$";

/// Pattern of variables: a text with one may become any other text.
const VARIABLE: &str = "\\$\\{";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct SchemaArgs {}

pub(super) fn execute(_args: &SchemaArgs) -> u8 {
    report::print(&format!("{:#}\n", schema()))
}

/// The schema of one file. It cannot express what several files must have in common.
fn schema() -> Value {
    let mut properties = Map::new();
    for key in each(RootKeys::ENTRIES) {
        properties.insert(key.name.to_owned(), of_key(key));
    }
    for info in TableInfo::all() {
        let types = (info.types)().into_iter();
        let variants: Vec<Value> = types
            .map(|it| {
                let kind = json!({ "const": it.name, "description": it.summary });
                let properties = Map::from_iter([("type".to_owned(), kind)]);
                let mut table = of_table(it.keys, properties, &["type"]);
                table["description"] = it.summary.into();
                table
            })
            .collect();
        let mut table = match variants.is_empty() {
            true => of_table(info.keys, Map::new(), &[]),
            false => json!({ "oneOf": variants }),
        };
        if info.named {
            table = json!({
                "type": "object",
                "propertyNames": { "pattern": NAME },
                "additionalProperties": table,
            });
        }
        table["description"] = info.summary.into();
        properties.insert(info.name.to_owned(), table);
    }
    let mut definitions = Map::new();
    for kind in Kind::ALL {
        let infos = list::components().into_iter();
        let mut variants = Vec::new();
        for info in infos.filter(|info| info.kind == kind) {
            let name = format!("{}_{}", kind.as_str(), info.name);
            variants.push(json!({ "$ref": format!("#/$defs/{name}") }));
            definitions.insert(name, of_component(info));
        }
        let components = json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "oneOf": variants },
        });
        properties.insert(kind.table().to_owned(), components);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of metrifold",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The key that refers to a listener, whose keys then apply.
const LISTENER: &str = "listener";

/// Schema of a component's table.
fn of_component(info: &ComponentInfo) -> Value {
    let mut properties = Map::new();
    properties.insert(
        "type".to_owned(),
        json!({ "const": info.name, "description": info.summary }),
    );
    let mut required = vec!["type"];
    if info.kind != Kind::Source {
        let inputs = json!({
            "type": "array",
            "items": { "type": "string" },
            "description": "Names of the components whose output this component receives, or glob patterns for names.",
        });
        properties.insert("inputs".to_owned(), inputs);
        required.push("inputs");
    }
    let mut table = of_table(info.keys, properties, &required);
    table["description"] = info.summary.into();
    table
}

fn of_table(
    entries: &'static [Entry],
    mut properties: Map<String, Value>,
    needed: &[&str],
) -> Value {
    let mut required: Vec<&str> = needed.to_vec();
    let keys = each(entries);
    // A table that refers to a listener may lack the listener's keys.
    let names_a_listener = keys.iter().any(|key| key.name == LISTENER);
    let mut of_listener = Vec::new();
    for key in keys {
        properties.insert(key.name.to_owned(), of_key(key));
        if let KeyDefault::Required(_) = key.default {
            let listeners = each(ListenerKeys::ENTRIES);
            let elsewhere = names_a_listener && listeners.iter().any(|it| it.name == key.name);
            match elsewhere {
                true => of_listener.push(key.name),
                false => required.push(key.name),
            }
        }
    }
    let mut table = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if names_a_listener {
        table["anyOf"] = json!([{ "required": [LISTENER] }, { "required": of_listener }]);
    }
    table
}

fn of_key(key: &Key) -> Value {
    let mut schema = of_shape(key.shape);
    schema["description"] = key.doc.into();
    match key.default {
        KeyDefault::Value(text) => schema["default"] = as_json(text),
        KeyDefault::Required(text) | KeyDefault::Unset(text) | KeyDefault::Suggested(text) => {
            schema["examples"] = json!([as_json(text)]);
        }
        KeyDefault::Table | KeyDefault::Off => {}
    }
    schema
}

/// TOML as JSON; invalid TOML, which a test excludes, becomes null.
fn as_json(text: &str) -> Value {
    let table = format!("value = {text}").parse::<toml::Table>();
    let value = table.ok().and_then(|mut table| table.remove("value"));
    serde_json::to_value(value).unwrap_or_default()
}

fn of_shape(shape: Shape) -> Value {
    match shape {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Number => json!({ "type": "number", "minimum": 0 }),
        Shape::Integer { least, most: None } => json!({ "type": "integer", "minimum": least }),
        Shape::Integer {
            least,
            most: Some(most),
        } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Url => of_shape(Shape::Pattern("^https?://[^/?#@]+([/?#].*)?$")),
        Shape::Text | Shape::Secret | Shape::Path => json!({ "type": "string" }),
        Shape::Pattern(pattern) => json!({
            "type": "string",
            "anyOf": [{ "pattern": pattern }, { "pattern": VARIABLE }],
        }),
        Shape::Word(words) => json!({
            "type": "string",
            "anyOf": [{ "enum": words }, { "pattern": VARIABLE }],
        }),
        Shape::List(item) => json!({ "type": "array", "items": of_shape(*item) }),
        Shape::Map(value) => json!({
            "type": "object",
            "additionalProperties": of_shape(*value),
        }),
        Shape::Table(entries) => of_table(entries, Map::new(), &[]),
        Shape::Either(one, other) => json!({ "anyOf": [of_shape(*one), of_shape(*other)] }),
        Shape::OneOrMany(item) => json!({
            "anyOf": [of_shape(*item), { "type": "array", "items": of_shape(*item) }],
        }),
    }
}

#[cfg(test)]
mod tests;
