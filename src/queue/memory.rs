//! The queue in memory: bounded in bytes, first in, first out.
//!
//! An item counts until it is done, not until it is taken: the bound covers what is being sent or
//! waits for another attempt. Items may have a lane; of a lane, one item at a time is under way,
//! so that several takers do not let one overtake another. All of it is a lock around a list,
//! taken once per batch.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::WhenFull;

/// A bounded queue of items with a weight in bytes.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    max: usize,
    when_full: WhenFull,
    /// Something came, or the queue was closed.
    filled: Notify,
    /// Something went.
    drained: Notify,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<Item<T>>,
    /// Of the items here and of those taken whose [`Held`] still lives.
    bytes: usize,
    /// The lanes of items taken whose [`Held`] still lives.
    busy: HashSet<u64, foldhash::fast::RandomState>,
    closed: bool,
}

#[derive(Debug)]
struct Item<T> {
    item: T,
    weight: usize,
    lane: Option<u64>,
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
    lane: Option<u64>,
}

impl<T> Queue<T> {
    pub(crate) fn new(max: usize, when_full: WhenFull) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                busy: HashSet::default(),
                closed: false,
            }),
            max,
            when_full,
            filled: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// No invariant spans a panic here: every change to the state is complete.
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item if there is room, or makes room if that is the policy. An item above the
    /// bound passes when the queue is empty: it could never pass otherwise.
    pub(crate) fn push(&self, item: T, weight: usize, lane: Option<u64>) -> Pushed<T> {
        let mut evicted = Vec::new();
        let mut state = self.state();
        if state.closed {
            return Pushed::Closed(item);
        }
        let fits = |bytes: usize| bytes == 0 || bytes + weight <= self.max;
        if !fits(state.bytes) {
            match self.when_full {
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

    /// Adds an item, waiting for room if that is the policy.
    pub(crate) async fn push_wait(&self, item: T, weight: usize, lane: Option<u64>) -> Pushed<T> {
        let mut item = item;
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // Registered before the attempt, so that no wake-up between the two is lost.
            drained.as_mut().enable();
            match self.push(item, weight, lane) {
                Pushed::Full(again) => item = again,
                done => return done,
            }
            drained.await;
        }
    }

    /// Takes the oldest item of which no other of its lane is under way; none once the queue is
    /// closed and empty. Cancelling it loses nothing.
    pub(crate) async fn pop(self: &Arc<Self>) -> Option<(T, Held<T>)> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(item) = state.take_ready() {
                    let held = Held {
                        queue: self.clone(),
                        weight: item.weight,
                        lane: item.lane,
                    };
                    return Some((item.item, held));
                }
                if state.closed && state.items.is_empty() {
                    return None;
                }
            }
            filled.await;
        }
    }

    /// Refuses further items; what is in can still be taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_waiters();
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Takes all items at once.
    pub(crate) fn take_all(&self) -> Vec<T> {
        let mut state = self.state();
        let taken: Vec<_> = state.items.drain(..).collect();
        let bytes: usize = taken.iter().map(|item| item.weight).sum();
        state.bytes -= bytes;
        drop(state);
        self.drained.notify_waiters();
        taken.into_iter().map(|item| item.item).collect()
    }

    /// The bytes that it holds, those of items being sent included.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.state().items.len()
    }

    /// The bytes that it holds at most.
    pub(crate) fn max(&self) -> usize {
        self.max
    }
}

