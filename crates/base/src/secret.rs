//! Secrets: a type that never shows its value, and the registry by which texts are scrubbed of all
//! secrets that the process knows.
//!
//! Every [`Secret`] is registered when it is made, wherever it came from: the configuration, a
//! file, a token endpoint. Texts of others (an endpoint's answer, a token endpoint's error) go
//! through [`foreign`] where they come in. The log goes through [`scrub`] on its way out, in case a
//! text was not scrubbed where it came in.

mod registry;
mod views;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use registry::{Matcher, REGISTRY};

/// Shown in place of a secret.
const HIDDEN: &str = "***";

/// A secret. `Debug`, `Display` and `Serialize` hide it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret and registers it.
    pub fn new(secret: impl Into<Arc<str>>) -> Self {
        Self(REGISTRY.register(secret.into()))
    }

    /// The secret itself, for code that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Hides known secrets, in any encoding, in a text of the program's own. Secrets that are ordinary
/// words, such as `prometheus`, stay: the program's texts use these words in their plain sense.
pub fn scrub(text: &str) -> String {
    let matcher = REGISTRY.matcher();
    cut(text, usize::MAX, matcher.as_deref(), Matcher::find_unusual)
}

/// Makes a foreign text fit to be shown: at most `most` characters, on one line, with known secrets
/// hidden in any encoding.
pub fn foreign(text: &str, most: usize) -> String {
    let line = |c: char| match c {
        '\n' | '\r' | '\t' => Some(' '),
        c if c.is_control() => None,
        c => Some(c),
    };
    let text: String = text.chars().filter_map(line).collect();
    let matcher = REGISTRY.matcher();
    let text = text.trim();
    cut(text, most, matcher.as_deref(), Matcher::find)
}

/// The first `most` characters of a text, with the secrets that `find` finds hidden. Characters are
/// counted before hiding, so that text behind the limit does not move up.
fn cut(
    text: &str,
    most: usize,
    matcher: Option<&Matcher>,
    find: impl Fn(&Matcher, &[u8], &mut dyn FnMut(usize, usize)),
) -> String {
    let mut spans = Vec::new();
    if let Some(matcher) = matcher {
        views::each(text, &mut |view| {
            find(matcher, &view.bytes, &mut |start, end| {
                spans.push(view.origin(start, end));
            });
        });
    }
    spans.sort_unstable();
    let end = text
        .char_indices()
        .nth(most)
        .map_or(text.len(), |(at, _)| at);
    let mut out = String::with_capacity(end);
    let mut at = 0;
    for (from, to) in spans {
        let (from, to) = (text.floor_char_boundary(from), text.ceil_char_boundary(to));
        if from >= end {
            break;
        }
        if from >= at {
            out.push_str(&text[at..from]);
            out.push_str(HIDDEN);
        }
        at = at.max(to);
    }
    if at < end {
        out.push_str(&text[at..end]);
    }
    out
}

#[cfg(test)]
mod tests;
