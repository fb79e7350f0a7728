//! Replacement templates, read exactly as by Go's `Regexp.Expand`.
//!
//! `$name` takes the longest run of letters, digits and underscores, so `$1x` is the group named
//! `1x`, not group 1; write `${1}x` for group 1 and an `x`. `$$` is a dollar. A group that does not
//! exist or did not take part in the match is empty. Any other dollar is literal.

use std::sync::LazyLock;

use super::{Locations, Regex};

/// A template, compiled for one pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    /// The first of these groups that took part in the match.
    Group(Box<[usize]>),
}

impl Template {
    /// Compiles a template for the groups of a pattern.
    pub fn new(text: &str, regex: &Regex) -> Self {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.extend_from_slice(before.as_bytes());
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                literal.push(b'$');
                rest = after;
            } else if let Some((name, after)) = reference(rest) {
                rest = after;
                let groups: Box<[usize]> = match number(name) {
                    Some(number) if number < regex.groups() => [number].into(),
                    Some(_) => Box::default(),
                    None => regex.group(name).collect(),
                };
                if !groups.is_empty() {
                    if !literal.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut literal).into()));
                    }
                    parts.push(Part::Group(groups));
                }
            } else {
                literal.push(b'$');
            }
        }
        literal.extend_from_slice(rest.as_bytes());
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Self {
            parts: parts.into(),
        }
    }

    /// The expansion, if it does not depend on the match.
    pub fn constant(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The group, if the template is a single reference.
    pub fn only_group(&self) -> Option<usize> {
        match &*self.parts {
            [Part::Group(groups)] if groups.len() == 1 => groups.first().copied(),
            _ => None,
        }
    }

    /// Appends the expansion for a match of `text`.
    pub fn expand(&self, text: &[u8], groups: &Locations, into: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => into.extend_from_slice(text),
                Part::Group(numbers) => {
                    let mut found = numbers.iter().filter_map(|&number| groups.get(number));
                    if let Some((start, end)) = found.next() {
                        into.extend_from_slice(&text[start..end]);
                    }
                }
            }
        }
    }
}

/// Reads `name` or `{name}` after a dollar; returns the name and the remaining text.
fn reference(text: &str) -> Option<(&str, &str)> {
    // Letters and decimal digits as Go's `unicode` defines them; Rust's own predicates accept more.
    static NAME: LazyLock<Option<regex::Regex>> =
        LazyLock::new(|| regex::Regex::new(r"\A[\p{gc=L}\p{gc=Nd}_]+").ok());
    let braced = text.strip_prefix('{');
    let inner = braced.unwrap_or(text);
    let end = NAME.as_ref()?.find(inner)?.end();
    let (name, rest) = inner.split_at(end);
    let rest = match braced {
        Some(_) => rest.strip_prefix('}')?,
        None => rest,
    };
    Some((name, rest))
}

/// The group number, if the name is one: ASCII digits without a leading zero, not too many.
fn number(name: &str) -> Option<usize> {
    let numeral =
        name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    // Go stops at a hundred million; no pattern has as many groups.
    if numeral && name.len() <= 9 {
        name.parse().ok()
    } else {
        None
    }
}
