//! Versions of content: SHA-256, so that tenants cannot make two contents of one version.

use std::fmt;

use sha2::{Digest, Sha256};

/// A hash of content. Equal versions mean equal content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u8; 32]);

impl Version {
    /// The version of a text.
    pub fn of(text: &[u8]) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// The version of a list of parts. Each is hashed with its length, so that parts cannot run
    /// into each other.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// The bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sha_256_and_parts_do_not_run_into_each_other() {
        assert!(Version::of(b"").to_string().starts_with("e3b0c44298fc1c14"));
        let of = |parts: [&str; 2]| Version::of_parts(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(["a", "bc"]), of(["ab", "c"]));
    }
}
