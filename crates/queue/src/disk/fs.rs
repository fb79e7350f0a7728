//! The operations on files that the queue needs, as traits that tests can simulate.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, pread, pwritev};

/// Treatment of an existing or missing file when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The file has to exist.
    Existing,
    /// The file is created, and truncated if it exists.
    Create,
    /// The file is created if it does not exist.
    Keep,
}

/// A directory. File names are relative to it.
pub trait Fs: Debug + Send + Sync {
    /// Locks the directory until the returned value is dropped; fails with `WouldBlock` if it is
    /// locked.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send>>;
    /// Names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str, mode: Mode) -> io::Result<Arc<dyn File>>;
    /// Renames a file, replacing an existing one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes additions, renames and removals of names durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Whether the directory is still at the path at which it was opened. Files in a moved or
    /// removed directory are not found after a restart.
    fn is_in_place(&self) -> bool {
        true
    }
}

/// An open file.
pub trait File: Debug + Send + Sync {
    /// Reads `length` bytes from `offset` on, or fewer at the end of the file.
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>>;
    /// Writes all parts, one behind the other.
    fn write_parts_at(&self, parts: Vec<IoSlice<'_>>, offset: u64) -> io::Result<()>;
    /// Writes all bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_parts_at(vec![IoSlice::new(bytes)], offset)
    }
    /// Truncates or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Length of the file.
    fn length(&self) -> io::Result<u64>;
    /// Makes all writes durable.
    fn sync(&self) -> io::Result<()>;
    /// Whether the file still has a name.
    fn is_linked(&self) -> bool {
        true
    }
    /// Advises the system to drop the durable part up to `end` from its page cache, since it is not
    /// needed soon.
    fn let_go(&self, end: u64);
}

/// Number of attempts to lock a locked directory, and the pause between them.
const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The most parts of one write.
const PARTS_MAX: usize = 1024;
/// Size to which an advice is rounded down; a multiple of the system's page size.
const PAGE: u64 = 64 << 10;

/// A directory of the file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Keeps the directory open, so that no other directory gets its inode number while it is
    /// compared.
    opened: fs::File,
}

impl Directory {
    /// Opens the directory, creating it and its parents if necessary.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        make_durably(&path, |parent| fs::File::open(parent)?.sync_all())?;
        let opened = fs::File::open(&path)?;
        Ok(Self { path, opened })
    }
}

/// Creates a directory, and calls `sync` to make the name of each created one durable.
fn make_durably(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing = path
        .ancestors()
        .take_while(|it| !it.as_os_str().is_empty() && !it.is_dir());
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(path)?;
    for made in missing.into_iter().rev() {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync(parent)?,
            _ => sync(Path::new("."))?,
        }
    }
    Ok(())
}

impl Fs for Directory {
    #[expect(
        clippy::disallowed_methods,
        reason = "opening a queue reads its files, which is not for worker threads either"
    )]
    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(self.path.join(name))?;
        // A process that only checks the lock holds it for a moment.
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Box::new(file)),
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.create(mode != Mode::Existing);
        options.truncate(mode == Mode::Create);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    fn is_in_place(&self) -> bool {
        let identity = |it: io::Result<fs::Metadata>| it.map(|it| (it.dev(), it.ino()));
        let there = identity(fs::metadata(&self.path));
        there.is_ok_and(|there| identity(self.opened.metadata()).is_ok_and(|own| own == there))
    }
}

impl File for fs::File {
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            // The allocation may be larger than asked for, and the read as well; never smaller.
            let at = offset + bytes.len() as u64;
            match pread(self, spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn write_parts_at(&self, mut parts: Vec<IoSlice<'_>>, mut offset: u64) -> io::Result<()> {
        let mut left = &mut parts[..];
        // Skips empty parts.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match pwritev(self, &left[..left.len().min(PARTS_MAX)], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        fs::File::set_len(self, length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn is_linked(&self) -> bool {
        // If the system cannot tell, the next write will fail.
        self.metadata().map_or(true, |it| it.nlink() > 0)
    }

    fn let_go(&self, end: u64) {
        // Only advice, so a failure does not matter.
        if let Some(pages) = NonZeroU64::new(end & !(PAGE - 1)) {
            let _ = fadvise(self, 0, Some(pages), Advice::DontNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_every_directory_that_is_made_becomes_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/queues/sink");
        let mut synced = Vec::new();
        let mut make = |path: &Path| {
            make_durably(path, |parent| {
                synced.push(parent.to_path_buf());
                Ok(())
            })
            .unwrap();
            std::mem::take(&mut synced)
        };
        let above = |names: &[&str]| -> Vec<PathBuf> {
            names.iter().map(|name| folder.path().join(name)).collect()
        };
        assert_eq!(make(&path), above(&["", "data", "data/queues"]));
        assert!(make(&path).is_empty());
        assert!(path.is_dir());
    }
}
