//! Templates that are seen to be valid without being parsed, as nearly all in rules are:
//! `{{ $labels.instance }} is at {{ $value | humanizePercentage }}`.

/// Functions that take one value, and read no series.
const FUNCTIONS: [&[u8]; 10] = [
    b"humanize",
    b"humanize1024",
    b"humanizeDuration",
    b"humanizePercentage",
    b"humanizeTimestamp",
    b"stripDomain",
    b"stripPort",
    b"title",
    b"toLower",
    b"toUpper",
];

/// Whether a template is certainly valid. Parsing decides about the others.
pub(super) fn is_valid(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
        rest = &rest[at + 1..];
        let Some(action) = rest.strip_prefix(b"{") else {
            continue;
        };
        match behind(action) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    true
}

/// The text behind an action that shows a value, through functions if there are any.
fn behind(action: &[u8]) -> Option<&[u8]> {
    let mut rest = value(without_blanks(action))?;
    loop {
        rest = match without_blanks(rest) {
            [b'}', b'}', behind @ ..] => return Some(behind),
            [b'|', behind @ ..] => {
                let (word, behind) = word(without_blanks(behind));
                FUNCTIONS.contains(&word).then_some(behind)?
            }
            _ => return None,
        };
    }
}

/// The rest behind `$value` or `$labels.NAME`.
fn value(rest: &[u8]) -> Option<&[u8]> {
    let (variable, rest) = word(rest.strip_prefix(b"$")?);
    match variable {
        b"value" => Some(rest),
        b"labels" => {
            let (name, rest) = word(rest.strip_prefix(b".")?);
            let first = name.first()?;
            (!first.is_ascii_digit()).then_some(rest)
        }
        _ => None,
    }
}

/// Splits off the letters, digits and underscores at the beginning.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let is_word = |byte: &&u8| **byte == b'_' || byte.is_ascii_alphanumeric();
    text.split_at(text.iter().take_while(is_word).count())
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| **byte == b' ').count();
    &text[blanks..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Template;

    #[test]
    fn templates_of_real_rules_are_seen_to_be_valid() {
        for text in [
            "",
            "Instance {{ $labels.instance }} is down",
            "{{$value|humanize}} of {{ $labels.job_1 | title | toUpper }}: ö }}",
        ] {
            assert!(is_valid(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_certain_is_left_to_the_parser() {
        for text in [
            "{{ $value",
            "{{ $value }",
            "{{- $value }}",
            "{{ $value -}}",
            "{{ $values }}",
            "{{ $labels }}",
            "{{ $labels.1 }}",
            "{{ $labels.a.b }}",
            "{{ $value | }}",
            "{{ $value | query }}",
            "{{ $value | printf \"%v\" }}",
            "{{ end }}",
            "{{ }}",
            "{{",
            "{{{ $value }}",
            "{{ $value }}{{ query \"up\" }}",
        ] {
            assert!(!is_valid(text), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn only_valid_templates_are_seen_to_be_valid(
            text in r"(\{\{|\}\}|[{} |a.$-]|[$]value|[$]labels\.|title|toUpper|é){0,12}"
        ) {
            if is_valid(&text) {
                prop_assert!(Template::parse(&text, "x").is_ok(), "{:?}", text);
            }
        }
    }
}
