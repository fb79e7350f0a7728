//! The dead letters of a sink.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::Sender;
use tracing::warn;

use metrifold_base::{FileError, read_file};
use metrifold_codec::Batch;
use metrifold_codec::remote_write::{CompressionChoice, Limits};
use metrifold_model::{Ack, Origin, Outcome, Until};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::metrics::Input;

use super::folder::{Added, Bounds, Folder};
use super::letter::{Damaged, Letter};
use super::listing::Entry;
use super::stores::Job;

/// Largest file of a letter that is read, in bytes: more than any request's.
const MAX_LETTER: u64 = 1 << 30;

/// The dead letters of a sink, shared by all deliveries of that sink.
#[derive(Debug)]
pub struct Store {
    sink: Arc<str>,
    metrics: ComponentMetrics,
    folder: Mutex<Folder>,
    bounds: Mutex<Bounds>,
    /// Queue into which letters are sent again; `None` before the sink runs.
    queue: Mutex<Option<Input>>,
    resending: Mutex<HashMap<OriginId, Resending>>,
    jobs: Sender<Job>,
    /// Bytes of letters that wait for the writer thread.
    waiting: AtomicUsize,
    /// Number of letters that are not written yet.
    unwritten: AtomicUsize,
    /// Whether the last operation on the disk failed; only the first failure in a row is logged.
    failing: AtomicBool,
}

/// Outcome of sending a letter again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resent {
    /// The sink delivered the letter, and the file was removed.
    Accepted,
    /// The letter stays, for this reason.
    Kept(String),
    /// No letter has this identifier.
    Unknown,
}

/// Identity of a batch's origin, its address: all parts of a batch share it.
type OriginId = usize;

/// A letter that is in flight again.
#[derive(Debug)]
struct Resending {
    /// Keeps the address from being reused for another origin.
    _origin: Arc<Origin>,
    refused: bool,
}

/// The most bytes of a sink's letters that wait for the writer thread.
const WAITING_MAX: usize = 8 << 20;

/// Origin of batches that are made from letters.
const ORIGIN: &str = "dead-letters";

impl Store {
    pub(super) fn open(
        sink: &Arc<str>,
        path: PathBuf,
        metrics: ComponentMetrics,
        jobs: Sender<Job>,
    ) -> io::Result<Self> {
        let store = Self {
            sink: sink.clone(),
            metrics,
            folder: Mutex::new(Folder::open(path)?),
            bounds: Mutex::new(Bounds {
                bytes: 0,
                age: std::time::Duration::MAX,
            }),
            queue: Mutex::new(None),
            resending: Mutex::default(),
            jobs,
            waiting: AtomicUsize::new(0),
            unwritten: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
        };
        store.show(&lock(&store.folder));
        Ok(store)
    }

    /// The sink's name.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    /// Sets the bounds of the folder and the queue for sending letters again. No letter is kept
    /// before this call.
    pub fn attach(&self, bounds: Bounds, queue: Input) {
        self.set_bounds(bounds);
        *lock(&self.queue) = Some(queue);
    }

