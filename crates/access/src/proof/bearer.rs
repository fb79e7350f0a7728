//! Bearer tokens whose hashes are in a file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::read_text;
use metrifold_model::Proof;

use super::{Proven, Verdict};
use crate::digest::{self, Digest};
use crate::shown::{Credentials, Shown};

/// Maximum size of the file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Prefix of the hash in a line of the file.
const ALGORITHM: &str = "sha256:";

/// A line of the file, for messages.
const EXAMPLE: &str = "write `sha256:HASH`, or `sha256:HASH NAME GROUP,GROUP`";

/// Identities of callers, with the hashes of their tokens, sorted by these.
pub(crate) struct Tokens(Box<[(Digest, Arc<Proven>)]>);

impl Tokens {
    /// Reads a `tokens_file`.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file, MAX_FILE);
        let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        Self::of(file, &text)
    }

    /// Reads the text of this `tokens_file`.
    pub(crate) fn of(file: &Path, text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split_whitespace();
            let Some(hash) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            let wrong = |what: &str| format!("line {number} {what}: {EXAMPLE}");
            // No message quotes the line, which may hold the token itself.
            let digest = hash.strip_prefix(ALGORITHM).and_then(digest::from_hex);
            let digest = digest
                .ok_or_else(|| wrong("does not begin with sha256: and 64 hexadecimal digits"))?;
            let (subject, groups) = (words.next(), words.next());
            // Groups in place of the name would be a caller's name that no role is bound to.
            if subject.is_some_and(|name| name.contains(',')) {
                return Err(wrong("has a comma in the name of the token's owner"));
            }
            let groups: Vec<&str> = groups.map_or(Vec::new(), |word| word.split(',').collect());
            if groups.contains(&"") {
                return Err(wrong("has an empty group"));
            }
            if words.next().is_some() {
                return Err(wrong("has more than a hash, a name and groups"));
            }
            let mut texts = subject.iter().chain(&groups);
            if texts.any(|text| text.contains('"')) {
                return Err(wrong(
                    "has quotation marks, which names and groups are written without",
                ));
            }
            let proven = Proven {
                subject: subject.map(Arc::from),
                groups: groups.into_iter().map(Arc::from).collect(),
                proof: Proof::Token,
                certificate: None,
            };
            if tokens.insert(digest, Arc::new(proven)).is_some() {
                return Err(format!(
                    "line {number} repeats the token of an earlier line"
                ));
            }
        }
        Ok(Self(tokens.into_iter().collect()))
    }

    /// The hashes of all tokens.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = &Digest> {
        self.0.iter().map(|(hash, _)| hash)
    }

    pub(crate) fn prove(&self, shown: &Shown<'_>) -> Verdict {
        let Credentials::Bearer(token) = shown.credentials else {
            return Verdict::Absent;
        };
        // Looks up the hash of the token, so that timing reveals nothing about known tokens.
        match self.get(&digest::plain(token.as_bytes())) {
            Some(proven) => Verdict::Proven(Arc::clone(proven)),
            None => Verdict::wrong("token is unknown"),
        }
    }

    fn get(&self, hash: &Digest) -> Option<&Arc<Proven>> {
        let found = self.0.binary_search_by(|(known, _)| known.cmp(hash));
        found.ok().map(|at| &self.0[at].1)
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
        let known = tokens.get(&digest::plain(b"secret")).unwrap();
        assert_eq!(known.subject.as_deref(), Some("agent"));
        assert_eq!(known.groups.len(), 2);
        assert_eq!(tokens.hashes().count(), 2);
    }

    #[test]
    fn a_token_has_one_line() {
        let text = format!("sha256:{SECRET}\nsha256:{SECRET}");
        let error = Tokens::parse(&text).err().unwrap();
        assert!(error.contains("line 2 repeats"), "{error}");
    }

    #[test]
    fn a_malformed_line_is_refused_and_not_shown() {
        for (text, part) in [
            ("token".to_owned(), "line 1"),
            (format!("\nsha256:{}", &SECRET[1..]), "line 2"),
            (format!("sha256:{SECRET} a b c"), "more than a hash"),
            (format!("sha256:{SECRET} a,b"), "a comma in the name"),
            (format!("sha256:{SECRET} agent a,,b"), "an empty group"),
            (format!("sha256:{SECRET} agent a,"), "an empty group"),
            (format!("sha256:{SECRET} agent \"a,b\""), "quotation marks"),
            // Kubernetes' file of tokens: token, user, uid and groups.
            ("secret,jane,1,\"a,b\"".to_owned(), "line 1"),
            ("sha256:zz".to_owned(), "line 1"),
        ] {
            let error = Tokens::parse(&text).err().unwrap();
            assert!(
                error.contains(part) && error.contains("write `sha256:HASH"),
                "{error}"
            );
            assert!(!error.contains("zz") && !error.contains(SECRET), "{error}");
            assert!(
                !error.contains("secret") && !error.contains("jane"),
                "{error}"
            );
        }
    }
}
