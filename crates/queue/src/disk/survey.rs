//! Looking into a queue without having it, and without changing anything: also while a process has it.

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

/// What a queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What is not done. While a process has the queue, it is about so much.
    pub queued: Tally,
    /// What the files take.
    pub bytes: u64,
    /// Whether a process has it.
    pub in_use: bool,
}

/// Options under which nothing is dropped, whatever a queue holds.
pub(super) const KEEPS_ALL: Options = Options {
    max_bytes: 1 << 60,
    max_age: None,
    drop_oldest: false,
    sync: SyncPolicy::Batch,
};

/// Looks into the queue in a directory. Blocks on the disk.
///
/// # Errors
///
/// Fails when its files cannot be read, or are of a later version.
pub fn survey(path: &Path) -> Result<Survey, OpenError> {
    let fs = ReadOnly(path.to_path_buf());
    // What is damaged is told when it is opened for good.
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

/// Whether a process has the queue in a directory.
pub fn is_in_use(path: &Path) -> bool {
    let lock = fs::File::open(path.join(LOCK));
    // Shared, so that several may ask at once. It is let go at once.
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// A directory in which writing has no effect.
#[derive(Debug)]
struct ReadOnly(PathBuf);

/// A file of it; none if it is only pretended to be there.
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
