//! Tokens of series descriptions: sequences of values, and histograms.

use super::{HistogramState, Lexed, Lexer, State, is_space};
use crate::go::{quoted, quoted_char};
use crate::token::Kind;

/// Keys of a histogram, in lower case; the language is case-insensitive here.
const KEYS: [&str; 11] = [
    "buckets",
    "count",
    "counter_reset_hint",
    "custom_values",
    "n_buckets",
    "n_offset",
    "offset",
    "schema",
    "sum",
    "z_bucket",
    "z_bucket_w",
];

/// Hints about counter resets.
const HINTS: [&str; 4] = ["gauge", "not_reset", "reset", "unknown"];

impl Lexer<'_> {
    /// Reads a token behind the metric.
    pub(super) fn values(&mut self) -> Lexed<Option<Kind>> {
        let Some(c) = self.peek() else {
            self.state = State::Statements;
            return Ok(None);
        };
        if c.is_ascii_digit() || (c == '.' && self.digit_follows()) {
            return self.number();
        }
        self.at += c.len_utf8();
        let kind = match c {
            '{' if self.accept(b"{") => {
                self.histogram = HistogramState::Inside;
                self.state = State::Histogram;
                Kind::OpenHistogram
            }
            ' ' | '\t' | '\n' | '\r' => return self.space(),
            '+' => Kind::Add,
            '-' => Kind::Sub,
            'x' => Kind::Times,
            '_' => Kind::Blank,
            c if c.is_ascii_alphabetic() => return self.keyword_or_identifier(),
            c => {
                let c = quoted_char(Some(c));
                return self.error(format!("unexpected character in series sequence: {c}"));
            }
        };
        self.token(kind)
    }

    fn digit_follows(&self) -> bool {
        self.rest().get(1).is_some_and(u8::is_ascii_digit)
    }

    /// Reads a run of spaces, which is one token; the first has been consumed.
    fn space(&mut self) -> Lexed<Option<Kind>> {
        let token = self.token(Kind::Space);
        self.accept_while(is_space);
        token
    }

    /// Reads a token in a histogram, or the operator behind it.
    pub(super) fn histogram(&mut self) -> Lexed<Option<Kind>> {
        if let HistogramState::Behind(kind) = self.histogram {
            self.histogram = HistogramState::Outside;
            self.state = State::Values;
            self.at += 1;
            return self.token(kind);
        }
        if self.in_brackets {
            return self.buckets();
        }
        let incomplete = |c| {
            let c = quoted_char(c);
            format!("histogram description incomplete unexpected: {c}")
        };
        let Some(c) = self.bump() else {
            return self.error(incomplete(None));
        };
        let kind = match c {
            ' ' | '\t' | '\n' | '\r' => return self.space(),
            ':' => Kind::Colon,
            '-' => Kind::Sub,
            '[' => {
                self.in_brackets = true;
                Kind::LeftBracket
            }
            '}' if self.accept(b"}") => {
                self.close_histogram();
                Kind::CloseHistogram
            }
            '0'..='9' => {
                self.at = self.start;
                return self.number();
            }
            c if c == '_' || c.is_ascii_alphabetic() => return self.histogram_word(),
            c => return self.error(incomplete(Some(c))),
        };
        self.token(kind)
    }

    fn close_histogram(&mut self) {
        let behind = match self.peek_byte() {
            Some(b'x') => Kind::Times,
            Some(b'+') => Kind::Add,
            Some(b'-') => Kind::Sub,
            _ => {
                self.histogram = HistogramState::Outside;
                self.state = State::Values;
                return;
            }
        };
        self.histogram = HistogramState::Behind(behind);
    }

    fn histogram_word(&mut self) -> Lexed<Option<Kind>> {
        self.accept_while(|byte| byte == b'_' || byte.is_ascii_alphabetic());
        let word = self.word().to_ascii_lowercase();
        if KEYS.contains(&&*word) {
            if self.peek_byte() != Some(b':') {
                return self.error("missing `:` for histogram descriptor".to_owned());
            }
            return self.token(Kind::HistogramKey);
        }
        if matches!(&*word, "inf" | "nan") {
            return self.token(Kind::Number);
        }
        if HINTS.contains(&&*word) {
            return self.token(Kind::ResetHint);
        }
        let word = quoted(self.word());
        self.error(format!("bad histogram descriptor found: {word}"))
    }

    /// Reads a token in the brackets of a histogram.
    fn buckets(&mut self) -> Lexed<Option<Kind>> {
        let Some(c) = self.bump() else {
            let c = quoted_char(None);
            return self.error(format!("invalid character in buckets description: {c}"));
        };
        let kind = match c {
            ' ' | '\t' | '\n' | '\r' => return self.space(),
            '-' => Kind::Sub,
            ']' => {
                self.in_brackets = false;
                Kind::RightBracket
            }
            '0'..='9' => {
                self.at = self.start;
                return self.number();
            }
            c if c.is_ascii_alphabetic() => {
                self.accept_while(|byte| byte.is_ascii_alphabetic());
                let word = self.word();
                if !word.eq_ignore_ascii_case("inf") && !word.eq_ignore_ascii_case("nan") {
                    return self.bad_syntax("number");
                }
                Kind::Number
            }
            c => {
                let c = quoted_char(Some(c));
                return self.error(format!("invalid character in buckets description: {c}"));
            }
        };
        self.token(kind)
    }
}