impl<T> State<T> {
    fn take_ready(&mut self) -> Option<Item<T>> {
        let busy = &self.busy;
        let ready = |item: &Item<T>| item.lane.is_none_or(|lane| !busy.contains(&lane));
        let place = self.items.iter().position(ready)?;
        let item = self.items.remove(place)?;
        self.busy.extend(item.lane);
        Some(item)
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.bytes -= self.weight;
        if let Some(lane) = self.lane {
            state.busy.remove(&lane);
        }
        let closed = state.closed;
        drop(state);
        self.queue.drained.notify_waiters();
        if closed {
            self.queue.filled.notify_waiters();
        }
        if self.lane.is_some() {
            // What was behind it in its lane may go now.
            self.queue.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(max: usize, when_full: WhenFull) -> Arc<Queue<u32>> {
        Arc::new(Queue::new(max, when_full))
    }

    #[tokio::test]
    async fn items_leave_in_the_order_in_which_they_came() {
        let queue = queue(100, WhenFull::Block);
        for i in 0..3 {
            assert!(matches!(queue.push(i, 10, None), Pushed::Stored(old) if old.is_empty()));
        }
        queue.close();
        for i in 0..3 {
            assert_eq!(queue.pop().await.unwrap().0, i);
        }
        assert!(queue.pop().await.is_none());
        assert!(matches!(queue.push(9, 1, None), Pushed::Closed(9)));
    }

    #[tokio::test]
    async fn bytes_count_until_the_item_is_done() {
        let queue = queue(100, WhenFull::Block);
        let _ = queue.push(1, 80, None);
        let (_, held) = queue.pop().await.unwrap();
        assert_eq!(queue.bytes(), 80);
        assert!(matches!(queue.push(2, 30, None), Pushed::Full(2)));
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.push_wait(2, 30, None).await }
        });
        drop(held);
        assert!(matches!(waiting.await.unwrap(), Pushed::Stored(_)));
        assert_eq!(queue.bytes(), 30);
    }

    #[tokio::test]
    async fn an_item_above_the_bound_passes_when_the_queue_is_empty() {
        let queue = queue(10, WhenFull::Block);
        assert!(matches!(queue.push(1, 1000, None), Pushed::Stored(_)));
        assert!(matches!(queue.push(2, 1, None), Pushed::Full(_)));
    }

    #[tokio::test]
    async fn the_oldest_make_room_but_not_what_is_being_sent() {
        let queue = queue(30, WhenFull::DropOldest);
        for i in 0..3 {
            let _ = queue.push(i, 10, None);
        }
        let (sending, _held) = queue.pop().await.unwrap();
        assert_eq!(sending, 0);
        assert!(matches!(queue.push(3, 20, None), Pushed::Stored(old) if old == [1, 2]));
        assert!(matches!(queue.push(4, 30, None), Pushed::Dropped(4)));
        assert_eq!(queue.take_all(), [3]);
    }

    #[tokio::test]
    async fn of_a_lane_one_item_is_under_way_and_others_may_pass() {
        let queue = queue(100, WhenFull::Block);
        for (item, lane) in [(1, 7), (2, 7), (3, 8)] {
            let _ = queue.push(item, 10, Some(lane));
        }
        let (first, held) = queue.pop().await.unwrap();
        let (second, _other) = queue.pop().await.unwrap();
        assert_eq!((first, second), (1, 3));
        let third = tokio::spawn({
            let queue = queue.clone();
            async move { queue.pop().await.map(|(item, _)| item) }
        });
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
        drop(held);
        assert_eq!(third.await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn all_takers_learn_that_a_closed_queue_has_run_empty() {
        let queue = queue(100, WhenFull::Block);
        let _ = queue.push(1, 10, Some(7));
        let _ = queue.push(2, 10, Some(7));
        let (_, held) = queue.pop().await.unwrap();
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.pop().await.map(|(item, _)| item) })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        drop(held);
        let mut got = Vec::new();
        for taker in takers {
            got.extend(taker.await.unwrap());
        }
        assert_eq!(got, [2]);
    }

    #[tokio::test]
    async fn the_newest_is_dropped_if_that_is_the_policy() {
        let queue = queue(10, WhenFull::DropNewest);
        let _ = queue.push(1, 10, None);
        assert!(matches!(queue.push(2, 1, None), Pushed::Dropped(2)));
    }
}
