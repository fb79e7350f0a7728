//! Makes room: removes segments without undone records, after the checkpoint has their accounts.

use std::io;
use std::sync::Arc;

use super::checkpoint::{CHECKPOINT, Checkpoint, SPARE, replace_checkpoint};
use super::commit::Engine;
use super::format::{self, FileHeader, Header, RECORD_HEADER};
use super::fs::Mode;
use super::ledger::Account;
use super::state::{ack_name, log_name};

impl Engine {
    /// Makes room if a caller needs it.
    pub(super) fn tend(&mut self) {
        let mut state = self.shared.state();
        let starved = std::mem::take(&mut state.starved);
        let drop_oldest = self.shared.options().drop_oldest;
        let last = state.segments.back();
        let seal = last.is_some_and(|last| !last.is_empty() && (last.undone() == 0 || drop_oldest));
        // While the active segment cannot make room yet, it is checked again later.
        state.starved = starved && !seal;
        drop(state);
        if starved && seal {
            self.seal();
            self.shared.state().made_room();
            self.shared.room.notify_waiters();
        }
        self.fold();
        self.refresh_oldest();
    }

    /// Removes the oldest segments without undone records, after the checkpoint has their accounts.
    pub(super) fn fold(&mut self) {
        self.remove_leftover();
        if !self.leftover.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        let spent = state.segments.iter().take_while(|it| it.is_spent());
        let count = spent.count();
        if count == 0 {
            return;
        }
        let folding = state.segments.iter().take(count);
        let lines = state.ledger.history(folding.map(|it| &it.accounts));
        let next = state.segments.get(count).map(|segment| segment.first);
        let first = next.unwrap_or(state.next);
        let rebooked = std::mem::take(&mut state.rebooked);
        drop(state);
        let written = self.write_checkpoint(first, lines);
        let mut state = self.shared.state();
        if !written {
            state.rebooked |= rebooked;
            return;
        }
        for _ in 0..count {
            if let Some(segment) = state.segments.pop_front() {
                state.ledger.fold(&segment.accounts);
                self.leftover.insert(log_name(segment.first));
                self.leftover.insert(ack_name(segment.first));
                self.unsynced_acks.remove(&segment.first);
            }
        }
        state.made_room();
        drop(state);
        self.remove_leftover();
        self.shared.room.notify_waiters();
    }

    fn write_checkpoint(&mut self, first: u64, lines: Vec<(Arc<str>, Account)>) -> bool {
        let id = self.shared.id;
        let header = FileHeader { id, first };
        let written = replace_checkpoint(&*self.shared.fs, &Checkpoint { header, lines }.encode());
        let written = self.succeeded("write", CHECKPOINT, written);
        if written {
            self.put_aside();
        }
        written
    }

    /// Writes a checkpoint if the history has changed since the last one.
    pub(super) fn write_history(&mut self) {
        let mut state = self.shared.state();
        if !std::mem::take(&mut state.rebooked) {
            return;
        }
        let lines = state.ledger.history(std::iter::empty());
        let first = state.segments.front().map_or(state.next, |it| it.first);
        drop(state);
        if !self.write_checkpoint(first, lines) {
            self.shared.state().rebooked = true;
        }
    }

    fn remove_leftover(&mut self) {
        for name in std::mem::take(&mut self.leftover) {
            let removed = match self.shared.fs.remove(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            if !self.succeeded("remove", &name, removed) {
                self.leftover.insert(name);
            }
        }
    }

    /// Reserves the space of the next checkpoint while there is some.
    pub(super) fn put_aside(&mut self) {
        let length = self.shared.state().ledger.footprint() as usize;
        let fs = &self.shared.fs;
        let written = fs.open(SPARE, Mode::Keep).and_then(|file| {
            let there = file.length()?;
            if there < length as u64 {
                file.write_at(&vec![0; length - there as usize], there)?;
            }
            Ok(())
        });
        self.succeeded("write", SPARE, written);
    }

    /// Looks up the time at which the oldest record was accepted.
    pub(super) fn refresh_oldest(&mut self) {
        let state = self.shared.state();
        let place = state.next_undone(0);
        let known = state.oldest.map(|(sequence, _)| sequence);
        drop(state);
        let sequence = place.map(|place| place.sequence);
        if sequence == known {
            return;
        }
        let accepted = place.and_then(|place| {
            let file = self
                .shared
                .fs
                .open(&log_name(place.segment), Mode::Existing);
            let length = RECORD_HEADER + format::MAX_TENANT;
            let header = file.ok()?.read_at(length, u64::from(place.offset)).ok()?;
            let header = Header::decode(self.shared.seed, &header)?;
            Some((place.sequence, header.accepted_at))
        });
        self.shared.state().oldest = accepted;
    }
}
