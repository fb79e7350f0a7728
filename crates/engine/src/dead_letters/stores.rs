//! The dead letters of all sinks of a process, and the thread that writes them.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};

use metrifold_base::BuildError;
use metrifold_telemetry::ComponentMetrics;

use super::letter::Letter;
use super::listing::{Filter, Listing};
use super::store::{Resent, Store};

/// The dead letters of all sinks of a process. A clone is a handle to the same stores.
#[derive(Clone, Debug)]
pub struct Stores(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None` without a `data_dir`: no letters are kept.
    folder: Option<PathBuf>,
    office: Mutex<Office>,
}

#[derive(Debug, Default)]
struct Office {
    /// Open stores by the sink's name.
    stores: BTreeMap<Arc<str>, Weak<Store>>,
    /// `None` until the first store is opened.
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    jobs: Sender<Job>,
    /// Lock file that keeps other processes out of the folder.
    _lock: File,
}

/// A job of the writer thread.
#[derive(Debug)]
pub(super) enum Job {
    Write(Arc<Store>, Letter),
    /// Sends once all jobs before this one are done.
    Flush(Sender<()>),
}

/// The most letters that wait for the writer thread, of all sinks together.
const JOBS_MAX: usize = 1024;

/// Interval between removals of letters beyond the maximum age.
const EXPIRY: Duration = Duration::from_secs(60);

impl Stores {
    /// The letters under `data_dir`, if there is one.
    pub fn new(data_dir: Option<&Path>) -> Self {
        Self(Arc::new(Shared {
            folder: data_dir.map(|path| path.join("dead-letters")),
            office: Mutex::default(),
        }))
    }

    /// Opens the store of a sink; all who use the same name share it. `None` without a `data_dir`.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be used, or another process uses it.
    pub fn open(
        &self,
        sink: &Arc<str>,
        metrics: &ComponentMetrics,
    ) -> Result<Option<Arc<Store>>, BuildError> {
        let Some(folder) = &self.0.folder else {
            return Ok(None);
        };
        let mut office = self.office();
        if let Some(store) = office.stores.get(sink).and_then(Weak::upgrade) {
            return Ok(Some(store));
        }
        let jobs = match &office.writer {
            Some(writer) => writer.jobs.clone(),
            None => {
                let writer = Writer::start(folder, Arc::downgrade(&self.0))?;
                let jobs = writer.jobs.clone();
                office.writer = Some(writer);
                jobs
            }
        };
        let path = folder.join(&**sink);
        let store = Store::open(sink, path.clone(), metrics.clone(), jobs)
            .map_err(|error| BuildError::new(path.display(), error))?;
        let store = Arc::new(store);
        office.stores.retain(|_, store| store.strong_count() > 0);
        office.stores.insert(sink.clone(), Arc::downgrade(&store));
        Ok(Some(store))
    }

    fn office(&self) -> MutexGuard<'_, Office> {
        let office = self.0.office.lock();
        office.unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Store>> {
        let office = self.office();
        office.stores.values().filter_map(Weak::upgrade).collect()
    }

    /// The store and the number that an identifier names.
    fn find(&self, id: &str) -> Option<(Arc<Store>, u64)> {
        let (sink, number) = id.rsplit_once('/')?;
        let store = self.office().stores.get(sink).and_then(Weak::upgrade)?;
        Some((store, number.parse().ok()?))
    }

    /// Lists letters. Reads files: must not be called on a worker thread.
    pub fn list(&self, filter: &Filter) -> Listing {
        let mut known: Vec<(u64, Arc<Store>)> = Vec::new();
        for store in self.all() {
            if filter.sink.as_deref().is_none_or(|s| s == store.sink()) {
                let numbers = store.numbers().into_iter();
                known.extend(numbers.map(|number| (number, store.clone())));
            }
        }
        known.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let entries = known
            .iter()
            .filter_map(|(number, store)| store.entry(*number));
        let mut chosen = entries
            .filter(|entry| filter.tenant.is_none() || entry.tenant == filter.tenant)
            .take(filter.limit.saturating_add(1));
        let letters = chosen.by_ref().take(filter.limit).collect();
        Listing {
            letters,
            more: chosen.next().is_some(),
        }
    }

    /// Sends a letter again and waits for the outcome.
    pub async fn resend(&self, id: &str) -> Resent {
        match self.find(id) {
            Some((store, number)) => store.resend(number).await,
            None => Resent::Unknown,
        }
    }

    /// Removes a letter; returns whether it existed. Blocks on the disk: must not be called on a
    /// worker thread.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be removed.
    pub fn discard(&self, id: &str) -> std::io::Result<bool> {
        match self.find(id) {
            Some((store, number)) => store.discard(number),
            None => Ok(false),
        }
    }

    /// Blocks until all letters kept so far are on disk, or `limit` has passed. Returns the sinks
    /// with letters that are not, and their numbers. Must not be called on a worker thread.
    pub fn flush(&self, limit: Duration) -> Vec<(Arc<str>, usize)> {
        let jobs = self.office().writer.as_ref().map(|it| it.jobs.clone());
        let Some(jobs) = jobs else {
            return Vec::new();
        };
        let (done, flushed) = bounded(1);
        if jobs.send_timeout(Job::Flush(done), limit).is_ok() && flushed.recv_timeout(limit).is_ok()
        {
            return Vec::new();
        }
        // Stores whose sinks are gone live on in their letters that wait.
        let unwritten = self.all().into_iter();
        let unwritten = unwritten.map(|store| (store.sink().into(), store.unwritten()));
        unwritten.filter(|(_, letters)| *letters > 0).collect()
    }
}

impl Writer {
    /// Locks the folder and starts the thread, which ends when the last handle to the stores is
    /// dropped.
    fn start(folder: &Path, shared: Weak<Shared>) -> Result<Self, BuildError> {
        let failed = |error| BuildError::new(folder.display(), error);
        fs::create_dir_all(folder).map_err(failed)?;
        // No sink can have this name.
        let lock = File::create(folder.join(".lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => failed(error),
            TryLockError::WouldBlock => BuildError::new(
                folder.display(),
                "is in use by another process: give each process a data_dir of its own",
            ),
        })?;
        let (jobs, work) = bounded(JOBS_MAX);
        thread::Builder::new()
            .name("dead-letters".into())
            .spawn(move || run(&work, &shared))
            .map_err(failed)?;
        Ok(Self { jobs, _lock: lock })
    }
}

fn run(work: &Receiver<Job>, shared: &Weak<Shared>) {
    let looks = tick(EXPIRY);
    loop {
        select! {
            recv(work) -> job => match job {
                Ok(Job::Write(store, letter)) => store.write(&letter),
                // Sending fails if the caller has stopped waiting.
                Ok(Job::Flush(done)) => drop(done.try_send(())),
                Err(_) => return,
            },
            recv(looks) -> _ => {
                let Some(shared) = shared.upgrade() else { continue };
                for store in Stores(shared).all() {
                    store.expire();
                }
            }
        }
    }
}
