//! The backlog: records that are on disk alone, and the order in which they are read.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use metrifold_model::Tenant;

use crate::Lane;
use crate::disk::Entry;

use super::key;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The records by tenant, with their positions and lanes. Takes about forty bytes of memory for each
/// record.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Records by tenant and position. A tenant without records may stay until its turn comes.
    tenants: Map<Tenant, BTreeMap<u64, Listed>>,
    /// Tenants in the order in which they are read.
    turns: VecDeque<Tenant>,
    /// Lanes with records in the backlog or on their way to disk.
    lanes: Map<u64, Lagging>,
    /// The next record from before this process that is not listed yet, and the end of these records.
    /// While there are any, a batch of any lane may be among them.
    unlisted: Option<(u64, u64)>,
    /// Paused tenants, whose records are not read until the given time. Until an attempt succeeds, all
    /// batches of such a tenant go to disk.
    paused: Map<Tenant, Instant>,
    /// Number of records with unspecified lanes, by tenant.
    unspecified: Map<Tenant, Unspecified>,
}

/// The part of a lane that is in the backlog or on its way to disk.
#[derive(Debug, Default)]
struct Lagging {
    count: usize,
    /// Id of the newest batch that arrived in this process; 0 if all are older.
    last: u64,
}

/// Lane of a listed record.
#[derive(Clone, Copy, Debug)]
struct Listed {
    lane: u64,
    lane_unspecified: bool,
}

/// Number of a tenant's records whose lanes have format version 1. Each may be of any of its senders:
/// newer records of the tenant must wait until they are done.
#[derive(Debug, Default)]
struct Unspecified {
    on_disk: usize,
    in_memory: usize,
}

/// A record to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) tenant: Tenant,
    pub(super) position: u64,
}

impl Backlog {
    /// A backlog of a queue that may have records from `first` to `end`.
    pub(super) fn new(first: u64, end: u64) -> Self {
        Self {
            unlisted: (first < end).then_some((first, end)),
            ..Self::default()
        }
    }

    /// The next record to be listed, and the end of those to be listed.
    pub(super) fn unlisted(&self) -> Option<(u64, u64)> {
        self.unlisted
    }

