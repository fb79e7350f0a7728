//! Who of several replicas makes changes: a small trait, and the lease that is a locked file.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use metrifold_base::BoxFuture;

/// A lease of which one replica at a time has the hold. Dropping it lets go.
pub trait Lease: Send + Sync + 'static {
    /// Takes or keeps the hold, if nobody else has it. It is asked right before each change, so that it
    /// must be cheap while the hold is kept.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be told; then nothing is changed.
    fn holds(&mut self) -> BoxFuture<Result<bool, String>>;

    /// What it is, for people.
    fn shown(&self) -> String;
}

/// The lock of a file, which the kernel lets go of when its process ends, however it ends.
#[derive(Debug)]
pub struct FileLease {
    path: PathBuf,
    held: Option<File>,
}

impl FileLease {
    /// The lock of this file, which is made if it is not there.
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: None }
    }

    fn take(&mut self) -> Result<bool, String> {
        // A file that was replaced is another one, which somebody else may have locked.
        if let Some(file) = &self.held
            && is_at(file, &self.path)
        {
            return Ok(true);
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
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
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
    fn holds(&mut self) -> BoxFuture<Result<bool, String>> {
        // A lock that is not waited for takes no longer than reading a file's time.
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
        assert_eq!(one.take(), Ok(true));
        assert_eq!(one.take(), Ok(true));
        assert_eq!(other.take(), Ok(false));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(other.take(), Ok(true));
        assert_eq!(one.take(), Ok(false));
        drop(other);
        assert_eq!(one.take(), Ok(true));
        let mut nowhere = FileLease::new(path.join("lease"));
        assert!(nowhere.take().unwrap_err().contains("lease/lease"));
    }
}
