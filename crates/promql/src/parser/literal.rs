//! Values of numbers and durations, as Go's `strconv` and Prometheus' model parse them.

use super::{Parsed, Parser};
use crate::go::quoted;
use crate::token::{Kind, Token};

/// Units of durations in nanoseconds, in their required order.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000_000_000),
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

impl Parser<'_> {
    /// Value of a number, or of a duration in seconds.
    pub(super) fn number_or_duration(&self, token: Token) -> Parsed<f64> {
        let text = self.text(token);
        let value = match token.kind {
            Kind::Duration => duration(text).map(seconds),
            _ => number(text).map_err(|reason| {
                let text = quoted(text);
                format!("error parsing number: strconv.ParseFloat: parsing {text}: {reason}")
            }),
        };
        value.map_err(|message| self.syntax(token.span, message))
    }
}

/// Parses a number. The error is the end of a message.
fn number(text: &str) -> Result<f64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    let without;
    let digits = if text.contains('_') {
        if !underscores_fit(text.as_bytes()) {
            return Err(SYNTAX);
        }
        without = text.replace('_', "");
        &without
    } else {
        text
    };
    if let Some(hex) = strip_hex(digits) {
        return i64::from_str_radix(hex, 16)
            .map(|value| value as f64)
            .map_err(|_| SYNTAX);
    }
    if digits.len() > 1
        && digits.starts_with('0')
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'))
        && let Ok(value) = i64::from_str_radix(digits, 8)
    {
        return Ok(value as f64);
    }
    match digits.parse::<f64>() {
        Ok(value) if value.is_infinite() && digits.as_bytes()[0].is_ascii_digit() => {
            Err("value out of range")
        }
        Ok(value) if value.is_infinite() && digits.starts_with('.') => Err("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => Err(SYNTAX),
    }
}

fn strip_hex(digits: &str) -> Option<&str> {
    digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
}

/// Whether each underscore is between digits; the prefix of a base counts as one.
fn underscores_fit(text: &[u8]) -> bool {
    let hex = matches!(text, [b'0', b'x' | b'X', ..]);
    let is_digit = |byte: u8| byte.is_ascii_digit() || (hex && byte.is_ascii_hexdigit());
    let mut behind_digit = hex;
    let mut behind_underscore = false;
    for byte in &text[if hex { 2 } else { 0 }..] {
        match byte {
            b'_' if !behind_digit => return false,
            byte if behind_underscore && !is_digit(*byte) => return false,
            _ => {}
        }
        behind_underscore = *byte == b'_';
        behind_digit = is_digit(*byte);
    }
    !behind_underscore
}

/// Parses a duration into nanoseconds. The error is a message.
fn duration(text: &str) -> Result<u64, String> {
    let invalid = || format!("not a valid duration string: {}", quoted(text));
    let out_of_range = || "duration out of range".to_owned();
    let mut rest = text;
    let mut total = 0;
    let mut units = &UNITS[..];
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let length = rest
            .bytes()
            .take_while(|byte| !byte.is_ascii_digit())
            .count();
        let unit = &rest[..length];
        rest = &rest[length..];
        if unit.is_empty() {
            return Err(invalid());
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            let (unit, text) = (quoted(unit), quoted(text));
            return Err(format!("unknown unit {unit} in duration {text}"));
        }
        let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
            return Err(invalid());
        };
        let nanoseconds = units[at].1;
        units = &units[at + 1..];
        if count > (1 << 63) / nanoseconds {
            return Err(out_of_range());
        }
        // Cannot overflow: both are at most 2^63.
        total += count * nanoseconds;
        if total > i64::MAX as u64 {
            return Err(out_of_range());
        }
    }
    Ok(total)
}

fn seconds(nanoseconds: u64) -> f64 {
    (nanoseconds / 1_000_000_000) as f64 + (nanoseconds % 1_000_000_000) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_values_that_go_gives_them() {
        for (text, value) in [
            ("1_000", 1000.0),
            ("1_0.5_0", 10.5),
            ("1e1_0", 1e10),
            ("0x_1F", 31.0),
            ("0755", 493.0),
            ("08", 8.0),
            ("01_0", 8.0),
            ("0_8", 8.0),
            ("5.", 5.0),
            ("iNf", f64::INFINITY),
            ("0x7fffffffffffffff", 9.223_372_036_854_776e18),
            ("077777777777777777777777", 7.777_777_777_777_777e22),
        ] {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for text in ["0x", "0x_", "0x8000000000000000", "1e+", "0x1e+5"] {
            assert_eq!(number(text), Err("invalid syntax"), "{text}");
        }
        assert_eq!(number("1e999"), Err("value out of range"));
    }

    #[test]
    fn durations_have_their_units_in_order() {
        assert_eq!(duration("1h30m").map(seconds), Ok(5400.0));
        assert_eq!(duration("1s5ms").map(seconds), Ok(1.005));
        for text in ["5m1h", "5m1m", "99999999999999999999y"] {
            let message = format!("not a valid duration string: \"{text}\"");
            assert_eq!(duration(text), Err(message));
        }
        assert_eq!(duration("300y"), Err("duration out of range".to_owned()));
        let unknown = "unknown unit \"hs\" in duration \"5y1hs\"".to_owned();
        assert_eq!(duration("5y1hs"), Err(unknown));
    }
}
