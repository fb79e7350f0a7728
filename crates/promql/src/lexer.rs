//! Splits an input into tokens with the same states as upstream: the meaning of a character depends
//! on the enclosing brackets, and not on the grammar.

mod brackets;
mod number;
mod series;
mod string;

pub(crate) use string::unquote;

use crate::go::{quoted, quoted_char};
use crate::names;
use crate::text::Span;
use crate::token::{Kind, Token};

/// An invalid character sequence, and its position.
#[derive(Debug)]
pub(crate) struct LexError {
    pub(crate) span: Span,
    pub(crate) message: String,
}

/// A result with a boxed error, which fits into registers.
type Lexed<T> = Result<T, Box<LexError>>;

/// State of the lexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In an expression, or inside brackets or braces of one.
    Statements,
    /// At the beginning of a duration in brackets.
    Duration,
    /// In the values of a series description.
    Values,
    /// In a histogram of a series description.
    Histogram,
}

/// Position relative to a histogram of a series description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HistogramState {
    Outside,
    Inside,
    /// Behind a histogram, before the given operator.
    Behind(Kind),
}

/// A source of tokens.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    input: &'a str,
    /// Offset of the next character.
    at: usize,
    /// Offset of the current token.
    start: usize,
    state: State,
    unquoted_names: bool,
    parens: u32,
    in_braces: bool,
    in_brackets: bool,
    /// Whether a colon has followed the bracket.
    colon_seen: bool,
    /// Whether a duration has followed the bracket.
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

    /// The next token. Comments are skipped.
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
            if let Some(kind) = token? {
                let span = span(self.start, self.at);
                return Ok(Token { kind, span });
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

    /// Consumes the next byte if it is in the set.
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

    /// A token from its start to the current position. Only its kind is passed on, in a register.
    fn token(&self, kind: Kind) -> Lexed<Option<Kind>> {
        Ok(Some(kind))
    }

    fn error<T>(&self, message: String) -> Lexed<T> {
        Err(Box::new(LexError {
            span: span(self.start, self.at),
            message,
        }))
    }

    /// An error directly behind a complete token.
    fn error_behind<T>(&self, message: String) -> Lexed<T> {
        Err(Box::new(LexError {
            span: span(self.at, self.at),
            message,
        }))
    }

    fn skip_spaces(&mut self) {
        self.accept_while(is_space);
    }

    fn statements(&mut self) -> Lexed<Option<Kind>> {
        self.skip_spaces();
        self.start = self.at;
        let Some(byte) = self.peek_byte() else {
            return self.end();
        };
        if names::STARTS[usize::from(byte)] && !self.in_brackets {
            return self.keyword_or_identifier();
        }
        if !byte.is_ascii() {
            return self.beyond_ascii();
        }
        self.at += 1;
        let kind = match byte {
            b'#' => {
                self.accept_while(|byte| byte != b'\n' && byte != b'\r');
                return Ok(None);
            }
            b',' => Kind::Comma,
            b'*' => Kind::Mul,
            b'/' => Kind::Div,
            b'%' => Kind::Mod,
            b'+' => Kind::Add,
            b'-' => Kind::Sub,
            b'^' => Kind::Pow,
            b'@' => Kind::At,
            b'=' if self.accept(b"=") => Kind::Equal,
            b'=' if self.peek_byte() == Some(b'~') => {
                return self.error("unexpected character after '=': '~'".to_owned());
            }
            b'=' => Kind::Eql,
            b'!' => match self.bump() {
                Some('=') => Kind::NotEqual,
                other => {
                    let other = quoted_char(other);
                    return self.error(format!("unexpected character after '!': {other}"));
                }
            },
            b'<' if self.accept(b"=") => Kind::LessEqual,
            b'<' if self.accept(b"/") => Kind::TrimUpper,
            b'<' => Kind::Less,
            b'>' if self.accept(b"=") => Kind::GreaterEqual,
            b'>' if self.accept(b"/") => Kind::TrimLower,
            b'>' => Kind::Greater,
            b'0'..=b'9' => return self.number_or_duration(),
            b'.' if self.peek_byte().is_some_and(|byte| byte.is_ascii_digit()) => {
                return self.number_or_duration();
            }
            b'"' | b'\'' => return self.string(byte),
            b'`' => return self.raw_string(),
            b':' if self.in_brackets => {
                if self.colon_seen {
                    return self.error("unexpected colon ':'".to_owned());
                }
                self.colon_seen = true;
                Kind::Colon
            }
            b':' => {
                self.at = self.start;
                return self.keyword_or_identifier();
            }
            b'(' => self.open_paren(),
            b')' => self.close_paren()?,
            b'{' => {
                self.in_braces = true;
                Kind::LeftBrace
            }
            b'[' => {
                if self.in_brackets {
                    return self.error("unexpected left bracket '['".to_owned());
                }
                self.in_brackets = true;
                self.colon_seen = false;
                self.duration_seen = false;
                self.state = State::Duration;
                Kind::LeftBracket
            }
            b']' => {
                if !self.in_brackets {
                    return self.error("unexpected right bracket ']'".to_owned());
                }
                self.in_brackets = false;
                Kind::RightBracket
            }
            _ => return self.stranger(char::from(byte)),
        };
        self.token(kind)
    }

    /// Reads the end of the input, which must not be within brackets.
    fn end(&self) -> Lexed<Option<Kind>> {
        if self.parens != 0 {
            return self.error("unclosed left parenthesis".to_owned());
        }
        if self.in_brackets {
            return self.error("unclosed left bracket".to_owned());
        }
        self.token(Kind::Eof)
    }

    /// Reads a token that begins with a character beyond ASCII, which only some names do.
    fn beyond_ascii(&mut self) -> Lexed<Option<Kind>> {
        let Some(c) = self.peek() else {
            return self.end();
        };
        if names::is_start(c, self.unquoted_names) && !self.in_brackets {
            return self.keyword_or_identifier();
        }
        self.at += c.len_utf8();
        self.stranger(c)
    }

    /// A character that begins no token, or a word in brackets. It has been consumed.
    fn stranger(&mut self, c: char) -> Lexed<Option<Kind>> {
        if !names::is_start(c, self.unquoted_names) {
            let c = quoted_char(Some(c));
            return self.error(format!("unexpected character: {c}"));
        }
        if let Some(kind) = self.duration_keyword(c) {
            return self.token(kind);
        }
        let c = quoted_char(Some(c));
        self.error(format!("unexpected character: {c}, expected ':'"))
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

    /// Reads a name or keyword at the current position.
    fn keyword_or_identifier(&mut self) -> Lexed<Option<Kind>> {
        self.accept_name(true);
        let word = self.word();
        let kind = match Kind::keyword(word) {
            // Without a parenthesis they are names, so that metrics with these names keep working.
            Some(Kind::Fill | Kind::FillLeft | Kind::FillRight) if !self.paren_follows() => {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.as_bytes().contains(&b':') => Kind::MetricIdentifier,
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
            self.accept_while(|byte| {
                names::CONTINUES[usize::from(byte)] || (colons && byte == b':')
            });
            // Only unquoted names have dots and letters beyond ASCII.
            if !self.unquoted_names {
                return;
            }
            match self.peek() {
                Some(c) if names::is_continue(c, true) => self.at += c.len_utf8(),
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
    // Cannot truncate: the parser refuses inputs beyond 4 GiB before it makes a lexer.
    Span::new(start as u32, end as u32)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
