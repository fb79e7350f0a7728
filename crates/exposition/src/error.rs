//! Faults of pages.

use std::fmt;

use thiserror::Error;

/// The most bytes of a page that a message quotes.
const SHOWN: usize = 100;

/// The first fault of a page, for which it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place}: {what}{excerpt}")]
pub struct ParseError {
    place: Place,
    what: String,
    excerpt: Excerpt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Line(usize),
    Byte(usize),
}

/// The part of the page around the fault; empty for protobuf.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt(String);

impl ParseError {
    /// A fault at the byte `at` of a text, in the line that begins at `start`.
    pub(crate) fn text(page: &str, start: usize, at: usize, what: impl fmt::Display) -> Self {
        let before = page.as_bytes().get(..start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let mut end = at.saturating_add(1).min(page.len()).min(start + SHOWN);
        while !page.is_char_boundary(end) {
            end += 1;
        }
        let shown = page.get(start..end).unwrap_or_default();
        Self {
            place: Place::Line(line),
            what: what.to_string(),
            excerpt: Excerpt(shown.to_owned()),
        }
    }

    /// A fault at a byte of a protobuf message.
    pub(crate) fn message(at: usize, what: impl fmt::Display) -> Self {
        Self {
            place: Place::Byte(at),
            what: what.to_string(),
            excerpt: Excerpt(String::new()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Byte(at) => write!(f, "byte {at}"),
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => Ok(()),
            text => write!(f, " in {text:?}"),
        }
    }
}
