//! Keys of a store of rules.

use std::path::{Path, PathBuf};

use metrifold_base::{BuildError, Problems, keys};
use metrifold_rules::store::{LocalDirectory, Objects};

use super::bucket::BucketKeys;

/// Factor by which quoting may enlarge a text in an entry of the history.
const QUOTED: usize = 7;
/// Largest page of a listing.
const LIST: usize = 16 << 20;

keys! {
    /// Location of a store of rules.
    #[derive(Clone, Debug)]
    pub struct StoreKeys {
        /// Directory of the store, with files at `metrics/rules/TENANT/FILE.yaml`. Several processes can share it.
        directory: Option<PathBuf> = suggested("/var/lib/metrifold/rules"),
        /// Bucket of S3, Google Cloud Storage or Azure that holds the store, instead of `directory`.
        bucket: Option<BucketKeys> = optional,
    }
}

impl StoreKeys {
    /// Number of stores that are configured, of which there must be one.
    pub(crate) fn named(&self) -> usize {
        usize::from(self.directory.is_some()) + usize::from(self.bucket.is_some())
    }

    /// Files that the keys name.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.bucket.iter().flat_map(BucketKeys::files)
    }

    /// Reports problems of the bucket, if there is one.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Some(bucket) = &self.bucket {
            bucket.validate("bucket", problems);
        }
    }

    /// Opens the store for files of at most `max_bytes`, without a request to a bucket.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be used, or a secret cannot be read.
    pub(crate) fn open(&self, max_bytes: usize) -> Result<Box<dyn Objects>, BuildError> {
        match (&self.directory, &self.bucket) {
            (Some(directory), _) => {
                let opened = LocalDirectory::open(directory).map_err(|error| {
                    let folder = directory.display();
                    BuildError::new("directory", format!("{folder} cannot be used: {error}"))
                })?;
                Ok(Box::new(opened))
            }
            _ => self.open_to_read(max_bytes),
        }
    }

    /// As [`open`](Self::open), for a process that only reads: nothing is created.
    ///
    /// # Errors
    ///
    /// Fails if a secret cannot be read.
    pub(crate) fn open_to_read(&self, max_bytes: usize) -> Result<Box<dyn Objects>, BuildError> {
        match (&self.directory, &self.bucket) {
            (Some(directory), _) => Ok(Box::new(LocalDirectory::to_read(directory))),
            (None, Some(bucket)) => bucket.open(max_bytes.saturating_mul(QUOTED).max(LIST)),
            (None, None) => Err(BuildError::new("directory", "no store is configured")),
        }
    }
}
