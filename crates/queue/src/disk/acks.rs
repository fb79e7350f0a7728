//! Writes the fates of records to ack files.

use std::io;

use super::commit::Engine;
use super::format::{self, FileHeader, Kind};
use super::fs::Mode;
use super::state::ack_name;

impl Engine {
    /// Writes the waiting acks.
    pub(super) fn flush_acks(&mut self) {
        let mut state = self.shared.state();
        let mut work = Vec::new();
        for segment in state
            .segments
            .iter_mut()
            .filter(|it| !it.pending.is_empty())
        {
            let acks = std::mem::take(&mut segment.pending);
            work.push((segment.first, segment.ack_bytes, acks));
        }
        drop(state);
        for (first, length, acks) in work {
            let result = self.write_acks(first, length, &acks);
            let end = *result.as_ref().unwrap_or(&length);
            let failed = !self.succeeded("write", &ack_name(first), result.map(drop));
            let mut state = self.shared.state();
            let Some((segment, _)) = state.segment(first).filter(|(it, _)| it.first == first)
            else {
                continue;
            };
            segment.ack_bytes = end;
            if failed {
                let newer = std::mem::replace(&mut segment.pending, acks);
                segment.pending.extend(newer);
            } else {
                self.unsynced_acks.insert(first);
            }
        }
    }

    fn write_acks(&mut self, first: u64, length: u64, acks: &[format::Ack]) -> io::Result<u64> {
        let file = self.shared.fs.open(&ack_name(first), Mode::Keep)?;
        let mut bytes = Vec::with_capacity(format::FILE_HEADER + acks.len() * format::ACK);
        if length == 0 {
            let id = self.shared.id;
            bytes.extend_from_slice(&FileHeader { id, first }.encode(Kind::Acks));
        }
        for ack in acks {
            ack.put(&mut bytes, self.shared.seed);
        }
        file.write_at(&bytes, length)?;
        Ok(length + bytes.len() as u64)
    }

    pub(super) fn has_unsynced_acks(&self) -> bool {
        !self.unsynced_acks.is_empty()
    }

    /// Makes written acks durable.
    pub(super) fn sync_acks(&mut self) {
        for first in std::mem::take(&mut self.unsynced_acks) {
            let name = ack_name(first);
            let file = self.shared.fs.open(&name, Mode::Existing);
            let synced = file.and_then(|file| file.sync());
            self.succeeded("sync", &name, synced);
        }
    }
}
