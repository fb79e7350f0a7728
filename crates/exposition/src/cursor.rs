//! A position in a page of text, and what both text formats share: names, quoted texts, and the
//! labels in braces.

use std::fmt;

use metrifold_codec::MetricType;

use crate::ParseError;
use crate::labels::{LabelSet, Text};
use crate::number;
use crate::page::{Options, is_utf8};

/// A position in a page.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) page: &'a str,
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    /// Start of the current line.
    pub(crate) start: usize,
    /// Whether the page came as UTF-8, so that its texts need no check.
    pub(crate) is_utf8: bool,
    options: Options,
}

/// Strictness of a format inside of braces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Text 0.0.4 and 1.0.0: blanks anywhere, redundant commas allowed.
    Text,
    /// OpenMetrics: no blanks, commas only between labels.
    OpenMetrics,
    /// The labels of an exemplar, which has no metric name.
    Exemplar,
}

/// Tokens inside of braces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Name(usize, usize),
    Quoted(usize, usize),
    Equal,
    Comma,
    Close,
    Invalid,
}

const LETTER: u8 = 1;
const COLON: u8 = 2;
const DIGIT: u8 = 4;

/// Class of each byte in names.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => LETTER,
            b':' => COLON,
            b'0'..=b'9' => DIGIT,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

impl<'a> Cursor<'a> {
    pub(crate) fn new(page: &'a str, is_utf8: bool, options: &Options) -> Self {
        Self {
            page,
            bytes: page.as_bytes(),
            at: 0,
            start: 0,
            is_utf8,
            options: *options,
        }
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a str {
        self.page.get(start..end).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// Moves to the end of the line, before its line break.
    pub(crate) fn skip_line(&mut self) {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == b'\n');
        self.at += end.unwrap_or(rest.len());
    }

    pub(crate) fn error(&self, what: impl fmt::Display) -> ParseError {
        ParseError::text(self.page, self.start, self.at, what)
    }

    /// Reads the name of a metric, if one begins here.
    #[inline]
    pub(crate) fn metric_name(&mut self) -> Option<(usize, usize)> {
        self.name(LETTER | COLON)
    }

    #[inline]
    fn name(&mut self, first: u8) -> Option<(usize, usize)> {
        let start = self.at;
        let class = |byte: u8| CLASSES[byte as usize];
        if class(self.peek()?) & first == 0 {
            return None;
        }
        let rest = &self.bytes[start..];
        let len = rest
            .iter()
            .position(|byte| class(*byte) & (first | DIGIT) == 0);
        self.at = start + len.unwrap_or(rest.len());
        Some((start, self.at))
    }

    /// Reads the family's name in a line of metadata; it may be quoted.
    pub(crate) fn family_name(&mut self) -> Option<&'a str> {
        let (start, end) = match self.peek()? {
            b'"' => self.quoted(true, false)?,
            _ => self.metric_name()?,
        };
        Some(self.slice(start, end))
    }

