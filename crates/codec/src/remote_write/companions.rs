//! What belongs to series and comes apart from them, kept for a sink that sends 2.0.
//!
//! Prometheus sends metadata of 1.0 in requests of its own, and exemplars in series of their own,
//! often a request behind their samples. In 2.0 both stand in a series with samples. So the newest
//! metadata of each family is kept, for every series of it that passes, and an exemplar waits for the
//! next sample of its series. Both are kept by tenant, and bounded.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use metrifold_model::{Tenant, Version};

use crate::{Arena, Batch, Name};

use super::decode::DecodeError;
use super::exemplars::{self, Earlier, Exemplars, Joining};
use super::families;

/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 128;
/// What a further exemplar of a series takes beside its bytes.
const EXEMPLAR_BYTES: usize = 24;
/// A tenant has at most this part of the room for exemplars.
const TENANT_PART: usize = 4;
/// Exemplars that have waited for too long are looked for so often in the time that they may wait.
const SWEEPS: u32 = 4;

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompanionBounds {
    /// Bytes of metadata, of all tenants.
    pub metadata_bytes: usize,
    /// Bytes of metadata of one tenant.
    pub metadata_bytes_per_tenant: usize,
    /// Bytes of exemplars, of all tenants.
    pub exemplar_bytes: usize,
    /// How long an exemplar waits.
    pub exemplar_max_age: Duration,
}

impl CompanionBounds {
    /// Nothing is kept.
    pub const NOTHING: Self = Self {
        metadata_bytes: 0,
        metadata_bytes_per_tenant: 0,
        exemplar_bytes: 0,
        exemplar_max_age: Duration::ZERO,
    };
}

/// Exemplars that were given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Of earlier batches: no sample of their series came in time.
    pub expired: u64,
    /// Of this batch: there was no room for them to wait.
    pub unsent: u64,
}

/// The exemplars and metadata that are kept for a sink until their series come.
#[derive(Debug, Default)]
pub struct Companions {
    state: Mutex<State>,
    /// How many exemplars wait, to be read without the lock.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Option<Tenant>, OfTenant, RandomState>,
    metadata_bytes: usize,
    exemplar_bytes: usize,
    /// Counts batches, to tell which tenant was heard of last.
    clock: u64,
    swept: Option<Instant>,
}

/// The exemplars and metadata of one tenant.
#[derive(Debug, Default)]
struct OfTenant {
    families: Known,
    waiting: Waiting,
    /// When it was heard of last.
    used: u64,
}

/// The metadata of families, in two generations: what is asked for moves to the young one, and when
/// that is half of all that may be, the old one goes.
#[derive(Debug, Default)]
struct Known {
    young: HashMap<Box<[u8]>, Family, RandomState>,
    old: HashMap<Box<[u8]>, Family, RandomState>,
    young_bytes: usize,
    old_bytes: usize,
}

/// The metadata of a metric family.
#[derive(Debug)]
struct Family {
    kind: u64,
    /// As a field of a 1.0 request.
    field: Box<[u8]>,
}

/// Exemplars that wait for a sample of their series.
#[derive(Debug, Default)]
struct Waiting {
    series: HashMap<Box<[u8]>, Held, RandomState>,
    bytes: usize,
    exemplars: usize,
}

#[derive(Debug)]
struct Held {
    exemplars: Exemplars,
    bytes: usize,
    since: Instant,
}

impl Companions {
    /// Gives a batch that is to be sent as 2.0 what has come apart from its series, and keeps what
    /// comes with it for series that are not in it.
    ///
    /// # Errors
    ///
    /// Fails when the batch has to be decoded for that and is not what it claims to be, or when it
    /// grew too large.
    pub fn complete(
        &self,
        batch: &mut Batch,
        bounds: &CompanionBounds,
        now: Instant,
    ) -> Result<GivenUp, DecodeError> {
        let version = batch.body_version();
        if version == Version::V2 && !batch.is_decoded() {
            return Ok(GivenUp::default());
        }
        let tenant = batch.tenant().cloned();
        let arena = batch.arena()?;
        let has_lone = exemplars::has_lone(arena);
        if version == Version::V2 && !has_lone && self.waiting.load(Ordering::Relaxed) == 0 {
            return Ok(GivenUp::default());
        }
        let mut given_up = GivenUp::default();
        let (metadata, joining) = {
            let mut state = self.state();
            given_up.expired = state.sweep(bounds, now);
            state.clock += 1;
            let metadata = match version {
                Version::V1 => state.metadata(&tenant, arena, bounds),
                Version::V2 => Vec::new(),
            };
            let joining = state.join(&tenant, arena, bounds, now, &mut given_up);
            state.forget_empty(&tenant);
            let waiting = state.tenants.values().map(|known| known.waiting.exemplars);
            self.waiting.store(waiting.sum(), Ordering::Relaxed);
            (metadata, joining)
        };
        if !metadata.is_empty() || !joining.is_empty() {
            batch.edit(|arena| {
                joining.apply(arena);
                for field in &metadata {
                    let span = arena.push_text(field);
                    arena.metadata.push(span);
                    arena.counts.metadata += 1;
                    arena.changed = true;
                }
            })?;
        }
        Ok(given_up)
    }

