//! The queue in memory: bounded in bytes, fair between tenants, ordered within a lane.
//!
//! An item counts until it is done, not until it is received: the bound covers items in flight and
//! those that wait for a retry. Only one receiver at a time has items of a lane, so that several
//! receivers cannot let one overtake another. Tenants take turns, and a tenant whose items fail can
//! be paused. All of this is a lock around lists, taken once per batch.
//!
//! When the queue is full, the tenant that floods it bears the cost. Under `drop_oldest`, the
//! oldest items of the largest tenant are evicted. Otherwise a tenant's share depends on the free
//! room (`metrifold_base::within_share`), so that there is room for a tenant with nothing queued.
//!
//! A queue outlives its receivers: when a sink is replaced, the successor takes the next *turn*.
//! The predecessor receives nothing more, and returns items that it has not delivered to the front.

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
pub use schedule::RunBound;
use schedule::Schedule;

/// A bounded queue of items that have a weight in bytes.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<QueueState<T>>,
    /// Wakes receivers: an item arrived or became ready, the turn passed, or the queue was closed.
    /// The receiver that waits for the shortest time is woken, since its memory is most likely
    /// cached.
    filled: Notify,
    /// Wakes senders: an item left, or there may be room for another reason.
    drained: Notify,
    /// Wakes those that wait for the end of a turn.
    passed: Notify,
}

#[derive(Debug)]
struct QueueState<T> {
    schedule: Schedule<T>,
    /// Bytes of all items, those included that are received and whose [`Held`] is alive.
    bytes: usize,
    max: usize,
    when_full: WhenFull,
    /// The lanes of received items whose [`Held`] is alive, by its slot.
    under_way: Vec<Option<Lane>>,
    /// Free slots of `under_way`.
    free: Vec<usize>,
    /// The present turn: only its receivers get items.
    turn: u64,
    /// Number of items in flight that were received in the present turn.
    taken: usize,
    /// Number of items in flight that were received in earlier turns and may return.
    lent: usize,
    closed: bool,
    /// Whether no receiver will take items any more.
    ended: bool,
}

/// Result of a push.
#[derive(Debug)]
pub enum Pushed<T> {
    /// The item is queued; these older items were evicted for it.
    Stored(Vec<T>),
    /// There is no room, and the policy is `block`.
    Full(T),
    /// There is no room, and the policy is to drop the new item.
    Dropped(T),
    /// The queue is closed.
    Closed(T),
}

impl<T> Queue<T> {
    /// A queue with a bound in bytes and a policy for a full queue.
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

