//! Decides which values of a configuration may be shown, in quoted lines and in messages.
//!
//! A value may be shown only if its key is known, is declared to hold such a value, and is no
//! secret: the value of a misspelt key, or one in place of a table, may be a password. Values of
//! variables are not shown either: the file has their names.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use metrifold_base::keys::{Entry, Keys, Shape, each};
use metrifold_model::Kind;

use super::components;
use super::environment::{Part, parts};
use super::tables::{RootKeys, TableInfo};
use crate::component::ComponentInfo;

/// Values of variables, by the position of the string in the file that they were substituted into.
pub(crate) type Substituted = HashMap<usize, Vec<String>>;

/// Values that must not appear in messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactions(Vec<String>);

/// Whether a key of this name holds a secret, whatever its declared type.
fn is_secret(key: &str) -> bool {
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

/// Whether a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    No,
    Yes,
    /// Without the parts that hold a URL's secrets.
    Url,
}

/// Callback that receives a value and whether it may be shown.
type Visit<'v> = dyn FnMut(&Spanned<DeValue<'_>>, Shown) + 'v;

/// Calls `visit` for every text, number and date of a file.
fn file(table: &DeTable<'_>, visit: &mut Visit<'_>) {
    let root = each(RootKeys::ENTRIES);
    let tables = TableInfo::all();
    for (key, value) in table.iter() {
        let name = &**key.get_ref();
        let kind = Kind::ALL.into_iter().find(|kind| kind.table() == name);
        let info = tables.iter().find(|info| info.name == name);
        let shape = root.iter().find(|key| key.name == name);
        match (kind, info, value.get_ref()) {
            (Some(kind), _, DeValue::Table(components)) => {
                for (_, value) in components.iter() {
                    let keys = |name: &str| Some(components::info(kind, name)?.keys);
                    typed(value, &keys, visit);
                }
            }
            (_, Some(info), DeValue::Table(named)) if info.named => {
                let types = (info.types)();
                let keys = |name: &str| Some(types.iter().find(|found| found.name == name)?.keys);
                for (_, value) in named.iter() {
                    match types.is_empty() {
                        true => any(value, Some(Shape::Table(info.keys)), visit),
                        false => typed(value, &keys, visit),
                    }
                }
            }
            (_, Some(info), _) => any(value, Some(Shape::Table(info.keys)), visit),
            _ => any(value, shape.map(|key| key.shape), visit),
        }
    }
}

/// A table whose `type` determines its keys.
fn typed(
    value: &Spanned<DeValue<'_>>,
    keys_of: &dyn Fn(&str) -> Option<&'static [Entry]>,
    visit: &mut Visit<'_>,
) {
    let DeValue::Table(table) = value.get_ref() else {
        return any(value, None, visit);
    };
    let keys = match table.get("type").map(Spanned::get_ref) {
        Some(DeValue::String(type_name)) => keys_of(type_name),
        _ => None,
    };
    let keys = each(keys.unwrap_or(&[]));
    for (key, value) in table.iter() {
        let shape = match &**key.get_ref() {
            "type" => Some(Shape::Text),
            "inputs" => Some(Shape::OneOrMany(&Shape::Text)),
            name => declared(name, keys.iter().map(|key| (key.name, key.shape))),
        };
        any(value, shape, visit);
    }
}