    /// Notes that all records below `next` are listed.
    pub(super) fn listed_to(&mut self, next: u64) {
        if let Some((_, end)) = self.unlisted {
            self.unlisted = (next < end).then_some((next, end));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.unlisted.is_none() && self.unspecified.is_empty()
    }

    /// Whether a batch that one of this lane must not overtake is on disk alone, or will be.
    pub(super) fn holds_back(&self, lane: &Lane) -> bool {
        self.unlisted.is_some()
            || self.lanes.contains_key(&lane.id)
            || (!self.unspecified.is_empty() && self.unspecified.contains_key(&key(&lane.tenant)))
    }

    /// Notes that a batch of a lane will be on disk alone. Its id orders it by arrival.
    pub(super) fn enter(&mut self, lane: u64, id: u64) {
        let lane = self.lanes.entry(lane).or_default();
        lane.count += 1;
        lane.last = lane.last.max(id);
    }

    /// Whether the lane has a batch here that is newer than this one.
    pub(super) fn has_newer(&self, lane: u64, id: u64) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| lane.last > id)
    }

    /// Notes that such a batch failed to reach the disk, or is in memory again.
    pub(super) fn leave(&mut self, lane: u64) {
        if let Some(lagging) = self.lanes.get_mut(&lane) {
            lagging.count -= 1;
            if lagging.count == 0 {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Lists a record whose lane was entered.
    pub(super) fn add(&mut self, entry: &Entry) {
        let tenant = &entry.tenant;
        let records = self.tenants.entry(tenant.clone()).or_insert_with(|| {
            self.turns.push_back(tenant.clone());
            BTreeMap::new()
        });
        let listed = Listed {
            lane: entry.lane,
            lane_unspecified: entry.lane_unspecified,
        };
        records.insert(entry.position.0, listed);
        if entry.lane_unspecified {
            self.unspecified(tenant, |of| of.on_disk += 1);
        }
    }

    /// Notes that a record was read into memory.
    pub(super) fn read(&mut self, entry: &Entry) {
        self.remove(&entry.tenant, entry.position.0);
        if entry.lane_unspecified {
            self.unspecified(&entry.tenant, |of| of.in_memory += 1);
        }
    }

    /// Notes that a record that was read is not in memory any more. Returns whether others may have
    /// waited for that.
    pub(super) fn unread(&mut self, entry: &Entry) -> bool {
        if entry.lane_unspecified {
            self.unspecified(&entry.tenant, |of| of.in_memory -= 1);
        }
        entry.lane_unspecified
    }

    fn unspecified(&mut self, tenant: &Tenant, change: impl FnOnce(&mut Unspecified)) {
        let of = self.unspecified.entry(tenant.clone()).or_default();
        change(of);
        if of.on_disk == 0 && of.in_memory == 0 {
            self.unspecified.remove(tenant);
        }
    }

    /// Removes a record; returns whether it was listed.
    pub(super) fn remove(&mut self, tenant: &Tenant, position: u64) -> bool {
        let records = self.tenants.get_mut(tenant);
        let Some(listed) = records.and_then(|records| records.remove(&position)) else {
            return false;
        };
        self.leave(listed.lane);
        if listed.lane_unspecified {
            self.unspecified(tenant, |of| of.on_disk -= 1);
        }
        true
    }

    /// The next records to be read, at most `most`. Tenants take turns, one record each; the records
    /// of a tenant are in order.
    pub(super) fn next_group(&mut self, now: Instant, most: usize) -> Vec<Next> {
        self.forget_empty();
        let runs = self.turns.iter().enumerate();
        let due = |tenant: &Tenant| self.paused.get(tenant).is_none_or(|until| *until <= now);
        let runs = runs.filter(|(_, tenant)| due(tenant));
        let mut runs: VecDeque<_> = runs
            .map(|(turn, tenant)| (turn, tenant, self.readable(tenant)))
            .collect();
        let mut group = Vec::new();
        let mut last = None;
        while group.len() < most
            && let Some((turn, tenant, mut records)) = runs.pop_front()
        {
            if let Some(position) = records.next() {
                let tenant = tenant.clone();
                group.push(Next { tenant, position });
                last = Some(turn);
                runs.push_back((turn, &self.turns[turn], records));
            }
        }
        drop(runs);
        if let Some(last) = last {
            self.turns.rotate_left(last + 1);
        }
        group
    }

    /// The first record of a tenant.
    pub(super) fn first(&self, tenant: &Tenant) -> Option<u64> {
        Some(*self.tenants.get(tenant)?.first_key_value()?.0)
    }

    /// The records of a tenant that need not wait for older ones, in order.
    fn readable(&self, tenant: &Tenant) -> impl Iterator<Item = u64> {
        // An unlisted record may be of any lane, and is older than those listed behind it.
        let end = self.unlisted.map_or(u64::MAX, |(from, _)| from);
        let of = self.unspecified.get(tenant);
        let mut behind_unspecified = of.is_some_and(|of| of.in_memory > 0);
        let records = self.tenants.get(tenant).into_iter();
        let records = records.flat_map(move |records| records.range(..end));
        records.map_while(move |(position, listed)| {
            let waits = !listed.lane_unspecified && behind_unspecified;
            behind_unspecified |= listed.lane_unspecified;
            (!waits).then_some(*position)
        })
    }

    /// Pauses a tenant: its records are not read until `until`.
    pub(super) fn pause(&mut self, tenant: &Tenant, until: Instant) {
        self.paused.insert(tenant.clone(), until);
    }

    /// Ends a tenant's pause.
    pub(super) fn resume(&mut self, tenant: &Tenant) {
        self.paused.remove(tenant);
    }

    /// Whether a tenant's batches go to disk at once: it was paused, and no attempt has succeeded
    /// since.
    pub(super) fn is_paused(&self, tenant: &Option<Tenant>) -> bool {
        !self.paused.is_empty() && self.paused.contains_key(&key(tenant))
    }

    pub(super) fn some_paused(&self) -> bool {
        !self.paused.is_empty()
    }

    /// The end of the first pause of a tenant that has records to read.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let paused = self.paused.iter();
        let waiting = paused.filter(|(tenant, _)| self.readable(tenant).next().is_some());
        waiting.map(|(_, until)| *until).min()
    }

    /// Removes records below `first`, which are not on disk any more, and pauses that ended before
    /// `now` of tenants without records.
    pub(super) fn prune(&mut self, first: u64, now: Instant) {
        let gone: Vec<(Tenant, u64)> = self
            .tenants
            .iter()
            .flat_map(|(tenant, records)| {
                let gone = records.range(..first);
                gone.map(|(position, _)| (tenant.clone(), *position))
            })
            .collect();
        for (tenant, position) in gone {
            self.remove(&tenant, position);
        }
        self.forget_empty();
        let tenants = &self.tenants;
        self.paused
            .retain(|tenant, until| *until > now || tenants.contains_key(tenant));
    }

    /// Removes tenants without records.
    fn forget_empty(&mut self) {
        self.tenants.retain(|_, records| !records.is_empty());
        let tenants = &self.tenants;
        self.turns.retain(|tenant| tenants.contains_key(tenant));
    }
}