    /// Reads a quoted text, if one begins here. Returns the range between the quotes.
    #[inline]
    fn quoted(&mut self, breaks: bool, zeros: bool) -> Option<(usize, usize)> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match *self.bytes.get(at)? {
                b'"' => {
                    self.at = at + 1;
                    return Some((start, at));
                }
                b'\\' => {
                    let mut next = *self.bytes.get(at + 1)?;
                    while next == 0 && zeros {
                        at += 1;
                        next = *self.bytes.get(at + 1)?;
                    }
                    if matches!(next, b'\n' | 0) {
                        return None;
                    }
                    at += 2;
                }
                b'\n' if !breaks => return None,
                0 if !zeros => return None,
                _ => at += 1,
            }
        }
    }

    #[inline]
    fn token(&mut self, syntax: Syntax) -> Token {
        if syntax == Syntax::Text {
            self.skip_blanks();
        }
        let single = match self.peek() {
            Some(b'}') => Token::Close,
            Some(b',') => Token::Comma,
            Some(b'=') => Token::Equal,
            Some(b'"') => {
                let quoted = self.quoted(syntax != Syntax::Exemplar, false);
                return quoted.map_or(Token::Invalid, |(start, end)| Token::Quoted(start, end));
            }
            _ => {
                let name = self.name(LETTER);
                return name.map_or(Token::Invalid, |(start, end)| Token::Name(start, end));
            }
        };
        self.at += 1;
        single
    }

    /// Reads labels through the closing brace. `named` says whether the metric has its name
    /// already; returns whether it has one now.
    pub(crate) fn labels(
        &mut self,
        syntax: Syntax,
        mut named: bool,
        kind: MetricType,
        labels: &mut LabelSet,
    ) -> Result<bool, ParseError> {
        let mut token = self.token(syntax);
        loop {
            let (start, end, quoted) = match token {
                Token::Close => return Ok(named),
                Token::Name(start, end) => (start, end, false),
                Token::Quoted(start, end) => (start, end, true),
                _ => return Err(self.error("expected the name of a label")),
            };
            token = self.token(syntax);
            // A quoted text without a value is the name of the metric.
            if quoted && matches!(token, Token::Comma | Token::Close) {
                if syntax == Syntax::Exemplar {
                    return Err(self.error("an exemplar has no name"));
                }
                if named {
                    return Err(self.error("the metric has a name already"));
                }
                named = true;
                let name = self.text(start, end, labels)?;
                labels.set_first(name);
                if token == Token::Close {
                    return Ok(named);
                }
                token = self.token(syntax);
                continue;
            }
            if token != Token::Equal {
                return Err(self.error("expected = behind the name of a label"));
            }
            let name = match quoted {
                true => self.text(start, end, labels)?,
                false => Text::of_page(start, end),
            };
            let value = self.value(syntax, name, kind, labels)?;
            if labels.len() >= self.options.labels {
                let most = self.options.labels;
                return Err(self.error(format_args!("there are more than {most} labels")));
            }
            labels.push(name, value);
            token = self.token(syntax);
            if token == Token::Comma {
                token = self.token(syntax);
            } else if syntax != Syntax::Text && token != Token::Close {
                return Err(self.error("expected , or } behind a label"));
            }
        }
    }

    /// Reads the value of a label.
    #[inline]
    fn value(
        &mut self,
        syntax: Syntax,
        name: Text,
        kind: MetricType,
        labels: &mut LabelSet,
    ) -> Result<Text, ParseError> {
        if syntax == Syntax::Text {
            self.skip_blanks();
        }
        let quoted = match self.peek() {
            Some(b'"') => self.quoted(syntax == Syntax::Text, true),
            _ => None,
        };
        let (start, end) =
            quoted.ok_or_else(|| self.error("expected a quoted value of a label"))?;
        let text = self.text(start, end, labels)?;
        let canonical = match kind {
            MetricType::Histogram => "le",
            MetricType::Summary => "quantile",
            _ => return Ok(text),
        };
        if syntax == Syntax::Exemplar || labels.get(self.page, name) != canonical {
            return Ok(text);
        }
        // Bounds are compared as texts later: "1" and "1.0" must become the same.
        Ok(match number::bound(labels.get(self.page, text)) {
            Some(value) => labels.own(|own| number::put_canonical(own, value)),
            None => text,
        })
    }

    /// A quoted text without its escapes.
    #[inline]
    fn text(&self, start: usize, end: usize, labels: &mut LabelSet) -> Result<Text, ParseError> {
        if !is_utf8(self.slice(start, end), self.is_utf8) {
            return Err(self.error("a quoted text is not UTF-8"));
        }
        Ok(match self.bytes[start..end].contains(&b'\\') {
            true => labels.unescaped(self.page, start, end),
            false => Text::of_page(start, end),
        })
    }

    /// Checks the length of the line.
    pub(crate) fn check_line(&self) -> Result<(), ParseError> {
        let most = self.options.line_bytes;
        match self.at - self.start > most {
            true => Err(self.error(format_args!("the line is longer than {most} bytes"))),
            false => Ok(()),
        }
    }
}
