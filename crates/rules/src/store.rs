//! A store of rule files: what tenants write, who wrote it when, and what it was before.
//!
//! All state lies in the objects of one store, so any number of processes may serve it. A tenant's
//! files are `metrics/rules/TENANT/FILE.yaml`, as the Observatorium's rules-objstore has them, and
//! hold what their author wrote. Each change is noted first, as one object of
//! `metrics/rules-history/TENANT/FILE/`, which holds the text; a change that a crash has cut short
//! may be noted and not made, and none is made without a note.
//!
//! A file is replaced only if it still is what it was when it was read: of two writers that race,
//! one hears of the other. Everything here blocks.

mod directory;
mod follow;
mod history;

use std::fmt::Debug;
use std::thread;

pub use directory::LocalDirectory;
pub use follow::{Follower, Quarantined, Refreshed};
pub use history::{Action, Entry};

use crate::Version;

/// Where the files of tenants lie.
const FILES: &str = "metrics/rules/";
/// What the file names end in.
const EXTENSION: &str = ".yaml";
/// How often a write is tried again whose object others change meanwhile.
const ATTEMPTS: usize = 10;
/// How many threads read local files at most.
const MAX_THREADS: usize = 8;
/// The longest name of a tenant or file, in bytes.
const MAX_NAME: usize = 150;

/// Objects by their keys, of which one can be replaced on a condition.
pub trait Objects: Debug + Send + Sync {
    /// The objects whose keys begin so, which is a folder's name.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError>;

    /// An object, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer, or it is larger than `max` bytes.
    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError>;

    /// Writes an object that outlives a crash once this has returned.
    ///
    /// # Errors
    ///
    /// Fails with [`ObjectError::Changed`] if it is not as expected.
    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError>;

    /// Removes an object.
    ///
    /// # Errors
    ///
    /// Fails with [`ObjectError::Changed`] if it is not as expected.
    fn delete(&self, key: &str, expected: Expected<'_>) -> Result<(), ObjectError>;

    /// Whether a write whose answer gets lost is made again, so that [`ObjectError::Changed`] may be
    /// of the first attempt.
    fn repeats(&self) -> bool {
        false
    }

    /// How many objects are worth reading at once, each by a thread of its own.
    fn readers(&self) -> usize {
        thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS))
    }
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Changes whenever the object does.
    pub stamp: String,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The content of the file.
    pub text: Vec<u8>,
    /// What [`Expected::Stamp`] names it by; a list may have another stamp of it.
    pub stamp: String,
}

/// What an object has to be for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// Anything, or nothing.
    Any,
    /// Nothing.
    Absent,
    /// What had this stamp.
    Stamp(&'a str),
}

/// Why the objects were not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// It is not what was expected.
    #[error("the object was changed by somebody else meanwhile")]
    Changed,
    /// It holds more than it may.
    #[error("{key} is larger than {max} bytes")]
    TooLarge {
        /// Which object.
        key: String,
        /// The bound.
        max: usize,
    },
    /// The store takes no such content, and says why.
    #[error("{0}")]
    Refused(String),
    /// The store says why.
    #[error("{action} {key}: {reason}")]
    Store {
        /// What was tried.
        action: &'static str,
        /// Which object.
        key: String,
        /// What came of it.
        reason: String,
    },
}

/// Why a file was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A precondition does not hold.
    #[error("{}", precondition(*current))]
    Precondition {
        /// What is there; none if nothing is.
        current: Option<Version>,
    },
    /// There is no such file, or no such version of it.
    #[error("there is no such {0}")]
    Absent(&'static str),
    /// A name that no tenant or file has.
    #[error("{0}")]
    Name(String),
    /// Others change the file each time that it is to be changed.
    #[error("others change the file each time that it is to be changed: try again")]
    Contended,
    /// The store does not do it.
    #[error("the store of rules failed: {0}")]
    Objects(#[from] ObjectError),
}

fn precondition(current: Option<Version>) -> String {
    match current {
        Some(version) => format!("it was changed meanwhile: its version is {version} now"),
        None => "it does not exist".to_owned(),
    }
}

/// What a file has to be for a change to be made, as whoever asks for it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Anything, or nothing.
    Any,
    /// Nothing.
    Absent,
    /// Anything.
    Present,
    /// One of these.
    Version(Vec<Version>),
}

impl Wanted {
    /// Whether a file is what is wanted.
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
    /// The text.
    pub text: Vec<u8>,
    /// Its version.
    pub version: Version,
    stamp: String,
}

