//! Counts the work of reading a configuration, for tests which pin that it grows as the configuration
//! does and not faster. Counts nothing outside of tests.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A kind of work.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Bytes of text that were parsed.
    Parsed,
    /// Tables that were decoded and validated.
    Decoded,
    /// Names that were compared.
    Compared,
}

#[cfg(test)]
thread_local! {
    static DONE: std::cell::Cell<[usize; 3]> = const { std::cell::Cell::new([0; 3]) };
}

/// Counts work.
pub(crate) fn count(work: Work, much: usize) {
    #[cfg(test)]
    DONE.with(|done| {
        let mut all = done.get();
        all[work as usize] += much;
        done.set(all);
    });
    #[cfg(not(test))]
    let _ = (work, much);
}

/// The work of this thread since the last call: bytes parsed, tables decoded, names compared.
#[cfg(test)]
pub(crate) fn done() -> [usize; 3] {
    DONE.replace([0; 3])
}

/// Full name of a key or table, such as `data_dir`, `api` or `listeners.public`. Comparisons count.
#[derive(Clone, Eq)]
pub(crate) struct Name(pub(crate) Arc<str>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        count(Work::Compared, 1);
        self.0 == other.0
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
