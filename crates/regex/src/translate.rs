//! From Go's regular-expression syntax to that of the `regex` crate.
//!
//! Go's `regexp` package (with the Perl flags, as Prometheus uses it) and the `regex` crate agree
//! on how to match but not on what a pattern means: `\d` is ASCII in Go, `\<` is a literal,
//! `[a&&b]` contains an ampersand, `a{,5}` is text. So a pattern is parsed as Go would parse it,
//! and each piece is written so that it has the same meaning on its own: flags are resolved here
//! and appear only around the piece that they apply to, characters of classes are written as code
//! points, groups lose their names (which may begin with a digit in Go).
//!
//! Patterns that Go accepts and this translator refuses: groups nested more than [`MAX_DEPTH`]
//! deep, and patterns of more than [`MAX_LEN`] bytes.

mod class;

use std::fmt::Write as _;

use super::{MAX_DEPTH, MAX_LEN, RegexError};

/// Largest count in `{n,m}`, and largest product of nested counts.
const MAX_REPEAT: u32 = 1000;
/// A class that matches no character.
const NOTHING: &str = r"[^\x{0}-\x{10FFFF}]";

/// A translated pattern and the names of its groups, including group 0.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) pattern: String,
    pub(super) names: Vec<Option<Box<str>>>,
}

/// Translates a pattern as if it stood in `(?s:…)`.
pub(super) fn translate(pattern: &str) -> Result<Translated, RegexError> {
    if pattern.len() > MAX_LEN {
        let reason = format!("pattern is longer than {MAX_LEN} bytes");
        return Err(RegexError::new(MAX_LEN, reason));
    }
    let mut translator = Translator {
        text: pattern,
        pos: 0,
        flags: Flags {
            dot_newline: true,
            ..Flags::default()
        },
        out: String::with_capacity(pattern.len() + 16),
        last: None,
        weight: 1,
        groups: Vec::new(),
        names: vec![None],
    };
    translator.run()?;
    Ok(Translated {
        pattern: translator.out,
        names: translator.names,
    })
}

#[derive(Clone, Copy, Default)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_newline: bool,
    lazy: bool,
}

/// The last written piece, which a repetition would apply to.
#[derive(Clone, Copy)]
struct Piece {
    start: usize,
    /// Largest product of repetition counts inside the piece.
    weight: u32,
    repeated: bool,
}

/// An open group, with the state to restore when it closes.
struct Group {
    /// Where the group opened: positions in the pattern and in the output.
    opened: usize,
    start: usize,
    flags: Flags,
    weight: u32,
}

struct Translator<'a> {
    text: &'a str,
    pos: usize,
    flags: Flags,
    out: String,
    last: Option<Piece>,
    /// Largest product of repetition counts inside the open group.
    weight: u32,
    groups: Vec<Group>,
    names: Vec<Option<Box<str>>>,
}

impl<'a> Translator<'a> {
    fn run(&mut self) -> Result<(), RegexError> {
        let mut after_repetition = false;
        while let Some(c) = self.peek() {
            let start = self.pos;
            self.pos += c.len_utf8();
            let mut repetition = false;
            match c {
                '(' => self.open(start)?,
                ')' => self.close(start)?,
                '|' => {
                    self.commit();
                    self.out.push('|');
                }
                '^' if self.flags.multi_line => self.piece("(?m:^)"),
                '^' => self.piece(r"(?:\A)"),
                '$' if self.flags.multi_line => self.piece("(?m:$)"),
                '$' => self.piece(r"(?:\z)"),
                '.' if self.flags.dot_newline => self.piece("(?s:.)"),
                '.' => self.piece(r"[^\x{A}]"),
                '[' => self.class(start)?,
                '*' | '+' | '?' => {
                    let count = &self.text[start..self.pos];
                    self.repeat(start, count, 1, after_repetition)?;
                    repetition = true;
                }
                '{' => match self.counts(start)? {
                    Some((min, max)) => {
                        let count = &self.text[start..self.pos];
                        let factor = match max {
                            Some(0) => 0,
                            Some(max) => max,
                            None => min.max(1),
                        };
                        self.repeat(start, count, factor, after_repetition)?;
                        repetition = true;
                    }
                    None => self.literal('{'),
                },
                '\\' => self.escape(start)?,
                other => self.literal(other),
            }
            after_repetition = repetition;
        }
        match self.groups.last() {
            Some(group) => Err(RegexError::new(group.opened, "group is not closed: add )")),
            None => Ok(()),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.pos += expected.len();
        }
        found
    }

