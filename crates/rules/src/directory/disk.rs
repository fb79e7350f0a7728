//! The calls that change the disk, each of which a test can have fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DirectoryError;

/// Says before each step whether it is to fail.
type Fault = Arc<dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync>;

/// The disk. By default nothing fails but what really does.
#[derive(Clone, Default)]
pub(super) struct Disk {
    fault: Option<Fault>,
    /// Whether nothing is synced: a test cannot tell and would take ten times as long.
    skips_sync: bool,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

type Done = Result<(), DirectoryError>;

impl Disk {
    #[cfg(test)]
    pub(super) fn failing(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            skips_sync: true,
        }
    }

    fn run<T>(
        &self,
        action: &'static str,
        path: &Path,
        step: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, DirectoryError> {
        self.fault
            .as_ref()
            .map_or(Ok(()), |fault| fault(action, path))
            .and_then(|()| step())
            .map_err(DirectoryError::io(action, path))
    }

    fn sync_one(
        &self,
        action: &'static str,
        path: &Path,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Done {
        self.run(action, path, || match self.skips_sync {
            true => Ok(()),
            false => sync(),
        })
    }

    pub(super) fn create_dir(&self, path: &Path) -> Done {
        self.run("create folder", path, || fs::create_dir(path))
    }

    /// Makes a folder and those above it.
    pub(super) fn create_dirs(&self, path: &Path) -> Done {
        self.run("create folder", path, || fs::create_dir_all(path))
    }

    /// Writes a file that does not exist yet.
    pub(super) fn create(&self, path: &Path, content: &[u8]) -> Result<Written, DirectoryError> {
        let mut file = self.run("create", path, || {
            OpenOptions::new().write(true).create_new(true).open(path)
        })?;
        let (first, second) = content.split_at(content.len() / 2);
        for half in [first, second] {
            self.run("write", path, || file.write_all(half))?;
        }
        let path = path.to_owned();
        Ok(Written { path, file })
    }

    /// Has files outlive a power cut. Written before the first is synced, they share the work.
    pub(super) fn sync(&self, files: Vec<Written>) -> Done {
        for written in files {
            self.sync_one("sync", &written.path, || written.file.sync_all())?;
        }
        Ok(())
    }

    pub(super) fn hard_link(&self, old: &Path, new: &Path) -> Done {
        self.run("link", new, || fs::hard_link(old, new))
    }

    pub(super) fn symlink(&self, target: &Path, path: &Path) -> Done {
        self.run("link", path, || symlink(target, path))
    }

    pub(super) fn rename(&self, old: &Path, new: &Path) -> Done {
        self.run("replace", new, || fs::rename(old, new))
    }

    pub(super) fn remove_file(&self, path: &Path) -> Done {
        self.run("remove", path, || fs::remove_file(path))
    }

    pub(super) fn remove_dir(&self, path: &Path) -> Done {
        self.run("remove folder", path, || fs::remove_dir(path))
    }

    /// Has the entries of a folder outlive a power cut.
    pub(super) fn sync_dir(&self, path: &Path) -> Done {
        self.sync_one("sync folder", path, || File::open(path)?.sync_all())
    }
}

/// A file that was written and not synced yet.
pub(super) struct Written {
    path: PathBuf,
    file: File,
}

/// What tells whether a file was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stat {
    /// Of a regular file.
    pub(super) fn of(path: &Path) -> Result<Self, DirectoryError> {
        let look = || {
            let stat = fs::symlink_metadata(path)?;
            match stat.is_file() {
                true => Ok(stat),
                false => Err(io::Error::other("it is no regular file")),
            }
        };
        let stat = look().map_err(DirectoryError::io("look at", path))?;
        Ok(Self {
            inode: stat.ino(),
            bytes: stat.len(),
            modified: (stat.mtime(), stat.mtime_nsec()),
        })
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}
