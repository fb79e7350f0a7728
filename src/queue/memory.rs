//! The queue in memory: bounded in bytes, first in, first out.
//!
//! An item counts until it is done, not until it is taken: the bound covers what is being sent or
//! waits for another attempt. Items may have a lane; of a lane, one item at a time is under way,
//! so that several takers do not let one overtake another. All of it is a lock around a list,
//! taken once per batch.
//!
//! A queue outlives its takers: when a sink is replaced, the successor takes the next *turn*. The
//! predecessor gets nothing more, and what it has not delivered it may give back, to the front.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::WhenFull;

/// A bounded queue of items with a weight in bytes.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Something came or may be taken now, the turn passed, or the queue was closed.
    filled: Notify,
    /// Something went, or there is room for another reason.
    drained: Notify,
    /// The turn passed.
    passed: Notify,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<Item<T>>,
    /// Of the items here and of those taken whose [`Held`] still lives.
    bytes: usize,
    max: usize,
    when_full: WhenFull,
    /// The lanes of items taken whose [`Held`] still lives, by its slot.
    under_way: Vec<Option<Lane>>,
    /// The slots that are free.
    free: Vec<usize>,
    /// How many of these items hold a lane.
    busy: HashMap<u64, usize, foldhash::fast::RandomState>,
    /// Whose turn it is to take.
    turn: u64,
    /// How many items are under way that were taken in this turn.
    taken: usize,
    /// How many are under way that were taken in earlier turns: they may come back.
    lent: usize,
    closed: bool,
    /// Whether nobody will take any more.
    ended: bool,
}

#[derive(Debug)]
struct Item<T> {
    item: T,
    weight: usize,
    lane: Lane,
}

/// Which items must not overtake each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    /// Items of the same lane leave in order.
    pub(crate) id: u64,
    /// Whether the next of the lane waits until this one is done. It need not if whoever sends
    /// the next one waits for that himself.
    pub(crate) holds: bool,
}

/// What became of a push.
#[derive(Debug)]
pub(crate) enum Pushed<T> {
    /// It is in; these older items had to go for it.
    Stored(Vec<T>),
    /// There is no room, and the policy is to wait.
    Full(T),
    /// There is no room, and the policy is to drop the newest.
    Dropped(T),
    /// The queue is closed.
    Closed(T),
}

/// Holds an item's bytes and its lane until dropped.
#[derive(Debug)]
pub(crate) struct Held<T> {
    queue: Arc<Queue<T>>,
    weight: usize,
    slot: usize,
    turn: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new(max: usize, when_full: WhenFull) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                max,
                when_full,
                under_way: Vec::new(),
                free: Vec::new(),
                busy: HashMap::default(),
                turn: 0,
                taken: 0,
                lent: 0,
                closed: false,
                ended: false,
            }),
            filled: Notify::new(),
            drained: Notify::new(),
            passed: Notify::new(),
        }
    }

    /// No invariant spans a panic here: every change to the state is complete.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next turn, under these bounds: whoever took until now gets nothing more. Items
    /// above a bound that shrinks stay.
    pub(crate) fn take_over(&self, max: usize, when_full: WhenFull) -> u64 {
        let mut state = self.state();
        (state.max, state.when_full) = (max, when_full);
        state.turn += 1;
        state.lent += state.taken;
        state.taken = 0;
        let turn = state.turn;
        drop(state);
        self.passed.notify_waiters();
        self.filled.notify_waiters();
        self.drained.notify_waiters();
        turn
    }

    /// Whether a turn is over.
    pub(crate) fn has_passed(&self, turn: u64) -> bool {
        self.state().turn != turn
    }

    /// Waits until a turn is over.
    pub(crate) async fn passed(&self, turn: u64) {
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            passed.as_mut().enable();
            if self.has_passed(turn) {
                return;
            }
            passed.await;
        }
    }

    /// Adds an item if there is room, or makes room if that is the policy. An item above the
    /// bound passes when the queue is empty: it could never pass otherwise.
    pub(crate) fn push(&self, item: T, weight: usize, lane: Lane) -> Pushed<T> {
        let mut evicted = Vec::new();
        let mut state = self.state();
        if state.closed {
            return Pushed::Closed(item);
        }
        let max = state.max;
        let fits = |bytes: usize| bytes == 0 || bytes + weight <= max;
        if !fits(state.bytes) {
            match state.when_full {
                WhenFull::Block => return Pushed::Full(item),
                WhenFull::DropNewest => return Pushed::Dropped(item),
                WhenFull::DropOldest => {
                    let waiting: usize = state.items.iter().map(|item| item.weight).sum();
                    if !fits(state.bytes - waiting) {
                        // What is being sent fills the queue: nothing that could go makes room.
                        return Pushed::Dropped(item);
                    }
                    while !fits(state.bytes) {
                        let Some(old) = state.items.pop_front() else {
                            break;
                        };
                        state.bytes -= old.weight;
                        evicted.push(old.item);
                    }
                }
            }
        }
        state.bytes += weight;
        state.items.push_back(Item { item, weight, lane });
        drop(state);
        self.filled.notify_one();
        Pushed::Stored(evicted)
    }

    /// Takes the oldest item of which no other of its lane is under way; none once the turn is
    /// over, or the queue is closed and nothing will come any more. Cancelling it loses nothing.
    pub(crate) async fn pop(self: &Arc<Self>, turn: u64) -> Option<(T, Held<T>)> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            {
                let mut state = self.state();
                if state.turn != turn {
                    drop(state);
                    // What woke this taker may have been meant for those whose turn it is.
                    self.filled.notify_one();
                    return None;
                }
                if let Some((item, slot)) = state.take_ready() {
                    state.taken += 1;
                    let held = Held {
                        queue: self.clone(),
                        weight: item.weight,
                        slot,
                        turn,
                    };
                    return Some((item.item, held));
                }
                if state.closed && state.items.is_empty() && state.lent == 0 {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Adds an item for which there has to be room.
    pub(crate) fn push_anyway(&self, item: T, weight: usize, lane: Lane) {
        let mut state = self.state();
        state.bytes += weight;
        state.items.push_back(Item { item, weight, lane });
        drop(state);
        self.filled.notify_one();
    }

    /// Has all items, also those under way, hold their lanes from now on.
    pub(crate) fn hold_all(&self) {
        let mut state = self.state();
        let State {
            items,
            under_way,
            busy,
            ..
        } = &mut *state;
        for item in items {
            item.lane.holds = true;
        }
        for lane in under_way.iter_mut().flatten() {
            if !lane.holds {
                lane.holds = true;
                *busy.entry(lane.id).or_default() += 1;
            }
        }
    }

    /// Lets all items that wait be changed, in order.
    pub(crate) fn for_each(&self, mut change: impl FnMut(&mut T, Lane)) {
        for item in &mut self.state().items {
            change(&mut item.item, item.lane);
        }
    }

    /// Resolves when something has gone, or there may be room for another reason, since this was
    /// called and enabled.
    pub(crate) fn drained(&self) -> Notified<'_> {
        self.drained.notified()
    }

    /// Has those look again that wait for room.
    pub(crate) fn nudge(&self) {
        self.drained.notify_waiters();
    }

    /// Refuses further items; what is in can still be taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_waiters();
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Ends the queue: nobody will take any more. Returns what is left.
    pub(crate) fn end(&self) -> Vec<T> {
        let mut state = self.state();
        state.closed = true;
        state.ended = true;
        let left: Vec<_> = state.items.drain(..).collect();
        let bytes: usize = left.iter().map(|item| item.weight).sum();
        state.bytes -= bytes;
        drop(state);
        self.filled.notify_waiters();
        self.drained.notify_waiters();
        left.into_iter().map(|item| item.item).collect()
    }

    /// Whether an item of this weight can come in at once.
    pub(crate) fn has_room(&self, weight: usize) -> bool {
        let state = self.state();
        state.bytes == 0 || state.bytes + weight <= state.max
    }

    /// The bytes that it holds, those of items being sent included.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.state().items.len()
    }
}

