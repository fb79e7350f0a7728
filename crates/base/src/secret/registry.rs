//! The registry of known secrets, and how they are found in bytes.

use std::sync::{Arc, Mutex};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::locked;

/// Shortest secret that is searched for: shorter ones occur in every text by chance.
const SHORTEST: usize = 4;

/// Length of the prefix by which a secret is found; the rest is compared. Bounds the matcher's
/// memory for long tokens.
const BEGINNING: usize = 64;

/// Number of secrets that stay registered after their last use: an endpoint may still answer a
/// request that carried one.
const RETIRED: usize = 256;

/// Longest secret that counts as an ordinary word.
const LONGEST_WORD: usize = 15;

/// The only registry: logs belong to the process, whichever topology a secret comes from.
pub(super) static REGISTRY: Registry = Registry {
    known: Mutex::new(Known {
        secrets: Vec::new(),
        matcher: None,
    }),
};

pub(super) struct Registry {
    known: Mutex<Known>,
}

struct Known {
    /// Oldest first.
    secrets: Vec<Arc<str>>,
    /// Built on first use, and again after a new secret.
    matcher: Option<Arc<Matcher>>,
}

impl Registry {
    /// Registers a secret; returns the registered one if its text is known already.
    pub(super) fn register(&self, secret: Arc<str>) -> Arc<str> {
        let mut known = locked(&self.known);
        if let Some(same) = known.secrets.iter().find(|known| **known == secret) {
            return Arc::clone(same);
        }
        known.secrets.push(Arc::clone(&secret));
        known.matcher = None;
        let unused = |secret: &Arc<str>| Arc::strong_count(secret) == 1;
        let retired = known.secrets.iter().filter(|secret| unused(secret)).count();
        let mut surplus = retired.saturating_sub(RETIRED);
        known.secrets.retain(|secret| {
            let goes = surplus > 0 && unused(secret);
            surplus -= usize::from(goes);
            !goes
        });
        secret
    }

    /// The matcher of all known secrets; `None` without any.
    pub(super) fn matcher(&self) -> Option<Arc<Matcher>> {
        let mut known = locked(&self.known);
        if known.matcher.is_none() {
            known.matcher = Matcher::new(&known.secrets).map(Arc::new);
        }
        known.matcher.clone()
    }
}

/// Finds secrets in bytes.
pub(super) struct Matcher {
    all: Finder,
    /// Finds the secrets that are no ordinary words.
    unusual: Option<Finder>,
}

impl Matcher {
    fn new(secrets: &[Arc<str>]) -> Option<Self> {
        let long = secrets.iter().filter(|secret| secret.len() >= SHORTEST);
        Some(Self {
            unusual: Finder::new(long.clone().filter(|secret| !is_word(secret))),
            all: Finder::new(long)?,
        })
    }

    /// Calls `found` with start and end of every secret.
    pub(super) fn find(&self, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
        self.all.find(bytes, found);
    }

    /// Calls `found` with start and end of every secret that is no ordinary word.
    pub(super) fn find_unusual(&self, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
        if let Some(finder) = &self.unusual {
            finder.find(bytes, found);
        }
    }
}

struct Finder {
    beginnings: AhoCorasick,
    /// Full secrets in the order of `beginnings`. Copies, since the count of references to the
    /// registered ones tells which are in use.
    secrets: Vec<Box<str>>,
}

impl Finder {
    /// `None` without secrets, or with more than the automaton can hold, which is gigabytes.
    fn new<'a>(secrets: impl Iterator<Item = &'a Arc<str>>) -> Option<Self> {
        let secrets: Vec<Box<str>> = secrets.map(|secret| Box::from(&**secret)).collect();
        if secrets.is_empty() {
            return None;
        }
        let beginnings = secrets.iter().map(|secret| {
            let bytes = secret.as_bytes();
            &bytes[..bytes.len().min(BEGINNING)]
        });
        let beginnings = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .build(beginnings)
            .ok()?;
        Some(Self {
            beginnings,
            secrets,
        })
    }

    fn find(&self, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
        for at in self.beginnings.find_overlapping_iter(bytes) {
            let secret = self.secrets[at.pattern().as_usize()].as_bytes();
            let here = &bytes[at.start()..];
            // The text may end within the secret.
            let same = here.iter().zip(secret).take_while(|(a, b)| a == b).count();
            found(at.start(), at.start() + same);
        }
    }
}

/// Whether a secret is an ordinary word that the program's own texts may contain.
fn is_word(secret: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b'-';
    secret.len() <= LONGEST_WORD && secret.bytes().all(plain)
}
