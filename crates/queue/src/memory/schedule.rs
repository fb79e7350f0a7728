//! The order of items: tenants take turns, and so do the lanes of a tenant.
//!
//! State is kept for tenants and lanes with items that wait or are in flight, and for paused tenants.
//! The cost of adding and taking does not depend on their number.

mod lanes;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::mem::take;

use tokio::time::Instant;

use metrifold_model::Tenant;

use crate::Lane;

pub(super) use lanes::Item;
use lanes::{LaneItems, TenantItems};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The waiting items.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    tenants: Map<Option<Tenant>, TenantItems<T>>,
    /// Tenants in the order of their turns. Some may have nothing ready by now.
    turns: VecDeque<Option<Tenant>>,
    /// Paused tenants by the end of their pause.
    paused: BTreeSet<(Instant, Option<Tenant>)>,
    /// Number and bytes of the waiting items.
    len: usize,
    bytes: usize,
    /// Position of the next item in the order of arrival.
    next: u64,
    /// Whether more items may have become ready than receivers were woken.
    surplus: bool,
}

impl<T> Default for Schedule<T> {
    fn default() -> Self {
        Self {
            tenants: Map::default(),
            turns: VecDeque::new(),
            paused: BTreeSet::new(),
            len: 0,
            bytes: 0,
            next: 0,
            surplus: false,
        }
    }
}