    /// Locks the state. A poisoned lock is used on: every change is complete, so no invariant spans
    /// a panic.
    fn state(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the next turn, under these bounds: the receivers of the previous turn get nothing
    /// more. Items above a smaller bound stay.
    pub fn take_over(&self, max: usize, when_full: WhenFull) -> u64 {
        let mut state = self.state();
        (state.max, state.when_full) = (max, when_full);
        state.turn += 1;
        state.lent += state.taken;
        state.taken = 0;
        // The successor may succeed where attempts failed before, so pauses end.
        state.schedule.resume_all();
        let turn = state.turn;
        drop(state);
        self.passed.notify_waiters();
        self.filled.notify_waiters();
        self.drained.notify_waiters();
        turn
    }

    /// Whether the turn is over.
    pub fn has_passed(&self, turn: u64) -> bool {
        self.state().turn != turn
    }

    /// Waits until the turn is over.
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

    /// Adds an item if there is room or if the policy makes room. An item above the bound passes
    /// when the queue is empty: it could never pass otherwise.
    #[cfg(test)]
    pub(crate) fn push(&self, item: T, weight: usize, lane: Lane) -> Pushed<T> {
        self.push_within(item, weight, lane, true)
    }

    /// Adds an item like `push`. Unless `grows`, the queue counts as full with its present content.
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

    /// Receives the next item of a lane with nothing in flight, and more of its tenant within the
    /// bound, which is asked for when there is something to receive. `None` once the turn is over,
    /// or the queue is closed and nothing more can come. Cancel-safe.
    pub async fn pop_run(
        self: &Arc<Self>,
        turn: u64,
        most: impl Fn() -> RunBound,
    ) -> Option<Vec<(T, Held<T>)>> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            let most = most();
            let wake = {
                let mut state = self.state();
                if state.turn != turn {
                    drop(state);
                    // The wake-up may have been meant for a receiver of the present turn.
                    self.filled.notify_last();
                    return None;
                }
                let run = state.schedule.take(Instant::now(), most);
                if !run.is_empty() {
                    state.taken += run.len();
                    // This receiver is busy when a pause ends: another one has to wake up for it.
                    if state.schedule.has_surplus() || state.schedule.next_wake().is_some() {
                        self.filled.notify_last();
                    }
                    let hold = |(lane, item): (Lane, schedule::Item<T>)| {
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

    /// Adds an item regardless of the bound.
    pub(crate) fn push_anyway(&self, item: T, weight: usize, lane: Lane) {
        let mut state = self.state();
        state.bytes += weight;
        state.schedule.push_back(lane, item, weight);
        drop(state);
        self.filled.notify_last();
    }

    /// Adds items regardless of the bound, all before any of them can be received.
    pub(crate) fn push_all(&self, items: Vec<(T, usize, Lane)>) {
        if items.is_empty() {
            return;
        }
        let mut state = self.state();
        for (item, weight, lane) in items {
            state.bytes += weight;
            state.schedule.push_back(lane, item, weight);
        }
        // The receiver that is woken wakes the next one.
        state.schedule.note_surplus();
        drop(state);
        self.filled.notify_last();
    }

    /// Makes the items of these tenants, those in flight included, hold their lanes from now on.
    pub fn hold(&self, of: impl Fn(&Option<Tenant>) -> bool) {
        let mut state = self.state();
        state.schedule.hold(&of);
        let under_way = state.under_way.iter_mut().flatten();
        for lane in under_way.filter(|lane| of(&lane.tenant)) {
            lane.holds = true;
        }
    }

    /// Pauses a tenant's items until `until`.
    pub fn pause(&self, tenant: Option<Tenant>, until: Instant) {
        self.state().schedule.pause(tenant, until);
        // The receivers may have to wake up earlier than planned.
        self.filled.notify_last();
    }

    /// Removes a tenant's items from the backs of its lanes, as far as `which` accepts them.
    /// Returns them with their lanes.
    pub(crate) fn withdraw(
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

    /// Calls `change` for all waiting items, in the order of their arrival.
    pub fn for_each(&self, mut change: impl FnMut(&mut T, Lane)) {
        for (lane, item) in self.state().schedule.iter_mut() {
            change(item, lane);
        }
    }

    /// Resolves when an item has left, or there may be room for another reason, after this call was
    /// enabled.
    pub fn drained(&self) -> Notified<'_> {
        self.drained.notified()
    }

    /// Makes senders that wait for room check again.
    pub fn nudge(&self) {
        self.drained.notify_waiters();
    }

    /// Refuses further items; queued ones can still be received.
    pub fn close(&self) {
        self.state().closed = true;
        self.filled.notify_waiters();
        self.filled.notify_last();
        self.drained.notify_waiters();
    }

    /// Ends the queue: nothing is received any more. Returns the items that are left.
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

    /// Whether an item of this weight can be queued at once.
    pub fn has_room(&self, tenant: &Option<Tenant>, weight: usize) -> bool {
        self.state().has_room(tenant, weight)
    }

    /// Bytes of all items, those in flight included.
    pub fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Number of waiting items.
    pub fn waiting(&self) -> usize {
        self.state().schedule.len()
    }
}

#[cfg(test)]
mod tests;
