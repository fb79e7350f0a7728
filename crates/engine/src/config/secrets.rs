//! Keeps values that may be secret out of everything that is printed.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{Part, parts};

/// The values that came through variables, by the position of their string in the file.
pub(crate) type Substituted = HashMap<usize, Vec<String>>;

/// Values that must not appear in messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactions(Vec<String>);

/// Whether the string under such a key is a secret.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let whole = ["authorization", "cookie", "credentials", "passwd", "apikey"];
    let ends = [
        "password",
        "secret",
        "token",
        "api_key",
        "private_key",
        "secret_key",
        "access_key",
    ];
    whole.contains(&key.as_str()) || ends.iter().any(|end| key.ends_with(end))
}

/// Whether the strings in a table of this name may all be secrets.
fn holds_secrets(key: &str) -> bool {
    key == "headers"
}

/// Calls `visit` for every string and number in the table, with whether it is a secret by its key.
fn strings(table: &DeTable<'_>, secret: bool, visit: &mut dyn FnMut(&str, Range<usize>, bool)) {
    for (key, value) in table.iter() {
        let name = key.get_ref();
        let all = secret || holds_secrets(name);
        let is_secret = all || is_secret(name);
        // `authorization` is a table with a type in it, too.
        let below = all || (is_secret && name != "authorization");
        strings_of(value, below, is_secret, visit);
    }
}

fn strings_of(
    value: &Spanned<DeValue<'_>>,
    all: bool,
    secret: bool,
    visit: &mut dyn FnMut(&str, Range<usize>, bool),
) {
    match value.get_ref() {
        DeValue::String(text) => visit(text, value.span(), secret),
        DeValue::Array(array) => {
            for item in array.iter() {
                strings_of(item, all, secret, visit);
            }
        }
        DeValue::Table(table) => strings(table, all, visit),
        DeValue::Integer(number) => visit(number.as_str(), value.span(), secret),
        DeValue::Float(number) => visit(number.as_str(), value.span(), secret),
        _ => {}
    }
}

/// The text with every secret masked in place, so that lines and columns stay.
pub(crate) fn mask(text: &str, table: &DeTable<'_>) -> String {
    let mut spans = Vec::new();
    strings(table, false, &mut |value, span, secret| {
        if secret {
            spans.push(span);
        } else if let Some(user) = user_info(text.get(span.clone()).unwrap_or(value)) {
            spans.push(span.start + user.start..span.start + user.end);
        }
    });
    let mut masked = text.to_owned();
    for span in spans {
        if let Some(literal) = text.get(span.clone()) {
            masked.replace_range(span, &stars(literal));
        }
    }
    masked
}

/// The `user:password` of a URL.
fn user_info(text: &str) -> Option<Range<usize>> {
    let start = text.find("://")? + 3;
    let authority = text[start..].split(['/', '?', '#']).next()?;
    let length = authority.rfind('@')?;
    Some(start..start + length)
}

/// As many stars as the text has bytes; quotes, line ends and names of variables stay.
fn stars(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut push = |text: &str| {
        for c in text.chars() {
            match c {
                '"' | '\'' | '\n' | '\r' => out.push(c),
                _ => out.extend(std::iter::repeat_n('*', c.len_utf8())),
            }
        }
    };
    let mut kept = Vec::new();
    let mut at = 0;
    for part in parts(text) {
        match part {
            Part::Literal(literal) => {
                push(literal);
                at += literal.len();
            }
            Part::Dollar => {
                push("$$");
                at += 2;
            }
            Part::Variable { name, default } => {
                let (open, end) = match default {
                    Some(default) => (default.start, default.end + 1),
                    None => (at + name.len() + 2, at + name.len() + 3),
                };
                push(&text[at..end]);
                kept.extend([at..open, end - 1..end]);
                at = end;
            }
        }
    }
    for span in kept {
        out.replace_range(span.clone(), &text[span]);
    }
    out
}

