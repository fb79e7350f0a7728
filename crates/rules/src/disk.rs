//! Calls that change the disk, with fault injection for tests.

mod error;

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use metrifold_base::{FileError, read_file};

pub use error::WriteError;

/// Number of threads that sync files, and of files from which they pay.
const SYNCERS: usize = 8;

/// Called before each step; an error makes the step fail.
type Fault = Arc<dyn Fn(&'static str, &Path) -> io::Result<()> + Send + Sync>;

/// The disk, by default without injected faults.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    fault: Option<Fault>,
    /// Whether syncs are skipped: tests cannot observe them, and would take ten times as long.
    skips_sync: bool,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

type Done = Result<(), WriteError>;

impl Disk {
    /// Whether [`Self::sync_all`] works.
    pub(crate) const SYNCS_ALL: bool = cfg!(target_os = "linux");

    #[cfg(test)]
    pub(crate) fn failing(fault: Fault) -> Self {
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
    ) -> Result<T, WriteError> {
        self.fault
            .as_ref()
            .map_or(Ok(()), |fault| fault(action, path))
            .and_then(|()| step())
            .map_err(WriteError::io(action, path))
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

    pub(crate) fn create_dir(&self, path: &Path) -> Done {
        self.run("create folder", path, || fs::create_dir(path))
    }

    /// Creates a folder and its parents.
    pub(crate) fn create_dirs(&self, path: &Path) -> Done {
        self.run("create folder", path, || fs::create_dir_all(path))
    }

    /// Writes a new file; fails if it exists.
    pub(crate) fn create(&self, path: &Path, content: &[u8]) -> Result<Written, WriteError> {
        let mut file = self.run("create", path, || {
            OpenOptions::new().write(true).create_new(true).open(path)
        })?;
        // Two steps only for the faults between them.
        let middle = self.fault.as_ref().map_or(0, |_| content.len() / 2);
        let (first, second) = content.split_at(middle);
        for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
            self.run("write", path, || file.write_all(part))?;
        }
        let path = path.to_owned();
        Ok(Written { path, file })
    }

    /// Opens a folder before files are written to it that are synced [together](Self::sync_all).
    pub(crate) fn open_dir(&self, path: &Path) -> Result<File, WriteError> {
        self.run("open", path, || File::open(path))
    }

    /// Syncs everything that was written to the file system of a folder since the folder was opened.
    /// With thousands of files, that takes a fraction of the time of syncing each.
    pub(crate) fn sync_all(&self, folder: &File, path: &Path) -> Done {
        self.sync_one("sync", path, || sync_file_system(folder))
    }

    /// Syncs files to disk. Syncing many files after writing all of them is faster than one by one,
    /// and faster still from several threads, whose syncs the file system puts together.
    pub(crate) fn sync(&self, files: &[Written]) -> Done {
        let some = |files: &[Written]| {
            let mut files = files.iter();
            files.try_for_each(|it| self.sync_one("sync", &it.path, || it.file.sync_all()))
        };
        if files.len() < SYNCERS {
            return some(files);
        }
        thread::scope(|scope| {
            let shares = files.chunks(files.len().div_ceil(SYNCERS));
            let threads: Vec<_> = shares.map(|share| scope.spawn(|| some(share))).collect();
            let synced = threads.into_iter().map(|thread| match thread.join() {
                Ok(synced) => synced,
                // Continues in the caller, as without threads.
                Err(panic) => resume_unwind(panic),
            });
            // All are awaited, though one failed.
            synced.fold(Ok(()), Result::and)
        })
    }

    pub(crate) fn hard_link(&self, old: &Path, new: &Path) -> Done {
        self.run("link", new, || fs::hard_link(old, new))
    }

    pub(crate) fn symlink(&self, target: &Path, path: &Path) -> Done {
        self.run("link", path, || symlink(target, path))
    }

    pub(crate) fn rename(&self, old: &Path, new: &Path) -> Done {
        self.run("replace", new, || fs::rename(old, new))
    }

    pub(crate) fn remove_file(&self, path: &Path) -> Done {
        self.run("remove", path, || fs::remove_file(path))
    }

    pub(crate) fn remove_dir(&self, path: &Path) -> Done {
        self.run("remove folder", path, || fs::remove_dir(path))
    }

    /// Syncs the entries of a folder to disk.
    pub(crate) fn sync_dir(&self, path: &Path) -> Done {
        self.sync_one("sync folder", path, || File::open(path)?.sync_all())
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

/// Only Linux syncs one file system; [`Disk::SYNCS_ALL`] tells callers.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_folder: &File) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Lock of what one process or component writes at a time, released on drop.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks a file, which is created if necessary and stays. It stands for the configured path `of`,
    /// which the error names if another one holds the lock.
    pub(crate) fn take(path: &Path, of: &Path) -> Result<Self, WriteError> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(WriteError::io("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(WriteError::Busy {
                path: of.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(WriteError::io("lock", path)(error)),
        }
    }
}

/// A file that is written but not yet synced.
pub(crate) struct Written {
    path: PathBuf,
    file: File,
}

impl Written {
    pub(crate) fn stat(&self) -> Result<Stat, WriteError> {
        let stat = self.file.metadata();
        let stat = stat.map_err(WriteError::io("look at", &self.path))?;
        Ok(Stat::new(&stat))
    }
}

/// Maximum size of a file of rules that this process has written, in bytes.
pub(crate) const MAX_FILE: u64 = 1 << 30;

/// Reads a regular file of at most `max` bytes.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_file(path, max).map_err(|error| match error {
        FileError::Io(error) => error,
        refused => io::Error::other(refused.to_string()),
    })
}

/// Metadata that shows whether a file was modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stat {
    /// Reads the metadata of a regular file; fails for any other kind.
    pub(crate) fn of(path: &Path) -> Result<Self, WriteError> {
        let look = || {
            let stat = fs::symlink_metadata(path)?;
            match stat.is_file() {
                true => Ok(stat),
                false => Err(io::Error::other("it is no regular file")),
            }
        };
        let stat = look().map_err(WriteError::io("look at", path))?;
        Ok(Self::new(&stat))
    }

    fn new(stat: &Metadata) -> Self {
        Self {
            inode: stat.ino(),
            bytes: stat.len(),
            modified: (stat.mtime(), stat.mtime_nsec()),
        }
    }

    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

/// Maps `NotFound` to `None`.
pub(crate) fn found<T>(
    result: io::Result<T>,
    action: &'static str,
    path: &Path,
) -> Result<Option<T>, WriteError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(WriteError::io(action, path)(error)),
    }
}
