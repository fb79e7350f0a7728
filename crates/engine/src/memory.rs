//! The memory of the process: how much of it requests may take together, and which are refused
//! first.
//!
//! Two checks make `memory_limit` a ceiling. The *count*: `reservation` subtracts from the limit
//! the most that the program and the queues need, and requests share the rest. The *measurement*:
//! the resident memory is read from the system, and more and more requests are refused as it comes
//! near the limit. A count alone would miss memory that it does not know of, such as what the
//! allocator keeps; a measurement alone would come too late.
//!
//! All refusals are 503 and none is 429, even if a sender's own share is used up: a Prometheus
//! drops batches that are answered with 429 unless `retry_on_http_429` is set.

mod reservation;
mod resident;

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use metrics::Gauge;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use metrifold_base::within_share;
use metrifold_codec::remote_write::Room;
use metrifold_telemetry::{Metric, Telemetry};

pub use reservation::{Reservation, Sizes};
use resident::Level;

/// Limits on the memory of all requests together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// `max_in_flight_bytes` of the process.
    pub in_flight: Option<u64>,
    /// `memory_limit`.
    pub limit: Option<u64>,
    /// The part of `memory_limit` that is left to requests.
    pub requests: Option<u64>,
}

/// Memory that a request takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes of the request, compressed and decoded.
    in_flight: u64,
    /// Most memory that the request may need while it is decoded, edited and encoded.
    memory: u64,
}

/// Reason why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `max_in_flight_bytes` of the process is reached.
    InFlight,
    /// Requests have taken all that `memory_limit` leaves to them.
    Memory,
    /// There is room, but this peer holds more than its share of the memory that is taken.
    Share,
    /// The resident memory is near `memory_limit`.
    Resident,
}

impl Refused {
    /// Name of the refusal in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "process",
            Self::Memory => "memory",
            Self::Share => "share",
            Self::Resident => "resident",
        }
    }
}

/// The account that all requests of a process draw on. Clones are the same account.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    account: Mutex<Account>,
    level: AtomicU8,
    changed: Arc<Notify>,
    gauges: Gauges,
    /// Permits for [`Budget::long_walk`].
    long_walks: Semaphore,
}

#[derive(Default)]
struct Account {
    bounds: Bounds,
    taken: Amount,
    /// Requests that hold a permit.
    requests: usize,
    by_peer: HashMap<IpAddr, Peer, foldhash::fast::RandomState>,
    /// The resident memory at the last measurement; `taken_then` is what requests had taken at that
    /// time.
    resident: u64,
    taken_then: u64,
}

#[derive(Clone, Copy, Default)]
struct Peer {
    requests: usize,
    taken: Amount,
}

struct Gauges {
    limit: Gauge,
    resident: Gauge,
    requests: Gauge,
    requests_max: Gauge,
    in_flight: Gauge,
    in_flight_max: Gauge,
}

/// A request's part of the account; dropping it gives all of it back.
pub struct Permit {
    budget: Budget,
    peer: IpAddr,
    lesser: bool,
    taken: Amount,
    /// Whether it stands for a request, and not for more memory of one that has another permit.
    is_request: bool,
}

/// Memory that a request takes once it is written out, beyond what its source has taken for it; given
/// back when the request is in the queues, which count it themselves.
#[derive(Debug)]
pub(crate) struct Expansion(Mutex<Option<Permit>>);

impl Expansion {
    /// Gives the memory back. Later needs are not counted here.
    pub(crate) fn end(&self) {
        *self.permit() = None;
    }

