//! Errors in an input, with their positions.

use std::fmt;

use crate::text::Span;

/// Columns of an excerpt before and behind the caret of a long line.
const EXCERPT_CONTEXT: usize = 60;

/// Longest underline of an excerpt: a longer span is marked at its beginning only.
const EXCERPT_UNDERLINE: usize = 40;

/// The first error in an input.
///
/// As text it is Prometheus' own message: `1:5: parse error: unexpected number "5"`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: parse error: {message}")]
pub struct ParseError {
    /// Kind of check that refused the input.
    pub kind: ErrorKind,
    /// Description of the error, without the position.
    pub message: String,
    /// Bytes of the error.
    pub span: Span,
    /// Line and column of the first byte.
    pub position: Position,
}

/// Kinds of checks that refuse an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input violates the grammar.
    Syntax,
    /// The input matches the grammar, but has wrong types, arguments or matchers.
    Type,
    /// The input is longer, deeper or larger than the options allow.
    Limit,
}

/// A line and a column, both from one. The column counts bytes, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// An empty input has no position.
    Unknown,
    /// A position in the input.
    At {
        /// Number of the line.
        line: usize,
        /// Byte of the line.
        column: usize,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown position"),
            Self::At { line, column } => write!(f, "{line}:{column}"),
        }
    }
}

impl Position {
    pub(crate) fn of(input: &str, offset: u32) -> Self {
        if input.is_empty() {
            return Self::Unknown;
        }
        let before = &input.as_bytes()[..(offset as usize).min(input.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        Self::At {
            line,
            column: before.len() - line_start + 1,
        }
    }
}

impl ParseError {
    pub(crate) fn new(kind: ErrorKind, input: &str, span: Span, message: String) -> Self {
        Self {
            kind,
            message,
            span,
            position: Position::of(input, span.start),
        }
    }

    /// The error with its line of `input`, and a caret below the position.
    pub fn excerpt(&self, input: &str) -> String {
        let start = floor(input, self.span.start as usize);
        let end = floor(input, self.span.end as usize).max(start);
        let line_start = input[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = input[start..]
            .find('\n')
            .map_or(input.len(), |at| start + at);
        let from = input[line_start..start]
            .char_indices()
            .rev()
            .nth(EXCERPT_CONTEXT)
            .map_or(line_start, |(at, _)| line_start + at);
        let to = input[start..line_end]
            .char_indices()
            .nth(EXCERPT_CONTEXT)
            .map_or(line_end, |(at, _)| start + at);
        let (before, after) = (
            if from > line_start { "…" } else { "" },
            if to < line_end { "…" } else { "" },
        );
        let shown = visible(&input[from..to]);
        let column = input[from..start].chars().count() + before.chars().count();
        let width = input[start..end.min(to).max(start)].chars().count();
        format!(
            "{}\n  | {before}{shown}{after}\n  | {}{}",
            visible(&self.to_string()),
            " ".repeat(column),
            "^".repeat(width.clamp(1, EXCERPT_UNDERLINE)),
        )
    }
}

/// The last boundary of a character at or before an offset.
fn floor(input: &str, offset: usize) -> usize {
    let mut offset = offset.min(input.len());
    while !input.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// A line whose tabs and control characters are replaced by one space each, so that the caret lines
/// up and a query cannot control a terminal.
fn visible(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(input: &str, start: u32, end: u32) -> ParseError {
        let message = "unexpected".to_owned();
        ParseError::new(ErrorKind::Syntax, input, Span::new(start, end), message)
    }

    #[test]
    fn lines_and_columns_count_from_one_and_columns_are_bytes() {
        assert_eq!(
            error("", 0, 0).to_string(),
            "unknown position: parse error: unexpected"
        );
        assert_eq!(error("ab", 1, 2).position.to_string(), "1:2");
        assert_eq!(error("a\nböc", 5, 6).position.to_string(), "2:4");
    }

    #[test]
    fn the_caret_stands_under_the_place_in_its_line() {
        let shown = error("sum(\n\tfoo bar)", 10, 13).excerpt("sum(\n\tfoo bar)");
        assert!(shown.ends_with("\n  |  foo bar)\n  |      ^^^"), "{shown}");
    }

    #[test]
    fn long_lines_are_shown_around_the_place() {
        let input = format!("{}!{}", "ä".repeat(500), "ö".repeat(500));
        let shown = error(&input, 1000, 1001).excerpt(&input);
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].chars().count() < 140, "{shown}");
        let caret = lines[2].chars().position(|c| c == '^');
        assert_eq!(caret, lines[1].chars().position(|c| c == '!'));
    }

    #[test]
    fn places_within_a_character_or_behind_the_input_do_no_harm() {
        for (start, end) in [(1, 2), (2, 2), (9, 99), (3, 1)] {
            assert!(error("ää", start, end).excerpt("ää").contains('^'));
        }
    }
}
