//! Bounds of the queue in memory, and the evictions that make room.

use metrifold_base::within_share;
use metrifold_model::Tenant;

use super::{Held, QueueState};
use crate::Lane;

impl<T> QueueState<T> {
    /// Whether there is room for the item, and it is within the tenant's share. Without tenants,
    /// nothing is shared.
    pub(super) fn has_room(&self, tenant: &Option<Tenant>, weight: usize) -> bool {
        let own = self.schedule.bytes_of(tenant);
        let free = self.max.saturating_sub(self.bytes + weight);
        let fair = tenant.is_none() || within_share(own as u64, weight as u64, free as u64);
        fair && self.fits(self.bytes, weight)
    }

    /// Whether an item of `weight` fits beside `bytes`.
    pub(super) fn fits(&self, bytes: usize, weight: usize) -> bool {
        bytes == 0 || bytes + weight <= self.max
    }

    /// Evicts the oldest items of the largest tenant until `weight` fits. Returns false if it
    /// cannot fit because of the items in flight.
    pub(super) fn make_room(&mut self, weight: usize, evicted: &mut Vec<T>) -> bool {
        if !self.fits(self.bytes - self.schedule.bytes(), weight) {
            return false;
        }
        while !self.fits(self.bytes, weight) {
            let largest = self.schedule.largest();
            let Some(old) = largest.and_then(|largest| self.schedule.evict(&largest)) else {
                return false;
            };
            self.bytes -= old.weight;
            evicted.push(old.item);
        }
        true
    }

    /// Registers an item in flight of this lane. Returns its slot.
    pub(super) fn begin(&mut self, lane: &Lane) -> usize {
        let slot = self.free.pop().unwrap_or(self.under_way.len());
        match self.under_way.get_mut(slot) {
            Some(free) => *free = Some(lane.clone()),
            None => self.under_way.push(Some(lane.clone())),
        }
        slot
    }

    /// The lane of the item in flight in a slot.
    pub(super) fn lane(&self, slot: usize) -> Option<Lane> {
        self.under_way.get(slot).cloned().flatten()
    }

    /// Releases the bytes and the lane of an item in flight. Returns whether other items became
    /// ready.
    pub(super) fn release(&mut self, held: &Held<T>) -> bool {
        self.bytes -= held.weight;
        let lane = self.under_way.get_mut(held.slot).and_then(Option::take);
        self.free.push(held.slot);
        if held.turn == self.turn {
            self.taken -= 1;
        } else {
            self.lent -= 1;
        }
        lane.is_some_and(|lane| self.schedule.release(&lane, held.weight))
    }
}
