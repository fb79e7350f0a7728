//! Where Prometheus' reader, which follows version 1.1 of YAML, is stricter than a reader of 1.2 or
//! takes a text for another one.

use std::ops::Range;

use granit_parser::ScalarStyle;

use super::Place;

/// A scalar as it stands in its file.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) range: Range<usize>,
}

impl Source<'_> {
    fn raw(&self) -> &str {
        self.text.get(self.range.clone()).unwrap_or_default()
    }

    /// What stands before it on its line.
    fn before(&self) -> &str {
        let before = self.text.get(..self.range.start).unwrap_or_default();
        before.rsplit(['\n', '\r']).next().unwrap_or(before)
    }
}

/// Directives other than those of version 1.1.
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

/// An escape that came with version 1.2.
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

/// A key of a block mapping that is missing or indented by a tab.
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

/// The text of a scalar: nothing where nothing stands, and no line break at the end of a block in
/// which the file ends without one.
pub(super) fn text<'a>(source: &Source<'_>, text: &'a str, style: ScalarStyle) -> &'a str {
    if style == ScalarStyle::Plain && source.range.is_empty() {
        return "";
    }
    let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
    let is_last = source.range.end >= source.text.len() && !source.text.ends_with(['\n', '\r']);
    match text.strip_suffix('\n') {
        Some(body) if is_block && is_last => body,
        _ => text,
    }
}
