//! An item in flight: its bytes and its lane, held until its outcome is known.

use std::sync::Arc;

use super::Queue;

/// Holds an item's bytes and its lane until dropped.
#[derive(Debug)]
pub struct Held<T> {
    pub(super) queue: Arc<Queue<T>>,
    pub(super) weight: usize,
    pub(super) lane: u64,
    pub(super) slot: usize,
    pub(super) turn: u64,
    /// Position of the item in the order of arrival.
    pub(super) came: u64,
}

impl<T> Held<T> {
    /// Bytes of the item.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Number of the item's lane among those of its tenant.
    pub fn lane(&self) -> u64 {
        self.lane
    }

    /// Returns the rest of the item to its place in the lane, in this order and with these weights,
    /// for the receivers of the present turn.
    ///
    /// # Errors
    ///
    /// Returns the items if the queue has ended, or if the turn in which they were received is still
    /// on, unless `always` is set.
    pub fn give_back(self, left: Vec<(T, usize)>, always: bool) -> Result<(), Vec<T>> {
        let mut state = self.queue.state();
        let lane = state.lane(self.slot);
        let (false, Some(lane)) = (state.ended || (state.turn == self.turn && !always), lane)
        else {
            return Err(left.into_iter().map(|(item, _)| item).collect());
        };
        for (item, weight) in left.into_iter().rev() {
            state.bytes += weight;
            state
                .schedule
                .put_back(lane.clone(), item, weight, self.came);
        }
        drop(state);
        // If the item did not hold its lane, the rest is ready at once; otherwise dropping `self`
        // frees the lane.
        self.queue.filled.notify_last();
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
            // The next items of the lane may be received now.
            queue.filled.notify_last();
        }
    }
}