    /// Writes a piece that a repetition may follow without a group around it.
    fn piece(&mut self, text: &str) {
        let start = self.out.len();
        self.out.push_str(text);
        self.wrote(start, 1);
    }

    /// Ends the last piece, so that no repetition applies to it.
    fn commit(&mut self) {
        if let Some(piece) = self.last.take() {
            self.weight = self.weight.max(piece.weight);
        }
    }

    fn wrote(&mut self, start: usize, weight: u32) {
        self.commit();
        self.last = Some(Piece {
            start,
            weight,
            repeated: false,
        });
    }

    fn literal(&mut self, c: char) {
        let start = self.out.len();
        let fold = self.flags.fold && (c.is_ascii_alphabetic() || !c.is_ascii());
        if fold {
            self.out.push_str("(?i:");
        }
        if c.is_ascii_alphanumeric() || !c.is_ascii() {
            self.out.push(c);
        } else {
            self.number(c as u32);
        }
        if fold {
            self.out.push(')');
        }
        self.wrote(start, 1);
    }

    /// Writes a character given by its code point, perhaps a surrogate, which no text contains.
    fn literal_number(&mut self, number: u32) {
        match char::from_u32(number) {
            Some(c) => self.literal(c),
            None => self.piece(NOTHING),
        }
    }

    fn number(&mut self, number: u32) {
        let _ = write!(self.out, "\\x{{{number:X}}}"); // writing to a String cannot fail
    }

    fn open(&mut self, start: usize) -> Result<(), RegexError> {
        if self.groups.len() >= MAX_DEPTH {
            let reason = format!("groups are nested more than {MAX_DEPTH} deep");
            return Err(RegexError::new(start, reason));
        }
        let mut group = Group {
            opened: start,
            start: self.out.len(),
            flags: self.flags,
            weight: 1,
        };
        if !self.eat("?") {
            self.names.push(None);
            self.out.push('(');
        } else if self.eat("P<") || self.eat("<") {
            self.named(start)?;
        } else if self.group_flags(start)? {
            self.out.push_str("(?:");
        } else {
            return Ok(());
        }
        self.commit();
        group.weight = self.weight;
        self.groups.push(group);
        self.weight = 1;
        Ok(())
    }

    fn named(&mut self, start: usize) -> Result<(), RegexError> {
        let Some(end) = self.rest().find('>') else {
            return Err(RegexError::new(start, "group name is not closed: add >"));
        };
        let name = &self.rest()[..end];
        let valid = |c: char| c == '_' || c.is_ascii_alphanumeric();
        if name.is_empty() || !name.chars().all(valid) {
            let reason = format!("{name:?} is not a group name: use letters, digits and _");
            return Err(RegexError::new(start, reason));
        }
        self.names.push(Some(name.into()));
        self.out.push('(');
        self.pos += end + 1;
        Ok(())
    }

    /// Reads what follows `(?`; returns whether it opens a group.
    fn group_flags(&mut self, start: usize) -> Result<bool, RegexError> {
        let mut flags = self.flags;
        let mut value = true;
        let mut seen = false;
        while let Some(c) = self.peek() {
            self.pos += c.len_utf8();
            match c {
                'i' => flags.fold = value,
                'm' => flags.multi_line = value,
                's' => flags.dot_newline = value,
                'U' => flags.lazy = value,
                '-' if value => {
                    value = false;
                    seen = false;
                    continue;
                }
                ':' | ')' if value || seen => {
                    // The opening group restores the previous flags when it closes.
                    self.flags = flags;
                    return Ok(c == ':');
                }
                _ => break,
            }
            seen = true;
        }
        let reason = format!(
            "{:?} is not known here: groups open with (, (?:, (?P<name>, (?<name> or flags of imsU",
            &self.text[start..self.pos]
        );
        Err(RegexError::new(start, reason))
    }

