//! Says what a deserializer complains of in words of the configuration.

/// A message, with types as users of TOML know them: `invalid type: integer `1`, expected a string`
/// becomes `must be a text in quotes, not the number 1`.
pub(crate) fn of(message: &str) -> String {
    let parts = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.rsplit_once(", expected "));
    match parts {
        Some((found, expected)) => format!("must be {}, not {}", thing(expected), value(found)),
        None => message.to_owned(),
    }
}

/// What was expected.
fn thing(expected: &str) -> &str {
    match expected {
        "a string" | "string" | "str" | "a borrowed string" => "a text in quotes",
        "path string" | "a path" => "a path in quotes",
        "a boolean" | "bool" => "true or false",
        "a sequence" | "sequence" => "a list, such as [\"a\", \"b\"]",
        "a map" | "map" | "a table of keys" => "a table",
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number, 0 or above",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64"
        | "a nonzero usize" => "a whole number, 1 or above",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        other => other,
    }
}

/// What was found.
fn value(found: &str) -> String {
    let quoted = |kind: &str| found.strip_prefix(kind)?.strip_suffix('`');
    if let Some(number) = quoted("integer `").or(quoted("floating point `")) {
        return format!("the number {number}");
    }
    if let Some(truth) = quoted("boolean `") {
        return truth.to_owned();
    }
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {text}");
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "a table".to_owned(),
        "unit value" | "Option value" => "nothing".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_that_users_know() {
        for (serde, ours) in [
            (
                "invalid type: string \"yes\", expected a boolean",
                "must be true or false, not the text \"yes\"",
            ),
            (
                "invalid value: integer `-1`, expected usize",
                "must be a whole number, 0 or above, not the number -1",
            ),
            (
                "invalid type: string \"a, expected b\", expected a sequence",
                "must be a list, such as [\"a\", \"b\"], not the text \"a, expected b\"",
            ),
            (
                "invalid type: map, expected a string",
                "must be a text in quotes, not a table",
            ),
            ("\"x\" is not a size", "\"x\" is not a size"),
        ] {
            assert_eq!(of(serde), ours);
        }
    }
}
