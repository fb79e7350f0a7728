//! The items of a tenant, by lane.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use tokio::time::Instant;

use metrifold_model::Tenant;

use super::{Map, RUN_MAX, RunBound};
use crate::Lane;

/// The items of a tenant.
#[derive(Debug)]
pub(super) struct TenantItems<T> {
    pub(super) lanes: Map<u64, LaneItems<T>>,
    /// Lanes in the order of their turns. Some may have nothing ready by now.
    pub(super) turns: VecDeque<u64>,
    /// Whether the tenant is in the order of turns.
    pub(super) in_turn: bool,
    pub(super) paused: Option<Instant>,
    /// Bytes of the tenant's items, waiting and in flight.
    pub(super) bytes: usize,
    /// Bytes of the tenant's waiting items.
    pub(super) waiting: usize,
}

#[derive(Debug)]
pub(super) struct LaneItems<T> {
    pub(super) items: VecDeque<Item<T>>,
    /// Number of items in flight, and how many of them hold the lane.
    pub(super) under_way: usize,
    pub(super) holders: usize,
    pub(super) in_turn: bool,
}

#[derive(Debug)]
pub(crate) struct Item<T> {
    pub(crate) item: T,
    pub(crate) weight: usize,
    pub(super) holds: bool,
    /// Position of the item in the order of arrival.
    pub(crate) came: u64,
}

impl<T> Default for TenantItems<T> {
    fn default() -> Self {
        Self {
            lanes: Map::default(),
            turns: VecDeque::new(),
            in_turn: false,
            paused: None,
            bytes: 0,
            waiting: 0,
        }
    }
}

impl<T> Default for LaneItems<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            under_way: 0,
            holders: 0,
            in_turn: false,
        }
    }
}

impl<T> LaneItems<T> {
    pub(super) fn is_ready(&self) -> bool {
        self.holders == 0 && !self.items.is_empty()
    }
}

impl<T> TenantItems<T> {
    /// Gives a lane a turn if it has something ready.
    pub(super) fn enlist(&mut self, id: u64) {
        if let Some(lane) = self.lanes.get_mut(&id)
            && lane.is_ready()
            && !lane.in_turn
        {
            lane.in_turn = true;
            self.turns.push_back(id);
        }
    }

    /// The next lane with something ready.
    pub(super) fn next_lane(&mut self) -> Option<u64> {
        while let Some(id) = self.turns.pop_front() {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.in_turn = false;
                if lane.is_ready() {
                    return Some(id);
                }
            }
        }
        None
    }

    /// Moves the next items to `run`, within the bound; returns their weight.
    pub(super) fn take(
        &mut self,
        tenant: &Option<Tenant>,
        most: RunBound,
        run: &mut Vec<(Lane, Item<T>)>,
    ) -> usize {
        let mut weight = 0;
        let mut turns = 0;
        while turns < most.turns
            && let Some(id) = self.next_lane()
            && let Some(lane) = self.lanes.get_mut(&id)
        {
            let before = run.len();
            while run.len() < RUN_MAX
                && let Some(next) = lane.items.front()
                && (run.is_empty() || weight + next.weight <= most.weight)
                && (run.len() == before || next.holds)
                && let Some(item) = lane.items.pop_front()
            {
                weight += item.weight;
                let holds = item.holds;
                lane.holders += usize::from(holds);
                lane.under_way += 1;
                let tenant = tenant.clone();
                run.push((Lane { tenant, id, holds }, item));
                if !holds {
                    break;
                }
            }
            if run.len() == before {
                // A lane whose item does not fit keeps its turn: lanes with smaller items would pass it for ever.
                lane.in_turn = true;
                self.turns.push_front(id);
                break;
            }
            self.enlist(id);
            turns += 1;
        }
        self.waiting -= weight;
        weight
    }

    /// Removes a lane without items.
    pub(super) fn prune(&mut self, id: u64) {
        if let Entry::Occupied(lane) = self.lanes.entry(id)
            && lane.get().items.is_empty()
            && lane.get().under_way == 0
        {
            lane.remove();
        }
    }
}
