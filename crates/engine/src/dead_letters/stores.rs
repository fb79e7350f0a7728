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

/// The dead letters of all sinks of a process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Stores(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// None if there is no `data_dir`: then nothing is kept.
    folder: Option<PathBuf>,
    office: Mutex<Office>,
}

#[derive(Debug, Default)]
struct Office {
    /// By sink.
    stores: BTreeMap<Arc<str>, Weak<Store>>,
    /// Once the first store was opened.
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    jobs: Sender<Job>,
    /// Keeps other processes out of the folder.
    _lock: File,
}

/// What the thread does.
#[derive(Debug)]
pub(super) enum Job {
    Write(Arc<Store>, Letter),
    /// Tells when all is done that was asked for before.
    Flush(Sender<()>),
}

/// The most letters of all sinks that wait to be written.
const JOBS_MAX: usize = 1024;

/// How often letters that are too old are looked for.
const EXPIRY: Duration = Duration::from_secs(60);

impl Stores {
    /// Those under the directory for files, if there is one.
    pub fn new(data_dir: Option<&Path>) -> Self {
        Self(Arc::new(Shared {
            folder: data_dir.map(|path| path.join("dead-letters")),
            office: Mutex::default(),
        }))
    }

    /// Those of a sink, which all who have the same name share; none without a `data_dir`.
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

    /// The store and the number that a letter's name stands for.
    fn find(&self, id: &str) -> Option<(Arc<Store>, u64)> {
        let (sink, number) = id.rsplit_once('/')?;
        let store = self.office().stores.get(sink).and_then(Weak::upgrade)?;
        Some((store, number.parse().ok()?))
    }

    /// Tells of letters. Reads files: not for a worker thread.
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

    /// Sends a letter again.
    pub async fn resend(&self, id: &str) -> Resent {
        match self.find(id) {
            Some((store, number)) => store.resend(number).await,
            None => Resent::Unknown,
        }
    }

    /// Removes a letter; returns whether there was one. Waits for the disk: not for a worker
    /// thread.
    ///
    /// # Errors
    ///
    /// Fails when its file cannot be removed.
    pub fn discard(&self, id: &str) -> std::io::Result<bool> {
        match self.find(id) {
            Some((store, number)) => store.discard(number),
            None => Ok(false),
        }
    }

    /// Waits until what was kept so far is on disk, for so long at most; returns whether it is.
    /// Not for a worker thread.
    pub fn flush(&self, limit: Duration) -> bool {
        let jobs = match &self.office().writer {
            Some(writer) => writer.jobs.clone(),
            None => return true,
        };
        let (done, flushed) = bounded(1);
        jobs.send_timeout(Job::Flush(done), limit).is_ok() && flushed.recv_timeout(limit).is_ok()
    }
}

impl Writer {
    /// Claims the folder, and starts the thread, which ends with the last who has letters.
    fn start(folder: &Path, shared: Weak<Shared>) -> Result<Self, BuildError> {
        let failed = |error| BuildError::new(folder.display(), error);
        fs::create_dir_all(folder).map_err(failed)?;
        // No sink can have that name.
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
                // An error says that nobody waits any more.
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
