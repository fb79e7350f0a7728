//! Differences between Prometheus' parser, which follows YAML 1.1, and YAML 1.2: where it is stricter,
//! or reads a different text.

use std::borrow::Cow;
use std::ops::Range;

use granit_parser::ScalarStyle;

use super::Place;

/// The source text of a scalar and its position.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) range: Range<usize>,
}

impl Source<'_> {
    fn raw(&self) -> &str {
        self.text.get(self.range.clone()).unwrap_or_default()
    }

    /// The text before the scalar on its line.
    fn before(&self) -> &str {
        let before = self.text.get(..self.range.start).unwrap_or_default();
        before.rsplit(['\n', '\r']).next().unwrap_or(before)
    }
}

/// Finds directives that YAML 1.1 does not have.
pub(super) fn directives(text: &str) -> Vec<(Place, String)> {
    let head = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| line.is_empty() || line.starts_with(['#', '%']));
    head.filter(|(_, line)| {
        line.starts_with('%') && !line.starts_with("%YAML") && !line.starts_with("%TAG")
    })
    .map(|(index, _)| {
        let line = index as u64 + 1;
        let message = "unknown directive: remove the line, or quote what begins with %";
        (Place { line, column: 1 }, message.to_owned())
    })
    .collect()
}

/// The error for an escape that only YAML 1.2 has, if the scalar has one.
pub(super) fn escape(source: &Source<'_>, style: ScalarStyle) -> Option<&'static str> {
    if style != ScalarStyle::DoubleQuoted {
        return None;
    }
    let mut chars = source.raw().chars();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next() == Some('/') {
            return Some("escape \\/ is none in Prometheus: write the slash alone");
        }
    }
    None
}

/// The error for the name of an anchor that only YAML 1.2 allows.
pub(super) fn anchor(name: &str) -> Option<&'static str> {
    let is_read = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let message = "name of an anchor has other characters than letters, digits, _ and -";
    (!name.bytes().all(is_read)).then_some(message)
}

/// The error for a key of a block mapping that is missing, or indented by a tab.
pub(super) fn key(source: &Source<'_>) -> Option<&'static str> {
    let before = source.before();
    let is_indentation = before.chars().all(|c| matches!(c, ' ' | '\t' | '-' | '?'));
    if is_indentation && before.contains('\t') {
        return Some("tab in the indentation: use blanks");
    }
    let follows_mark = || {
        let before = source.text.get(..source.range.start);
        before.is_some_and(|before| before.trim_end().ends_with('?'))
    };
    let is_missing = source.range.is_empty() && is_indentation && !follows_mark();
    is_missing.then_some("key is missing before the colon")
}

/// The text of a scalar as Prometheus reads it: empty for an absent scalar, and without a final line
/// break for a block at the end of a file that lacks one.
pub(super) fn text<'a>(
    source: &Source<'_>,
    text: Cow<'a, str>,
    style: ScalarStyle,
) -> Cow<'a, str> {
    if style == ScalarStyle::Plain && source.range.is_empty() {
        return Cow::Borrowed("");
    }
    let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
    let is_last = source.range.end >= source.text.len() && !source.text.ends_with(['\n', '\r']);
    if !(is_block && is_last && text.ends_with('\n')) {
        return text;
    }
    let mut text = text.into_owned();
    text.pop();
    Cow::Owned(text)
}