/// The declared shape of a key; `None` if the key is unknown or its name looks like a secret.
fn declared(name: &str, mut keys: impl Iterator<Item = (&'static str, Shape)>) -> Option<Shape> {
    let (_, shape) = keys.find(|(key, _)| *key == name)?;
    let table = matches!(shape, Shape::Table(_) | Shape::Map(_) | Shape::Either(..));
    (table || !is_secret(name)).then_some(shape)
}

fn any(value: &Spanned<DeValue<'_>>, shape: Option<Shape>, visit: &mut Visit<'_>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            let entries: &[Entry] = match shape.and_then(table_of) {
                Some(Shape::Table(entries)) => entries,
                Some(Shape::Map(inner)) => {
                    for (key, value) in table.iter() {
                        let inner = Some(*inner).filter(|_| !is_secret(key.get_ref()));
                        any(value, inner, visit);
                    }
                    return;
                }
                _ => &[],
            };
            let keys = each(entries);
            for (key, value) in table.iter() {
                let keys = keys.iter().map(|key| (key.name, key.shape));
                let shape = declared(key.get_ref(), keys);
                any(
                    value,
                    shape.filter(|_| !is_header(key.get_ref(), value)),
                    visit,
                );
            }
        }
        DeValue::Array(array) => {
            let inner = shape.and_then(list_of);
            for item in array.iter() {
                any(item, inner, visit);
            }
        }
        DeValue::Boolean(_) => {}
        DeValue::String(_) => visit(value, shape.map_or(Shown::No, shown_text)),
        DeValue::Integer(_) if shape.is_some_and(holds_number) => visit(value, Shown::Yes),
        DeValue::Integer(number) if shape.is_some_and(|it| is_word(it, number.as_str())) => {
            visit(value, Shown::Yes);
        }
        DeValue::Float(number) if shape.is_some_and(|it| is_word(it, number.as_str())) => {
            visit(value, Shown::Yes);
        }
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) => visit(value, Shown::No),
    }
}

/// Whether a value is a whole `Authorization` header, with its credentials, in place of a scheme.
fn is_header(key: &str, value: &Spanned<DeValue<'_>>) -> bool {
    key == "type" && matches!(value.get_ref(), DeValue::String(text) if text.contains(' '))
}

/// Whether a text of this shape may be shown.
fn shown_text(shape: Shape) -> Shown {
    match (holds_url(shape), holds_text(shape)) {
        (true, _) => Shown::Url,
        (false, true) => Shown::Yes,
        (false, false) => Shown::No,
    }
}

fn holds_url(shape: Shape) -> bool {
    match shape {
        Shape::Url => true,
        Shape::OneOrMany(inner) => holds_url(*inner),
        Shape::Either(one, other) => holds_url(*one) || holds_url(*other),
        _ => false,
    }
}

fn table_of(shape: Shape) -> Option<Shape> {
    match shape {
        Shape::Table(_) | Shape::Map(_) => Some(shape),
        Shape::OneOrMany(inner) => table_of(*inner),
        Shape::Either(one, other) => table_of(*one).or_else(|| table_of(*other)),
        _ => None,
    }
}

fn list_of(shape: Shape) -> Option<Shape> {
    match shape {
        Shape::List(inner) | Shape::OneOrMany(inner) => Some(*inner),
        Shape::Either(one, other) => list_of(*one).or_else(|| list_of(*other)),
        _ => None,
    }
}

fn holds_text(shape: Shape) -> bool {
    match shape {
        Shape::Text | Shape::Path | Shape::Pattern(_) | Shape::Word(_) | Shape::Url => true,
        Shape::OneOrMany(inner) => holds_text(*inner),
        Shape::Either(one, other) => holds_text(*one) || holds_text(*other),
        _ => false,
    }
}

/// A number in place of a duration or a size is a mistake, and no secret.
fn holds_number(shape: Shape) -> bool {
    match shape {
        Shape::Integer { .. } | Shape::Number | Shape::Pattern(_) => true,
        Shape::OneOrMany(inner) => holds_number(*inner),
        Shape::Either(one, other) => holds_number(*one) || holds_number(*other),
        _ => false,
    }
}

/// Whether a number is one of the words of a key, without its quotes.
fn is_word(shape: Shape, number: &str) -> bool {
    match shape {
        Shape::Word(words) => words.contains(&number),
        Shape::OneOrMany(inner) => is_word(*inner, number),
        Shape::Either(one, other) => is_word(*one, number) || is_word(*other, number),
        _ => false,
    }
}

