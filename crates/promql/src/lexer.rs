//! Splits an input into tokens, by the same states as upstream: what a character means depends on
//! the brackets around it, never on the grammar.

mod brackets;
mod number;
mod series;
mod string;

pub(crate) use string::unquote;

use crate::go::{quoted, quoted_char};
use crate::names;
use crate::text::Span;
use crate::token::{Kind, Token};

/// What is wrong with the characters of an input, and from where on.
#[derive(Debug)]
pub(crate) struct LexError {
    pub(crate) span: Span,
    pub(crate) message: String,
}

type Lexed<T> = Result<T, LexError>;

/// What the next characters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An expression, or whatever is open.
    Statements,
    /// The beginning of a duration in brackets.
    Duration,
    /// The values of a series description.
    Values,
    /// A histogram of a series description.
    Histogram,
}

/// What has been closed of a histogram, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistogramState {
    Outside,
    Inside,
    /// Before the operator behind a histogram, which is the given one.
    Behind(Kind),
}

/// A source of tokens.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    input: &'a str,
    /// Where the next character is.
    at: usize,
    /// Where the current token begins.
    start: usize,
    state: State,
    unquoted_names: bool,
    parens: u32,
    in_braces: bool,
    in_brackets: bool,
    /// Whether there was a colon since the bracket.
    colon_seen: bool,
    /// Whether there was a duration since the bracket.
    duration_seen: bool,
    /// Whether the input is a series description.
    series: bool,
    histogram: HistogramState,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(input: &'a str, unquoted_names: bool, series: bool) -> Self {
        Self {
            input,
            at: 0,
            start: 0,
            state: State::Statements,
            unquoted_names,
            parens: 0,
            in_braces: false,
            in_brackets: false,
            colon_seen: false,
            duration_seen: false,
            series,
            histogram: HistogramState::Outside,
        }
    }

    /// The next token; comments are skipped.
    pub(crate) fn next(&mut self) -> Lexed<Token> {
        loop {
            self.start = self.at;
            let token = match self.state {
                State::Statements if self.histogram != HistogramState::Outside => self.histogram(),
                State::Statements if self.in_braces => self.braces(),
                State::Statements => self.statements(),
                State::Duration => self.duration(),
                State::Values => self.values(),
                State::Histogram => self.histogram(),
            };
            if let Some(token) = token? {
                return Ok(token);
            }
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.input.as_bytes()[self.at..]
    }

    fn peek_byte(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn peek(&self) -> Option<char> {
        match self.peek_byte()? {
            byte @ 0..=0x7f => Some(char::from(byte)),
            _ => self.input[self.at..].chars().next(),
        }
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Takes the next byte if it is one of these.
    fn accept(&mut self, set: &[u8]) -> bool {
        let taken = self.peek_byte().is_some_and(|byte| set.contains(&byte));
        self.at += usize::from(taken);
        taken
    }

    fn accept_while(&mut self, test: impl Fn(u8) -> bool) {
        let rest = self.rest();
        self.at += rest
            .iter()
            .position(|byte| !test(*byte))
            .unwrap_or(rest.len());
    }

    fn word(&self) -> &'a str {
        &self.input[self.start..self.at]
    }

    /// A token of everything since its start.
    fn token(&self, kind: Kind) -> Lexed<Option<Token>> {
        Ok(Some(Token {
            kind,
            span: span(self.start, self.at),
        }))
    }

    fn error<T>(&self, message: String) -> Lexed<T> {
        Err(LexError {
            span: span(self.start, self.at),
            message,
        })
    }

    /// An error behind a token that was complete.
    fn error_behind<T>(&self, message: String) -> Lexed<T> {
        Err(LexError {
            span: span(self.at, self.at),
            message,
        })
    }

    fn skip_spaces(&mut self) {
        self.accept_while(is_space);
    }

    fn statements(&mut self) -> Lexed<Option<Token>> {
        let Some(c) = self.bump() else {
            if self.parens != 0 {
                return self.error("unclosed left parenthesis".to_owned());
            }
            if self.in_brackets {
                return self.error("unclosed left bracket".to_owned());
            }
            return self.token(Kind::Eof);
        };
        let kind = match c {
            '#' => {
                self.accept_while(|byte| byte != b'\n' && byte != b'\r');
                return Ok(None);
            }
            ' ' | '\t' | '\n' | '\r' => {
                self.skip_spaces();
                return Ok(None);
            }
            ',' => Kind::Comma,
            '*' => Kind::Mul,
            '/' => Kind::Div,
            '%' => Kind::Mod,
            '+' => Kind::Add,
            '-' => Kind::Sub,
            '^' => Kind::Pow,
            '@' => Kind::At,
            '=' if self.accept(b"=") => Kind::Equal,
            '=' if self.peek_byte() == Some(b'~') => {
                return self.error("unexpected character after '=': '~'".to_owned());
            }
            '=' => Kind::Eql,
            '!' => match self.bump() {
                Some('=') => Kind::NotEqual,
                other => {
                    let other = quoted_char(other);
                    return self.error(format!("unexpected character after '!': {other}"));
                }
            },
            '<' if self.accept(b"=") => Kind::LessEqual,
            '<' if self.accept(b"/") => Kind::TrimUpper,
            '<' => Kind::Less,
            '>' if self.accept(b"=") => Kind::GreaterEqual,
            '>' if self.accept(b"/") => Kind::TrimLower,
            '>' => Kind::Greater,
            '0'..='9' => return self.number_or_duration(),
            '.' if self.peek_byte().is_some_and(|byte| byte.is_ascii_digit()) => {
                return self.number_or_duration();
            }
            '"' | '\'' => return self.string(c as u8),
            '`' => return self.raw_string(),
            ':' if self.in_brackets => {
                if self.colon_seen {
                    return self.error("unexpected colon ':'".to_owned());
                }
                self.colon_seen = true;
                Kind::Colon
            }
            _ if c == ':' || names::is_start(c, self.unquoted_names) => {
                if !self.in_brackets {
                    return self.keyword_or_identifier();
                }
                if let Some(kind) = self.duration_keyword(c) {
                    return self.token(kind);
                }
                let c = quoted_char(Some(c));
                return self.error(format!("unexpected character: {c}, expected ':'"));
            }
            '(' => self.open_paren(),
            ')' => self.close_paren()?,
            '{' => {
                self.in_braces = true;
                Kind::LeftBrace
            }
            '[' => {
                if self.in_brackets {
                    return self.error("unexpected left bracket '['".to_owned());
                }
                self.in_brackets = true;
                self.colon_seen = false;
                self.duration_seen = false;
                self.state = State::Duration;
                Kind::LeftBracket
            }
            ']' => {
                if !self.in_brackets {
                    return self.error("unexpected right bracket ']'".to_owned());
                }
                self.in_brackets = false;
                Kind::RightBracket
            }
            _ => {
                let c = quoted_char(Some(c));
                return self.error(format!("unexpected character: {c}"));
            }
        };
        self.token(kind)
    }

    fn open_paren(&mut self) -> Kind {
        self.parens += 1;
        Kind::LeftParen
    }

    fn close_paren(&mut self) -> Lexed<Kind> {
        if self.parens == 0 {
            return self.error_behind("unexpected right parenthesis ')'".to_owned());
        }
        self.parens -= 1;
        Ok(Kind::RightParen)
    }

    /// A name or keyword whose first character has been taken.
    fn keyword_or_identifier(&mut self) -> Lexed<Option<Token>> {
        self.accept_name(true);
        let word = self.word();
        let kind = match Kind::keyword(word) {
            // So that metrics of these names keep working.
            Some(Kind::Fill | Kind::FillLeft | Kind::FillRight) if !self.paren_follows() => {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        if self.series {
            self.state = match self.peek_byte() {
                Some(b'{') => State::Statements,
                _ => State::Values,
            };
        }
        self.token(kind)
    }

    fn accept_name(&mut self, colons: bool) {
        loop {
            self.accept_while(|b| b == b'_' || b.is_ascii_alphanumeric() || (colons && b == b':'));
            match self.peek() {
                Some(c) if names::is_continue(c, self.unquoted_names) => self.at += c.len_utf8(),
                _ => return,
            }
        }
    }

    fn paren_follows(&self) -> bool {
        self.rest().iter().find(|byte| !is_space(**byte)) == Some(&b'(')
    }

    fn bad_syntax<T>(&self, what: &str) -> Lexed<T> {
        self.error(format!("bad {what} syntax: {}", quoted(self.word())))
    }
}

fn span(start: usize, end: usize) -> Span {
    // The parser refuses what is longer than 4 GiB before it makes a lexer.
    Span::new(start as u32, end as u32)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
