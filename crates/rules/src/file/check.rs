//! Prometheus' requirements for names.

use super::Names;

/// The label with the metric's name, which no rule may set.
pub(super) const METRIC_NAME: &str = "__name__";

/// Number of bytes that are looked at together.
const BLOCK: usize = 256;

/// Whether a name is valid for a label or annotation.
pub(super) fn is_label(name: &str, names: Names) -> bool {
    match names {
        Names::Utf8 => !name.is_empty(),
        Names::Legacy => is_legacy(name, |byte| byte.is_ascii_alphabetic() || byte == b'_'),
    }
}

/// Whether a name is valid for a metric.
pub(super) fn is_metric(name: &str, names: Names) -> bool {
    match names {
        Names::Utf8 => !name.is_empty(),
        Names::Legacy => is_legacy(name, |byte| {
            byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':')
        }),
    }
}

fn is_legacy(name: &str, letter: impl Fn(u8) -> bool) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(&letter) && bytes.all(|byte| letter(byte) || byte.is_ascii_digit())
}

/// Whether a text has a character that YAML forbids unescaped.
pub(super) fn has_forbidden(text: &str) -> bool {
    // Most texts are ASCII. Whole blocks are looked at, which the compiler makes fast.
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    let are_plain = |bytes: &[u8]| bytes.iter().fold(true, |all, byte| all & is_plain(byte));
    !text.as_bytes().chunks(BLOCK).all(are_plain) && text.chars().any(is_forbidden)
}

/// Whether YAML forbids the character unescaped. This includes characters that are line breaks only in
/// YAML 1.1, since Prometheus would read a different text than YAML 1.2 parsers.
pub(super) fn is_forbidden(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        c if c < ' ' => true,
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => true,
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_any_text_or_those_of_old() {
        for (name, label, metric) in [
            ("a_1", true, true),
            ("a:b", false, true),
            ("1a", false, false),
            ("ä", false, false),
            ("a.b", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_label(name, Names::Legacy), label, "{name}");
            assert_eq!(is_metric(name, Names::Legacy), metric, "{name}");
            assert_eq!(is_label(name, Names::Utf8), !name.is_empty());
            assert_eq!(is_metric(name, Names::Utf8), !name.is_empty());
        }
    }
}
