//! Byte strings of the language, and positions in an input.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Longest string that takes no allocation, in bytes: as much as fits into the size of a `String`.
const SHORT: usize = 22;

/// A string of the language: usually UTF-8, but escapes such as `"\xff"` can produce any byte.
///
/// Most names and values are short, and are held in place.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Short { len: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Text {
    /// The bytes of the string.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Long(bytes) => bytes,
        }
    }

    /// The string, if it is UTF-8.
    pub fn to_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// Whether the string is empty.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from(&[][..])
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        let Some(start) = bytes.get_mut(..text.len()) else {
            return Self(Repr::Long(text.into()));
        };
        start.copy_from_slice(text);
        let len = text.len() as u8; // at most SHORT
        Self(Repr::Short { len, bytes })
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        match bytes.len() <= SHORT {
            true => bytes.as_slice().into(),
            false => Self(Repr::Long(bytes.into())),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

/// A range of bytes in an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// End, exclusive.
    pub end: u32,
}

impl Span {
    pub(crate) fn new(start: u32, end: u32) -> Self {
        Self { start, end }
    }

    /// The span from the start of this one to the end of `other`.
    pub(crate) fn to(self, other: Span) -> Self {
        Self::new(self.start, other.end)
    }

    /// The span as a range that indexes the input.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_equal_and_ordered_by_their_bytes_whatever_their_length() {
        assert_eq!(size_of::<Text>(), size_of::<String>());
        assert!(Text::default().is_empty());
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 300] {
            let text = "x".repeat(length);
            let copied = Text::from(&*text);
            assert_eq!(copied, *text.as_str());
            assert_eq!(copied, Text::from(text.clone().into_bytes()));
            let longer = Text::from(&*format!("{text}a"));
            assert!(copied < longer);
            assert_eq!(copied.to_str(), Some(&*text));
        }
        assert_eq!(Text::from(&b"\xff"[..]).to_str(), None);
    }
}
