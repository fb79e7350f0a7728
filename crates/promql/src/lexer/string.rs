//! Strings: their ends, and the validity of their escapes.

use super::{Lexed, Lexer};
use crate::go::code_point;
use crate::text::Text;
use crate::token::Kind;

impl Lexer<'_> {
    /// Reads a string with escapes whose quote has been consumed.
    pub(super) fn string(&mut self, quote: u8) -> Lexed<Option<Kind>> {
        loop {
            self.accept_while(|byte| {
                byte != quote && byte != b'\\' && byte != b'\n' && byte.is_ascii()
            });
            match self.bump() {
                None | Some('\n') => return self.error("unterminated quoted string".to_owned()),
                Some(char::REPLACEMENT_CHARACTER) => return self.invalid_rune(),
                Some('\\') => self.escape(quote)?,
                Some(c) if c == char::from(quote) => return self.token(Kind::String),
                Some(_) => {}
            }
        }
    }

    /// Reads a string without escapes whose quote has been consumed.
    pub(super) fn raw_string(&mut self) -> Lexed<Option<Kind>> {
        loop {
            self.accept_while(|byte| byte != b'`' && byte.is_ascii());
            match self.bump() {
                None => return self.error("unterminated raw string".to_owned()),
                Some(char::REPLACEMENT_CHARACTER) => return self.invalid_rune(),
                Some('`') => return self.token(Kind::String),
                Some(_) => {}
            }
        }
    }

    /// Upstream cannot distinguish the replacement character from invalid UTF-8.
    fn invalid_rune(&self) -> Lexed<Option<Kind>> {
        self.error("invalid UTF-8 rune".to_owned())
    }

    /// Reads an escape whose backslash has been consumed.
    fn escape(&mut self, quote: u8) -> Lexed<()> {
        let unterminated = || "escape sequence not terminated".to_owned();
        let Some(c) = self.bump() else {
            return self.error(unterminated());
        };
        let (digits, base, max) = match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            c if c == char::from(quote) => return Ok(()),
            '0'..='7' => {
                self.at -= 1;
                (3, 8, 255)
            }
            'x' => (2, 16, 255),
            'u' => (4, 16, 0x10_ffff),
            'U' => (8, 16, 0x10_ffff),
            c => {
                let message = format!("unknown escape sequence {}", code_point(c));
                return self.error(message);
            }
        };
        let mut code: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.bump() else {
                return self.error(unterminated());
            };
            let Some(digit) = c.to_digit(base) else {
                let c = code_point(c);
                return self.error(format!("illegal character {c} in escape sequence"));
            };
            // At most eight hexadecimal digits: 32 bits.
            code = code.wrapping_mul(base).wrapping_add(digit);
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            let message = "escape sequence is an invalid Unicode code point";
            return self.error(message.to_owned());
        }
        Ok(())
    }
}

/// The value of a string token, which the lexer has checked.
pub(crate) fn unquote(token: &str) -> Text {
    let bytes = token.as_bytes();
    let inner = &bytes[1..bytes.len() - 1];
    if bytes[0] == b'`' || !inner.contains(&b'\\') {
        return inner.into();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = unescape(&rest[at + 1..], &mut out);
    }
    out.extend_from_slice(rest);
    out.into()
}

/// Appends the value of an escape, and returns the rest behind it.
fn unescape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((&first, behind)) = rest.split_first() else {
        return rest;
    };
    let (digits, base) = match first {
        b'0'..=b'7' => (&rest[..rest.len().min(3)], 8),
        b'x' => (&behind[..behind.len().min(2)], 16),
        b'u' => (&behind[..behind.len().min(4)], 16),
        b'U' => (&behind[..behind.len().min(8)], 16),
        _ => {
            out.push(match first {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                same => same,
            });
            return behind;
        }
    };
    let code = digits.iter().fold(0_u32, |code, digit| {
        let digit = char::from(*digit).to_digit(base).unwrap_or_default();
        code.wrapping_mul(base).wrapping_add(digit)
    });
    if matches!(first, b'u' | b'U') {
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        out.push(code as u8);
    }
    let taken = digits.len() + usize::from(base == 16);
    &rest[taken..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes_and_characters() {
        for (token, expected) in [
            (r#""a""#, &b"a"[..]),
            (r"'\a\b\f\n\r\t\v\\\''", b"\x07\x08\x0c\n\r\t\x0b\\'"),
            (
                r#""\xFF\377\u1234\U00010111☺""#,
                b"\xff\xff\xe1\x88\xb4\xf0\x90\x84\x91\xe2\x98\xba",
            ),
            (r"`\d\`", br"\d\"),
            (r#""\0601""#, b"01"),
        ] {
            assert_eq!(unquote(token).as_bytes(), expected, "{token}");
        }
    }
}
