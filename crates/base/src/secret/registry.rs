//! The secrets that the process knows, and how they are found in bytes.

use std::sync::{Arc, Mutex};

use aho_corasick::{AhoCorasick, MatchKind};

use crate::locked;

/// The shortest secret that is looked for: shorter ones are in every text by chance.
const SHORTEST: usize = 4;

/// So much of the beginning of a secret finds it; the rest is compared. Bounds the memory that a
/// long token takes here.
const BEGINNING: usize = 64;

/// How many secrets that nobody uses any longer are remembered: an endpoint may still answer to a
/// request that bore one.
const RETIRED: usize = 256;

/// The longest secret that can be a word.
const LONGEST_WORD: usize = 15;

/// The one registry: what is printed is the process's, whatever topology it comes from.
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
    /// In the order in which they came.
    secrets: Vec<Arc<str>>,
    /// Made when it is asked for.
    matcher: Option<Arc<Matcher>>,
}

impl Registry {
    /// Adds a secret, and returns the one that stands for all with its text.
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

    /// What finds the secrets that are known now; nothing when there are none.
    pub(super) fn matcher(&self) -> Option<Arc<Matcher>> {
        let mut known = locked(&self.known);
        if known.matcher.is_none() {
            known.matcher = Matcher::new(&known.secrets).map(Arc::new);
        }
        known.matcher.clone()
    }
}

/// Finds secrets.
pub(super) struct Matcher {
    all: Finder,
    /// Those that are no ordinary words.
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

    /// Calls `found` with the place of every secret.
    pub(super) fn find(&self, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
        self.all.find(bytes, found);
    }

    /// The same of those that are no ordinary words.
    pub(super) fn find_unusual(&self, bytes: &[u8], found: &mut dyn FnMut(usize, usize)) {
        if let Some(finder) = &self.unusual {
            finder.find(bytes, found);
        }
    }
}

struct Finder {
    beginnings: AhoCorasick,
    /// The secrets in the order of the beginnings: copies, since those who use one are counted.
    secrets: Vec<Box<str>>,
}

impl Finder {
    /// None for no secrets, or for more than can be looked for, which is gigabytes.
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
            // Somebody may have cut it off.
            let same = here.iter().zip(secret).take_while(|(a, b)| a == b).count();
            found(at.start(), at.start() + same);
        }
    }
}

/// Whether our own texts may use it for what it means.
fn is_word(secret: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b'-';
    secret.len() <= LONGEST_WORD && secret.bytes().all(plain)
}
