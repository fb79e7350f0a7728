//! Versions of content: SHA-256 hashes, so that tenants cannot construct two contents with the same
//! version.

use std::fmt;
use std::str::FromStr;

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

impl FromStr for Version {
    type Err = &'static str;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a version is 64 hexadecimal digits";
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(WRONG);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
            let pair = std::str::from_utf8(pair).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(hash))
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
        let version = Version::of(b"x");
        assert_eq!(version.to_string().parse(), Ok(version));
        for wrong in ["", "zz", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
