//! Elects the replica that makes changes: a small trait, and the lease as a locked file. The lease
//! in Kubernetes is in `cluster.rs`.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use metrifold_base::BoxFuture;

/// A lease that one replica at a time can hold. Dropping it releases the hold.
pub trait Lease: Send + Sync + 'static {
    /// Takes the lease, or confirms that it is held; None if another replica holds it. The number is
    /// the same as before only if no other replica has held the lease since. Called right before each
    /// change, so it must be cheap while the lease is held.
    ///
    /// # Errors
    ///
    /// Fails when the holder cannot be determined; then nothing is changed.
    fn holds(&mut self) -> BoxFuture<Result<Option<u64>, String>>;

    /// Description for messages.
    fn shown(&self) -> String;
}

/// A file lock. The kernel releases it when the process ends, even by a crash.
#[derive(Debug)]
pub struct FileLease {
    path: PathBuf,
    held: Option<File>,
    /// How often the lock was taken.
    term: u64,
}

impl FileLease {
    /// A lock on this file, which is created if it is missing.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            held: None,
            term: 0,
        }
    }

    fn take(&mut self) -> Result<Option<u64>, String> {
        // If the file was replaced, another process may have locked the new one.
        if let Some(file) = &self.held
            && is_at(file, &self.path)
        {
            return Ok(Some(self.term));
        }
        self.held = None;
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false);
        let file = file.open(&self.path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(format!("{} is not a file", self.path.display()));
        }
        match file.try_lock() {
            Ok(()) => {
                self.held = Some(file);
                self.term += 1;
                Ok(Some(self.term))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

impl Lease for FileLease {
    fn holds(&mut self) -> BoxFuture<Result<Option<u64>, String>> {
        // A non-blocking lock attempt takes no longer than reading file metadata.
        let held = self.take();
        Box::pin(async move { held })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_it_lets_go_and_a_file_that_was_replaced_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let (mut one, mut other) = (FileLease::new(path.clone()), FileLease::new(path.clone()));
        assert_eq!(one.take(), Ok(Some(1)));
        assert_eq!(one.take(), Ok(Some(1)));
        assert_eq!(other.take(), Ok(None));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(other.take(), Ok(Some(1)));
        assert_eq!(one.take(), Ok(None));
        drop(other);
        assert_eq!(one.take(), Ok(Some(2)));
        let mut nowhere = FileLease::new(path.join("lease"));
        assert!(nowhere.take().unwrap_err().contains("lease/lease"));
    }
}
