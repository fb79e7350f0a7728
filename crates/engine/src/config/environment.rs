//! `${VAR}` in string values, replaced after parsing, so that no value can change the document's
//! structure.

use std::env;
use std::ops::Range;

/// A source of variables.
pub trait Environment {
    /// The variable's value; `None` if it is not set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The environment of the process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }
}

impl<F: Fn(&str) -> Option<String>> Environment for F {
    fn variable(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// A string with its variables replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    pub(crate) text: String,
    /// Values of the variables.
    pub(crate) values: Vec<String>,
    /// Variables that are not set.
    pub(crate) unset: Vec<String>,
    /// Whether a `${` begins neither a variable nor the reference to a group, such as `${1}`.
    pub(crate) malformed: bool,
}

/// Part of a string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Text without variables.
    Literal(&'a str),
    /// A literal dollar sign, written `$$`.
    Dollar,
    /// `${name}` or `${name:-default}`, with the range of the default in the string.
    Variable {
        name: &'a str,
        default: Option<Range<usize>>,
    },
}

/// Splits a string into parts. Text that is not a reference is literal: `$1` and `${1}` of relabel
/// rules too.
pub(crate) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut literal = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('$') {
        let dollar = at + found;
        let rest = &text[dollar + 1..];
        let part = if rest.starts_with('$') {
            Some((Part::Dollar, dollar + 2))
        } else {
            reference(text, dollar)
        };
        let Some((part, end)) = part else {
            at = dollar + 1;
            continue;
        };
        if literal < dollar {
            parts.push(Part::Literal(&text[literal..dollar]));
        }
        parts.push(part);
        at = end;
        literal = end;
    }
    if literal < text.len() {
        parts.push(Part::Literal(&text[literal..]));
    }
    parts
}

/// Parses the reference that starts at `dollar`, if there is one; returns it and its end.
fn reference(text: &str, dollar: usize) -> Option<(Part<'_>, usize)> {
    let start = dollar + 2;
    let body = text[dollar + 1..].strip_prefix('{')?;
    let length = body
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(body.len());
    let name = &body[..length];
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let behind = &body[length..];
    if behind.starts_with('}') {
        let part = Part::Variable {
            name,
            default: None,
        };
        return Some((part, start + length + 1));
    }
    let close = behind.strip_prefix(":-")?.find('}')?;
    let from = start + length + 2;
    let part = Part::Variable {
        name,
        default: Some(from..from + close),
    };
    Some((part, from + close + 1))
}

/// Whether the text behind a `${` is the number of a group of a regular expression and a brace.
fn is_group(behind: &str) -> bool {
    let number = behind.split_once('}').map_or("", |(number, _)| number);
    !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())
}

/// Replaces the variables of a string; `None` if it has no variables.
pub(crate) fn expand(text: &str, environment: &dyn Environment) -> Option<Expanded> {
    if !text.contains('$') {
        return None;
    }
    let mut out = Expanded {
        text: String::with_capacity(text.len()),
        values: Vec::new(),
        unset: Vec::new(),
        malformed: false,
    };
    for part in parts(text) {
        match part {
            Part::Literal(literal) => {
                out.malformed |= literal.split("${").skip(1).any(|it| !is_group(it));
                out.text.push_str(literal);
            }
            Part::Dollar => out.text.push('$'),
            Part::Variable { name, default } => {
                let value = environment.variable(name);
                match (value, default) {
                    // As in a shell, `:-` also replaces a value that is set but empty.
                    (Some(value), Some(default)) if value.is_empty() => {
                        out.values.push(text[default.clone()].to_owned());
                        out.text.push_str(&text[default]);
                    }
                    (Some(value), _) => {
                        out.text.push_str(&value);
                        out.values.push(value);
                    }
                    (None, Some(default)) => {
                        out.values.push(text[default.clone()].to_owned());
                        out.text.push_str(&text[default]);
                    }
                    (None, None) => out.unset.push(name.to_owned()),
                }
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(input: &str) -> String {
        let environment = |name: &str| match name {
            "A" => Some("alpha".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${A} $$ \" '".to_owned()),
            _ => None,
        };
        expand(input, &environment).map_or_else(|| input.to_owned(), |expanded| expanded.text)
    }

    #[test]
    fn variables_and_defaults_are_replaced_once() {
        assert_eq!(text("x${A}y${A}"), "xalphayalpha");
        assert_eq!(text("${NONE:-http://x:1/}"), "http://x:1/");
        assert_eq!(text("${NONE:-}"), "");
        assert_eq!(text("${EMPTY:-d}|${EMPTY}"), "d|");
        assert_eq!(text("${TRICKY}"), "${A} $$ \" '");
    }

    #[test]
    fn dollars_that_are_no_references_stay() {
        for same in [
            "$1", "${1}", "${12}_t", "a$", "$A", "^a$|b", "$(A)", "$$${1}",
        ] {
            let expanded = expand(same, &|_: &str| None).unwrap();
            assert_eq!(expanded.text, same.replace("$$", "$"));
            assert!(!expanded.malformed, "{same}");
        }
        assert_eq!(text("$$"), "$");
        assert_eq!(text("$${A}"), "${A}");
        assert_eq!(text("$$$1"), "$$1");
    }

    #[test]
    fn what_looks_like_a_variable_and_is_none_is_noticed() {
        for malformed in [
            "${",
            "${}",
            "${1",
            "${1a}",
            "${a-b}",
            "${a.b}",
            "${A:=x}",
            "${A:?x}",
            "x${A} ${ A}",
            "${A",
            "${A:-x",
            "$$${a/b}",
            "${1}${é}",
        ] {
            let expanded = expand(malformed, &|_: &str| Some(String::new())).unwrap();
            assert!(expanded.malformed, "{malformed}");
        }
        let expanded = expand("$${a/b} $${", &|_: &str| None).unwrap();
        assert_eq!((&*expanded.text, expanded.malformed), ("${a/b} ${", false));
        // Values are not looked at.
        let expanded = expand("${A}", &|_: &str| Some("${a/b}".into())).unwrap();
        assert!(!expanded.malformed);
    }

    #[test]
    fn unset_variables_are_named() {
        let expanded = expand("${X} ${Y:-1} ${Z}", &|_: &str| None).unwrap();
        assert_eq!(expanded.unset, ["X", "Z"]);
    }

    proptest! {
        #[test]
        fn any_text_can_be_expanded(input in "[$A-C{}:_0-9é-]{0,40}") {
            text(&input);
        }
    }
}