    fn close(&mut self, start: usize) -> Result<(), RegexError> {
        let Some(group) = self.groups.pop() else {
            return Err(RegexError::new(
                start,
                "unexpected ): write \\) for the character",
            ));
        };
        self.out.push(')');
        self.commit();
        let inner = self.weight;
        self.flags = group.flags;
        self.weight = group.weight;
        self.wrote(group.start, inner);
        Ok(())
    }

    /// Applies a repetition to the last piece.
    fn repeat(
        &mut self,
        start: usize,
        count: &str,
        factor: u32,
        after_repetition: bool,
    ) -> Result<(), RegexError> {
        let mut lazy = self.flags.lazy;
        if self.eat("?") {
            lazy = !lazy;
        }
        if after_repetition {
            let reason = format!("{count:?} repeats a repetition: put the inner one in (?:…)");
            return Err(RegexError::new(start, reason));
        }
        let Some(mut piece) = self.last else {
            let reason = format!("{count:?} has nothing to repeat: write \\ before the character");
            return Err(RegexError::new(start, reason));
        };
        piece.weight = match factor {
            0 => 1,
            _ => piece.weight * factor, // both at most 1000
        };
        if piece.weight > MAX_REPEAT {
            let reason = format!("{count:?} repeats more than {MAX_REPEAT} times");
            return Err(RegexError::new(start, reason));
        }
        if piece.repeated {
            self.out.insert_str(piece.start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(count);
        if lazy {
            self.out.push('?');
        }
        piece.repeated = true;
        self.last = Some(piece);
        Ok(())
    }

    /// Reads `{n}`, `{n,}` or `{n,m}` after the brace; None if the brace is literal text.
    fn counts(&mut self, start: usize) -> Result<Option<(u32, Option<u32>)>, RegexError> {
        let rest = self.rest();
        let Some(end) = rest.find('}') else {
            return Ok(None);
        };
        let inner = &rest[..end];
        let (min, max) = match inner.split_once(',') {
            None => (inner, Some(inner)),
            Some((min, "")) => (min, None),
            Some((min, max)) => (min, Some(max)),
        };
        let numeral = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits && (text.len() == 1 || !text.starts_with('0'))
        };
        if !numeral(min) || !max.is_none_or(numeral) {
            return Ok(None);
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|&n| n <= MAX_REPEAT);
        let parsed = match (number(min), max.map(number)) {
            (Some(min), None) => Some((min, None)),
            (Some(min), Some(Some(max))) if min <= max => Some((min, Some(max))),
            _ => None,
        };
        if parsed.is_none() {
            let reason = format!(
                "{{{inner}}} is not a valid repetition: counts rise and are at most {MAX_REPEAT}"
            );
            return Err(RegexError::new(start, reason));
        }
        self.pos += end + 1;
        Ok(parsed)
    }

    /// Reads an escape after the backslash at `start`.
    fn escape(&mut self, start: usize) -> Result<(), RegexError> {
        for (letter, text) in [
            ("A", r"(?:\A)"),
            ("z", r"(?:\z)"),
            ("b", r"(?-u:\b)"),
            ("B", r"(?-u:\B)"),
        ] {
            if self.eat(letter) {
                self.piece(text);
                return Ok(());
            }
        }
        if self.eat("Q") {
            // Go allows `\Q` without `\E`, but Prometheus appends its anchor to the pattern.
            let Some(end) = self.rest().find(r"\E") else {
                return Err(RegexError::new(start, r"quotation is not closed: add \E"));
            };
            for c in self.rest()[..end].chars() {
                self.literal(c);
            }
            self.pos += end + 2;
            return Ok(());
        }
        if let Some(item) = self.group_of_characters(start)? {
            let piece = self.bracketed(&item, false);
            self.piece(&piece);
            return Ok(());
        }
        let number = self.escaped_character(start)?;
        self.literal_number(number);
        Ok(())
    }
}
