//! Errors in the form of Observatorium's files: the line and the key, and no values, which may be secrets.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_saphyr::Error;

/// Why a text is not understood.
#[derive(Clone, Debug)]
pub(super) struct Flaw {
    /// Number of the line.
    line: Option<usize>,
    what: String,
}

/// Parses a text.
pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Flaw> {
    // The size of the file is the bound; the parser's own ones are for fewer tenants.
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_nodes, budget.max_events) = (text.len() + 16, 2 * text.len() + 32);
    let options = serde_saphyr::options! { budget: Some(budget) };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Flaw::of(&error, text))
}

impl Flaw {
    fn of(error: &Error, text: &str) -> Self {
        let line = error
            .location()
            .and_then(|at| usize::try_from(at.line()).ok());
        let what = match error.without_snippet() {
            Error::SerdeMissingField { field, .. } => format!("key `{field}` is missing"),
            Error::SerdeUnknownField { field, .. } if is_key(field) => {
                format!("key `{field}` is unknown")
            }
            Error::SerdeInvalidType { .. } | Error::Unexpected { .. } => {
                let line = line.and_then(|line| text.lines().nth(line.checked_sub(1)?));
                match line.and_then(key_of) {
                    Some(key) => format!("the value of key `{key}` has another type"),
                    None => "a value has another type".to_owned(),
                }
            }
            _ => "it does not have the expected form".to_owned(),
        };
        Self { line, what }
    }

    /// The same flaw, of a text that begins in this line of its file.
    pub(super) fn below(self, first: usize) -> Self {
        let line = self
            .line
            .map_or(first, |line| first + line.saturating_sub(1));
        Self {
            line: Some(line),
            ..self
        }
    }
}

/// The key of a line.
fn key_of(line: &str) -> Option<&str> {
    let key = line.trim_start_matches([' ', '-']).split_once(':')?.0;
    is_key(key).then_some(key)
}

/// Whether a text looks like a key, and not like a secret in its place.
fn is_key(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    plain && (1..=32).contains(&text.len())
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl From<Flaw> for String {
    fn from(flaw: Flaw) -> Self {
        flaw.to_string()
    }
}

/// The reason why the configuration of an authenticator is refused.
pub(super) fn of_json(error: &serde_json::Error) -> String {
    // The message has values behind a colon, and the names of keys in backticks.
    let text = error.to_string();
    let key = text.split('`').nth(1).filter(|key| is_key(key));
    match key {
        Some(key) if text.starts_with("missing field") => format!("key `{key}` is missing"),
        Some(key) if text.starts_with("unknown field") => format!("key `{key}` is unknown"),
        _ => "does not have the expected form".to_owned(),
    }
}
