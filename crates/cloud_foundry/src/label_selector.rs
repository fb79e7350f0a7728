//! Cloud Foundry's label selectors: requirements separated by commas, all of which must hold.

use std::collections::BTreeMap;

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Has(String),
    HasNot(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl LabelSelector {
    /// Reads a selector.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let requirements: Result<Vec<_>, _> = split(text)?.into_iter().map(requirement).collect();
        Ok(Self(requirements?))
    }

    /// Whether the labels meet all requirements.
    pub(crate) fn matches(&self, labels: &BTreeMap<String, Option<String>>) -> bool {
        let value = |key: &str| labels.get(key).map(|it| it.as_deref().unwrap_or_default());
        self.0.iter().all(|requirement| match requirement {
            Requirement::Has(key) => labels.contains_key(key),
            Requirement::HasNot(key) => !labels.contains_key(key),
            Requirement::In(key, values) => {
                value(key).is_some_and(|it| values.iter().any(|value| value == it))
            }
            // As in Kubernetes, an object without the label passes `notin`.
            Requirement::NotIn(key, values) => {
                value(key).is_none_or(|it| values.iter().all(|value| value != it))
            }
        })
    }
}

/// Splits a selector into its requirements, at commas outside of parentheses.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut inside = false;
    let mut start = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' if inside => return Err("parentheses must not be nested".to_owned()),
            '(' => inside = true,
            ')' if !inside => return Err("a closing parenthesis has no opening one".to_owned()),
            ')' => inside = false,
            ',' if !inside => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a parenthesis is not closed".to_owned());
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let text = text.trim();
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement::HasNot(key_of(key)?));
    }
    if let Some((left, list)) = text.split_once('(') {
        let (key, word) = left
            .trim()
            .rsplit_once(char::is_whitespace)
            .ok_or_else(|| format!("{text:?} is not KEY in (VALUE, ...)"))?;
        let list = list
            .strip_suffix(')')
            .ok_or_else(|| format!("{text:?} has text after its closing parenthesis"))?;
        let values: Result<Vec<_>, _> = list.split(',').map(value_of).collect();
        return match word {
            "in" => Ok(Requirement::In(key_of(key)?, values?)),
            "notin" => Ok(Requirement::NotIn(key_of(key)?, values?)),
            _ => Err(format!("{word:?} is neither in nor notin")),
        };
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key_of(key)?, vec![value_of(value)?]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Requirement::In(key_of(key)?, vec![value_of(value)?]));
    }
    Ok(Requirement::Has(key_of(text)?))
}

fn key_of(text: &str) -> Result<String, String> {
    let key = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    match !key.is_empty() && key.chars().all(fits) && key.matches('/').count() < 2 {
        true => Ok(key.to_owned()),
        false => Err(format!("{key:?} is not the key of a label")),
    }
}

fn value_of(text: &str) -> Result<String, String> {
    let value = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match value.chars().all(fits) {
        true => Ok(value.to_owned()),
        false => Err(format!("{value:?} is not the value of a label")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_of_every_kind_are_held_against_labels() {
        let labels: BTreeMap<_, _> = [("env", Some("prod")), ("example.org/tier", None)]
            .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
            .into();
        for (text, expected) in [
            ("env", true),
            ("!env", false),
            ("env=prod", true),
            ("env == prod", true),
            ("env!=prod", false),
            ("other!=prod", true),
            ("env in (dev, prod)", true),
            ("env notin (dev,prod)", false),
            ("other notin (a)", true),
            ("env=prod,!other,example.org/tier", true),
            ("env=prod,example.org/tier=x", false),
            ("example.org/tier=", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn what_the_platform_would_refuse_is_refused() {
        for text in [
            "",
            "a,",
            "=b",
            "a in b",
            "a in (b",
            "a in (b) c",
            "a with (b)",
            "a=b c",
            "a/b/c",
            "a)",
            "a in ((b))",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}
