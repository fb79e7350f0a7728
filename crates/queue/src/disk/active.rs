//! The active segment, to which records are appended: creating and leaving it.

use std::io;
use std::sync::Arc;

use super::commit::{Engine, FRESH};
use super::event::Event;
use super::format::{self, FileHeader, Kind};
use super::fs::{File, Mode};
use super::segment::Segment;
use super::state::{ack_name, log_name};

/// The segment to which records are appended.
pub(super) struct Active {
    pub(super) first: u64,
    pub(super) file: Arc<dyn File>,
    /// End of the last completed record.
    pub(super) bytes: u64,
    /// Whether completed records are not durable yet.
    pub(super) unsynced: bool,
}

impl Engine {
    /// Creates a segment.
    pub(super) fn create(&mut self, first: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        // A segment without records, in the queue or about to be removed, can have the same name.
        while state
            .segments
            .back()
            .is_some_and(|last| last.first == first)
        {
            if let Some(last) = state.segments.pop_back() {
                state.ledger.fold(&last.accounts);
            }
        }
        drop(state);
        let fs = &self.shared.fs;
        let id = self.shared.id;
        let header = FileHeader { id, first };
        for name in [log_name(first), ack_name(first)] {
            self.leftover.remove(&name);
        }
        // Such a segment has left its files. Its ack file is removed first: a log shorter than its
        // header is then known to have been empty, and is not counted as damage.
        match fs.remove(&ack_name(first)) {
            Ok(()) => fs.sync_dir()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = fs.open(&log_name(first), Mode::Create)?;
        file.write_at(&header.encode(Kind::Segment), 0)?;
        self.sync_file(&*file)?;
        let acks = fs.open(&ack_name(first), Mode::Create)?;
        acks.write_at(&header.encode(Kind::Acks), 0)?;
        self.sync_file(&*acks)?;
        fs.sync_dir()?;
        let mut segment = Segment::new(first);
        segment.ack_bytes = format::FILE_HEADER as u64;
        let bytes = segment.bytes;
        self.shared.state().segments.push_back(segment);
        self.active = Some(Active {
            first,
            file,
            bytes,
            unsynced: false,
        });
        Ok(())
    }

    /// Makes the active segment durable, and ends it.
    pub(super) fn seal(&mut self) {
        self.sync();
        self.retire();
    }

    pub(super) fn retire(&mut self) {
        let Some(active) = self.active.take() else {
            return;
        };
        let mut state = self.shared.state();
        if let Some((segment, _)) = state.segment(active.first) {
            segment.sealed = true;
            let seal = segment.seal();
            segment.pending.push(seal);
        }
    }

    /// Makes completed records durable.
    pub(super) fn sync(&mut self) {
        let Some(active) = self.active.as_mut().filter(|active| active.unsynced) else {
            return;
        };
        active.unsynced = false;
        let (file, name, end) = (active.file.clone(), log_name(active.first), active.bytes);
        match self.sync_file(&*file) {
            Ok(()) => file.let_go(end.saturating_sub(FRESH)),
            Err(source) => {
                self.shared.tell(Event::Failed {
                    action: "sync",
                    file: name,
                    source,
                });
                self.retire();
            }
        }
    }

    pub(super) fn is_unsynced(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.unsynced)
    }
}
