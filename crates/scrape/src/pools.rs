//! The pools of the process: what there is to tell of their targets, and what a pool leaves to its
//! successor over a reload.

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

use crate::state::{Health, Last, State};
use crate::target::ScrapeTarget;

/// All pools, by the names of their sources.
#[derive(Default)]
pub struct Pools {
    slots: Mutex<BTreeMap<Arc<str>, Arc<Slot>>>,
    /// How series are told apart; the same for all, so that a pool knows those of its predecessor.
    pub(crate) hasher: RandomState,
}

/// What there is to tell of a target.
#[derive(Clone, Debug)]
pub struct TargetStatus {
    /// The pool that it is in.
    pub pool: Arc<str>,
    /// What was discovered, with defaults.
    pub discovered: Target,
    /// The labels of its series.
    pub labels: Target,
    /// The URL of its page.
    pub url: String,
    /// How often it is scraped.
    pub interval: Duration,
    /// How long that may take.
    pub timeout: Duration,
    /// How it goes with it.
    pub health: Health,
    /// Why the last scrape has failed; empty if it has not.
    pub error: String,
    /// When it was last scraped, in milliseconds since the epoch, if ever.
    pub last_scrape: Option<i64>,
    /// How long that took.
    pub duration: Duration,
    /// How many samples were on its page.
    pub samples: usize,
}

/// A target that was discovered and is not scraped.
#[derive(Clone, Debug)]
pub struct Dropped {
    /// The pool that would have it.
    pub pool: Arc<str>,
    /// What was discovered, with defaults.
    pub discovered: Target,
    /// Why it is not scraped.
    pub reason: String,
}

/// A pool's place, which outlives it.
#[derive(Default)]
pub(crate) struct Slot {
    /// Held by the pool that runs.
    pub(crate) kept: Arc<AsyncMutex<Kept>>,
    /// How many pools are built and wait for it.
    expected: AtomicUsize,
    pub(crate) view: Mutex<View>,
}

/// What a pool leaves to its successor.
#[derive(Default)]
pub(crate) struct Kept {
    /// By the hash of their targets.
    pub(crate) states: HashMap<u64, State>,
    pub(crate) client: Option<(ClientConfig, Client)>,
}

/// What is to be seen of a pool.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) active: HashMap<u64, Arc<Entry>>,
    /// Targets that have gone, and whose series have not been ended yet.
    pub(crate) leaving: HashMap<u64, Arc<Entry>>,
    pub(crate) dropped: Vec<(Target, String)>,
    /// Also those that are not kept to be shown.
    pub(crate) dropped_count: usize,
}

/// A target that is scraped, as all see it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) target: Mutex<Arc<ScrapeTarget>>,
    pub(crate) last: Mutex<Last>,
}

/// A pool that is built and waits for its turn. Dropping it gives the turn up.
pub(crate) struct Expected(Arc<Slot>);

impl Pools {
    /// Announces a pool of this name.
    pub(crate) fn expect(&self, name: &Arc<str>) -> Expected {
        let mut slots = locked(&self.slots);
        // Those that nobody has, and that nobody waits for, are gone.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        let slot = slots.entry(name.clone()).or_default().clone();
        slot.expected.fetch_add(1, Ordering::AcqRel);
        Expected(slot)
    }

    fn slots(&self) -> Vec<(Arc<str>, Arc<Slot>)> {
        let slots = locked(&self.slots);
        let slots = slots.iter();
        slots
            .map(|(name, slot)| (name.clone(), slot.clone()))
            .collect()
    }

    /// The targets that are scraped and that `wanted` takes, pool by pool.
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

    /// The targets that were discovered and are not scraped, as far as they are kept to be shown.
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

    /// How many targets each pool has dropped, by its name.
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
            target: Mutex::new(target),
            last: Mutex::new(last),
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
    /// Whether another pool has been built to take this place.
    pub(crate) fn has_successor(&self) -> bool {
        self.expected.load(Ordering::Acquire) > 0
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.fetch_sub(1, Ordering::AcqRel);
    }
}
