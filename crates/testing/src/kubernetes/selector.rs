//! Label and field selectors, as the API server reads them.

use serde_json::Value;

/// Selectors of a list or a watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) namespace: Option<String>,
    pub(super) labels: Vec<Requirement>,
    pub(super) fields: Vec<(String, bool, String)>,
}

/// A requirement on a label.
#[derive(Clone, Debug)]
pub(super) enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selection {
    pub(super) fn takes(&self, object: &Value) -> bool {
        let meta = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let in_namespace = self
            .namespace
            .as_ref()
            .is_none_or(|it| text(&meta["namespace"]) == *it);
        let labels = &meta["labels"];
        let fits = self.labels.iter().all(|requirement| match requirement {
            Requirement::In(name, values) => labels[name]
                .as_str()
                .is_some_and(|it| values.iter().any(|value| value == it)),
            Requirement::NotIn(name, values) => labels[name]
                .as_str()
                .is_none_or(|it| values.iter().all(|value| value != it)),
            Requirement::Exists(name) => labels[name].is_string(),
            Requirement::Absent(name) => !labels[name].is_string(),
        });
        let fields = self.fields.iter().all(|(path, equal, value)| {
            let pointer = format!("/{}", path.replace('.', "/"));
            let found = object.pointer(&pointer).map(text).unwrap_or_default();
            (found == *value) == *equal
        });
        in_namespace && fits && fields
    }
}

pub(super) fn labels(text: &str) -> Option<Vec<Requirement>> {
    split(text).into_iter().map(|it| label(it.trim())).collect()
}

fn label(text: &str) -> Option<Requirement> {
    for (word, is) in [(" notin ", false), (" in ", true)] {
        if let Some((name, values)) = text.split_once(word) {
            let values = values.trim().strip_prefix('(')?.strip_suffix(')')?;
            let values = values.split(',').map(|it| it.trim().to_owned()).collect();
            let name = name.trim().to_owned();
            return Some(match is {
                true => Requirement::In(name, values),
                false => Requirement::NotIn(name, values),
            });
        }
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Some(Requirement::NotIn(
            name.trim().into(),
            vec![value.trim().into()],
        ));
    }
    if let Some((name, value)) = text.split_once('=') {
        let value = value.trim_start_matches('=').trim();
        return Some(Requirement::In(name.trim().into(), vec![value.into()]));
    }
    match text.strip_prefix('!') {
        Some(name) => Some(Requirement::Absent(name.trim().into())),
        None if text.is_empty() || text.contains(' ') => None,
        None => Some(Requirement::Exists(text.into())),
    }
}

pub(super) fn fields(text: &str) -> Option<Vec<(String, bool, String)>> {
    let one = |text: &str| {
        let (name, equal, value) = match text.split_once("!=") {
            Some((name, value)) => (name, false, value),
            None => {
                let (name, value) = text.split_once('=')?;
                (name, true, value.trim_start_matches('='))
            }
        };
        Some((name.trim().to_owned(), equal, value.trim().to_owned()))
    };
    text.split(',').map(one).collect()
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