    /// Number of letters that are not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    pub(super) fn set_bounds(&self, bounds: Bounds) {
        *lock(&self.bounds) = bounds;
    }

    /// Blocks the writer thread while the guard is held.
    #[cfg(test)]
    pub(super) fn hold(&self) -> MutexGuard<'_, Folder> {
        lock(&self.folder)
    }

    /// Keeps a refused batch, or drops and counts it if the writer thread is behind. Never blocks.
    pub fn keep(self: &Arc<Self>, part: &Batch, letter: Letter) {
        if let Some(resending) = lock(&self.resending).get_mut(&id_of(part.origin())) {
            // The batch comes from a letter, which stays.
            resending.refused = true;
            return;
        }
        if lock(&self.bounds).bytes == 0 {
            return;
        }
        let bytes = letter.body.len() + letter.reason.len();
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        let job = Job::Write(self.clone(), letter);
        // A letter larger than the bound is accepted if nothing else waits.
        let full = waiting > 0 && waiting + bytes > WAITING_MAX;
        if full || self.jobs.try_send(job).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.unwritten.fetch_sub(1, Ordering::Relaxed);
            self.metrics.dead_letters_dropped("busy", 1);
        }
    }

    /// Writes a letter to disk. Called only by the writer thread.
    pub(super) fn write(&self, letter: &Letter) {
        let bytes = letter.body.len() + letter.reason.len();
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        self.expire();
        let bounds = *lock(&self.bounds);
        let mut folder = lock(&self.folder);
        match folder.add(now(), &letter.encode(), bounds) {
            Ok(Added::Kept { removed }) => {
                self.metrics.dead_letters_dropped("room", removed);
                self.failing.store(false, Ordering::Relaxed);
            }
            Ok(Added::TooLarge) => self.metrics.dead_letters_dropped("room", 1),
            Err(error) => {
                self.metrics.dead_letters_dropped("failed", 1);
                self.failed("cannot keep a dead letter", &error);
            }
        }
        self.unwritten.fetch_sub(1, Ordering::Relaxed);
        self.show(&folder);
    }

    /// Removes letters beyond the maximum age. Called only by the writer thread.
    pub(super) fn expire(&self) {
        let age = lock(&self.bounds).age.as_millis();
        let before = now().saturating_sub(u64::try_from(age).unwrap_or(u64::MAX));
        let mut folder = lock(&self.folder);
        match folder.expire(before) {
            Ok(removed) => self.metrics.dead_letters_dropped("age", removed),
            Err(error) => self.failed("cannot remove an old dead letter", &error),
        }
        self.show(&folder);
    }

    fn failed(&self, what: &str, error: &io::Error) {
        self.metrics
            .error("dead_letters", format!("{what}: {error}"));
        if !self.failing.swap(true, Ordering::Relaxed) {
            warn!(sink = %self.sink, %error, "{what}");
        }
    }

    fn show(&self, folder: &Folder) {
        let (letters, bytes) = folder.fill();
        self.metrics.dead_letters(letters, bytes);
    }

    /// The numbers of all letters, the newest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        lock(&self.folder).numbers()
    }

    /// The listing entry of a letter, if it still exists. Reads the file.
    pub(super) fn entry(&self, number: u64) -> Option<Entry> {
        let mut entry = Entry::new(&self.sink, number);
        match self.read(number)? {
            Ok(letter) => entry.fill(letter),
            Err(reason) => entry.damaged = Some(reason),
        }
        Some(entry)
    }

    /// Reads a letter, or says why its file is damaged; `None` if it does not exist.
    fn read(&self, number: u64) -> Option<Result<Letter, String>> {
        let path = lock(&self.folder).file(number);
        match read_file(&path, MAX_LETTER) {
            Ok(file) => Some(Letter::decode(file).map_err(|e: Damaged| e.to_string())),
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// Removes a letter; returns whether it existed. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be removed.
    pub(super) fn discard(&self, number: u64) -> io::Result<bool> {
        let mut folder = lock(&self.folder);
        let was_there = folder.remove(number)?;
        self.show(&folder);
        Ok(was_there)
    }

    /// Puts a letter into the sink's queue as a new batch, waits for its outcome, and removes the
    /// file once the sink has delivered it. Dropping the future gives up the attempt, and the
    /// letter stays.
    pub(super) async fn resend(self: Arc<Self>, number: u64) -> Resent {
        let store = self.clone();
        // A blocking task runs to its end once it has begun, even if this future is dropped.
        let read = tokio::task::spawn_blocking(move || store.read(number)).await;
        let letter = match read {
            Ok(Some(Ok(letter))) => letter,
            Ok(Some(Err(reason))) => return Resent::Kept(reason),
            Ok(None) => return Resent::Unknown,
            Err(error) => return Resent::Kept(error.to_string()),
        };
        let Some(queue) = lock(&self.queue).clone() else {
            return Resent::Kept("the sink does not run".into());
        };
        let origin = Arc::new(Origin::internal(ORIGIN.into()));
        let (version, body) = (letter.version, letter.body);
        let mut batch = Batch::from_body(version, body, Limits::ACCEPTED, origin.clone());
        if let Some(tenant) = &letter.tenant {
            batch.set_tenant(tenant.as_str().into());
        }
        // Decoded so that its samples are counted, and then settled, which frees the decoded form.
        let choice = CompressionChoice::default();
        if let Err(error) = batch.decode().and_then(|_| batch.settle(version, &choice)) {
            return Resent::Kept(error.to_string());
        }
        let under_way = self.begin(origin);
        let (ack, mut waiter) = Ack::new(Until::Delivered);
        let ticket = ack.ticket(self.sink.clone());
        drop(ack);
        queue.send_again(batch, ticket).await;
        match waiter.verdict().await {
            Outcome::Delivered | Outcome::Lacks(_) => {}
            Outcome::Rejected { rejection, .. } => return Resent::Kept(rejection.reason),
        }
        // Batches that the endpoint refuses from now on become new letters.
        if under_way.end() {
            return Resent::Kept("it was refused again".into());
        }
        let store = self.clone();
        let removed = tokio::task::spawn_blocking(move || store.discard(number)).await;
        match removed.map_err(io::Error::other).flatten() {
            Ok(_) => Resent::Accepted,
            Err(error) => Resent::Kept(format!(
                "it was sent, but its file cannot be removed: {error}"
            )),
        }
    }

    fn begin(&self, origin: Arc<Origin>) -> UnderWay<'_> {
        let id = id_of(&origin);
        let resending = Resending {
            _origin: origin,
            refused: false,
        };
        lock(&self.resending).insert(id, resending);
        UnderWay { store: self, id }
    }
}

/// Marks a letter as in flight again until it is dropped.
struct UnderWay<'a> {
    store: &'a Store,
    id: OriginId,
}

impl UnderWay<'_> {
    /// Clears the mark; returns whether the batch was refused meanwhile.
    fn end(self) -> bool {
        let ended = lock(&self.store.resending).remove(&self.id);
        ended.is_some_and(|resending| resending.refused)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.store.resending).remove(&self.id);
    }
}

fn id_of(origin: &Arc<Origin>) -> OriginId {
    Arc::as_ptr(origin).addr()
}

/// Milliseconds since the epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
