//! How records come back from disk into memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::queue::Lane;
use crate::queue::disk::{Fate, Position, Record, Tally};
use crate::signal::{Batch, Origin, Ticket};

use super::super::Waiting;
use super::super::accounts::ABANDONED;
use super::state::{Copied, Kept};
use super::{Store, now_millis};

impl Store {
    /// The next record to read and the end of those that can be; none if there is none.
    pub(in super::super) fn to_read(&self) -> Option<(Position, u64)> {
        let mut state = self.state();
        if state.is_behind() && state.cursor < state.end && !state.closing {
            return Some((Position(state.cursor), state.end));
        }
        state.hungry = true;
        None
    }

    /// Nothing below `end` is left to be read.
    pub(in super::super) fn read_up_to(&self, end: u64) {
        let mut state = self.state();
        state.cursor = state.cursor.max(end);
        // Who waits for room may find some in memory now.
        drop(state);
        self.queue.nudge();
    }

    /// Puts a record that was read into the queue.
    pub(in super::super) fn take_in(&self, record: Record) {
        let Record { entry, body } = record;
        let sequence = entry.position.0;
        let mut state = self.state();
        state.cursor = sequence + 1;
        if state.present.remove(&sequence) {
            return;
        }
        let ticket = state.waiting.remove(&sequence).map(|(_, ticket)| ticket);
        if ticket.as_ref().is_some_and(Ticket::abandoned) {
            drop(state);
            self.disk.done(&entry, Fate::Dropped(ABANDONED));
            return;
        }
        let id = state.next;
        state.next += 1;
        let lane = Lane {
            id: entry.lane,
            holds: true,
        };
        let age = Duration::from_millis(now_millis().saturating_sub(entry.accepted_at));
        let now = Instant::now();
        let origin = Arc::new(Origin::internal(self.sink.clone()));
        let counts = (entry.counts, entry.checked);
        let batch = Batch::from_record(entry.version, body, counts, &entry.tenant, origin);
        let weight = batch.weight();
        let copied = Copied {
            fresh: None,
            entry: Some(entry),
            fate: None,
        };
        state.copied.insert(id, copied);
        let waiting = Waiting {
            batch,
            ticket,
            since: now.checked_sub(age).unwrap_or(now),
            tally: Tally::default(),
            kept: Some(Kept::new(id)),
        };
        self.queue.push_anyway(waiting, weight, lane);
    }

    /// Gives up records whose senders have given them up.
    pub(in super::super) fn drop_abandoned(&self) {
        let mut state = self.state();
        let abandoned = state
            .waiting
            .extract_if(.., |_, (_, ticket)| ticket.abandoned());
        let abandoned: Vec<_> = abandoned.collect();
        drop(state);
        for (_, (entry, _)) in abandoned {
            self.disk.done(&entry, Fate::Dropped(ABANDONED));
        }
    }
}
