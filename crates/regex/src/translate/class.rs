//! Characters and character classes: `[a-z]`, `\d`, `\pL`, `[[:alpha:]]`, `\x{41}`.

use std::fmt::Write as _;

use super::super::{RegexError, unicode};
use super::{NOTHING, Translator};

impl Translator<'_> {
    /// Writes a complete bracketed class with the flags that apply to it.
    pub(super) fn bracketed(&self, items: &str, negated: bool) -> String {
        match (items.is_empty(), negated) {
            (true, false) => NOTHING.into(),
            (true, true) => "(?s:.)".into(),
            (false, _) => {
                let fold = if self.flags.fold { "(?i:" } else { "(?:" };
                let not = if negated { "^" } else { "" };
                format!("{fold}[{not}{items}])")
            }
        }
    }

    /// Reads `\d`, `\pL` and the like after the backslash, as an item of a bracketed class.
    pub(super) fn group_of_characters(
        &mut self,
        start: usize,
    ) -> Result<Option<String>, RegexError> {
        let Some(letter) = self.peek() else {
            return Ok(None);
        };
        let item = match letter {
            'd' => "0-9",
            'D' => "[^0-9]",
            's' => r"\x{9}\x{A}\x{C}\x{D}\x{20}",
            'S' => r"[^\x{9}\x{A}\x{C}\x{D}\x{20}]",
            'w' => "0-9A-Za-z_",
            'W' => "[^0-9A-Za-z_]",
            'p' | 'P' => return self.unicode_group(start).map(Some),
            _ => return Ok(None),
        };
        self.pos += 1;
        Ok(Some(item.into()))
    }

    fn unicode_group(&mut self, start: usize) -> Result<String, RegexError> {
        let mut negated = self.eat("P");
        if !negated {
            self.pos += 1; // the p
        }
        let name = if self.eat("{") {
            let Some(end) = self.rest().find('}') else {
                return Err(RegexError::new(start, "class name is not closed: add }"));
            };
            let name = &self.rest()[..end];
            self.pos += end + 1;
            name
        } else {
            let len = self.peek().map_or(0, char::len_utf8);
            let name = &self.rest()[..len];
            self.pos += len;
            name
        };
        let bare = name.strip_prefix('^');
        negated ^= bare.is_some();
        unicode::class(bare.unwrap_or(name), negated).ok_or_else(|| {
            let reason = format!("{name:?} is not a Unicode category or script that Go knows");
            RegexError::new(start, reason)
        })
    }

    /// Reads an escape for a single character, after the backslash.
    pub(super) fn escaped_character(&mut self, start: usize) -> Result<u32, RegexError> {
        let Some(c) = self.peek() else {
            return Err(RegexError::new(start, "pattern ends with a lone backslash"));
        };
        let escape = self.pos;
        self.pos += c.len_utf8();
        let octal = |c: Option<char>| c.and_then(|c| c.to_digit(8));
        match c {
            'a' => return Ok(7),
            'f' => return Ok(12),
            'n' => return Ok(10),
            'r' => return Ok(13),
            't' => return Ok(9),
            'v' => return Ok(11),
            '0'..='7' if c == '0' || octal(self.peek()).is_some() => {
                let mut number = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = octal(self.peek()) else {
                        break;
                    };
                    number = number * 8 + digit;
                    self.pos += 1;
                }
                return Ok(number);
            }
            'x' => {
                if let Some(number) = self.hexadecimal() {
                    return Ok(number);
                }
            }
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => return Ok(c as u32),
            _ => {}
        }
        let end = self.pos.max(escape + c.len_utf8());
        let text = &self.text[start..end];
        Err(RegexError::new(
            start,
            format!("{text:?} is not an escape that Go knows"),
        ))
    }

    /// Reads `41` or `{41}`.
    fn hexadecimal(&mut self) -> Option<u32> {
        let rest = self.rest();
        let (digits, len) = match rest.strip_prefix('{') {
            Some(braced) => {
                let end = braced.find('}')?;
                (&braced[..end], end + 2)
            }
            None => (rest.get(..2)?, 2),
        };
        if digits.is_empty() {
            return None;
        }
        let mut number = 0;
        for c in digits.chars() {
            number = number * 16 + c.to_digit(16)?;
            if number > char::MAX as u32 {
                return None;
            }
        }
        self.pos += len;
        Some(number)
    }

    /// Reads a bracketed class after the bracket at `start`.
    pub(super) fn class(&mut self, start: usize) -> Result<(), RegexError> {
        let negated = self.eat("^");
        let mut items = String::new();
        let mut first = true;
        while first || !self.rest().starts_with(']') {
            first = false;
            let item = self.pos;
            if self.rest().starts_with("[:")
                && let Some(end) = self.rest()[2..].find(":]")
            {
                let name = &self.rest()[2..2 + end];
                let Some(class) = posix(name) else {
                    let reason = format!("[:{name}:] is not a class that Go knows");
                    return Err(RegexError::new(item, reason));
                };
                items.push_str(&class);
                self.pos += end + 4;
                continue;
            }
            if self.eat("\\") {
                if let Some(group) = self.group_of_characters(item)? {
                    items.push_str(&group);
                    continue;
                }
                self.pos = item;
            }
            let low = self.class_character(start)?;
            let mut high = low;
            let rest = self.rest();
            if rest.starts_with('-') && rest.len() > 1 && !rest.starts_with("-]") {
                self.pos += 1;
                high = self.class_character(start)?;
                if high < low {
                    let range = &self.text[item..self.pos];
                    let reason = format!("range {range:?} is the wrong way round");
                    return Err(RegexError::new(item, reason));
                }
            }
            push_range(&mut items, low, high);
        }
        self.pos += 1; // the bracket
        let piece = self.bracketed(&items, negated);
        self.piece(&piece);
        Ok(())
    }

    fn class_character(&mut self, class: usize) -> Result<u32, RegexError> {
        let start = self.pos;
        let Some(c) = self.peek() else {
            return Err(RegexError::new(class, "class is not closed: add ]"));
        };
        self.pos += c.len_utf8();
        match c {
            '\\' => self.escaped_character(start),
            _ => Ok(c as u32),
        }
    }
}

/// Appends a range without the surrogates in it.
fn push_range(items: &mut String, low: u32, high: u32) {
    const SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDFFF;
    let low = if SURROGATES.contains(&low) {
        0xE000
    } else {
        low
    };
    let high = if SURROGATES.contains(&high) {
        0xD7FF
    } else {
        high
    };
    if low <= high {
        let _ = write!(items, "\\x{{{low:X}}}-\\x{{{high:X}}}"); // cannot fail
    }
}

/// A POSIX class as an item of a bracketed class.
fn posix(name: &str) -> Option<String> {
    let bare = name.strip_prefix('^');
    let ranges = match bare.unwrap_or(name) {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "ascii" => r"\x{0}-\x{7F}",
        "blank" => r"\x{9}\x{20}",
        "cntrl" => r"\x{0}-\x{1F}\x{7F}",
        "digit" => "0-9",
        "graph" => r"\x{21}-\x{7E}",
        "lower" => "a-z",
        "print" => r"\x{20}-\x{7E}",
        "punct" => r"\x{21}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{60}\x{7B}-\x{7E}",
        "space" => r"\x{9}-\x{D}\x{20}",
        "upper" => "A-Z",
        "word" => "0-9A-Za-z_",
        "xdigit" => "0-9A-Fa-f",
        _ => return None,
    };
    Some(match bare {
        Some(_) => format!("[^{ranges}]"),
        None => ranges.into(),
    })
}
