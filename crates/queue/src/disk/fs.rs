//! What the queue needs of a file system, so that tests can put one of their own in its place.

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

/// What to do about a file that is there, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It has to be there.
    Existing,
    /// It is made, and emptied if it is there.
    Create,
    /// It is made if it is not there.
    Keep,
}

/// One directory. Names are those of files in it.
pub trait Fs: Debug + Send + Sync {
    /// Locks the directory until what is returned is dropped; `WouldBlock` if somebody else has.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Any + Send>>;
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file to be read and written.
    fn open(&self, name: &str, mode: Mode) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, in place of what has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names durable that were added, changed or removed.
    fn sync_dir(&self) -> io::Result<()>;
    /// Whether the directory is still where it was when it was opened. What is written to one that
    /// was removed or moved is not found after a restart.
    fn is_in_place(&self) -> bool {
        true
    }
}

/// An open file.
pub trait File: Debug + Send + Sync {
    /// Reads so many bytes from there on, or fewer if the file ends before.
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>>;
    /// Writes all parts, one behind the other.
    fn write_parts_at(&self, parts: Vec<IoSlice<'_>>, offset: u64) -> io::Result<()>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_parts_at(vec![IoSlice::new(bytes)], offset)
    }
    /// Cuts or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// How long it is.
    fn length(&self) -> io::Result<u64>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Whether the file still has a name.
    fn is_linked(&self) -> bool {
        true
    }
    /// What was made durable up to there is not needed soon: a system that keeps it in memory may
    /// let that go.
    fn let_go(&self, end: u64);
}

/// How often it is tried to lock a directory that is locked, and how far apart.
const LOCK_TRIES: usize = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// More parts are not written at once.
const PARTS_MAX: usize = 1024;
/// Memory is let go in pages of this size or a part of it.
const PAGE: u64 = 64 << 10;

/// A directory of the system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Kept open, so that no other directory gets its number while it is compared.
    opened: fs::File,
}

impl Directory {
    /// Makes the directory, and those above it, if they are not there.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        make_durably(&path, |parent| fs::File::open(parent)?.sync_all())?;
        let opened = fs::File::open(&path)?;
        Ok(Self { path, opened })
    }
}

/// Makes a directory, and has `sync` make the name of each one durable that was not there.
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
        // Whoever only looks whether it is locked has it for a moment.
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
            // The allocation may be larger, and so may what is read; it is never short of that.
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
        // What is empty is not written.
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
        // If the system does not say, the next write will tell.
        self.metadata().map_or(true, |it| it.nlink() > 0)
    }

    fn let_go(&self, end: u64) {
        // It is advice: nothing is wrong if the system does not take it.
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
