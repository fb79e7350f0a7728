//! A store of the tenants' rule files and of their history: who changed a file, when, and what it held
//! before.
//!
//! All state lies in the objects of one store, so any number of processes can serve it. A tenant's
//! files are `metrics/rules/TENANT/FILE.yaml`, as in Observatorium's rules-objstore, and hold the text
//! that their author wrote. Each change is first recorded in the history, as an object below
//! `metrics/rules-history/TENANT/FILE/` with the text. After a crash, a change may be recorded but not
//! made; no change is made without a record.
//!
//! A file is replaced only if it is unchanged since it was read: of two racing writers, one fails with
//! a conflict. Every call blocks.

mod directory;
mod follow;
mod history;

use std::fmt::Debug;
use std::panic::resume_unwind;
use std::thread;

pub use directory::LocalDirectory;
pub use follow::{Follower, Quarantined, Refreshed};
pub use history::{Action, Entry};

use crate::Version;

/// Key prefix of the tenants' files.
const FILES: &str = "metrics/rules/";
/// Extension of the files.
const EXTENSION: &str = ".yaml";
/// Extension of the entries of the history.
const ENTRY: &str = ".json";
/// Maximum attempts at a write while other writers change its object.
const ATTEMPTS: usize = 10;
/// Maximum number of threads that read local files.
const MAX_THREADS: usize = 8;
/// Number of files or folders from which reading them on several threads pays.
const WORTH_THREADS: usize = 16;
/// Maximum length of a tenant's or file's name, in bytes.
const MAX_NAME: usize = 150;

/// A store of objects by key, with conditional writes.
pub trait Objects: Debug + Send + Sync {
    /// Lists the objects below a prefix, which is a folder with a trailing slash.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError>;

    /// Reads an object; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer, or if the object is larger than `max` bytes.
    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError>;

    /// Writes an object durably: it survives a crash once this has returned.
    ///
    /// # Errors
    ///
    /// Fails with [`ObjectError::Changed`] if the object does not have the expected state.
    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError>;

    /// Removes an object.
    ///
    /// # Errors
    ///
    /// Fails with [`ObjectError::Changed`] if the object does not have the expected state.
    fn delete(&self, key: &str, expected: Expected<'_>) -> Result<(), ObjectError>;

    /// Lists the keys below a prefix that are taken, with those of removed objects where the store cannot
    /// do without them.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    fn taken(&self, prefix: &str) -> Result<Vec<String>, ObjectError> {
        let listed = self.list(prefix)?.into_iter();
        Ok(listed.map(|listed| listed.key).collect())
    }

    /// Whether a write is retried after a lost answer, so that [`ObjectError::Changed`] may be caused
    /// by the first attempt of the same write.
    fn repeats(&self) -> bool {
        false
    }

    /// Number of objects to read concurrently, each on its own thread.
    fn readers(&self) -> usize {
        thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS))
    }
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Key of the object.
    pub key: String,
    /// Opaque text that changes with the object; empty if it is unknown.
    pub stamp: String,
    /// Why the store cannot tell whether the object has changed, if it cannot. It is not read then.
    pub problem: Option<String>,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Content of the object.
    pub text: Vec<u8>,
    /// Stamp for [`Expected::Stamp`]. The stamp in a list may be a different one.
    pub stamp: String,
}

/// Precondition of a change of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// No condition.
    Any,
    /// The object does not exist.
    Absent,
    /// The object has this stamp.
    Stamp(&'a str),
}

/// Why objects could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The object does not have the expected state.
    #[error("the object was changed by another writer meanwhile")]
    Changed,
    /// The object exceeds the size limit.
    #[error("{key} is larger than {max} bytes: replace it, or allow more")]
    TooLarge {
        /// Key of the object.
        key: String,
        /// The limit, in bytes.
        max: usize,
        /// Stamp for [`Expected::Stamp`], with which the object can be replaced.
        stamp: String,
    },
    /// The store refuses the content, for this reason.
    #[error("{0}")]
    Refused(String),
    /// An operation of the store failed.
    #[error("{action} {key}: {reason}")]
    Store {
        /// Verb of the operation, such as `read`.
        action: &'static str,
        /// Key of the object.
        key: String,
        /// Error of the operation.
        reason: String,
    },
}

/// Why a file could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file does not meet the precondition.
    #[error("{}", precondition(*current))]
    Precondition {
        /// Current version of the file; `None` if there is no file.
        current: Option<Version>,
    },
    /// The file, or the version of it, does not exist.
    #[error("there is no such {0}")]
    Absent(&'static str),
    /// The name of the tenant or file is invalid.
    #[error("{0}")]
    Name(String),
    /// Other writers changed the file during every attempt.
    #[error("other writers changed the file during every attempt: try again")]
    Contended,
    /// The underlying store failed.
    #[error("the store of rules failed: {0}")]
    Objects(#[from] ObjectError),
}

fn precondition(current: Option<Version>) -> String {
    match current {
        Some(version) => {
            format!("the file or group was changed meanwhile: its version is {version} now")
        }
        None => "the file or group does not exist".to_owned(),
    }
}

/// Precondition of a change of a file, as the caller states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No condition.
    Any,
    /// The file does not exist.
    Absent,
    /// The file exists.
    Present,
    /// The file has one of these versions.
    Version(Vec<Version>),
}

