//! Adopting a queue, which moves its records and accounts into another one, and discarding a queue.
//! Neither may be in use by a process.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use metrifold_model::ledger::Tally;

use super::checkpoint::{Checkpoint, read_checkpoint, replace_checkpoint};
use super::event::{AppendError, OpenError};
use super::fs::{Directory, Fs};
use super::ledger::{Account, TenantReading};
use super::queue::Refused;
use super::reader::ReadError;
use super::recover::LOCK;
use super::state::Listener;
use super::survey::KEEPS_ALL;
use super::{Append, DiskQueue, Options, Reading, SyncPolicy};

/// Reason why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// A process uses one of the queues, or its files are damaged.
    #[error("{path}: {source}")]
    Open {
        /// Path of the queue.
        path: PathBuf,
        /// Cause of the failure.
        source: OpenError,
    },
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record cannot be written.
    #[error("cannot copy a batch: {0}")]
    Write(String),
    /// The lanes of the queue's records are unspecified, so they cannot be put beside others.
    #[error(
        "{path} was written by an earlier version: let it be delivered under its own name, or remove the \
         other queue first"
    )]
    Unspecified {
        /// Path of the queue.
        path: PathBuf,
    },
    /// The file system failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// Operation that failed.
        action: &'static str,
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> AdoptError + 'a {
    move |source| AdoptError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// Moves the records of the queue in `from` in front of those in `to`, and adds up the accounts of both.
/// The directory `from` is removed. Both must be in the same parent directory. Nothing that matters is
/// changed before the last step; a crash right after it can leave `from` in place, and its records are
/// delivered twice if it is adopted again. Blocks on the disk. Returns the counts of the moved records.
///
/// # Errors
///
/// Fails when a process uses one of the queues, or when a record cannot be read or written.
pub fn adopt(from: &Path, to: &Path) -> Result<Tally, AdoptError> {
    let kept_from = lock(from)?;
    let found = fs::symlink_metadata(to);
    if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        let moved = super::survey(from).map_err(open_error(from))?.queued;
        fs::rename(from, to).map_err(io_error("rename", from))?;
        sync_parent(to)?;
        drop(kept_from);
        return Ok(moved);
    }
    drop(kept_from);
    let beside = hidden(to, "adopting");
    remove(&beside)?;
    let copied = copy_both(from, to, &beside);
    let moved = copied.and_then(|moved| {
        // Both queues are closed, so that this process does not write to them any more.
        let _kept = (lock(from)?, lock(to)?);
        renameat_with(CWD, &beside, CWD, to, RenameFlags::EXCHANGE)
            .map_err(|error| io_error("replace", to)(error.into()))?;
        sync_parent(to)?;
        remove(from)?;
        Ok(moved)
    });
    // The replaced queue, or an incomplete copy.
    remove(&beside)?;
    moved
}

/// Removes the queue in a directory with all of its records. Blocks on the disk. Returns their counts.
///
/// # Errors
///
/// Fails when a process uses the queue, or when its files cannot be read or removed.
pub fn discard(path: &Path) -> Result<Tally, AdoptError> {
    let _kept = lock(path)?;
    let held = super::survey(path).map_err(open_error(path))?.queued;
    let gone = hidden(path, "discarded");
    remove(&gone)?;
    fs::rename(path, &gone).map_err(io_error("rename", path))?;
    sync_parent(path)?;
    remove(&gone)?;
    Ok(held)
}

fn open_error(path: &Path) -> impl Fn(OpenError) -> AdoptError + '_ {
    move |source| AdoptError::Open {
        path: path.to_path_buf(),
        source,
    }
}

/// A path beside a queue's that no sink's queue can have.
fn hidden(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

fn lock(path: &Path) -> Result<Box<dyn Any + Send>, AdoptError> {
    // Opening the directory would create it.
    fs::metadata(path).map_err(io_error("find", path))?;
    let directory = Directory::new(path.to_path_buf()).map_err(io_error("open", path))?;
    directory.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => open_error(path)(OpenError::Locked),
        _ => io_error("lock", path)(error),
    })
}

fn remove(path: &Path) -> Result<(), AdoptError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> Result<(), AdoptError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(io_error("sync", parent))
}