/// Masks by eye what may be a secret in text that does not parse.
pub(crate) fn mask_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // The quotes that a secret of several lines ends with, and whether a table holds secrets.
    let mut open = None;
    let mut in_headers = false;
    for line in text.split_inclusive('\n') {
        if let Some(quotes) = open {
            if line.contains(quotes) {
                open = None;
            }
            out.push_str(&stars(line));
            continue;
        }
        if line.trim_start().starts_with('[') {
            in_headers = line.contains("headers");
        }
        let headers = match in_headers {
            true => 0,
            false => line.find("headers").unwrap_or(line.len()),
        };
        let secret = line.match_indices('=').find(|(at, _)| {
            let before = line[..*at].trim_end().trim_end_matches(['"', '\'']);
            let word = before
                .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
                .next();
            *at > headers || word.is_some_and(is_secret)
        });
        match secret {
            Some((at, _)) => {
                let (key, value) = line.split_at(at + 1);
                open = ["\"\"\"", "'''"]
                    .into_iter()
                    .find(|quotes| value.matches(quotes).count() == 1);
                out.push_str(key);
                out.push_str(&stars(value));
            }
            None => out.push_str(line),
        }
    }
    out
}

impl Redactions {
    /// Those of a component, whose strings have been expanded.
    pub(crate) fn of(table: &DeTable<'_>, substituted: &Substituted) -> Self {
        let mut values = Vec::new();
        strings(table, false, &mut |value, span, secret| {
            if let Some(pieces) = substituted.get(&span.start) {
                values.extend(pieces.iter().cloned());
                values.push(value.to_owned());
            } else if secret {
                values.push(value.to_owned());
            }
        });
        values.retain(|value| !value.is_empty());
        // Longer ones first, since a value may hold another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self(values)
    }

    /// The message without the values.
    pub(crate) fn apply(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for value in &self.0 {
            message = message.replace(&format!("{value:?}"), "\"***\"");
            message = message.replace(&format!("`{value}`"), "`***`");
            // Shorter ones occur in ordinary words, and say little.
            if value.len() >= 4 {
                message = message.replace(value.as_str(), "***");
                let escaped = value.escape_debug().to_string();
                message = message.replace(&escaped, "***");
            }
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_place_and_names_of_variables_stay() {
        let text = concat!(
            "basic_auth = { username = \"joe\", password = \"hünter2\" }\n",
            "token = '${TOKEN:-fallback}'\n",
            "url = \"http://joe:pw@x:1/\"\n",
            "headers = { X-Key = \"k\" }\n",
            "password_file = \"/run/pw\"\n",
            "secret = { pin = 1234 }\n",
            "authorization = { type = \"Bearer\" }\n",
        );
        let masked = mask(text, DeTable::parse(text).unwrap().get_ref());
        assert_eq!(
            masked,
            concat!(
                "basic_auth = { username = \"joe\", password = \"********\" }\n",
                "token = '${TOKEN:-********}'\n",
                "url = \"http://******@x:1/\"\n",
                "headers = { X-Key = \"*\" }\n",
                "password_file = \"/run/pw\"\n",
                "secret = { pin = **** }\n",
                "authorization = { type = \"Bearer\" }\n",
            )
        );
    }

    #[test]
    fn secrets_are_masked_in_text_that_does_not_parse() {
        let masked = mask_lines("a = 1\npassword = \"hunter2\nauth = { token = x, b = 2 }\n");
        assert_eq!(
            masked,
            "a = 1\npassword =*\"*******\nauth = { token =***********\n"
        );
        let several =
            "token = '''\nhunter2\n'''\na = 1\n[x.headers]\nX-Key = hunter2\n[y]\nb = 2\n";
        assert_eq!(
            mask_lines(several),
            "token =*'''\n*******\n'''\na = 1\n[x.headers]\nX-Key =********\n[y]\nb = 2\n"
        );
    }

    #[test]
    fn values_of_secrets_do_not_reach_messages() {
        let text = "password = \"hunter2\"\nport = \"1\"\nname = \"joe\"";
        let table = DeTable::parse(text).unwrap();
        let port = table.get_ref().get("port").unwrap().span().start;
        let substituted = Substituted::from([(port, vec!["1".to_owned()])]);
        let redactions = Redactions::of(table.get_ref(), &substituted);
        assert_eq!(
            redactions.apply("invalid type: string \"hunter2\", hunter2x, \"1\" of 10, \"joe\""),
            "invalid type: string \"***\", ***x, \"***\" of 10, \"joe\""
        );
    }
}