impl Wanted {
    /// Whether the current version meets the precondition; `None` means that there is no file.
    pub fn holds(&self, current: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Present => current.is_some(),
            Self::Version(versions) => current.is_some_and(|it| versions.contains(&it)),
        }
    }
}

/// A file as its author wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text; empty if the file is too large.
    pub text: Vec<u8>,
    /// Version of the text.
    pub version: Version,
    /// Whether the file is larger than the store reads. Its version is that of its stamp then.
    pub is_too_large: bool,
    stamp: String,
}

/// Author, time and kind of a change, for the history.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Authenticated name of the caller, or a description if it has none.
    pub by: &'a str,
    /// Milliseconds since 1970.
    pub at: u64,
    /// Kind of the change.
    pub action: Action,
}

/// Files of a store, each with its stamp, or with the reason why that is not known, and the keys of
/// objects that are no rule files.
pub type Contents = (Vec<(Place, Result<String, String>)>, Vec<String>);

/// The rule files of all tenants.
#[derive(Debug)]
pub struct Store {
    objects: Box<dyn Objects>,
    /// Maximum size of a file, in bytes.
    max_bytes: usize,
    /// Number of versions of a file that the history keeps.
    keep: usize,
    /// Number of removed files of a tenant whose history is kept.
    keep_removed: usize,
}

/// Number of removed files of a tenant whose history is kept by default.
pub const KEEP_REMOVED: usize = 100;

/// Location of a file in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Tenant that owns the file.
    pub tenant: String,
    /// Name of the file, without extension.
    pub file: String,
}

impl Store {
    /// Creates a store of files of at most `max_bytes`, with a history of the newest `keep` versions of
    /// each.
    pub fn new(objects: Box<dyn Objects>, max_bytes: usize, keep: usize) -> Self {
        Self {
            objects,
            max_bytes,
            keep,
            keep_removed: KEEP_REMOVED,
        }
    }

    /// With the history of the newest `keep_removed` removed files of each tenant.
    #[must_use]
    pub fn keeping_removed(self, keep_removed: usize) -> Self {
        Self {
            keep_removed,
            ..self
        }
    }