impl<T> State<T> {
    fn take_ready(&mut self) -> Option<(Item<T>, usize)> {
        let busy = &self.busy;
        let ready = |item: &Item<T>| busy.is_empty() || !busy.contains_key(&item.lane.id);
        let place = self.items.iter().position(ready)?;
        let item = self.items.remove(place)?;
        if item.lane.holds {
            *self.busy.entry(item.lane.id).or_default() += 1;
        }
        let slot = self.free.pop().unwrap_or(self.under_way.len());
        match self.under_way.get_mut(slot) {
            Some(free) => *free = Some(item.lane),
            None => self.under_way.push(Some(item.lane)),
        }
        Some((item, slot))
    }

    /// The lane of an item that was taken.
    fn lane(&self, slot: usize) -> Option<Lane> {
        self.under_way.get(slot).copied().flatten()
    }

    /// Frees what an item that was taken has held. Returns whether its lane was among that.
    fn release(&mut self, held: &Held<T>) -> bool {
        self.bytes -= held.weight;
        let lane = self.under_way.get_mut(held.slot).and_then(Option::take);
        self.free.push(held.slot);
        let held_lane = lane.filter(|lane| lane.holds);
        if let Some(lane) = held_lane
            && let Some(holders) = self.busy.get_mut(&lane.id)
        {
            *holders -= 1;
            if *holders == 0 {
                self.busy.remove(&lane.id);
            }
        }
        if held.turn == self.turn {
            self.taken -= 1;
        } else {
            self.lent -= 1;
        }
        held_lane.is_some()
    }
}

impl<T> Held<T> {
    /// Puts what is left of the item back to the front, in this order and with these weights, for
    /// those whose turn it is now.
    ///
    /// # Errors
    ///
    /// Returns it if nobody takes any more, or if the turn in which it was taken is not over:
    /// unless it is `always` to go back.
    pub(crate) fn give_back(self, left: Vec<(T, usize)>, always: bool) -> Result<(), Vec<T>> {
        let mut state = self.queue.state();
        let lane = state.lane(self.slot);
        let (false, Some(lane)) = (state.ended || (state.turn == self.turn && !always), lane)
        else {
            return Err(left.into_iter().map(|(item, _)| item).collect());
        };
        for (item, weight) in left.into_iter().rev() {
            state.bytes += weight;
            state.items.push_front(Item { item, weight, lane });
        }
        drop(state);
        // Dropping what it holds frees the lane and wakes the takers.
        Ok(())
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let queue = &self.queue;
        let mut state = queue.state();
        let freed = state.release(self);
        let all = state.closed || self.turn != state.turn;
        drop(state);
        queue.drained.notify_waiters();
        if all {
            queue.filled.notify_waiters();
        }
        if all || freed {
            // What was behind it in its lane may go now.
            queue.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