/// Who changes something, and when.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The name that was proven, or whatever is known of the caller.
    pub by: &'a str,
    /// Milliseconds since 1970.
    pub at: u64,
    /// What is done.
    pub action: Action,
}

/// The files that a store holds, each with its stamp, and keys that are no files.
pub type Contents = (Vec<(Place, String)>, Vec<String>);

/// The files of all tenants.
#[derive(Debug)]
pub struct Store {
    objects: Box<dyn Objects>,
    /// The largest file, in bytes.
    max_bytes: usize,
    /// How many versions of a file are kept.
    keep: usize,
}

/// The place of a file in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub file: String,
}

impl Store {
    /// A store of files of at most `max_bytes`, with the newest `keep` versions of each.
    pub fn new(objects: Box<dyn Objects>, max_bytes: usize, keep: usize) -> Self {
        Self {
            objects,
            max_bytes,
            keep,
        }
    }

    /// What there is of a tenant, or of all.
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
        for Listed { key, stamp } in self.objects.list(&prefix)? {
            match place_of(&key) {
                Some(place) => files.push((place, stamp)),
                None => foreign.push(key),
            }
        }
        files.sort();
        Ok((files, foreign))
    }

    /// The names of a tenant's files.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn names(&self, tenant: &str) -> Result<Vec<String>, StoreError> {
        let (files, _) = self.list(Some(tenant))?;
        Ok(files.into_iter().map(|(place, _)| place.file).collect())
    }

    /// A file.
    ///
    /// # Errors
    ///
    /// Fails if the store does not answer.
    pub fn get(&self, place: &Place) -> Result<Option<Text>, StoreError> {
        let object = self.objects.get(&place.key()?, self.max_bytes)?;
        Ok(object.map(|object| Text {
            version: Version::of(&object.text),
            text: object.text,
            stamp: object.stamp,
        }))
    }

    /// Writes a file, if it is what is wanted. Returns its version, and whether anything changed.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Precondition`] if it is something else.
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

    /// Removes a file, if it is what is wanted. Its history stays.
    ///
    /// # Errors
    ///
    /// Fails with [`StoreError::Absent`] if there is none, and with [`StoreError::Precondition`] if
    /// it is something else.
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

    /// Has a file hold a text, or be gone. Says whether it did not before.
    fn change(
        &self,
        place: &Place,
        text: Option<&[u8]>,
        wanted: &Wanted,
        change: Change<'_>,
    ) -> Result<bool, StoreError> {
        let key = place.key()?;
        for _ in 0..ATTEMPTS {
            let current = self.get(place)?;
            let version = current.as_ref().map(|current| current.version);
            if !wanted.holds(version) {
                return Err(StoreError::Precondition { current: version });
            }
            if current.as_ref().map(|current| &current.text[..]) == text {
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
                Ok(()) => {
                    // What is kept too long is no reason to say that the change was not made.
                    let _ = self.prune(place);
                    return Ok(true);
                }
                Err(ObjectError::Changed) => {
                    // By this writer, if the answer to its first attempt got lost; unless somebody
                    // else has noted the same since.
                    let now = self.get(place)?;
                    if self.objects.repeats()
                        && now.as_ref().map(|now| &now.text[..]) == text
                        && !self.is_noted_by_others(place, text, &before, &noted)?
                    {
                        return Ok(true);
                    }
                    let _ = self.objects.delete(&noted, Expected::Any);
                }
                // The change may have been made, or still be: its note stays.
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Contended)
    }
}

impl Place {
    /// The place of a tenant's file.
    pub fn new(tenant: impl Into<String>, file: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            file: file.into(),
        }
    }

    fn key(&self) -> Result<String, StoreError> {
        let tenant = check_name("tenant", &self.tenant)?;
        let file = check_name("file", &self.file)?;
        Ok(format!("{FILES}{tenant}/{file}{EXTENSION}"))
    }
}

fn place_of(key: &str) -> Option<Place> {
    let (tenant, file) = key.strip_prefix(FILES)?.split_once('/')?;
    let place = Place::new(tenant, file.strip_suffix(EXTENSION)?);
    place.key().is_ok().then_some(place)
}

/// Checks the name of a tenant or file: what every store and every file system takes as one part of
/// a path.
fn check_name<'n>(what: &str, name: &'n str) -> Result<&'n str, StoreError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"!_.*'()-".contains(&byte);
    if name.is_empty() || name.starts_with('.') || name.len() > MAX_NAME || !name.bytes().all(valid)
    {
        return Err(StoreError::Name(format!(
            "{name:?} is no name of a {what}: use up to {MAX_NAME} letters, digits and !_.*'()-, and begin with no dot"
        )));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
