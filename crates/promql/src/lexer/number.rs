//! Characters of numbers and durations; the parser computes their values.

use super::{Lexed, Lexer};
use crate::token::Kind;

impl Lexer<'_> {
    /// Reads a number or a duration, of which at most one character has been consumed.
    pub(super) fn number_or_duration(&mut self) -> Lexed<Option<Kind>> {
        self.at = self.start;
        if self.scan_number() {
            return self.token(Kind::Number);
        }
        if self.scan_duration() {
            return self.token(Kind::Duration);
        }
        self.bad_syntax("number or duration")
    }

    /// Reads a number at the current position.
    pub(super) fn number(&mut self) -> Lexed<Option<Kind>> {
        if self.scan_number() {
            return self.token(Kind::Number);
        }
        self.bad_syntax("number")
    }

    /// Reads the units of a duration whose first digits have been consumed.
    fn scan_duration(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        // The second character of `ms`; other pairs are refused when the duration is evaluated.
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

    /// Reads a number. Returns false if there is none; some characters may have been consumed then.
    fn scan_number(&mut self) -> bool {
        let begin = self.at;
        // In a series description, "0x3" means a zero three times.
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
                // Also digits of a hexadecimal number, which may therefore contain only one of them.
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
