//! Numbers and durations, as far as their characters go; what they stand for is found later.

use super::{Lexed, Lexer};
use crate::token::{Kind, Token};

impl Lexer<'_> {
    /// A number or a duration, of which one character at most has been taken.
    pub(super) fn number_or_duration(&mut self) -> Lexed<Option<Token>> {
        self.at = self.start;
        if self.scan_number() {
            return self.token(Kind::Number);
        }
        if self.scan_duration() {
            return self.token(Kind::Duration);
        }
        self.bad_syntax("number or duration")
    }

    /// A number alone, which may begin where the lexer stands.
    pub(super) fn number(&mut self) -> Lexed<Option<Token>> {
        if self.scan_number() {
            return self.token(Kind::Number);
        }
        self.bad_syntax("number")
    }

    /// The units of a duration, of which the first digits have been taken.
    fn scan_duration(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        // The second character of milliseconds; what is no unit is refused when it is evaluated.
        self.accept(b"s");
        while self.accept(b"0123456789") {
            self.accept_while(|byte| byte.is_ascii_digit());
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        match self.peek() {
            Some(c) if is_word(c) => {
                self.at += 1;
                false
            }
            _ => true,
        }
    }

    /// Whether a number has been taken; if not, some of its characters may have been.
    fn scan_number(&mut self) -> bool {
        let begin = self.at;
        // A series description needs "0x3" for a zero three times.
        let hex = !self.series && self.accept(b"0") && self.accept(b"xX");
        if hex {
            self.accept(b"_");
        }
        let is_digit = |byte: u8| match hex {
            true => byte.is_ascii_hexdigit(),
            false => byte.is_ascii_digit(),
        };
        self.accept(b".");
        if self.peek_byte().is_some_and(is_digit) {
            self.at += 1;
        }
        let (mut dot, mut exponent) = (false, false);
        while let Some(byte) = self.peek_byte() {
            match byte {
                b'.' => {
                    self.at += 1;
                    if dot || self.accept(b"_.") || hex {
                        return false;
                    }
                    dot = true;
                }
                // These are digits of a hexadecimal number too: it may have one of them.
                b'e' | b'E' => {
                    self.at += 1;
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept(b"+-");
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                b'_' => {
                    self.at += 1;
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                byte if is_digit(byte) => self.accept_while(is_digit),
                _ => break,
            }
        }
        if self.at == begin {
            return false;
        }
        match self.peek() {
            Some('x') if self.series => true,
            Some(c) => !is_word(c),
            None => true,
        }
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}
