//! Surveys a queue without opening it and without any change, even while a process uses it.

use std::any::Any;
use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrifold_model::ledger::Tally;

use super::event::OpenError;
use super::fs::{File, Fs, Mode};
use super::recover::{self, LOCK};
use super::state::Listener;
use super::{Options, SyncPolicy};

/// Content of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Undone records. Approximate while a process uses the queue.
    pub queued: Tally,
    /// Bytes of the files.
    pub bytes: u64,
    /// Whether a process uses the queue.
    pub in_use: bool,
}

/// Options under which no record is dropped.
pub(super) const KEEPS_ALL: Options = Options {
    max_bytes: 1 << 60,
    max_age: None,
    drop_oldest: false,
    sync: SyncPolicy::Batch,
};

/// Surveys the queue in a directory. Blocks on the disk.
///
/// # Errors
///
/// Fails when its files cannot be read, or have a newer format version.
pub fn survey(path: &Path) -> Result<Survey, OpenError> {
    let fs = ReadOnly(path.to_path_buf());
    // Damage is reported when the queue is opened.
    let listener: Listener = Arc::new(|_| ());
    let recovered = recover::recover(&fs, &KEEPS_ALL, &listener)?;
    let mut queued = Tally::default();
    for (_, account) in recovered.state.ledger.totals() {
        queued += account.queued();
    }
    let bytes = |entry: io::Result<fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.len());
    let entries = fs::read_dir(path).map_err(recover::io_error("list", "the directory"))?;
    Ok(Survey {
        queued,
        bytes: entries.filter_map(bytes).sum(),
        in_use: is_in_use(path),
    })
}

/// Whether a process uses the queue in a directory.
pub(crate) fn is_in_use(path: &Path) -> bool {
    let lock = fs::File::open(path.join(LOCK));
    // A shared lock, so that several processes can check at once. It is released at once.
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// A directory in which writes have no effect.
#[derive(Debug)]
struct ReadOnly(PathBuf);

/// A file of the directory; `None` if it does not exist and its creation was simulated.
#[derive(Debug)]
struct Seen(Option<fs::File>);

impl Fs for ReadOnly {
    fn lock(&self, _name: &str) -> io::Result<Box<dyn Any + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Arc<dyn File>> {
        match OpenOptions::new().read(true).open(self.0.join(name)) {
            Ok(file) => Ok(Arc::new(Seen(Some(file)))),
            Err(error) if mode == Mode::Existing => Err(error),
            Err(_) => Ok(Arc::new(Seen(None))),
        }
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl File for Seen {
    fn read_at(&self, length: usize, offset: u64) -> io::Result<Vec<u8>> {
        match &self.0 {
            Some(file) => file.read_at(length, offset),
            None => Ok(Vec::new()),
        }
    }

    fn write_parts_at(&self, _parts: Vec<IoSlice<'_>>, _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), File::length)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn let_go(&self, _end: u64) {}
}