    fn permit(&self) -> MutexGuard<'_, Option<Permit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room for Expansion {
    fn take(&self, bytes: usize) -> bool {
        let amount = Amount {
            in_flight: 0,
            memory: bytes as u64,
        };
        let mut permit = self.permit();
        permit
            .as_mut()
            .is_none_or(|permit| permit.take(amount).is_ok())
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Permit")
            .field("peer", &self.peer)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

impl Amount {
    /// The amount for `bytes` of a compressed body. They are held twice: in the body, and in the
    /// buffer of the connection or the one that the body has outgrown.
    pub fn body(bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self {
            in_flight: bytes,
            memory: reservation::BODY * bytes,
        }
    }

    /// The amount for a body that decodes to `bytes`.
    pub fn decoded(bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self {
            in_flight: bytes,
            memory: reservation::DECODED * bytes,
        }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.in_flight += other.in_flight;
        self.memory += other.memory;
    }
}

impl std::ops::SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.in_flight -= other.in_flight;
        self.memory -= other.memory;
    }
}

impl Default for Budget {
    /// An account without bounds.
    fn default() -> Self {
        Self::with(|_| Gauge::noop())
    }
}

impl Budget {
    /// An account without bounds, until they are set.
    pub fn new(telemetry: &Telemetry) -> Self {
        Self::with(|metric| telemetry.gauge(metric, Vec::new()))
    }

    fn with(gauge: impl Fn(Metric) -> Gauge) -> Self {
        Self(Arc::new(Shared {
            account: Mutex::default(),
            level: AtomicU8::new(Level::Plenty as u8),
            changed: Arc::default(),
            long_walks: Semaphore::new(available_parallelism().map_or(1, NonZeroUsize::get)),
            gauges: Gauges {
                limit: gauge(Metric::MemoryLimit),
                resident: gauge(Metric::MemoryResident),
                requests: gauge(Metric::MemoryRequests),
                requests_max: gauge(Metric::MemoryRequestsMax),
                in_flight: gauge(Metric::InFlight),
                in_flight_max: gauge(Metric::InFlightMax),
            },
        }))
    }

    /// Replaces the bounds. Memory that was taken before stays taken.
    pub fn set(&self, bounds: Bounds) {
        let mut account = self.account();
        account.bounds = bounds;
        let gauges = &self.0.gauges;
        let value = |bound: Option<u64>| bound.unwrap_or_default() as f64;
        gauges.limit.set(value(bounds.limit));
        gauges.requests_max.set(value(bounds.requests));
        gauges.in_flight_max.set(value(bounds.in_flight));
        drop(account);
        self.0.changed.notify_one();
    }

    /// Locks the account. A poisoned lock is used on: the account holds only sums, so no invariant
    /// spans a panic.
    fn account(&self) -> MutexGuard<'_, Account> {
        let account = self.0.account.lock();
        account.unwrap_or_else(PoisonError::into_inner)
    }

    fn level(&self) -> Level {
        Level::from(self.0.level.load(Ordering::Relaxed))
    }

    /// Whether the queues of optional sinks must stop growing.
    pub(crate) fn is_short(&self) -> bool {
        self.level() >= Level::NoGrowth
    }

    /// Waits for a permit to work on a large batch beside the workers. There is one for each
    /// processor, so that no more large batches are decoded at once than can make progress.
    pub(crate) async fn long_walk(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed. If it were, only this bound would be lost.
        self.0.long_walks.acquire().await.ok()
    }

    /// Admits a request that has taken nothing yet. `lesser` marks requests that are refused before
    /// others: nothing is promised to their sender, or no required sink waits for them.
    ///
    /// # Errors
    ///
    /// Fails when too little memory is left for the request.
    pub fn enter(&self, peer: IpAddr, lesser: bool) -> Result<Permit, Refused> {
        let mut account = self.account();
        account.admits(self.level(), lesser, account.requests == 0, 0)?;
        account.requests += 1;
        account.by_peer.entry(peer).or_default().requests += 1;
        drop(account);
        Ok(Permit {
            budget: self.clone(),
            peer,
            lesser,
            taken: Amount::default(),
            is_request: true,
        })
    }

    /// An account of the expansion of a request of this peer; `None` if memory is not bounded.
    pub(crate) fn expansion(&self, peer: IpAddr) -> Option<Arc<Expansion>> {
        let is_bound = self.account().bounds.requests.is_some();
        is_bound.then(|| {
            Arc::new(Expansion(Mutex::new(Some(Permit {
                budget: self.clone(),
                peer,
                lesser: false,
                taken: Amount::default(),
                is_request: false,
            }))))
        })
    }

    fn show(&self, account: &Account) {
        let gauges = &self.0.gauges;
        gauges.requests.set(account.taken.memory as f64);
        gauges.in_flight.set(account.taken.in_flight as f64);
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}

