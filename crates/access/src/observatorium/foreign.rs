//! Observatorium's files as values of keys: each is read once per configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use serde::{Deserialize, Deserializer};

use metrifold_base::keys::{Shape, Shaped};
use metrifold_base::locked;

/// The path of a file, which is read when its content is first asked for. Clones share the content.
pub struct Foreign<T>(Arc<Inner<T>>);

struct Inner<T> {
    path: PathBuf,
    read: OnceLock<Result<T, String>>,
    /// The same key of the configuration before, until the file is read.
    before: Mutex<Option<Foreign<T>>>,
}

/// The content of a file.
pub trait Content: Sized {
    /// Reads the file. Parts that are the same in `before` are taken from there.
    ///
    /// # Errors
    ///
    /// Fails with the reason when the file cannot be read or used.
    fn read(file: &Path, before: Option<&Self>) -> Result<Self, String>;
}

impl<T> Clone for Foreign<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Foreign<T> {
    fn new(path: PathBuf) -> Self {
        Self(Arc::new(Inner {
            path,
            read: OnceLock::new(),
            before: Mutex::default(),
        }))
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Lets the file be read with what is known of the configuration before.
    pub fn take_over(&self, before: &Self) {
        *locked(&self.0.before) = Some(before.clone());
    }
}

impl<T: Content> Foreign<T> {
    /// The content of the file when it was first asked for.
    ///
    /// # Errors
    ///
    /// Fails with the reason when the file cannot be read or used.
    pub fn get(&self) -> Result<&T, &str> {
        let read = || {
            let before = locked(&self.0.before).take();
            let before = before.as_ref().and_then(|before| before.0.read.get());
            T::read(&self.0.path, before.and_then(|before| before.as_ref().ok()))
        };
        let read = self.0.read.get_or_init(read);
        read.as_ref().map_err(String::as_str)
    }
}

impl<T> fmt::Debug for Foreign<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.path.fmt(f)
    }
}

impl<T> PartialEq for Foreign<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.path == other.0.path
    }
}

impl<T> Eq for Foreign<T> {}

impl<T> Shaped for Foreign<T> {
    const SHAPE: Shape = Shape::Path;
}

impl<'de, T> Deserialize<'de> for Foreign<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        PathBuf::deserialize(deserializer).map(Self::new)
    }
}
