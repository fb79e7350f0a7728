//! Tokens that a file has the hashes of.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::read_text;
use metrifold_model::Proof;

use super::{Proven, Verdict};
use crate::digest::{self, Digest};
use crate::shown::{Credentials, Shown};

/// The largest file.
const MAX_FILE: u64 = 64 << 20;

/// What a line begins with, in front of the hash.
const ALGORITHM: &str = "sha256:";

/// Tokens by their hashes.
pub(crate) struct Tokens(HashMap<Digest, Arc<Proven>>);

impl Tokens {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file, MAX_FILE);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace();
            let Some(hash) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            // The word is not shown: it may be the token itself.
            let digest = hash.strip_prefix(ALGORITHM).and_then(digest::from_hex);
            let digest = digest.ok_or_else(|| {
                format!("line {number} does not begin with sha256: and 64 hexadecimal digits")
            })?;
            let subject = words.next().map(Arc::from);
            let groups = words.next().into_iter().flat_map(|word| word.split(','));
            let groups = groups.filter(|group| !group.is_empty()).map(Arc::from);
            let proven = Proven {
                subject,
                groups: groups.collect(),
                proof: Proof::Token,
                certificate: None,
            };
            if words.next().is_some() {
                return Err(format!(
                    "line {number} has more than a hash, a name and groups"
                ));
            }
            if tokens.insert(digest, Arc::new(proven)).is_some() {
                return Err(format!("line {number} repeats a token of a line before"));
            }
        }
        Ok(Self(tokens))
    }

    /// The hashes of all tokens.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = &Digest> {
        self.0.keys()
    }

    pub(crate) fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let Credentials::Bearer(token) = shown.credentials else {
            return Verdict::Absent;
        };
        // What is compared is a hash of what was sent: how long it takes tells nothing about a token.
        match self.0.get(&digest::plain(token.as_bytes())) {
            Some(proven) => Verdict::Proven(Arc::clone(proven)),
            None => Verdict::wrong("token is not known"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf %s secret | sha256sum`.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_line_has_a_hash_and_perhaps_a_name_and_groups() {
        let text = format!(
            "# who\n\n  sha256:{SECRET} agent a,b\nsha256:{}\n",
            "0".repeat(64)
        );
        let tokens = Tokens::parse(&text).unwrap();
        let known = &tokens.0[&digest::plain(b"secret")];
        assert_eq!(known.subject.as_deref(), Some("agent"));
        assert_eq!(known.groups.len(), 2);
        assert_eq!(tokens.hashes().count(), 2);
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_shown() {
        for (text, line) in [
            ("token".to_owned(), "line 1"),
            (format!("\nsha256:{}", &SECRET[1..]), "line 2"),
            (format!("sha256:{SECRET}\nsha256:{SECRET}"), "line 2"),
            (format!("sha256:{SECRET} a b c"), "line 1"),
            ("sha256:zz".to_owned(), "line 1"),
        ] {
            let error = Tokens::parse(&text).err().unwrap();
            assert!(
                error.contains(line) && !error.contains("token is"),
                "{error}"
            );
            assert!(!error.contains("zz") && !error.contains(SECRET), "{error}");
        }
    }
}
