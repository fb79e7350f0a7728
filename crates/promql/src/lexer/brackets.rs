//! Content of brackets and braces, where characters have other meanings than elsewhere.

use super::{Lexed, Lexer, State};
use crate::go::quoted_char;
use crate::names;
use crate::token::Kind;

impl Lexer<'_> {
    /// Reads a token in brackets, up to the first number.
    pub(super) fn duration(&mut self) -> Lexed<Option<Kind>> {
        let Some(c) = self.bump() else {
            return self.error("unexpected end of input in duration expression".to_owned());
        };
        let kind = match c {
            ' ' | '\t' | '\n' | '\r' => {
                self.skip_spaces();
                return Ok(None);
            }
            ']' => {
                self.in_brackets = false;
                self.colon_seen = false;
                self.state = State::Statements;
                Kind::RightBracket
            }
            ':' => {
                if !self.duration_seen {
                    let message = "unexpected colon before duration in duration expression";
                    return self.error_behind(message.to_owned());
                }
                if self.colon_seen {
                    let message = "unexpected repeated colon in duration expression";
                    return self.error_behind(message.to_owned());
                }
                self.colon_seen = true;
                Kind::Colon
            }
            '(' => self.open_paren(),
            ')' => self.close_paren()?,
            '+' => Kind::Add,
            '-' => Kind::Sub,
            '*' => Kind::Mul,
            '/' => Kind::Div,
            '%' => Kind::Mod,
            '^' => Kind::Pow,
            ',' => Kind::Comma,
            '0'..='9' | '.' if c != '.' || self.peek_byte().is_some_and(|b| b.is_ascii_digit()) => {
                self.duration_seen = true;
                self.state = State::Statements;
                return self.number_or_duration();
            }
            _ => match self.duration_keyword(c) {
                Some(kind) => {
                    self.duration_seen = true;
                    kind
                }
                None => {
                    let c = quoted_char(Some(c));
                    let message = format!("unexpected character in duration expression: {c}");
                    return self.error(message);
                }
            },
        };
        self.token(kind)
    }

    /// Reads a word of a duration whose first character has been consumed.
    pub(super) fn duration_keyword(&mut self, first: char) -> Option<Kind> {
        if !matches!(first.to_ascii_lowercase(), 's' | 'r' | 'm') {
            return None;
        }
        self.accept_while(|byte| byte == b'_' || byte.is_ascii_alphabetic());
        Kind::keyword(self.word())
            .filter(|kind| matches!(kind, Kind::Step | Kind::Range | Kind::MaxOf | Kind::MinOf))
    }

    /// Reads a token in braces.
    pub(super) fn braces(&mut self) -> Lexed<Option<Kind>> {
        self.skip_spaces();
        self.start = self.at;
        let Some(byte) = self.peek_byte() else {
            return self.error("unexpected end of input inside braces".to_owned());
        };
        if names::STARTS[usize::from(byte)] {
            self.accept_name(false);
            return self.token(Kind::Identifier);
        }
        let Some(c) = self.bump() else {
            return self.error("unexpected end of input inside braces".to_owned());
        };
        let kind = match c {
            '#' => {
                self.accept_while(|byte| byte != b'\n' && byte != b'\r');
                return Ok(None);
            }
            ',' => Kind::Comma,
            '"' | '\'' => return self.string(c as u8),
            '`' => return self.raw_string(),
            '=' if self.accept(b"~") => Kind::EqlRegex,
            '=' => Kind::Eql,
            '!' => match self.bump() {
                Some('~') => Kind::NotRegex,
                Some('=') => Kind::NotEqual,
                other => {
                    let other = quoted_char(other);
                    let message = format!("unexpected character after '!' inside braces: {other}");
                    return self.error(message);
                }
            },
            '{' => return self.error("unexpected left brace '{'".to_owned()),
            '}' => {
                self.in_braces = false;
                if self.series {
                    self.state = State::Values;
                }
                Kind::RightBrace
            }
            _ if names::is_start(c, self.unquoted_names) => {
                self.accept_name(false);
                Kind::Identifier
            }
            _ => {
                let c = quoted_char(Some(c));
                return self.error(format!("unexpected character inside braces: {c}"));
            }
        };
        self.token(kind)
    }
}
