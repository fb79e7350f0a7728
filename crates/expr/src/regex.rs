//! Regular expressions that mean what they mean to Prometheus.
//!
//! A pattern is in Go's syntax, the dot matches everything, and the whole text has to match:
//! `^(?s:PATTERN)$`. Patterns are translated for the `regex` crate; those that need no automaton
//! (a name, a list of names, a prefix …) are recognised and matched without one.
//!
//! Two things differ from Prometheus, both on purpose: a pattern whose parentheses are balanced
//! only together with the anchors, such as `a)|(b`, is refused rather than left unanchored, and
//! patterns are bounded in length, nesting and compiled size.

mod matcher;
mod translate;
mod unicode;

#[cfg(test)]
mod tests;

use thiserror::Error;

pub use matcher::Matcher;

/// The longest pattern, in bytes.
pub const MAX_LEN: usize = 64 << 10;
/// The deepest nesting of groups.
pub const MAX_DEPTH: usize = 100;
/// The largest compiled automaton, in bytes.
const MAX_COMPILED: usize = 16 << 20;
/// The memory that one search may use for states that it works out as it goes, in bytes.
const MAX_CACHE: usize = 2 << 20;

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid regular expression at byte {offset}: {reason}")]
pub struct RegexError {
    /// Where in the pattern, in bytes.
    pub offset: usize,
    /// Why.
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

/// Where the groups of a match lie; made by [`Regex::locations`].
pub type Locations = regex::bytes::CaptureLocations;

/// A compiled pattern. Texts are bytes that are known to be UTF-8.
#[derive(Clone, Debug)]
pub struct Regex {
    text: Box<str>,
    names: Box<[Option<Box<str>>]>,
    matcher: Matcher,
    /// Always there: groups are read from it even where the matcher needs no automaton.
    automaton: regex::bytes::Regex,
    /// Whether group 1 is the whole text whenever the pattern matches.
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
        // Every group of the pattern is at most a handful deep once translated.
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
            Err(_) => (None, false), // the automaton serves
        };
        Ok(Self {
            text: pattern.into(),
            names: translated.names.into(),
            matcher: matcher.unwrap_or_else(|| Matcher::Regex(automaton.clone())),
            automaton,
            whole_group,
        })
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How texts are matched.
    pub fn matcher(&self) -> &Matcher {
        &self.matcher
    }

    /// Whether the whole text matches.
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.matcher.is_match(text)
    }

    /// Whether group 1 is the whole text whenever the pattern matches, as in `(.*)`.
    pub fn whole_group(&self) -> bool {
        self.whole_group
    }

    /// Room for [`captures`](Self::captures).
    pub fn locations(&self) -> Locations {
        self.automaton.capture_locations()
    }

    /// Finds the groups; returns whether the whole text matches.
    pub fn captures(&self, text: &[u8], into: &mut Locations) -> bool {
        self.automaton.captures_read(into, text).is_some()
    }

    /// How many groups there are, that of the whole match included.
    pub fn groups(&self) -> usize {
        self.names.len()
    }

    /// The numbers of the groups with this name; Go lets several share one.
    pub fn group(&self, name: &str) -> impl Iterator<Item = usize> {
        let names = self.names.iter().enumerate();
        names
            .filter(move |(_, other)| other.as_deref() == Some(name))
            .map(|(number, _)| number)
    }
}
