//! The methods that a route answers.

use std::fmt;

use http::Method;

/// A set of methods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Methods(u8);

/// All supported methods, in the order of lists.
const KNOWN: [(Methods, Method); 7] = [
    (Methods(1), Method::GET),
    (Methods(1 << 1), Method::HEAD),
    (Methods(1 << 2), Method::POST),
    (Methods(1 << 3), Method::PUT),
    (Methods(1 << 4), Method::PATCH),
    (Methods(1 << 5), Method::DELETE),
    (Methods(1 << 6), Method::OPTIONS),
];

impl Methods {
    /// GET and HEAD: the handler treats them alike, and HEAD gets no body.
    pub const GET: Self = Self(0b11);
    /// POST.
    pub const POST: Self = Self(1 << 2);
    /// PUT.
    pub const PUT: Self = Self(1 << 3);
    /// PATCH.
    pub const PATCH: Self = Self(1 << 4);
    /// DELETE.
    pub const DELETE: Self = Self(1 << 5);
    /// OPTIONS.
    pub const OPTIONS: Self = Self(1 << 6);
    /// No method.
    pub(super) const NONE: Self = Self(0);

    /// The union of two sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set contains a method.
    pub fn contains(self, method: &Method) -> bool {
        KNOWN
            .iter()
            .any(|(set, known)| known == method && self.overlaps(*set))
    }

    /// Whether two sets have a method in common.
    pub(super) const fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The form of the header `Allow`.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = KNOWN.iter().filter(|(set, _)| self.overlaps(*set));
        for (place, (_, method)) in held.enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{method}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Methods({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_follows_get_and_unknown_methods_are_in_no_set() {
        let both = Methods::GET.and(Methods::PUT);
        assert_eq!(both.to_string(), "GET, HEAD, PUT");
        for method in [Method::GET, Method::HEAD, Method::PUT] {
            assert!(both.contains(&method), "{method}");
        }
        let odd = Method::from_bytes(b"BREW").unwrap();
        for method in [Method::POST, Method::OPTIONS, Method::CONNECT, odd] {
            assert!(!both.contains(&method), "{method}");
        }
        assert!(!Methods::GET.overlaps(Methods::POST));
        assert!(both.overlaps(Methods::PUT));
    }
}