    /// Number of names that files of a tenant have, or had where the store keeps those of removed ones;
    /// a file that does not exist is counted as well.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn names_with(&self, place: &Place) -> Result<usize, StoreError> {
        let key = place.key()?;
        let taken = self.objects.taken(&format!("{FILES}{}/", place.tenant))?;
        Ok(taken.len() + usize::from(!taken.contains(&key)))
    }

    /// Lists the files of a tenant, or of all tenants.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn list(&self, tenant: Option<&str>) -> Result<Contents, StoreError> {
        let prefix = match tenant {
            Some(tenant) => format!("{FILES}{}/", check_name("tenant", tenant)?),
            None => FILES.to_owned(),
        };
        let (mut files, mut foreign) = (Vec::new(), Vec::new());
        for listed in self.objects.list(&prefix)? {
            let Listed {
                key,
                stamp,
                problem,
            } = listed;
            match place_of(&key) {
                Some(place) => files.push((place, problem.map_or(Ok(stamp), Err))),
                None => foreign.push(key),
            }
        }
        files.sort();
        Ok((files, foreign))
    }

    /// Lists the names of a tenant's files.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn names(&self, tenant: &str) -> Result<Vec<String>, StoreError> {
        let (files, _) = self.list(Some(tenant))?;
        Ok(files.into_iter().map(|(place, _)| place.file).collect())
    }

    /// Reads a file; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn get(&self, place: &Place) -> Result<Option<Text>, StoreError> {
        let object = self.objects.get(&place.key()?, self.max_bytes)?;
        Ok(object.map(|object| Text {
            version: Version::of(&object.text),
            text: object.text,
            is_too_large: false,
            stamp: object.stamp,
        }))
    }

    /// As [`get`](Self::get), but a file that is too large is found without its text, so that it can be
    /// replaced or removed.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn find(&self, place: &Place) -> Result<Option<Text>, StoreError> {
        match self.get(place) {
            Err(StoreError::Objects(ObjectError::TooLarge { stamp, .. })) => Ok(Some(Text {
                text: Vec::new(),
                version: Version::of_parts([&b"too large"[..], stamp.as_bytes()]),
                is_too_large: true,
                stamp,
            })),
            found => found,
        }
    }

    /// Writes a file, if it meets the precondition. Returns the new version, and whether the text
    /// changed.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Precondition`] if the file does not meet the precondition.
    pub fn put(
        &self,
        place: &Place,
        text: &[u8],
        wanted: &Wanted,
        change: Change<'_>,
    ) -> Result<(Version, bool), StoreError> {
        let version = Version::of(text);
        let changed = self.change(place, Some(text), wanted, change)?;
        Ok((version, changed))
    }

    /// Removes a file, if it meets the precondition. Its history stays.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Absent`] if there is no file, whatever the precondition, and with
    /// [`StoreError::Precondition`] if the file does not meet it.
    pub fn delete(
        &self,
        place: &Place,
        wanted: &Wanted,
        change: Change<'_>,
    ) -> Result<(), StoreError> {
        match self.change(place, None, wanted, change)? {
            true => Ok(()),
            false => Err(StoreError::Absent("file")),
        }
    }

    /// Gives a file a text, or removes it if the text is `None`. Returns whether that changed anything.
    fn change(
        &self,
        place: &Place,
        text: Option<&[u8]>,
        wanted: &Wanted,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let key = place.key()?;
        for _ in 0..ATTEMPTS {
            let current = self.find(place)?;
            if current.is_none() && text.is_none() {
                return Ok(false);
            }
            let version = current.as_ref().map(|current| current.version);
            if !wanted.holds(version) {
                return Err(StoreError::Precondition { current: version });
            }
            if version == text.map(Version::of) {
                return Ok(false);
            }
            let before = self.note_of(place, current.as_ref(), change.at)?;
            let noted = self.note(place, text, change)?;
            let expected = match &current {
                Some(current) => Expected::Stamp(&current.stamp),
                None => Expected::Absent,
            };
            let made = match text {
                Some(text) => self.objects.put(&key, text, expected),
                None => self.objects.delete(&key, expected),
            };
            match made {
                Ok(()) => return Ok(self.made(place, text)),
                Err(ObjectError::Changed) => {
                    // If the answer to a first attempt was lost, the conflict is with this very write,
                    // unless another writer has recorded the same text since.
                    let now = self.find(place)?;
                    if self.objects.repeats()
                        && now.map(|now| now.version) == text.map(Version::of)
                        && !self.is_noted_by_others(place, text, &before, &noted)?
                    {
                        return Ok(self.made(place, text));
                    }
                    let _ = self.objects.delete(&noted, Expected::Any);
                }
                // The outcome is unknown, and the write may still take effect: its record stays.
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Contended)
    }

    /// Prunes the history after a change, which a failure to do so does not undo.
    fn made(&self, place: &Place, text: Option<&[u8]>) -> bool {
        let _ = self.prune(place);
        if text.is_none() {
            let _ = self.prune_removed(&place.tenant);
        }
        true
    }
}

impl Place {
    /// Creates the location of a tenant's file. The names are checked when the store uses it.
    pub fn new(tenant: impl Into<String>, file: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            file: file.into(),
        }
    }

    /// Checks that the names are valid.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Name`] if one of them is not.
    pub fn check(&self) -> Result<(), StoreError> {
        self.key().map(drop)
    }

    fn key(&self) -> Result<String, StoreError> {
        let tenant = check_name("tenant", &self.tenant)?;
        let file = check_name("file", &self.file)?;
        Ok(format!("{FILES}{tenant}/{file}{EXTENSION}"))
    }
}

/// Splits items among threads, and returns the results in the order of the items.
fn on_threads<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: &(impl Fn(Vec<T>) -> R + Sync),
) -> Vec<R> {
    let share = items.len().div_ceil(threads.max(1));
    let mut shares: Vec<Vec<T>> = Vec::new();
    let mut left = items.into_iter().peekable();
    while left.peek().is_some() {
        shares.push(left.by_ref().take(share).collect());
    }
    thread::scope(|scope| {
        let begin = |share: Vec<T>| scope.spawn(move || work(share));
        let threads: Vec<_> = shares.into_iter().map(begin).collect();
        // A panic of a thread continues in the caller, as it would without threads.
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => resume_unwind(panic),
        });
        joined.collect()
    })
}

fn place_of(key: &str) -> Option<Place> {
    let (tenant, file) = key.strip_prefix(FILES)?.split_once('/')?;
    let place = Place::new(tenant, file.strip_suffix(EXTENSION)?);
    place.key().is_ok().then_some(place)
}

/// Whether names of tenants and files may hold a byte; a dot at their beginning they may not.
pub fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!_.*'()-".contains(&byte)
}

/// Checks the name of a tenant or file, which must be valid as one part of a path in every store and
/// file system.
fn check_name<'n>(what: &str, name: &'n str) -> Result<&'n str, StoreError> {
    let is_valid = name.bytes().all(is_name_byte);
    if name.is_empty() || name.starts_with('.') || name.len() > MAX_NAME || !is_valid {
        return Err(StoreError::Name(format!(
            "{name:?} is not the name of a {what}: use up to {MAX_NAME} letters, digits and !_.*'()-, and begin with no dot"
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
