//! The schema accepts what the program accepts, and refuses what it refuses.

use std::fs;
use std::path::Path;

use metrifold_engine::config;
use metrifold_regex::Regex;

use super::*;

/// Validates a value with the features that the schema uses; returns the first violation.
fn check(whole: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{at}: {what}"));
    let known = [
        "$schema",
        "$defs",
        "$ref",
        "title",
        "description",
        "default",
        "examples",
        "type",
        "const",
        "enum",
        "pattern",
        "minimum",
        "maximum",
        "items",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
        "oneOf",
        "anyOf",
    ];
    for key in schema.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "{key} is not checked");
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        return check(whole, &whole["$defs"][name], value, at);
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some(other) => panic!("{other}"),
        None => true,
    };
    if !fits {
        return wrong(format!("{value} is no {}", schema["type"]));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong(format!("{value} is not {}", schema["const"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return wrong(format!("{value} is none of {words:?}"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str()) {
        // The program's patterns match the whole text.
        let pattern = match pattern.strip_prefix('^') {
            Some(rest) => rest.strip_suffix('$').unwrap().to_owned(),
            None => format!("(?s).*{pattern}.*"),
        };
        if !Regex::new(&pattern).unwrap().is_match(text.as_bytes()) {
            return wrong(format!("{text:?} does not match {pattern}"));
        }
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        return wrong(format!("{number} is below {least}"));
    }
    if let (Some(most), Some(number)) = (schema["maximum"].as_u64(), value.as_u64())
        && number > most
    {
        return wrong(format!("{number} is above {most}"));
    }
    for item in value.as_array().into_iter().flatten() {
        if let Some(items) = schema.get("items") {
            check(whole, items, item, at)?;
        }
    }
    for (all, name) in [(false, "anyOf"), (true, "oneOf")] {
        let Some(variants) = schema[name].as_array() else {
            continue;
        };
        let found: Vec<_> = variants
            .iter()
            .map(|variant| check(whole, variant, value, at))
            .collect();
        let fitting = found.iter().filter(|found| found.is_ok()).count();
        if fitting == 0 || (all && fitting > 1) {
            return wrong(format!("{fitting} of {name} fit: {found:?}"));
        }
    }
    let Some(table) = value.as_object() else {
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !table.contains_key(name.as_str().unwrap()) {
            return wrong(format!("{name} is missing"));
        }
    }
    for (key, value) in table {
        let at = format!("{at}.{key}");
        if let Some(names) = schema.get("propertyNames") {
            check(whole, names, &Value::String(key.clone()), &at)?;
        }
        match (
            schema["properties"].get(key),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) => check(whole, schema, value, &at)?,
            (None, Value::Bool(false)) => return Err(format!("{at}: unknown key")),
            (None, Value::Null) => {}
            (None, schema) => check(whole, schema, value, &at)?,
        }
    }
    Ok(())
}

fn checked(schema: &Value, text: &str) -> Result<(), String> {
    let value: toml::Value = toml::from_str(text).unwrap();
    check(schema, schema, &serde_json::to_value(value).unwrap(), "")
}

fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let files = fs::read_dir(folder).unwrap();
    let examples: Vec<_> = files
        .map(|file| file.unwrap().path())
        .map(|path| {
            (
                path.display().to_string(),
                fs::read_to_string(path).unwrap(),
            )
        })
        .collect();
    assert!(examples.len() >= 5);
    examples
}

#[test]
fn every_example_is_valid() {
    let schema = schema();
    for (path, text) in examples() {
        assert_eq!(checked(&schema, &text), Ok(()), "{path}");
    }
}

#[test]
fn a_key_that_nothing_knows_is_refused_at_every_level() {
    let schema = schema();
    let mut refused = 0;
    for (path, text) in examples() {
        for mutation in config::unknown_keys(&text) {
            refused += 1;
            assert!(
                checked(&schema, &mutation.text).is_err(),
                "{path}: {}",
                mutation.text
            );
        }
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn every_default_and_example_is_one_of_the_values_that_the_schema_allows() {
    fn walk(whole: &Value, schema: &Value, at: &str, seen: &mut usize) {
        let examples = schema["examples"].as_array().into_iter().flatten();
        for value in examples.chain(schema.get("default")) {
            *seen += 1;
            assert_eq!(check(whole, schema, value, at), Ok(()));
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        for (key, below) in properties.chain(schema["$defs"].as_object().into_iter().flatten()) {
            walk(whole, below, &format!("{at}.{key}"), seen);
        }
    }
    let schema = schema();
    let mut seen = 0;
    walk(&schema, &schema, "", &mut seen);
    assert!(seen > 100, "{seen}");
}

#[test]
fn wrong_types_words_and_missing_keys_are_refused() {
    let schema = schema();
    let source = "[sources.a]\ntype = 'remote_write'\naddress = ':1'\n";
    assert_eq!(checked(&schema, source), Ok(()));
    let by_listener = "[sources.a]\ntype = 'remote_write'\nlistener = 'public'\n";
    assert_eq!(checked(&schema, by_listener), Ok(()));
    for wrong in [
        "[sources.a]\ntype = 'remote_write'\n",
        "[sources.a]\naddress = ':1'\n",
        "[sources.a]\ntype = 'nothing'\naddress = ':1'\n",
        "[sources.'a b']\ntype = 'remote_write'\naddress = ':1'\n",
        "[sinks.a]\ntype = 'blackhole'\n",
        "memory_limit = 5\n",
        "memory_limit = '5'\n",
        &format!("{source}acknowledge = 'never'\n"),
        &format!("{source}max_connections = -1\n"),
        &format!("{source}tls = {{ cert_file = 'x' }}\n"),
    ] {
        assert!(checked(&schema, wrong).is_err(), "{wrong}");
    }
    for right in ["acknowledge = '${WHEN}'", "body_timeout = '1m30s'"] {
        assert_eq!(checked(&schema, &format!("{source}{right}\n")), Ok(()));
    }
}
