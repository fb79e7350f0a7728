//! The state of a segment that is kept in memory.

use super::format::{ACK, Ack, AckKind, FILE_HEADER};
use super::ledger::{Account, Accounts, HeldByLine, Ledger, Reason, Slot, Tally};
use super::{Entry, Fate};

/// Flag in the index for records that are done.
const DONE: u32 = 1 << 31;
/// Index entry of a lost record: no record is at offset 0.
const LOST: u32 = DONE;

/// A segment. Its index takes four bytes of memory for each record.
#[derive(Debug)]
pub(super) struct Segment {
    /// First sequence, which names the segment's files.
    pub(super) first: u64,
    /// Offsets of the records, with the flag [`DONE`].
    index: Vec<u32>,
    /// End of the last record.
    pub(super) bytes: u64,
    /// Length of the ack file.
    pub(super) ack_bytes: u64,
    undone: usize,
    /// Index below which all records are done.
    front: usize,
    /// Lost records, whose tenants are unknown. They are booked once all other records are done.
    lost: usize,
    /// Whether the segment takes no more records.
    pub(super) sealed: bool,
    /// Whether its records were dropped to make room.
    made_room: bool,
    /// Whether the lanes of its records have format version 1.
    pub(super) lanes_unspecified: bool,
    pub(super) accounts: Accounts,
    /// Undone records, and lost ones that are not booked yet. Counted when records come and go,
    /// independently of the accounts, which are checked against it.
    pub(super) held: HeldByLine,
    /// Counts of the readable records.
    written: Tally,
    /// Entries that wait to be written to the ack file.
    pub(super) pending: Vec<Ack>,
}

/// Place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// First sequence of the segment.
    pub(super) segment: u64,
    pub(super) sequence: u64,
    pub(super) offset: u32,
    /// Upper bound of the record's end.
    pub(super) end: u32,
    /// Whether the record's lane has format version 1.
    pub(super) lane_unspecified: bool,
}

impl Segment {
    pub(super) fn new(first: u64) -> Self {
        Self {
            first,
            index: Vec::new(),
            bytes: FILE_HEADER as u64,
            ack_bytes: 0,
            undone: 0,
            front: 0,
            lost: 0,
            sealed: false,
            made_room: false,
            lanes_unspecified: false,
            accounts: Accounts::default(),
            held: HeldByLine::default(),
            written: Tally::default(),
            pending: Vec::new(),
        }
    }

    /// The sequence after the last record.
    pub(super) fn end(&self) -> u64 {
        self.first + self.index.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of undone records.
    pub(super) fn undone(&self) -> usize {
        self.undone
    }

    /// Number of records, by the index, whose fate is not booked.
    pub(super) fn unaccounted(&self) -> usize {
        self.undone + self.lost
    }

    /// Whether the segment can be removed.
    pub(super) fn is_spent(&self) -> bool {
        self.sealed && self.undone == 0
    }

    /// Bytes of the segment's files, including the entries that are still to be written.
    pub(super) fn footprint(&self) -> u64 {
        // One entry for each record, and one for the seal.
        let acks = FILE_HEADER + (self.index.len() + 1) * ACK;
        self.bytes + self.ack_bytes.max(acks as u64)
    }

    /// Adds a record whose bytes exist.
    pub(super) fn push(
        &mut self,
        ledger: &mut Ledger,
        offset: u32,
        length: u64,
        entry: &Entry,
    ) -> (Slot, Tally) {
        let tally = entry.tally();
        self.index.push(offset);
        self.bytes = u64::from(offset) + length;
        self.undone += 1;
        self.written += tally;
        let received = Account {
            received: tally,
            ..Account::default()
        };
        let slot = ledger.enter(&entry.tenant);
        ledger.change(&mut self.accounts, slot, &received);
        *self.held.entry(slot).or_default() += tally;
        (slot, tally)
    }

    /// Adds lost records.
    pub(super) fn push_lost(&mut self, count: usize) {
        self.index.resize(self.index.len() + count, LOST);
    }

    fn at(&self, sequence: u64) -> Option<usize> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        (index < self.index.len()).then_some(index)
    }

    /// The first undone record from a sequence on.
    pub(super) fn next_undone(&self, from: u64) -> Option<Place> {
        let from = usize::try_from(from.saturating_sub(self.first)).ok()?;
        let from = from.max(self.front);
        let ahead = self.index.get(from..)?;
        let index = from + ahead.iter().position(|offset| offset & DONE == 0)?;
        Some(self.place(index))
    }

    /// The place of a record; `None` if it is done.
    pub(super) fn place_of(&self, sequence: u64) -> Option<Place> {
        let index = self.at(sequence)?;
        (self.index[index] & DONE == 0).then(|| self.place(index))
    }

    fn place(&self, index: usize) -> Place {
        let offset = |raw: &u32| raw & !DONE;
        let mut later = self.index[index + 1..].iter().map(offset);
        let end = later.find(|offset| *offset > 0);
        Place {
            segment: self.first,
            sequence: self.first + index as u64,
            offset: offset(&self.index[index]),
            // A segment is shorter than two to the 31st bytes.
            end: end.unwrap_or(self.bytes as u32),
            lane_unspecified: self.lanes_unspecified,
        }
    }