/// The text of a file with all values masked that may not be shown, and without comments. Lines and
/// columns stay the same.
pub(crate) fn mask(text: &str, table: &DeTable<'_>) -> String {
    let mut hidden = Vec::new();
    let mut strings = Vec::new();
    file(table, &mut |value, shown| {
        let span = value.span();
        let literal = text.get(span.clone()).unwrap_or_default();
        if let DeValue::String(_) = value.get_ref() {
            strings.push(span.clone());
        }
        match shown {
            Shown::No => hidden.push(span),
            Shown::Yes | Shown::Url => hidden.extend(
                url_secrets(literal, shown == Shown::Url)
                    .map(|part| span.start + part.start..span.start + part.end),
            ),
        }
    });
    let mut masked = text.to_owned();
    for span in hidden {
        if let Some(literal) = text.get(span.clone()) {
            masked.replace_range(span, &stars(literal));
        }
    }
    strings.sort_unstable_by_key(|span| span.start);
    for comment in comments(text, &strings) {
        let blank = text[comment.clone()].chars();
        let blank: String = blank
            .flat_map(|c| std::iter::repeat_n(' ', c.len_utf8()))
            .collect();
        masked.replace_range(comment, &blank);
    }
    masked
}

/// The ranges of comments; `strings` are the ranges of the string values, in order.
fn comments(text: &str, strings: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut strings = strings.iter().peekable();
    for line in text.split_inclusive('\n') {
        let length = line.trim_end_matches(['\n', '\r']).len();
        let mut key_quote = None;
        for (at, c) in line[..length].char_indices() {
            let here = start + at;
            while strings.next_if(|span| span.end <= here).is_some() {}
            if strings.peek().is_some_and(|span| span.contains(&here)) {
                continue;
            }
            match (c, key_quote) {
                ('"' | '\'', None) => key_quote = Some(c),
                (c, Some(quote)) if c == quote => key_quote = None,
                ('#', None) => {
                    found.push(here..start + length);
                    break;
                }
                _ => {}
            }
        }
        start += line.len();
    }
    found
}

/// The ranges of a text that may be secret if the text is a URL, even a malformed one: the part
/// before an `@`, and the query. A text is taken for a URL if it `must` be one, or looks like one.
fn url_secrets(text: &str, must: bool) -> impl Iterator<Item = Range<usize>> {
    let is_url = must || text.contains("://");
    let start = text.find("://").map_or(0, |at| at + 3);
    let user = text.rfind('@').filter(|at| is_url && *at > start);
    let behind = user.unwrap_or(start);
    let query = text[behind..].find(['?', '#']).filter(|_| is_url);
    let query = query.map(|at| behind + at + 1..text.len());
    user.map(|at| start..at).into_iter().chain(query)
}

/// Replaces every byte by a star; quotes, line ends and names of variables stay.
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

/// Masks text that does not parse. Shown of a line are its key, and a single text or number behind
/// it if no table has a secret of that name.
pub(crate) fn mask_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // The quotes that end the open multi-line string.
    let mut open = None;
    for line in text.split_inclusive('\n') {
        if let Some(quotes) = open {
            if line.contains(quotes) {
                open = None;
            }
            out.push_str(&stars(line));
            continue;
        }
        let shown = header(line).or_else(|| assignment(line));
        let (shown, rest) = line.split_at(shown.unwrap_or(0));
        open = ["\"\"\"", "'''"]
            .into_iter()
            .find(|quotes| line.matches(quotes).count() % 2 == 1);
        out.push_str(shown);
        out.push_str(&stars(rest));
    }
    out
}

/// Length of the part of a table header that may be shown.
fn header(line: &str) -> Option<usize> {
    line.trim_start().strip_prefix('[')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || " \t[]._-".contains(c);
    Some(line.find(|c| !is_name(c)).unwrap_or(line.len()))
}

/// Length of the part of an assignment that may be shown.
fn assignment(line: &str) -> Option<usize> {
    let (key, value) = line.split_once('=')?;
    let is_key = |c: char| c.is_ascii_alphanumeric() || " \t._-".contains(c);
    if !key.chars().all(is_key) {
        return None;
    }
    let name = key.rsplit('.').next().unwrap_or_default().trim();
    let whole = is_shown(name)
        && literal(value).is_some()
        && url_secrets(value, value.contains('@')).next().is_none();
    Some(match whole {
        true => line.len() - value.len() + literal(value).unwrap_or_default(),
        false => line.len() - value.trim_start_matches(' ').len(),
    })
}

