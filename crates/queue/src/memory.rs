//! The queue in memory: bounded in bytes, fair between tenants, in order within a lane.
//!
//! An item counts until it is done, not until it is taken: the bound covers what is being sent or
//! waits for another attempt. Of a lane, one taker at a time has items, so that several takers do
//! not let one overtake another. Tenants take turns, and one whose items fail can be left alone
//! for a while. All of it is a lock around lists, taken once per batch.
//!
//! When it is full, a tenant who floods it pays for that. If the oldest make room, they are those
//! of the tenant who has most. If not, a tenant's share depends on what is free
//! (`metrifold_base::within_share`), so that there is room for one who has nothing here.
//!
//! A queue outlives its takers: when a sink is replaced, the successor takes the next *turn*. The
//! predecessor gets nothing more, and what it has not delivered it may give back, to the front.

mod bounds;
mod held;
mod schedule;

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep_until};

use metrifold_model::Tenant;

use super::{Lane, WhenFull};
pub use held::Held;
pub(crate) use schedule::RUN_MAX;
use schedule::Schedule;

/// A bounded queue of items with a weight in bytes.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<QueueState<T>>,
    /// Something came or may be taken now, the turn passed, or the queue was closed. The taker who
    /// has waited for the shortest time is told: what he needs is still in the cache.
    filled: Notify,
    /// Something went, or there is room for another reason.
    drained: Notify,
    /// The turn passed.
    passed: Notify,
}