impl Permit {
    /// Takes more memory for the request.
    ///
    /// # Errors
    ///
    /// Fails when too little memory is left; memory that was taken before stays taken.
    pub fn take(&mut self, more: Amount) -> Result<(), Refused> {
        let mut account = self.budget.account();
        // One request at a time always passes, so that memory that others keep (the allocator,
        // queues that do not drain) cannot block all requests for ever.
        let alone = account.requests == 1;
        account.admits(self.budget.level(), self.lesser, alone, more.memory)?;
        let peer = account.by_peer.get(&self.peer).copied();
        let mut elsewhere = peer.unwrap_or_default().taken;
        elsewhere -= self.taken;
        let Account { bounds, taken, .. } = &*account;
        let lesser = self.lesser && !alone;
        let part = |bound: Option<u64>, refused| Part {
            bound: bound.map(|bound| if lesser { bound / 4 * 3 } else { bound }),
            refused,
        };
        part(bounds.in_flight, Refused::InFlight).admits(
            taken.in_flight,
            elsewhere.in_flight,
            more.in_flight,
        )?;
        part(bounds.requests, Refused::Memory).admits(
            taken.memory,
            elsewhere.memory,
            more.memory,
        )?;
        account.taken += more;
        account.by_peer.entry(self.peer).or_default().taken += more;
        self.taken += more;
        self.budget.show(&account);
        Ok(())
    }

    /// Gives back the memory that the request needed for decoding and encoding: the batch is in the
    /// queues now, which are counted separately. Its bytes stay in flight until the request is
    /// answered.
    pub fn worked(&mut self) {
        self.give_back(Amount {
            in_flight: 0,
            memory: self.taken.memory,
        });
    }

    fn give_back(&mut self, less: Amount) {
        let mut account = self.budget.account();
        self.taken -= less;
        account.taken -= less;
        if let Some(peer) = account.by_peer.get_mut(&self.peer) {
            peer.taken -= less;
        }
        self.budget.show(&account);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.taken);
        let mut account = self.budget.account();
        let one = usize::from(self.is_request);
        account.requests -= one;
        if let Some(peer) = account.by_peer.get_mut(&self.peer) {
            peer.requests -= one;
            if peer.requests == 0 && peer.taken == Amount::default() {
                account.by_peer.remove(&self.peer);
            }
        }
    }
}

impl Account {
    /// Refuses if the measured resident memory forbids `more`.
    fn admits(&self, level: Level, lesser: bool, alone: bool, more: u64) -> Result<(), Refused> {
        let Some(limit) = self.bounds.limit.filter(|_| !alone) else {
            return Ok(());
        };
        let closed = if lesser {
            Level::NoLesser
        } else {
            Level::Nobody
        };
        // Memory taken since the last measurement shows only in the next one.
        let since = self.taken.memory.saturating_sub(self.taken_then);
        let expected = self.resident + since + more;
        if level >= closed || (more > 0 && expected > Level::Nobody.of(limit)) {
            return Err(Refused::Resident);
        }
        Ok(())
    }
}

/// One of the bounds of [`Bounds`], with the refusal that it causes.
struct Part {
    bound: Option<u64>,
    refused: Refused,
}

impl Part {
    /// Admits `more` if it fits into the bound and the peer, which holds `elsewhere` in its other
    /// requests, stays within its share.
    fn admits(&self, taken: u64, elsewhere: u64, more: u64) -> Result<(), Refused> {
        let Some(bound) = self.bound.filter(|_| more > 0) else {
            return Ok(());
        };
        let free = bound.checked_sub(taken + more).ok_or(self.refused)?;
        if !within_share(elsewhere, more, free) {
            return Err(Refused::Share);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