    fn mark_done(&mut self, sequence: u64) -> bool {
        let Some(index) = self.at(sequence) else {
            return false;
        };
        if self.index[index] & DONE != 0 {
            return false;
        }
        self.index[index] |= DONE;
        self.undone -= 1;
        let ahead = self.index[self.front..].iter();
        self.front += ahead.take_while(|offset| *offset & DONE != 0).count();
        true
    }

    /// Subtracts a record from those that are held.
    fn let_go(&mut self, slot: Slot, tally: Tally) {
        if let Some(held) = self.held.get_mut(&slot) {
            *held -= tally;
            if held.is_zero() {
                self.held.remove(&slot);
            }
        }
    }

    /// Books the fate of a record. Returns false if it was booked before.
    pub(super) fn done(&mut self, ledger: &mut Ledger, entry: &Entry, fate: Fate) -> bool {
        if !self.mark_done(entry.position.0) {
            return false;
        }
        let tally = entry.tally();
        let ack = Ack {
            index: (entry.position.0 - self.first) as u32,
            ..Ack::of(fate, tally)
        };
        let change = ack.change(tally);
        let slot = ledger.slot(&entry.tenant);
        ledger.change(&mut self.accounts, slot, &change);
        self.let_go(slot, tally);
        self.pending.push(ack);
        self.settle(ledger);
        true
    }

    /// Books the fate of the copy in memory of a record that was dropped to make room. Returns
    /// false if the record is not booked as dropped.
    pub(super) fn rebook(&mut self, ledger: &mut Ledger, entry: &Entry, fate: Fate) -> bool {
        let tally = entry.tally();
        let change = Ack::of(fate, tally).change(tally);
        ledger.rebook(Some(&mut self.accounts), &entry.tenant, tally, &change)
    }

    /// Books a fate that was read from the ack file.
    pub(super) fn restore(&mut self, ledger: &mut Ledger, entry: &Entry, ack: &Ack) {
        if self.mark_done(entry.position.0) {
            let tally = entry.tally();
            let slot = ledger.slot(&entry.tenant);
            ledger.change(&mut self.accounts, slot, &ack.change(tally));
            self.let_go(slot, tally);
        }
    }

    /// Marks a record as lost whose tenant cannot be read any more.
    pub(super) fn lose(&mut self, ledger: &mut Ledger, sequence: u64) -> bool {
        let marked = self.mark_done(sequence);
        self.lost += usize::from(marked);
        self.settle(ledger);
        marked
    }

    /// Once all other records are done, books the rest as lost.
    fn settle(&mut self, ledger: &mut Ledger) {
        if self.lost > 0 && self.undone == 0 {
            self.lost = 0;
            self.held.clear();
            ledger.drop_queued(&mut self.accounts, Reason::Corrupt);
        }
    }

    /// Whether its records were dropped to make room.
    pub(super) fn has_made_room(&self) -> bool {
        self.made_room
    }

    /// Drops all undone records.
    pub(super) fn drop_all(&mut self, ledger: &mut Ledger, reason: Reason) -> Tally {
        for offset in &mut self.index[self.front..] {
            *offset |= DONE;
        }
        self.front = self.index.len();
        (self.undone, self.lost) = (0, 0);
        self.made_room = true;
        self.held.clear();
        self.pending.clear();
        ledger.drop_queued(&mut self.accounts, reason)
    }

    /// Counts of the readable records, for comparison with a seal.
    pub(super) fn written(&self) -> Tally {
        self.written
    }

    /// The entry that states the complete content of the segment.
    pub(super) fn seal(&self) -> Ack {
        Ack {
            index: self.index.len() as u32,
            kind: AckKind::Seal,
            reason: 0,
            delivered: self.written.samples,
            dropped: self.written.uncounted,
        }
    }
}

impl Ack {
    pub(super) fn of(fate: Fate, tally: Tally) -> Self {
        let (kind, reason, dropped) = match fate {
            Fate::Delivered => (AckKind::Delivered, 0, 0),
            Fate::Dropped(reason) => (AckKind::Dropped, reason.code(), tally.samples),
            Fate::Partly { dropped, reason } => {
                (AckKind::Partly, reason.code(), dropped.min(tally.samples))
            }
        };
        Self {
            index: 0,
            kind,
            reason,
            delivered: tally.samples - dropped,
            dropped,
        }
    }

    /// The change that the entry makes in an account. A partly delivered batch counts as delivered.
    pub(super) fn change(&self, tally: Tally) -> Account {
        let mut account = Account::default();
        let dropped = self.dropped.min(tally.samples);
        let mut lost = Tally {
            samples: dropped,
            ..Tally::default()
        };
        match self.kind {
            AckKind::Dropped => lost = tally,
            _ => {
                account.delivered = Tally {
                    samples: tally.samples - dropped,
                    ..tally
                }
            }
        }
        if lost != Tally::default() {
            account.dropped.insert(Reason::from_code(self.reason), lost);
        }
        account
    }
}
