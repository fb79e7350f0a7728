//! The pools of the process: the status of their targets, and the state that a pool leaves to its
//! successor on a reload.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Mutex as AsyncMutex;

use metrifold_base::locked;
use metrifold_discovery::Target;
use metrifold_http::{Client, ClientConfig};

use crate::schedule;
use crate::series::SeriesId;
use crate::state::{Health, Last, State};
use crate::target::ScrapeTarget;

/// All pools, by the names of their sources.
pub struct Pools {
    slots: Mutex<BTreeMap<Arc<str>, Arc<Slot>>>,
    /// Hasher of series, shared by all pools so that a pool recognizes its predecessor's series.
    pub(crate) hasher: RandomState,
    /// Time since which this process scrapes, in milliseconds: it knows all of its series since then.
    pub(crate) since: i64,
}

/// Status of a target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// Name of the target's pool.
    pub pool: Arc<str>,
    /// Labels as discovered, with defaults.
    pub discovered: Target,
    /// Labels of the target's series.
    pub labels: Target,
    /// URL of the target's page.
    pub url: String,
    /// Interval between scrapes.
    pub interval: Duration,
    /// Longest time for a scrape.
    pub timeout: Duration,
    /// Outcome of the last scrape.
    pub health: Health,
    /// Error of the last scrape; empty if it succeeded.
    pub error: String,
    /// Time of the last scrape, in milliseconds since the epoch. `None` before the first.
    pub last_scrape: Option<i64>,
    /// Duration of the last scrape.
    pub duration: Duration,
    /// Number of samples on the page at the last scrape.
    pub samples: usize,
}

/// A discovered target that is not scraped.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// Name of the pool that dropped it.
    pub pool: Arc<str>,
    /// Labels as discovered, with defaults.
    pub discovered: Target,
    /// Reason why it is not scraped.
    pub reason: String,
}

/// Place of the pools of one name, which outlives each of them.
#[derive(Default)]
pub(crate) struct Slot {
    /// State of the running pool, which holds the lock.
    pub(crate) kept: Arc<AsyncMutex<Kept>>,
    /// Number of pools that have been built and wait for the lock.
    expected: AtomicUsize,
    pub(crate) view: Mutex<View>,
}

/// State that a pool leaves to its successor.
#[derive(Default)]
pub(crate) struct Kept {
    /// States of targets, by their hash.
    pub(crate) states: HashMap<u64, State>,
    /// The client, with its keys and the hash of its files.
    pub(crate) client: Option<(ClientConfig, u64, Client)>,
}

/// Targets of a pool, for the API and the status page.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) active: HashMap<u64, Arc<Entry>>,
    /// Targets that have gone, whose series have no staleness markers yet.
    pub(crate) leaving: HashMap<u64, Arc<Entry>>,
    /// For each target that is leaving, the active ones with the same labels, by those: they may
    /// have the same series, as after a move to another URL.
    pub(crate) heirs: HashMap<u64, Vec<Arc<Entry>>>,
    pub(crate) dropped: Vec<(Target, String)>,
    /// Number of dropped targets, including those beyond `keep_dropped_targets`.
    pub(crate) dropped_count: usize,
}

/// A target that is scraped, shared by its scraper and the API.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) target: Mutex<Arc<ScrapeTarget>>,
    pub(crate) last: Mutex<Last>,
    /// Hash of the target's labels.
    pub(crate) labels: u64,
    /// Series at its last scrape. `None` if nothing was sent.
    pub(crate) series: Mutex<Option<Arc<[SeriesId]>>>,
}

/// A pool that has been built and waits for its turn. Dropping it gives up the turn.
pub(crate) struct Expected(Arc<Slot>);

impl Default for Pools {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            hasher: RandomState::default(),
            since: schedule::now(),
        }
    }
}

impl Pools {
    /// Announces a pool with this name.
    pub(crate) fn expect(&self, name: &Arc<str>) -> Expected {
        let mut slots = locked(&self.slots);
        // Slots without a pool, running or expected, are removed.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        let slot = slots.entry(name.clone()).or_default().clone();
        slot.expected.fetch_add(1, Ordering::AcqRel);
        Expected(slot)
    }

    /// The series of active targets of a pool that have these labels, target by target.
    pub(crate) fn heirs(&self, pool: &str, labels: u64) -> Vec<Arc<[SeriesId]>> {
        let slot = locked(&self.slots).get(pool).cloned();
        let Some(slot) = slot else { return Vec::new() };
        let view = locked(&slot.view);
        let heirs = view.heirs.get(&labels).into_iter().flatten();
        heirs
            .filter_map(|entry| locked(&entry.series).clone())
            .collect()
    }

    fn slots(&self) -> Vec<(Arc<str>, Arc<Slot>)> {
        let slots = locked(&self.slots);
        let slots = slots.iter();
        slots
            .map(|(name, slot)| (name.clone(), slot.clone()))
            .collect()
    }

    /// The scraped targets that `wanted` accepts, pool by pool.
    pub fn active(&self, wanted: impl Fn(&TargetStatus) -> bool) -> Vec<TargetStatus> {
        let mut found = Vec::new();
        for (pool, slot) in self.slots() {
            let entries: Vec<Arc<Entry>> = locked(&slot.view).active.values().cloned().collect();
            let statuses = entries.iter().map(|entry| entry.status(&pool));
            let before = found.len();
            found.extend(statuses.filter(&wanted));
            found[before..].sort_by(|a: &TargetStatus, b| a.url.cmp(&b.url));
        }
        found
    }

    /// The discovered targets that are not scraped, as far as they are kept.
    pub fn dropped(&self) -> Vec<Dropped> {
        let mut found = Vec::new();
        for (pool, slot) in self.slots() {
            let view = locked(&slot.view);
            found.extend(view.dropped.iter().map(|(discovered, reason)| Dropped {
                pool: pool.clone(),
                discovered: discovered.clone(),
                reason: reason.clone(),
            }));
        }
        found
    }

    /// Number of dropped targets of each pool, by its name.
    pub fn dropped_counts(&self) -> BTreeMap<Arc<str>, usize> {
        let slots = self.slots().into_iter();
        slots
            .map(|(pool, slot)| (pool, locked(&slot.view).dropped_count))
            .collect()
    }
}

impl fmt::Debug for Pools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn new(target: Arc<ScrapeTarget>, last: Last) -> Self {
        Self {
            labels: target.labels_hash,
            target: Mutex::new(target),
            last: Mutex::new(last),
            series: Mutex::default(),
        }
    }

    pub(crate) fn target(&self) -> Arc<ScrapeTarget> {
        locked(&self.target).clone()
    }

    fn status(&self, pool: &Arc<str>) -> TargetStatus {
        let target = self.target();
        let last = locked(&self.last).clone();
        TargetStatus {
            pool: pool.clone(),
            discovered: target.discovered.clone(),
            labels: Arc::new(target.labels.clone()),
            url: target.uri.to_string(),
            interval: target.interval,
            timeout: target.timeout,
            health: last.health,
            error: last.error,
            last_scrape: last.at,
            duration: last.duration,
            samples: last.samples,
        }
    }
}

impl Expected {
    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.0
    }
}

impl Slot {
    /// Whether another pool has been built for this place.
    pub(crate) fn has_successor(&self) -> bool {
        self.expected.load(Ordering::Acquire) > 0
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::AcqRel);
    }
}
