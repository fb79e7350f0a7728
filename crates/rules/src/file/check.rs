//! What Prometheus demands of names, beyond that they are text.

use super::Names;

/// The label that holds a metric's name, which no rule may set.
pub(super) const METRIC_NAME: &str = "__name__";

/// Whether a label or annotation may be called so.
pub(super) fn is_label(name: &str, names: Names) -> bool {
    match names {
        Names::Utf8 => !name.is_empty(),
        Names::Legacy => is_legacy(name, |byte| byte.is_ascii_alphabetic() || byte == b'_'),
    }
}

/// Whether a metric may be called so.
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

/// Whether YAML does not allow the character unescaped. Line breaks that only version 1.1 takes for
/// such are among them: Prometheus would read another text than other readers.
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
