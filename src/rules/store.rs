//! Where a store of rules is, as a source is told.

use std::path::{Path, PathBuf};

use metrifold_base::{BuildError, Problems, keys};
use metrifold_rules::store::{LocalDirectory, Objects};

use super::bucket::BucketKeys;

/// How much larger a text is in a note of the history, in which it is quoted.
const QUOTED: usize = 7;
/// What a page of a list may have.
const LIST: usize = 16 << 20;

keys! {
    /// Where a store of rules is.
    #[derive(Clone, Debug)]
    pub struct StoreKeys {
        /// Folder of the store: files lie in it as `metrics/rules/TENANT/FILE.yaml`. Several processes may share it.
        directory: Option<PathBuf> = suggested("/var/lib/metrifold/rules"),
        /// Bucket of S3, Google Cloud Storage or Azure with the store, in place of `directory`.
        bucket: Option<BucketKeys> = optional,
    }
}

impl StoreKeys {
    /// How many stores are named.
    pub(crate) fn named(&self) -> usize {
        usize::from(self.directory.is_some()) + usize::from(self.bucket.is_some())
    }

    /// The files that they name.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.bucket.iter().flat_map(BucketKeys::files)
    }

    /// Reports what is wrong with the bucket, if there is one.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Some(bucket) = &self.bucket {
            bucket.validate("bucket", problems);
        }
    }

    /// The objects of the store, for files of at most `max_bytes`. A bucket is not asked for anything
    /// yet.
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
            (None, Some(bucket)) => bucket.open(max_bytes.saturating_mul(QUOTED).max(LIST)),
            (None, None) => Err(BuildError::new("directory", "there is no store")),
        }
    }
}
