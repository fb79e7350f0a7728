//! Rewords a deserializer's messages for users.

/// Rewords a message with the types that users of TOML know: `invalid type: integer `1`, expected a
/// string` becomes `must be a text in quotes, not a number`.
pub(crate) fn of(message: &str) -> String {
    let parts = ["invalid type: ", "invalid value: "]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.rsplit_once(", expected "));
    match parts {
        Some((found, expected)) => {
            let thing = thing(expected);
            let kind = match kind(found) {
                // Only a number that is too large fails here.
                "a number" if thing.starts_with("a whole number") => "such a large one",
                kind => kind,
            };
            format!("must be {thing}, not {kind}")
        }
        None => message.to_owned(),
    }
}

/// Name of the expected type.
fn thing(expected: &str) -> &str {
    match expected {
        "a string" | "string" | "str" | "a borrowed string" => "a text in quotes",
        "path string" | "a path" => "a path in quotes",
        "a boolean" | "bool" => "true or false",
        "a sequence" | "sequence" => "a list in square brackets",
        "a map" | "map" | "a table of keys" => "a table",
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number, 0 or above",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64"
        | "a nonzero usize" => "a whole number, 1 or above",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        other => other,
    }
}

/// Kind of the value that was found; the value itself may be a secret.
fn kind(found: &str) -> &str {
    let kinds = [
        ("integer `0`", "0"),
        ("integer `-", "a negative number"),
        ("integer ", "a number"),
        ("floating point ", "a decimal number"),
        ("boolean ", "true or false"),
        ("string ", "a text"),
        ("sequence", "a list"),
        ("map", "a table"),
        ("unit value", "nothing"),
        ("Option value", "nothing"),
    ];
    let kind = kinds.iter().find(|(start, _)| found.starts_with(start));
    kind.map_or("this", |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_the_names_that_users_know() {
        for (serde, ours) in [
            (
                "invalid type: string \"yes\", expected a boolean",
                "must be true or false, not a text",
            ),
            (
                "invalid value: integer `-1`, expected usize",
                "must be a whole number, 0 or above, not a negative number",
            ),
            (
                "invalid type: floating point `5.5`, expected usize",
                "must be a whole number, 0 or above, not a decimal number",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                "must be a whole number, 0 or above, not such a large one",
            ),
            (
                "invalid value: integer `0`, expected a nonzero usize",
                "must be a whole number, 1 or above, not 0",
            ),
            (
                "invalid type: string \"a, expected b\", expected a sequence",
                "must be a list in square brackets, not a text",
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