/// Copies the records of both queues into a new one, in order, with the accounts of both.
fn copy_both(from: &Path, to: &Path, beside: &Path) -> Result<Tally, AdoptError> {
    // The copy is made durable once, when it is closed.
    let options = Options {
        sync: SyncPolicy::Interval(std::time::Duration::from_secs(3600)),
        ..KEEPS_ALL
    };
    let open = |path: &Path| {
        DiskQueue::open(path.to_path_buf(), options, |_| ()).map_err(open_error(path))
    };
    let new = open(beside)?;
    let mut accounts = BTreeMap::new();
    let mut copy_from = |path: &Path| {
        let queue = open(path)?;
        let copied = copy(&queue, path, &new);
        // Includes the damage that was found while copying.
        add_history(&mut accounts, &queue.read_ledger());
        queue.close();
        copied
    };
    let copied = copy_from(from).and_then(|moved| copy_from(to).map(|_| moved));
    new.close();
    let moved = copied?;
    add_to_checkpoint(beside, accounts)?;
    Ok(moved)
}

fn copy(queue: &DiskQueue, path: &Path, new: &DiskQueue) -> Result<Tally, AdoptError> {
    let mut copied = Tally::default();
    let mut reader = queue.reader();
    while let Some(record) = reader.next(0)? {
        let entry = record.entry;
        if entry.lane_unspecified {
            let path = path.to_path_buf();
            return Err(AdoptError::Unspecified { path });
        }
        copied += Tally::of(entry.counts, entry.body_length);
        let append = Append {
            tenant: entry.tenant,
            lane: entry.lane,
            accepted_at: entry.accepted_at,
            version: entry.version,
            counts: entry.counts,
            checked: entry.checked,
            body: record.body,
        };
        append_one(new, append)?;
    }
    Ok(copied)
}

/// Appends a record and waits for its completion, so that the next one has room.
fn append_one(queue: &DiskQueue, append: Append) -> Result<(), AdoptError> {
    let (tell, done) = mpsc::sync_channel(1);
    let complete = Box::new(move |result: Result<_, AppendError>| {
        // The receiver waits below.
        let _ = tell.send(result.map(drop));
    });
    let write = |error: String| AdoptError::Write(error);
    queue
        .append(append, complete)
        .map_err(|refused: Refused| write(refused.to_string()))?;
    match done.recv() {
        Ok(result) => result.map_err(|error| write(error.to_string())),
        Err(_) => Err(write("the writer has ended".to_owned())),
    }
}

/// Adds the finished records to the accounts, by tenant; those without a line under an empty name.
fn add_history(accounts: &mut BTreeMap<Arc<str>, Account>, reading: &Reading) {
    let rest = [(Arc::from(""), &reading.rest)];
    let named = reading
        .tenants
        .iter()
        .map(|line| (line.tenant.clone(), line));
    for (tenant, TenantReading { account, .. }) in rest.into_iter().chain(named) {
        let mut over = account.clone();
        over.received -= account.queued();
        accounts.entry(tenant).or_default().add(&over);
    }
}

/// Adds these accounts to the checkpoint of a closed queue.
fn add_to_checkpoint(
    path: &Path,
    mut accounts: BTreeMap<Arc<str>, Account>,
) -> Result<(), AdoptError> {
    let directory = Directory::new(path.to_path_buf()).map_err(io_error("open", path))?;
    let listener: Listener = Arc::new(|_| ());
    let checkpoint = read_checkpoint(&directory, &listener, true).map_err(open_error(path))?;
    let Some(Checkpoint { header, lines }) = checkpoint else {
        let missing = io::ErrorKind::NotFound.into();
        return Err(io_error("read the checkpoint of", path)(missing));
    };
    let mut rest = accounts.remove("").unwrap_or_default();
    for (index, (tenant, account)) in lines.into_iter().enumerate() {
        match index {
            0 => rest.add(&account),
            _ => accounts.entry(tenant).or_default().add(&account),
        }
    }
    let lines = [(Arc::from(""), rest)]
        .into_iter()
        .chain(accounts)
        .collect();
    let bytes = Checkpoint { header, lines }.encode();
    replace_checkpoint(&directory, &bytes).map_err(io_error("write the checkpoint of", path))
}

