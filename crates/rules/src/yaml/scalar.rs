//! Resolves scalars as Prometheus' YAML parser does: YAML 1.2 with the numbers of YAML 1.1.

use super::{Content, Node};

/// Length of the longest word that is no text, `false`.
const LONGEST_WORD: usize = 5;

/// The value of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Resolved<'a> {
    /// `~`, `null` or an empty plain scalar.
    Null,
    /// An integer in the range of `i64`.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// `true` or `false`.
    Boolean,
    /// Text, or a scalar of another type that is only used as text.
    Text(&'a str),
}

/// Resolves a scalar by its tag and style; a collection resolves to null. Fails if the tag does not fit
/// the text, with a remedy.
pub(crate) fn resolve<'t>(node: &'t Node<'_>) -> Result<Resolved<'t>, String> {
    let Content::Scalar { text, plain } = &node.content else {
        return Ok(Resolved::Null);
    };
    let Some(tag) = node.tag.as_deref() else {
        return Ok(if *plain {
            by_text(text)
        } else {
            Resolved::Text(text)
        });
    };
    let unfit = || Err(format!("{text:?} is no {tag}: remove the tag"));
    match (tag, by_text(text)) {
        ("!!null", value @ Resolved::Null)
        | ("!!bool", value @ Resolved::Boolean)
        | ("!!int", value @ Resolved::Integer(_))
        | ("!!float", value @ Resolved::Float(_)) => Ok(value),
        // An unsigned integer of more than 63 bits is still an integer.
        ("!!int", value @ Resolved::Float(_)) if unsigned(text).is_some() => Ok(value),
        ("!!float", Resolved::Integer(number)) => Ok(Resolved::Float(number as f64)),
        ("!!null" | "!!bool" | "!!int" | "!!float", _) => unfit(),
        ("!!binary" | "!!timestamp", _) => Err(format!(
            "tag {tag} is not read: write the text itself, quoted"
        )),
        _ => Ok(Resolved::Text(text)),
    }
}

fn by_text(text: &str) -> Resolved<'_> {
    // Most texts are seen to be text by their first byte.
    let Some(first) = text.bytes().next() else {
        return Resolved::Null;
    };
    if !matches!(first, b'.' | b'0'..=b'9' | b'+' | b'-' | b'~') && text.len() > LONGEST_WORD {
        return Resolved::Text(text);
    }
    match text {
        "~" | "null" | "Null" | "NULL" => return Resolved::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Resolved::Boolean,
        ".nan" | ".NaN" | ".NAN" => return Resolved::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Resolved::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Resolved::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match first {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let digits = text.replace('_', "");
            integer(&digits)
                .map(Resolved::Integer)
                .or_else(|| unsigned(&digits).map(|number| Resolved::Float(number as f64)))
                .or_else(|| float(&digits))
        }
        _ => None,
    };
    number.unwrap_or(Resolved::Text(text))
}

/// An integer with a sign and a base: 0x, 0o, 0b or a leading 0 for octal.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(unsigned(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

fn unsigned(text: &str) -> Option<u64> {
    if !text.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(digits, base).ok()
}

/// A decimal number with a point or an exponent, finite.
fn float(text: &str) -> Option<Resolved<'static>> {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let decimal = body
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let number: f64 = text.parse().ok()?;
    (decimal && number.is_finite()).then_some(Resolved::Float(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_numbers_in_the_ways_of_both_versions() {
        for (text, number) in [
            ("5", 5),
            ("-5", -5),
            ("+5", 5),
            ("017", 15),
            ("0o17", 15),
            ("0x1F", 31),
            ("0b11", 3),
            ("1_000", 1000),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(by_text(text), Resolved::Integer(number), "{text}");
        }
        for (text, number) in [
            ("08", 8.0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e2", 100.0),
        ] {
            assert_eq!(by_text(text), Resolved::Float(number), "{text}");
        }
        for text in [
            "1e400", "0x", "--5", "1:30", "yes", "0x+5", "inf", "-", "+", "1m", "é",
        ] {
            assert_eq!(by_text(text), Resolved::Text(text));
        }
    }
}
