//! The place of an item that was taken, until somebody has said what became of it.

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
    /// Its place in the order in which items came.
    pub(super) came: u64,
}

impl<T> Held<T> {
    /// The bytes that it holds.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The lane of the item, among those of its tenant.
    pub fn lane(&self) -> u64 {
        self.lane
    }

    /// Puts what is left of the item back to where it was, in this order and with these weights, for
    /// those whose turn it is now.
    ///
    /// # Errors
    ///
    /// Returns it if nobody takes any more, or if the turn in which it was taken is not over:
    /// unless it is `always` to go back.
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
        // What did not hold its lane can be taken at once; dropping the rest frees the lane.
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
            // What was behind it in its lane may go now.
            queue.filled.notify_last();
        }
    }
}