#[cfg(test)]
mod tests {
    use metrifold_model::{Counts, Version};

    use super::*;
    use crate::disk::{Fate, Reason, survey};

    fn open(path: &Path) -> DiskQueue {
        DiskQueue::open(path.to_path_buf(), KEEPS_ALL, |_| ()).unwrap()
    }

    fn append(queue: &DiskQueue, tenant: &str, number: u64) {
        let counts = Counts {
            series: 1,
            samples: 1,
            ..Counts::default()
        };
        let body = number.to_string().into_bytes().into();
        let append = Append {
            tenant: tenant.into(),
            lane: 7,
            accepted_at: number,
            version: Version::V1,
            counts: Some(counts),
            checked: true,
            body,
        };
        append_one(queue, append).unwrap();
    }

    /// Fills the queue with these numbers; the first record is delivered, the second dropped.
    fn fill(path: &Path, numbers: &[u64]) {
        let queue = open(path);
        for number in numbers {
            append(&queue, "team", *number);
        }
        let mut reader = queue.reader();
        for fate in [Fate::Delivered, Fate::Dropped(Reason::Refused)] {
            let entry = reader.next_entry().unwrap().unwrap();
            assert!(queue.done(&entry, fate));
        }
        queue.close();
    }

    #[test]
    fn what_is_adopted_comes_first_and_brings_its_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fill(&old, &[1, 2, 3, 4]);
        fill(&new, &[5, 6, 7]);
        let before = survey(&old).unwrap();
        assert_eq!((before.queued.batches, before.in_use), (2, false));
        assert_eq!(adopt(&old, &new).unwrap().batches, 2);
        assert!(!old.exists());
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1, "nothing is left beside it");

        let queue = open(&new);
        let mut reader = queue.reader();
        let mut numbers = Vec::new();
        while let Some(record) = reader.next(0).unwrap() {
            assert_eq!((&*record.entry.tenant, record.entry.lane), ("team", 7));
            numbers.push(record.entry.accepted_at);
        }
        assert_eq!(numbers, [3, 4, 7]);
        let reading = queue.read_ledger();
        let [line] = &reading.tenants[..] else {
            panic!("{reading:?}")
        };
        assert_eq!(line.account.received.samples, 7);
        assert_eq!(line.account.delivered.samples, 2);
        assert_eq!(line.account.dropped[&Reason::Refused].samples, 2);
        assert_eq!(line.account.queued(), line.held);
        queue.close();
    }

    #[test]
    fn a_queue_takes_a_name_that_nobody_has() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fill(&old, &[1, 2, 3]);
        assert_eq!(adopt(&old, &new).unwrap().samples, 1);
        assert_eq!(survey(&new).unwrap().queued.samples, 1);
        assert!(!old.exists());
    }

    #[test]
    fn nothing_is_changed_while_somebody_has_one_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        fill(&old, &[1, 2, 3]);
        fill(&new, &[4, 5, 6]);
        for path in [&old, &new] {
            let queue = open(path);
            assert!(survey(path).unwrap().in_use);
            let error = adopt(&old, &new).unwrap_err().to_string();
            assert!(error.contains("is in use"), "{error}");
            assert!(path == &new || discard(path).is_err());
            queue.close();
        }
        for path in [&old, &new] {
            assert_eq!(survey(path).unwrap().queued.batches, 1);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(discard(&old).unwrap().batches, 1);
        assert!(!old.exists());
    }

    #[test]
    fn a_survey_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        fill(&path, &[1, 2, 3]);
        // The end of an interrupted write.
        let log = path.join(format!("{:020}.log", 0));
        let mut bytes = fs::read(&log).unwrap();
        bytes.extend([0; 9]);
        fs::write(&log, &bytes).unwrap();
        let files = || {
            let files = fs::read_dir(&path).unwrap().map(|it| it.unwrap().path());
            let mut files: Vec<_> = files.map(|it| (fs::read(&it).unwrap(), it)).collect();
            files.sort_by(|a, b| a.1.cmp(&b.1));
            files
        };
        let before = files();
        assert_eq!(survey(&path).unwrap().queued.batches, 1);
        assert!(before == files());
    }
}
