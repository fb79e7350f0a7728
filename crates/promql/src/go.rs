//! Text as Go's `strconv` and `fmt` and Prometheus' durations format it.

use std::fmt::Write as _;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether Go prints a character unescaped: letters, marks, numbers, punctuation, symbols, space.
///
/// The standard library's escaping uses the same categories. It escapes combining marks only at the
/// start of a string, hence the letter in front.
pub(crate) fn is_print(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{a0}' | '\u{ad}' => false,
        '\u{a1}'..='\u{ff}' => true,
        _ => {
            let mut buffer = [b'a', 0, 0, 0, 0];
            let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
            std::str::from_utf8(&buffer[..length])
                .is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
        }
    }
}

/// Appends a double-quoted Go string.
pub(crate) fn quote(bytes: &[u8], out: &mut String) {
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        let mut plain = chunk.valid();
        // Most strings need no escapes.
        while let Some(at) = plain.find(|c: char| c == '"' || c == '\\' || !is_print(c)) {
            out.push_str(&plain[..at]);
            let mut rest = plain[at..].chars();
            if let Some(c) = rest.next() {
                escape(c, '"', out);
            }
            plain = rest.as_str();
        }
        out.push_str(plain);
        for byte in chunk.invalid() {
            hex_byte(*byte, out);
        }
    }
    out.push('"');
}

/// A double-quoted Go string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(text.as_bytes(), &mut out);
    out
}

/// A single-quoted Go character; the replacement character stands for the end of the input.
pub(crate) fn quoted_char(c: Option<char>) -> String {
    let mut out = String::from("'");
    match c.unwrap_or(char::REPLACEMENT_CHARACTER) {
        c if c == '\'' || c == '\\' || !is_print(c) => escape(c, '\'', &mut out),
        c => out.push(c),
    }
    out.push('\'');
    out
}

/// A character as Go's `%#U` writes it: `U+0078 'x'`.
pub(crate) fn code_point(c: char) -> String {
    let mut out = format!("U+{:04X}", u32::from(c));
    if is_print(c) {
        let _ = write!(out, " '{c}'");
    }
    out
}

fn escape(c: char, quote: char, out: &mut String) {
    let short = match c {
        _ if c == quote || c == '\\' => c,
        '\x07' => 'a',
        '\x08' => 'b',
        '\x0c' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\x0b' => 'v',
        '\0'..='\x1f' | '\x7f' => return hex_byte(c as u8, out),
        _ => {
            let code = u32::from(c);
            // Writing to a string cannot fail.
            let _ = if code < 0x1_0000 {
                write!(out, "\\u{code:04x}")
            } else {
                write!(out, "\\U{code:08x}")
            };
            return;
        }
    };
    out.push('\\');
    out.push(short);
}

fn hex_byte(byte: u8, out: &mut String) {
    out.push_str("\\x");
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Appends a float as `strconv.FormatFloat(value, 'f', -1, 64)` does.
pub(crate) fn float(value: f64, out: &mut String) {
    let _ = if value.is_nan() {
        out.write_str("NaN")
    } else if value.is_infinite() {
        out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        write!(out, "{value}")
    };
}

/// Appends a float as `fmt`'s `%v` does: with an exponent if it is small or large.
pub(crate) fn float_short(value: f64, out: &mut String) {
    if value == 0.0 || !value.is_finite() {
        return float(value, out);
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse::<i32>() {
        Ok(power @ (..=-5 | 6..)) => {
            let sign = if power < 0 { '-' } else { '+' };
            let _ = write!(out, "{digits}e{sign}{:02}", power.unsigned_abs());
        }
        _ => float(value, out),
    }
}

/// Appends a float with a fixed number of digits behind the point.
pub(crate) fn float_fixed(value: f64, digits: usize, out: &mut String) {
    if value.is_finite() {
        let _ = write!(out, "{value:.digits$}");
    } else {
        float(value, out);
    }
}

/// A float as a 64-bit integer, as Go converts it on amd64: a value out of range becomes the
/// smallest integer.
pub(crate) fn integer(value: f64) -> i64 {
    // Both bounds are powers of two, hence exact.
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
        value as i64
    } else {
        i64::MIN
    }
}

/// Units of durations in milliseconds, largest first, and whether a unit is used only if it divides
/// the rest.
const UNITS: [(&str, i64, bool); 7] = [
    ("y", 365 * 86_400_000, true),
    ("w", 7 * 86_400_000, true),
    ("d", 86_400_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1000, false),
    ("ms", 1, false),
];

/// Appends a duration in nanoseconds as Prometheus does, truncated to milliseconds.
pub(crate) fn duration(nanoseconds: i64, out: &mut String) {
    let mut rest = nanoseconds / 1_000_000;
    if rest == 0 {
        return out.push_str("0s");
    }
    if rest < 0 {
        out.push('-');
        rest = -rest;
    }
    for (unit, length, exact) in UNITS {
        let count = rest / length;
        if count == 0 || (exact && rest % length != 0) {
            continue;
        }
        let _ = write!(out, "{count}{unit}");
        rest -= count * length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(write: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn strings_are_quoted_as_go_does() {
        for (bytes, expected) in [
            (&b""[..], r#""""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (
                b"\x07\x08\x0c\n\r\t\x0b\0\x1f\x7f",
                r#""\a\b\f\n\r\t\v\x00\x1f\x7f""#,
            ),
            (b"\xff\xc3", r#""\xff\xc3""#),
            (
                "☺é\u{a0}\u{ad}\u{200d}\u{301}\u{e000}\u{10ffff}".as_bytes(),
                "\"☺é\\u00a0\\u00ad\\u200d\u{301}\\ue000\\U0010ffff\"",
            ),
        ] {
            assert_eq!(made(|out| quote(bytes, out)), expected);
        }
    }

    #[test]
    fn floats_and_durations_are_written_as_go_does() {
        assert_eq!(made(|out| float(f64::INFINITY, out)), "+Inf");
        assert_eq!(made(|out| float(1e21, out)), "1000000000000000000000");
        assert_eq!(made(|out| float(-0.0, out)), "-0");
        assert_eq!(made(|out| float_short(1e21, out)), "1e+21");
        assert_eq!(made(|out| float_short(0.00001, out)), "1e-05");
        assert_eq!(made(|out| duration(90_061_001_000_000, out)), "1d1h1m1s1ms");
        assert_eq!(
            made(|out| duration(i64::MIN, out)),
            "-106751d23h47m16s854ms"
        );
        assert_eq!(integer(f64::NAN), i64::MIN);
        assert_eq!(integer(9.3e18), i64::MIN);
    }
}
