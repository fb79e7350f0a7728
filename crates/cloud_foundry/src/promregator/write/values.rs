//! Reads the values of keys: decrypts them, and resolves what they refer to.

use std::str::FromStr;

use super::{CONTROL, Writer, decrypt};

/// The most references from one value to another, one after another.
const MAX_DEPTH: usize = 20;
/// The most texts that are resolved, those that others refer to included.
const MAX_REFERENCES: usize = 100_000;

impl Writer<'_> {
    /// Takes a value, decrypted if it is encrypted, with its variables translated.
    pub(super) fn value(&mut self, path: &str) -> Option<String> {
        let text = self.document.text(path)?;
        self.resolve(path, &text)
    }

    pub(super) fn resolve(&mut self, path: &str, text: &str) -> Option<String> {
        self.resolve_within(path, text, 0)
    }

    /// Resolves the text at `depth` references away from the key.
    pub(super) fn resolve_within(
        &mut self,
        path: &str,
        text: &str,
        depth: usize,
    ) -> Option<String> {
        self.references += 1;
        if depth > MAX_DEPTH || self.references > MAX_REFERENCES {
            self.wrong(path, "refers to itself, or to too many other values");
            return None;
        }
        if let Some(digits) = text.strip_prefix("{cipher}") {
            let plain = match self.key {
                Some(key) => decrypt(digits.trim(), key),
                None => Err("is encrypted: set ENCRYPT_KEY to the key".to_owned()),
            };
            return match plain {
                Ok(plain) if plain.expose().contains(char::is_control) => {
                    self.wrong(path, CONTROL);
                    None
                }
                Ok(plain) => Some(escaped(plain.expose())),
                Err(what) => {
                    self.wrong(path, what);
                    None
                }
            };
        }
        let mut out = String::new();
        let mut rest = text;
        if text.contains(char::is_control) {
            self.wrong(path, CONTROL);
            return None;
        }
        while let Some((before, behind)) = rest.split_once("${") {
            out.push_str(&escaped(before));
            let Some((inside, after)) = closed(behind) else {
                self.wrong(path, "holds a ${ that is not closed");
                return None;
            };
            out.push_str(&self.reference(path, inside, depth)?);
            rest = after;
        }
        out.push_str(&escaped(rest));
        Some(out)
    }

    /// The text for `${NAME}` or `${NAME:DEFAULT}`: the value of a key of the file, or a variable.
    pub(super) fn reference(&mut self, path: &str, inside: &str, depth: usize) -> Option<String> {
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if let Some(known) = self.whole.look(name).map(str::to_owned) {
            return self.resolve_within(path, &known, depth + 1);
        }
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let is_variable =
            name.bytes().all(plain) && name.bytes().next().is_some_and(|c| !c.is_ascii_digit());
        let Some(default) = default else {
            if !is_variable {
                let what = format!("refers to {name:?}, which is not in the file");
                self.wrong(path, what);
                return None;
            }
            return Some(format!("${{{name}}}"));
        };
        let default = self.resolve_within(path, default, depth + 1)?;
        if !is_variable {
            return Some(default);
        }
        // Here a default is plain text up to the first brace.
        let text = default.replace("$$", "$");
        if has_variable(&default) || text.contains('}') {
            let what = format!("has a default for {name} that cannot be written here: set {name}");
            self.wrong(path, format!("{what}, and write ${{{name}}}"));
            return None;
        }
        Some(format!("${{{name}:-{text}}}"))
    }

    pub(super) fn flag(&mut self, path: &str) -> bool {
        let text = self.value(path);
        text.is_some_and(|text| self.truth(path, &text) == Some(true))
    }

    /// Reads a truth value that was resolved, as Spring does. `None` if it is empty, or wrong.
    pub(super) fn truth(&mut self, path: &str, text: &str) -> Option<bool> {
        match text.trim().to_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            "" => None,
            _ if has_variable(text) => {
                self.wrong(
                    path,
                    "depends on a variable, which it cannot here: write true or false",
                );
                None
            }
            _ => {
                self.wrong(path, "is neither true nor false");
                None
            }
        }
    }

    /// Takes a value. An empty one counts as absent.
    pub(super) fn filled(&mut self, path: &str) -> Option<String> {
        self.value(path).filter(|text| !text.is_empty())
    }

    /// Takes a number; 0 counts as absent.
    pub(super) fn number<T: Number>(&mut self, path: &str) -> Option<T> {
        let text = self.value(path)?;
        self.parse(path, &text)
    }

    pub(super) fn parse<T: Number>(&mut self, path: &str, text: &str) -> Option<T> {
        match text.trim().parse::<T>() {
            Ok(number) => Some(number).filter(|it| *it != T::default()),
            Err(_) => {
                let size = size_of::<T>() * 8;
                let what = format!("is not a whole number of at most {size} bits");
                self.wrong(path, what);
                None
            }
        }
    }
}

/// A text in which a dollar sign begins no variable.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// Whether a text that was resolved has variables.
pub(super) fn has_variable(text: &str) -> bool {
    text.replace("$$", "").contains("${")
}

/// Whether a text that was resolved is one variable, whose default, if it has one, passes the check.
pub(super) fn is_variable(text: &str, check: impl Fn(&str) -> bool) -> bool {
    let inside = text.strip_prefix("${").and_then(|it| it.strip_suffix('}'));
    let Some(inside) = inside else {
        return false;
    };
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    is_name && default.is_none_or(|default| !default.contains('}') && check(default))
}

/// Splits a text at the brace that closes one before it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut open = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => return Some((&text[..at], &text[at + 1..])),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Numbers of the file.
pub(super) trait Number: FromStr + Default + PartialEq {}

impl Number for u16 {}
impl Number for u32 {}