impl<T> Schedule<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether items may be ready for which no receiver was woken.
    pub(super) fn has_surplus(&mut self) -> bool {
        self.surplus &= !self.turns.is_empty();
        self.surplus
    }

    /// Notes that several items arrived and one receiver is woken for them.
    pub(super) fn note_surplus(&mut self) {
        self.surplus = true;
    }

    /// Bytes of the waiting items.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of a tenant's items, waiting and in flight.
    pub(super) fn bytes_of(&self, tenant: &Option<Tenant>) -> usize {
        self.tenants.get(tenant).map_or(0, |own| own.bytes)
    }

    pub(super) fn push_back(&mut self, lane: Lane, item: T, weight: usize) {
        let came = self.next;
        self.next += 1;
        let holds = lane.holds;
        let item = Item {
            item,
            weight,
            holds,
            came,
        };
        self.add(lane, weight, |items| items.push_back(item));
    }

    /// Returns an item to its place in its lane, regardless of the order in which items come back; the
    /// parts of one item must be put back last one first.
    pub(super) fn put_back(&mut self, lane: Lane, item: T, weight: usize, came: u64) {
        let holds = lane.holds;
        self.add(lane, weight, |items| {
            let before = items.iter().position(|other| other.came >= came);
            let item = Item {
                item,
                weight,
                holds,
                came,
            };
            items.insert(before.unwrap_or(items.len()), item);
        });
    }

    fn add(&mut self, lane: Lane, weight: usize, add: impl FnOnce(&mut VecDeque<Item<T>>)) {
        let own = self.tenants.entry(lane.tenant.clone()).or_default();
        add(&mut own.lanes.entry(lane.id).or_default().items);
        own.bytes += weight;
        own.waiting += weight;
        own.enlist(lane.id);
        self.len += 1;
        self.bytes += weight;
        self.enlist(lane.tenant);
    }

    /// Gives a tenant a turn if it has something ready.
    fn enlist(&mut self, tenant: Option<Tenant>) {
        if let Some(own) = self.tenants.get_mut(&tenant)
            && !own.turns.is_empty()
            && own.paused.is_none()
            && !own.in_turn
        {
            own.in_turn = true;
            self.turns.push_back(tenant);
        }
    }

    /// Takes the next ready item and more of its tenant, within the bound; nothing if none is ready.
    pub(super) fn take(&mut self, now: Instant, most: RunBound) -> Vec<(Lane, Item<T>)> {
        self.wake(now);
        let mut run = Vec::new();
        while run.is_empty()
            && let Some(tenant) = self.turns.pop_front()
        {
            let Some(own) = self.tenants.get_mut(&tenant) else {
                continue;
            };
            own.in_turn = false;
            if own.paused.is_none() {
                let weight = own.take(&tenant, most, &mut run);
                self.len -= run.len();
                self.bytes -= weight;
                self.enlist(tenant);
            }
        }
        run
    }

    /// Releases an item in flight. Returns whether other items became ready.
    pub(super) fn release(&mut self, lane: &Lane, weight: usize) -> bool {
        let Some(own) = self.tenants.get_mut(&lane.tenant) else {
            return false;
        };
        own.bytes -= weight;
        let mut freed = false;
        if let Some(items) = own.lanes.get_mut(&lane.id) {
            items.under_way -= 1;
            items.holders -= usize::from(lane.holds);
            freed = lane.holds && items.is_ready();
            self.surplus |= freed;
        }
        own.enlist(lane.id);
        own.prune(lane.id);
        self.enlist(lane.tenant.clone());
        self.prune(&lane.tenant);
        freed
    }

    /// Removes a tenant without items.
    fn prune(&mut self, tenant: &Option<Tenant>) {
        let own = self.tenants.get(tenant);
        if own.is_some_and(|own| own.lanes.is_empty() && own.paused.is_none()) {
            self.tenants.remove(tenant);
        }
    }

    /// Makes the items of these tenants, those in flight included, hold their lanes from now on.
    pub(super) fn hold(&mut self, of: impl Fn(&Option<Tenant>) -> bool) {
        for (_, own) in self.tenants.iter_mut().filter(|(tenant, _)| of(tenant)) {
            for lane in own.lanes.values_mut() {
                lane.holders = lane.under_way;
                for item in &mut lane.items {
                    item.holds = true;
                }
            }
        }
    }

    /// Pauses a tenant until `until`.
    pub(super) fn pause(&mut self, tenant: Option<Tenant>, until: Instant) {
        let own = self.tenants.entry(tenant.clone()).or_default();
        if let Some(before) = own.paused.replace(until) {
            self.paused.remove(&(before, tenant.clone()));
        }
        self.paused.insert((until, tenant));
    }

    /// The end of the first pause.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.paused.first().map(|(until, _)| *until)
    }

    /// Ends the pauses that are over.
    fn wake(&mut self, now: Instant) {
        while let Some((until, tenant)) = self.paused.pop_first() {
            if until > now {
                self.paused.insert((until, tenant));
                return;
            }
            self.resume(&tenant);
        }
    }

    /// Ends all pauses.
    pub(super) fn resume_all(&mut self) {
        for (_, tenant) in take(&mut self.paused) {
            self.resume(&tenant);
        }
    }

    fn resume(&mut self, tenant: &Option<Tenant>) {
        if let Some(own) = self.tenants.get_mut(tenant) {
            own.paused = None;
            self.surplus = true;
        }
        self.enlist(tenant.clone());
        self.prune(tenant);
    }

    /// The tenant with the most waiting bytes.
    pub(super) fn largest(&self) -> Option<Option<Tenant>> {
        let largest = self.tenants.iter().max_by_key(|(_, own)| own.waiting);
        largest.map(|(tenant, _)| tenant.clone())
    }

    /// Removes the oldest waiting item of a tenant.
    pub(super) fn evict(&mut self, tenant: &Option<Tenant>) -> Option<Item<T>> {
        let own = self.tenants.get_mut(tenant)?;
        let front = |(id, lane): (&u64, &LaneItems<T>)| Some((lane.items.front()?.came, *id));
        let (_, id) = own.lanes.iter().filter_map(front).min()?;
        let item = own.lanes.get_mut(&id)?.items.pop_front()?;
        self.removed(tenant, id, item.weight);
        Some(item)
    }

    /// Removes a tenant's items from the backs of its lanes, as far as `which` accepts them. Lanes with
    /// items in flight are left out: these may return before or behind the waiting ones.
    pub(super) fn withdraw(
        &mut self,
        tenant: &Option<Tenant>,
        mut which: impl FnMut(&T) -> bool,
    ) -> Vec<(u64, T)> {
        let lanes = self.tenants.get(tenant).map(|own| own.lanes.iter());
        let idle = lanes
            .into_iter()
            .flatten()
            .filter(|(_, lane)| lane.under_way == 0);
        let lanes: Vec<u64> = idle.map(|(id, _)| *id).collect();
        let mut withdrawn = Vec::new();
        for id in lanes {
            while let Some(own) = self.tenants.get_mut(tenant)
                && let Some(lane) = own.lanes.get_mut(&id)
                && let Some(item) = lane.items.pop_back_if(|last| which(&last.item))
            {
                self.removed(tenant, id, item.weight);
                withdrawn.push((id, item.item));
            }
        }
        withdrawn
    }

    fn removed(&mut self, tenant: &Option<Tenant>, lane: u64, weight: usize) {
        self.len -= 1;
        self.bytes -= weight;
        if let Some(own) = self.tenants.get_mut(tenant) {
            own.bytes -= weight;
            own.waiting -= weight;
            own.prune(lane);
        }
        self.prune(tenant);
    }

    /// All waiting items in the order of arrival; returned ones are in front of those behind them.
    pub(super) fn iter_mut(&mut self) -> Vec<(Lane, &mut T)> {
        let mut all = Vec::with_capacity(self.len);
        for (tenant, own) in &mut self.tenants {
            for (id, lane) in &mut own.lanes {
                for (place, item) in lane.items.iter_mut().enumerate() {
                    let lane = Lane {
                        tenant: tenant.clone(),
                        id: *id,
                        holds: item.holds,
                    };
                    all.push((item.came, place, lane, &mut item.item));
                }
            }
        }
        all.sort_by_key(|(came, place, ..)| (*came, *place));
        let all = all.into_iter();
        all.map(|(_, _, lane, item)| (lane, item)).collect()
    }

    /// Removes all items, and returns them in the order of arrival.
    pub(super) fn drain(&mut self) -> Vec<Item<T>> {
        let mut all = Vec::with_capacity(self.len);
        for own in self.tenants.values_mut() {
            own.bytes -= own.waiting;
            own.waiting = 0;
            for lane in own.lanes.values_mut() {
                all.extend(lane.items.drain(..).enumerate());
                lane.in_turn = false;
            }
            own.lanes.retain(|_, lane| lane.under_way > 0);
            own.turns.clear();
            (own.in_turn, own.paused) = (false, None);
        }
        self.tenants.retain(|_, own| !own.lanes.is_empty());
        self.paused.clear();
        self.turns.clear();
        (self.len, self.bytes) = (0, 0);
        all.sort_by_key(|(place, item)| (item.came, *place));
        all.into_iter().map(|(_, item)| item).collect()
    }
}

/// The most items of a run.
pub(crate) const RUN_MAX: usize = 1024;

/// Bounds of what is taken at once. One item is taken in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunBound {
    /// The most bytes.
    pub weight: usize,
    /// The most times that a lane gets a turn. In a turn, a lane gives one item whose sender waits, or
    /// all items that fit and whose senders do not wait.
    pub turns: usize,
}

impl RunBound {
    /// One item.
    pub const ONE: Self = Self {
        weight: 0,
        turns: 1,
    };
}