    /// Lets go of the exemplars that wait; returns how many there were.
    pub fn give_up(&self) -> u64 {
        let mut state = self.state();
        let waiting = state.tenants.values_mut().map(|known| &mut known.waiting);
        let exemplars: usize = waiting.map(|all| std::mem::take(all).exemplars).sum();
        state.exemplar_bytes = 0;
        self.waiting.store(0, Ordering::Relaxed);
        exemplars as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps the metadata that a batch brings, and returns that of its series which it lacks.
    fn metadata(
        &mut self,
        tenant: &Option<Tenant>,
        arena: &Arena,
        bounds: &CompanionBounds,
    ) -> Vec<Box<[u8]>> {
        let brings = !arena.metadata.is_empty() && bounds.metadata_bytes > 0;
        if !brings && !self.tenants.contains_key(tenant) {
            return Vec::new();
        }
        let known = self.tenants.entry(tenant.clone()).or_default();
        known.used = self.clock;
        let before = known.families.bytes();
        let most = bounds.metadata_bytes_per_tenant.min(bounds.metadata_bytes);
        let mut own = HashSet::<&[u8], RandomState>::default();
        for (field, entry) in families::entries(arena) {
            own.insert(entry.name);
            known.families.keep(entry.name, entry.kind, field, most);
        }
        let lacking = known.families.lacking(arena, &own, most);
        let after = known.families.bytes();
        self.metadata_bytes = self.metadata_bytes + after - before;
        if self.metadata_bytes > bounds.metadata_bytes {
            self.make_room(tenant, bounds.metadata_bytes);
        }
        lacking
    }

    /// Lets the metadata go of those who were not heard of for longest, a good part at once.
    fn make_room(&mut self, but: &Option<Tenant>, most: usize) {
        let others = self.tenants.iter();
        let others = others.filter(|(tenant, known)| *tenant != but && known.families.bytes() > 0);
        let mut others: Vec<_> = others
            .map(|(name, known)| (known.used, name.clone()))
            .collect();
        others.sort_unstable_by_key(|(used, _)| *used);
        for (_, tenant) in others {
            if self.metadata_bytes <= most - most / 8 {
                break;
            }
            if let Some(known) = self.tenants.get_mut(&tenant) {
                self.metadata_bytes -= std::mem::take(&mut known.families).bytes();
            }
            self.forget_empty(&tenant);
        }
    }

    /// Finds out where the exemplars of a batch belong, and keeps those that belong nowhere yet.
    fn join(
        &mut self,
        tenant: &Option<Tenant>,
        arena: &Arena,
        bounds: &CompanionBounds,
        now: Instant,
        given_up: &mut GivenUp,
    ) -> Joining {
        let known = self.tenants.get_mut(tenant);
        let waiting = known.map(|known| &mut known.waiting);
        let waiting = waiting.filter(|waiting| !waiting.series.is_empty());
        let before = waiting.as_ref().map_or(0, |waiting| waiting.bytes);
        let mut joining = match waiting {
            Some(waiting) => {
                let joining = exemplars::find(arena, Some(waiting));
                let after = waiting.bytes;
                self.exemplar_bytes -= before - after;
                joining
            }
            None => exemplars::find(arena, None::<&mut ()>),
        };
        if joining.left.is_empty() {
            return joining;
        }
        if bounds.exemplar_bytes == 0 || bounds.exemplar_max_age.is_zero() {
            given_up.unsent += joining.left_over(arena);
            return joining;
        }
        let known = self.tenants.entry(tenant.clone()).or_default();
        for (key, series) in &mut joining.left {
            for &index in &*series {
                let exemplars = exemplars::exemplars_of(arena, index);
                let bytes = exemplars.iter().map(|field| field.len() + EXEMPLAR_BYTES);
                let bytes = key.len() + ENTRY_BYTES + bytes.sum::<usize>();
                let fits = self.exemplar_bytes + bytes <= bounds.exemplar_bytes
                    && known.waiting.bytes + bytes <= bounds.exemplar_bytes / TENANT_PART;
                if !fits {
                    given_up.unsent += exemplars.len() as u64;
                    continue;
                }
                self.exemplar_bytes += bytes;
                known.waiting.put(key, exemplars, bytes, now);
            }
        }
        joining
    }

    /// Gives up what has waited for too long.
    fn sweep(&mut self, bounds: &CompanionBounds, now: Instant) -> u64 {
        let last = *self.swept.get_or_insert(now);
        if now.duration_since(last) < bounds.exemplar_max_age / SWEEPS {
            return 0;
        }
        self.swept = Some(now);
        let mut expired = 0;
        self.tenants.retain(|_, known| {
            let waiting = &mut known.waiting;
            let before = (waiting.bytes, waiting.exemplars);
            waiting.expire(bounds.exemplar_max_age, now);
            self.exemplar_bytes -= before.0 - waiting.bytes;
            expired += (before.1 - waiting.exemplars) as u64;
            !known.is_empty()
        });
        expired
    }

    fn forget_empty(&mut self, tenant: &Option<Tenant>) {
        if self.tenants.get(tenant).is_some_and(OfTenant::is_empty) {
            self.tenants.remove(tenant);
        }
    }
}

impl OfTenant {
    fn is_empty(&self) -> bool {
        self.families.bytes() == 0 && self.waiting.series.is_empty()
    }
}

impl Known {
    fn bytes(&self) -> usize {
        self.young_bytes + self.old_bytes
    }

