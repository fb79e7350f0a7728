//! Exemplars and metadata that arrive apart from their series, kept for a sink that sends 2.0.
//!
//! Prometheus sends 1.0 metadata in separate requests, and exemplars in separate series, often a
//! request after their samples. In 2.0 both belong to a series with samples. So the newest metadata
//! of each family is kept and added to every series of the family, and an exemplar waits for the
//! next sample of its series. Both are kept per tenant, within bounds.

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

/// Overhead of an entry beside its texts, in bytes.
const ENTRY_BYTES: usize = 128;
/// Overhead of each further exemplar of a series beside its content, in bytes.
const EXEMPLAR_BYTES: usize = 24;
/// Divisor of the room for exemplars: the largest share of one tenant is a quarter.
const TENANT_PART: usize = 4;
/// Sweeps for expired exemplars per `exemplar_max_age`.
const SWEEPS: u32 = 4;

/// Bounds on the data kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompanionBounds {
    /// Bytes of metadata of all tenants.
    pub metadata_bytes: usize,
    /// Bytes of metadata of one tenant.
    pub metadata_bytes_per_tenant: usize,
    /// Bytes of exemplars of all tenants.
    pub exemplar_bytes: usize,
    /// Longest time that an exemplar waits for a sample.
    pub exemplar_max_age: Duration,
}

impl CompanionBounds {
    /// Keeps nothing.
    pub const NOTHING: Self = Self {
        metadata_bytes: 0,
        metadata_bytes_per_tenant: 0,
        exemplar_bytes: 0,
        exemplar_max_age: Duration::ZERO,
    };
}

/// Exemplars that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Exemplars of earlier batches whose series got no sample in time.
    pub expired: u64,
    /// Exemplars of this batch for which there was no room to wait.
    pub unsent: u64,
}

/// Exemplars and metadata that a sink keeps until their series come.
#[derive(Debug, Default)]
pub struct Companions {
    state: Mutex<State>,
    /// Number of waiting exemplars, readable without the lock.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Option<Tenant>, OfTenant, RandomState>,
    metadata_bytes: usize,
    exemplar_bytes: usize,
    /// Number of batches seen: a logical clock for evicting the least recently used tenant.
    clock: u64,
    swept: Option<Instant>,
}

/// The exemplars and metadata of one tenant.
#[derive(Debug, Default)]
struct OfTenant {
    families: Known,
    waiting: Waiting,
    /// Clock value of the tenant's last batch.
    used: u64,
}

/// Metadata of families, in two generations: a lookup moves an entry to the young generation, and
/// once that has half of the allowed bytes, the old one is evicted.
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
    /// Encoded as a field of a 1.0 request.
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
    /// Adds to a batch that will be sent as 2.0 the exemplars and metadata kept for its series, and
    /// keeps those in the batch that belong to other series.
    ///
    /// # Errors
    ///
    /// Fails when the batch has to be decoded for that and its body is malformed, or when it grew
    /// too large.
    pub fn complete(
        &self,
        batch: &mut Batch,
        bounds: &CompanionBounds,
        now: Instant,
    ) -> Result<GivenUp, DecodeError> {
        let version = batch.body_version();
        let waiting = self.waiting.load(Ordering::Relaxed) > 0;
        // A 2.0 batch is sent as received; if it was edited without being decoded, its exemplars
        // are already in their series.
        if version == Version::V2 && !batch.is_decoded() && !(batch.is_checked() && waiting) {
            return Ok(GivenUp::default());
        }
        let tenant = batch.tenant().cloned();
        let arena = batch.arena()?;
        let has_lone = exemplars::has_lone(arena);
        if version == Version::V2 && !has_lone && !waiting {
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

    /// Drops the waiting exemplars; returns their number.
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
    /// Keeps the metadata in a batch, and returns the metadata that its series lack.
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

    /// Evicts the metadata of the least recently used tenants, a large part at once.
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

    /// Finds the series that a batch's exemplars belong to, and keeps the exemplars whose series is
    /// not in the batch.
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
        let joining = match waiting {
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
        let mut key = Vec::new();
        for index in joining.left.iter() {
            // Compared before anything is copied: a few bytes may stand for much text.
            let count = arena.series[index].counts.exemplars as usize;
            let (key_len, exemplars_len) = exemplars::lengths_of(arena, index);
            let bytes = key_len + ENTRY_BYTES + exemplars_len + count * EXEMPLAR_BYTES;
            let fits = self.exemplar_bytes + bytes <= bounds.exemplar_bytes
                && known.waiting.bytes + bytes <= bounds.exemplar_bytes / TENANT_PART;
            if !fits {
                given_up.unsent += count as u64;
                continue;
            }
            exemplars::put_key(arena, index, &mut key);
            let exemplars = exemplars::exemplars_of(arena, index);
            self.exemplar_bytes += bytes;
            known.waiting.put(&key, exemplars, bytes, now);
        }
        joining
    }

    /// Drops exemplars that have waited too long.
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

    /// Keeps the metadata of a family, unless it alone exceeds the bound.
    fn keep(&mut self, name: &[u8], kind: u64, field: &[u8], most: usize) {
        if let Some(family) = self.young.get(name)
            && *family.field == *field
        {
            return;
        }
        self.remove(name);
        if family_bytes(name, field) > most / 2 {
            return;
        }
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

    /// Metadata of the families that have series in a batch, but no metadata in it.
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

    /// Looks up the metadata of a family; it stays kept, since later series need it again.
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
        family_bytes(name, &self.field)
    }
}

fn family_bytes(name: &[u8], field: &[u8]) -> usize {
    name.len() + field.len() + ENTRY_BYTES
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
