//! Regular expressions with the meaning that Prometheus gives them.
//!
//! A pattern is in Go's syntax, the dot matches everything, and the whole text has to match:
//! `^(?s:PATTERN)$`. Patterns are translated for the `regex` crate; those that need no automaton
//! (a name, a list of names, a prefix …) are recognised and matched without one.
//!
//! Two deliberate differences from Prometheus: a pattern whose parentheses are balanced only
//! together with the anchors, such as `a)|(b`, is refused instead of being left unanchored, and
//! patterns are bounded in length, nesting and compiled size.

#![warn(unreachable_pub)]
// Tests may do all of this.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

mod matcher;
mod plain;
mod template;
mod translate;
mod unicode;

#[cfg(test)]
mod tests;

use thiserror::Error;

pub use matcher::Matcher;
pub use template::Template;

/// Longest pattern, in bytes.
pub const MAX_LEN: usize = 64 << 10;
/// Deepest nesting of groups.
pub const MAX_DEPTH: usize = 100;
/// Largest compiled automaton, in bytes.
const MAX_COMPILED: usize = 16 << 20;
/// Memory for the states that one search computes lazily, in bytes.
const MAX_CACHE: usize = 2 << 20;

/// A syntax error in a pattern, or an exceeded bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid regular expression at byte {offset}: {reason}")]
pub struct RegexError {
    /// Position in the pattern, in bytes.
    pub offset: usize,
    /// Description of the error.
    pub reason: String,
}

impl RegexError {
    fn new(offset: usize, reason: impl Into<String>) -> Self {
        Self {
            offset,
            reason: reason.into(),
        }
    }
}

/// Positions of the groups of a match; created by [`Regex::locations`].
pub type Locations = regex::bytes::CaptureLocations;

/// A compiled pattern. It matches bytes that are known to be UTF-8.
#[derive(Clone, Debug)]
pub struct Regex {
    text: Box<str>,
    names: Box<[Option<Box<str>>]>,
    matcher: Matcher,
    /// Always compiled: groups are read from it even where the matcher needs no automaton.
    automaton: regex::bytes::Regex,
    /// Whether group 1 always matches the whole text.
    whole_group: bool,
}

impl Regex {
    /// Compiles a pattern in Go's syntax.
    ///
    /// # Errors
    ///
    /// Fails when Go would refuse the pattern, or when it exceeds a bound.
    pub fn new(pattern: &str) -> Result<Self, RegexError> {
        let translated = translate::translate(pattern)?;
        let anchored = format!(r"\A(?:{})\z", translated.pattern);
        // Translation nests each group of the pattern a few levels deeper.
        let nesting = 8 * MAX_DEPTH as u32;
        let automaton = regex::bytes::RegexBuilder::new(&anchored)
            .size_limit(MAX_COMPILED)
            .dfa_size_limit(MAX_CACHE)
            .nest_limit(nesting)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => RegexError::new(
                    0,
                    format!("pattern compiles to more than {MAX_COMPILED} bytes: repeat less"),
                ),
                other => RegexError::new(0, other.to_string()),
            })?;
        let (matcher, whole_group) = match regex_syntax::ParserBuilder::new()
            .utf8(false)
            .nest_limit(nesting)
            .build()
            .parse(&translated.pattern)
        {
            Ok(hir) => (Matcher::analyse(&hir), matcher::is_whole_group(&hir)),
            Err(_) => (None, false), // the automaton is used
        };
        Ok(Self {
            text: pattern.into(),
            names: translated.names.into(),
            matcher: matcher.unwrap_or_else(|| Matcher::Regex(automaton.clone())),
            automaton,
            whole_group,
        })
    }

    /// Whether [`Self::new`] accepts a pattern, for callers that do not match with it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::new`].
    pub fn validate(pattern: &str) -> Result<(), RegexError> {
        match plain::is_valid(pattern) {
            true => Ok(()),
            false => Self::new(pattern).map(drop),
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The matcher chosen for the pattern.
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Whether the whole text matches.
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.matcher.is_match(text)
    }

    /// Whether group 1 always matches the whole text, as in `(.*)`.
    pub fn whole_group(&self) -> bool {
        self.whole_group
    }

    /// Allocates the positions that [`captures`](Self::captures) fills.
    pub fn locations(&self) -> Locations {
        self.automaton.capture_locations()
    }

    /// Finds the positions of the groups; returns whether the whole text matches.
    pub fn captures(&self, text: &[u8], into: &mut Locations) -> bool {
        self.automaton.captures_read(into, text).is_some()
    }

    /// Number of groups, including group 0, the whole match.
    pub fn groups(&self) -> usize {
        self.names.len()
    }

    /// Numbers of the groups with this name; in Go, several groups can share one.
    pub fn group(&self, name: &str) -> impl Iterator<Item = usize> {
        let names = self.names.iter().enumerate();
        names
            .filter(move |(_, other)| other.as_deref() == Some(name))
            .map(|(number, _)| number)
    }
}