    /// Keeps what is said of a family, unless that alone is too much.
    fn keep(&mut self, name: &[u8], kind: u64, field: &[u8], most: usize) {
        if let Some(family) = self.young.get(name)
            && *family.field == *field
        {
            return;
        }
        self.remove(name);
        let family = Family {
            kind,
            field: field.into(),
        };
        self.put(name.into(), family, most);
    }

    fn remove(&mut self, name: &[u8]) -> Option<Family> {
        if let Some(family) = self.young.remove(name) {
            self.young_bytes -= family.bytes(name);
            return Some(family);
        }
        let family = self.old.remove(name)?;
        self.old_bytes -= family.bytes(name);
        Some(family)
    }

    fn put(&mut self, name: Box<[u8]>, family: Family, most: usize) {
        let bytes = family.bytes(&name);
        let half = most / 2;
        if bytes > half {
            return;
        }
        if self.young_bytes + bytes > half {
            self.old = std::mem::take(&mut self.young);
            self.old_bytes = std::mem::take(&mut self.young_bytes);
        }
        self.young_bytes += bytes;
        self.young.insert(name, family);
    }

    /// The metadata of those families that a batch has series of, and does not bring itself.
    fn lacking(
        &mut self,
        arena: &Arena,
        own: &HashSet<&[u8], RandomState>,
        most: usize,
    ) -> Vec<Box<[u8]>> {
        let mut lacking = Vec::new();
        if self.bytes() == 0 {
            return lacking;
        }
        let label = Name::new("__name__");
        let mut seen = HashSet::<&[u8], RandomState>::default();
        let mut found = HashSet::<&[u8], RandomState>::default();
        let mut before: &[u8] = b"";
        for series in arena.iter() {
            let name = series.get(&label).unwrap_or_default();
            if name == before || !seen.insert(name) {
                continue;
            }
            before = name;
            for (base, suffix) in families::candidates(name) {
                if own.contains(base) || found.contains(base) {
                    continue;
                }
                let Some(kind) = self.young.get(base).or(self.old.get(base)).map(|f| f.kind) else {
                    continue;
                };
                if families::has_member(kind, base, name, suffix) {
                    found.insert(base);
                    lacking.extend(self.ask(base, most));
                }
            }
        }
        lacking
    }

    /// The metadata of a family, which is kept when it is sent: later series need it again.
    fn ask(&mut self, name: &[u8], most: usize) -> Option<Box<[u8]>> {
        if let Some(family) = self.young.get(name) {
            return Some(family.field.clone());
        }
        let family = self.remove(name)?;
        let field = family.field.clone();
        self.put(name.into(), family, most);
        Some(field)
    }
}

impl Family {
    fn bytes(&self, name: &[u8]) -> usize {
        name.len() + self.field.len() + ENTRY_BYTES
    }
}

impl Waiting {
    fn put(&mut self, key: &[u8], exemplars: Exemplars, bytes: usize, now: Instant) {
        self.bytes += bytes;
        self.exemplars += exemplars.len();
        match self.series.get_mut(key) {
            Some(held) => {
                held.exemplars.extend(exemplars);
                held.bytes += bytes;
                held.since = now;
            }
            None => {
                let held = Held {
                    exemplars,
                    bytes,
                    since: now,
                };
                self.series.insert(key.into(), held);
            }
        }
    }

    fn expire(&mut self, max_age: Duration, now: Instant) {
        let Self {
            series,
            bytes,
            exemplars,
        } = self;
        series.retain(|_, held| {
            let stays = now.duration_since(held.since) < max_age;
            if !stays {
                *bytes -= held.bytes;
                *exemplars -= held.exemplars.len();
            }
            stays
        });
    }
}

impl Earlier for Waiting {
    fn take(&mut self, key: &[u8]) -> Exemplars {
        let Some(held) = self.series.remove(key) else {
            return Vec::new();
        };
        self.bytes -= held.bytes;
        self.exemplars -= held.exemplars.len();
        held.exemplars
    }
}

#[cfg(test)]
mod tests;