/// Length of a value that is a single quoted text or word, with nothing behind it.
fn literal(value: &str) -> Option<usize> {
    let begin = value.len() - value.trim_start().len();
    let rest = &value[begin..];
    let length = match rest.chars().next()? {
        quote @ ('"' | '\'') => 2 + rest[1..].find(quote)?,
        _ => rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c))
            .unwrap_or(rest.len()),
    };
    let behind = rest[length..].trim_start();
    (behind.is_empty() || behind.starts_with('#')).then_some(begin + length)
}

/// A line's double-quoted text as it would be written in single quotes, if it may be shown.
pub(crate) fn in_single_quotes(line: &str) -> Option<String> {
    let shown = &line[..assignment(line)?];
    let (_, value) = shown.split_once('=')?;
    let text = value.trim().strip_prefix('"')?.strip_suffix('"')?;
    (!text.is_empty() && !text.contains('\'')).then(|| format!("'{text}'"))
}

/// Whether a key of this name is known, and holds neither a secret nor a table in any place.
fn is_shown(name: &str) -> bool {
    let of_components = inventory::iter::<ComponentInfo>.into_iter();
    let tables = of_components.map(|info| info.keys);
    let tables = tables.chain(TableInfo::all().into_iter().flat_map(|info| {
        let types = (info.types)().into_iter().map(|found| found.keys);
        types.chain([info.keys])
    }));
    let mut found = matches!(name, "type" | "inputs");
    for entries in tables.chain([RootKeys::ENTRIES]) {
        for key in named(entries, name) {
            if !holds_text(key) && !holds_number(key) && !matches!(key, Shape::Boolean) {
                return false;
            }
            found = true;
        }
    }
    found && !is_secret(name)
}

/// The shapes of all keys with this name, in a table and below it.
fn named(entries: &'static [Entry], name: &str) -> Vec<Shape> {
    let mut found = Vec::new();
    for key in each(entries) {
        if key.name == name {
            found.push(key.shape);
        }
        let mut shape = key.shape;
        loop {
            match shape {
                Shape::Table(entries) => found.extend(named(entries, name)),
                Shape::List(inner) | Shape::Map(inner) | Shape::OneOrMany(inner) => {
                    shape = *inner;
                    continue;
                }
                _ => {}
            }
            break;
        }
    }
    found
}

impl Redactions {
    /// The secret values of a file whose variables have been replaced.
    pub(crate) fn of(table: &DeTable<'_>, substituted: &Substituted) -> Self {
        let mut values = Vec::new();
        file(table, &mut |value, shown| {
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) => number.as_str().to_owned(),
                DeValue::Float(number) => number.as_str().to_owned(),
                DeValue::Datetime(date) => date.to_string(),
                _ => return,
            };
            if let Some(pieces) = substituted.get(&value.span().start) {
                values.extend(pieces.iter().cloned());
                values.push(text);
            } else if shown == Shown::No {
                values.push(text);
            } else {
                let secrets = url_secrets(&text, shown == Shown::Url);
                values.extend(secrets.map(|part| text[part].to_owned()));
            }
        });
        values.retain(|value| !value.is_empty());
        // Longer values first, since a value may contain another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.dedup();
        Self(values)
    }

    /// The secret values of a text without variables; `None` if it does not parse.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let root = DeTable::parse(text).ok()?;
        Some(Self::of(root.get_ref(), &Substituted::new()))
    }

    /// Whether there are no values.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Masks the values in a message. Ordinary words are masked only where they are quoted.
    pub(crate) fn apply(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for value in &self.0 {
            message = message.replace(&format!("{value:?}"), "\"***\"");
            message = message.replace(&format!("`{value}`"), "`***`");
            let letter = |c: char| c.is_ascii_lowercase() || c == '_';
            if value.len() >= 4 && !value.chars().all(letter) {
                message = message.replace(value.as_str(), "***");
                let escaped = value.escape_debug().to_string();
                message = message.replace(&escaped, "***");
            }
        }
        message
    }
}

#[cfg(test)]
mod tests;