#[derive(Debug)]
struct QueueState<T> {
    schedule: Schedule<T>,
    /// Of the items here and of those taken whose [`Held`] still lives.
    bytes: usize,
    max: usize,
    when_full: WhenFull,
    /// The lanes of items taken whose [`Held`] still lives, by its slot.
    under_way: Vec<Option<Lane>>,
    /// The slots that are free.
    free: Vec<usize>,
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

/// What became of a push.
#[derive(Debug)]
pub enum Pushed<T> {
    /// It is in; these older items had to go for it.
    Stored(Vec<T>),
    /// There is no room, and the policy is to wait.
    Full(T),
    /// There is no room, and the policy is to drop the newest.
    Dropped(T),
    /// The queue is closed.
    Closed(T),
}

impl<T> Queue<T> {
    /// A queue with this bound in bytes, and what happens at the bound.
    pub fn new(max: usize, when_full: WhenFull) -> Self {
        Self {
            state: Mutex::new(QueueState {
                schedule: Schedule::default(),
                bytes: 0,
                max,
                when_full,
                under_way: Vec::new(),
                free: Vec::new(),
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
    fn state(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next turn, under these bounds: whoever took until now gets nothing more. Items
    /// above a bound that shrinks stay.
    pub fn take_over(&self, max: usize, when_full: WhenFull) -> u64 {
        let mut state = self.state();
        (state.max, state.when_full) = (max, when_full);
        state.turn += 1;
        state.lent += state.taken;
        state.taken = 0;
        // The successor may have better luck.
        state.schedule.resume_all();
        let turn = state.turn;
        drop(state);
        self.passed.notify_waiters();
        self.filled.notify_waiters();
        self.drained.notify_waiters();
        turn
    }

    /// Whether a turn is over.
    pub fn has_passed(&self, turn: u64) -> bool {
        self.state().turn != turn
    }

    /// Waits until a turn is over.
    pub async fn passed(&self, turn: u64) {
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

    /// Adds an item if there is room, or makes room if that is the policy. An item above the bound
    /// passes when the queue is empty: it could never pass otherwise.
    #[cfg(test)]
    pub(crate) fn push(&self, item: T, weight: usize, lane: Lane) -> Pushed<T> {
        self.push_within(item, weight, lane, true)
    }

    /// The same. Unless it `grows`, the queue is taken to be full with what it holds.
    pub fn push_within(&self, item: T, weight: usize, lane: Lane, grows: bool) -> Pushed<T> {
        let mut evicted = Vec::new();
        let mut state = self.state();
        if state.closed {
            return Pushed::Closed(item);
        }
        let when_full = state.when_full;
        let max = state.max;
        if !grows {
            state.max = max.min(state.bytes);
        }
        let admitted = match when_full {
            WhenFull::Block | WhenFull::DropNewest => state.has_room(&lane.tenant, weight),
            WhenFull::DropOldest => state.make_room(weight, &mut evicted),
        };
        state.max = max;
        match when_full {
            _ if admitted => {}
            WhenFull::Block => return Pushed::Full(item),
            WhenFull::DropNewest | WhenFull::DropOldest => return Pushed::Dropped(item),
        }
        state.bytes += weight;
        state.schedule.push_back(lane, item, weight);
        drop(state);
        self.filled.notify_last();
        Pushed::Stored(evicted)
    }

    /// Takes the next item of a lane of which no other is under way, and with it those behind it
    /// in its lane whose senders do not wait, up to a weight; none once the turn is over, or the
    /// queue is closed and nothing will come any more. Cancelling it loses nothing.
    pub async fn pop_run(self: &Arc<Self>, turn: u64, most: usize) -> Option<Vec<(T, Held<T>)>> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            let wake = {
                let mut state = self.state();
                if state.turn != turn {
                    drop(state);
                    // What woke this taker may have been meant for those whose turn it is.
                    self.filled.notify_last();
                    return None;
                }
                if let Some((lane, run)) = state.schedule.take(Instant::now(), most) {
                    state.taken += run.len();
                    // This taker will not wake up when a pause ends: another one has to.
                    if state.schedule.has_surplus() || state.schedule.next_wake().is_some() {
                        self.filled.notify_last();
                    }
                    let hold = |item: schedule::Item<T>| {
                        let held = Held {
                            queue: self.clone(),
                            weight: item.weight,
                            lane: lane.id,
                            slot: state.begin(&lane),
                            turn,
                            came: item.came,
                        };
                        (item.item, held)
                    };
                    return Some(run.into_iter().map(hold).collect());
                }
                if state.closed && state.schedule.len() == 0 && state.lent == 0 {
                    return None;
                }
                state.schedule.next_wake()
            };
            let woken = async {
                match wake {
                    Some(wake) => sleep_until(wake).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = filled => {}
                () = woken => {}
            }
        }
    }

    /// Adds an item for which there has to be room.
    pub fn push_anyway(&self, item: T, weight: usize, lane: Lane) {
        let mut state = self.state();
        state.bytes += weight;
        state.schedule.push_back(lane, item, weight);
        drop(state);
        self.filled.notify_last();
    }

    /// Adds items for which there has to be room, before anybody takes one of them.
    pub(crate) fn push_all(&self, items: Vec<(T, usize, Lane)>) {
        if items.is_empty() {
            return;
        }
        let mut state = self.state();
        for (item, weight, lane) in items {
            state.bytes += weight;
            state.schedule.push_back(lane, item, weight);
        }
        // Whoever is told tells the next one.
        state.schedule.note_surplus();
        drop(state);
        self.filled.notify_last();
    }

    /// Has the items of these tenants, also those under way, hold their lanes from now on.
    pub fn hold(&self, of: impl Fn(&Option<Tenant>) -> bool) {
        let mut state = self.state();
        state.schedule.hold(&of);
        let under_way = state.under_way.iter_mut().flatten();
        for lane in under_way.filter(|lane| of(&lane.tenant)) {
            lane.holds = true;
        }
    }

    /// Leaves a tenant's items alone until then.
    pub fn pause(&self, tenant: Option<Tenant>, until: Instant) {
        self.state().schedule.pause(tenant, until);
        // Who waits may have to wake up earlier than he thinks.
        self.filled.notify_last();
    }

    /// Removes a tenant's items from the back of its lanes, as far as `which` says so. Returns
    /// them with their lanes.
    pub fn withdraw(
        &self,
        tenant: &Option<Tenant>,
        which: impl FnMut(&T) -> bool,
    ) -> Vec<(u64, T)> {
        let mut state = self.state();
        let before = state.schedule.bytes();
        let withdrawn = state.schedule.withdraw(tenant, which);
        state.bytes -= before - state.schedule.bytes();
        drop(state);
        self.drained.notify_waiters();
        withdrawn
    }

    /// Lets all items that wait be changed, in the order in which they came.
    pub fn for_each(&self, mut change: impl FnMut(&mut T, Lane)) {
        for (lane, item) in self.state().schedule.iter_mut() {
            change(item, lane);
        }
    }

    /// Resolves when something has gone, or there may be room for another reason, since this was
    /// called and enabled.
    pub fn drained(&self) -> Notified<'_> {
        self.drained.notified()
    }

    /// Has those look again that wait for room.
    pub fn nudge(&self) {
        self.drained.notify_waiters();
    }

    /// Refuses further items; what is in can still be taken.
    pub fn close(&self) {
        self.state().closed = true;
        self.filled.notify_waiters();
        self.filled.notify_last();
        self.drained.notify_waiters();
    }

    /// Ends the queue: nobody will take any more. Returns what is left.
    pub fn end(&self) -> Vec<T> {
        let mut state = self.state();
        state.closed = true;
        state.ended = true;
        let left = state.schedule.drain();
        let bytes: usize = left.iter().map(|item| item.weight).sum();
        state.bytes -= bytes;
        drop(state);
        self.filled.notify_waiters();
        self.drained.notify_waiters();
        left.into_iter().map(|item| item.item).collect()
    }

    /// Whether an item of this weight can come in at once.
    pub fn has_room(&self, tenant: &Option<Tenant>, weight: usize) -> bool {
        self.state().has_room(tenant, weight)
    }

    /// The bytes that it holds, those of items being sent included.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// How many items wait.
    pub fn waiting(&self) -> usize {
        self.state().schedule.len()
    }
}

#[cfg(test)]
mod tests;
