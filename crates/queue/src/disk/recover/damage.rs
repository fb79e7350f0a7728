//! Accounts for the missing part of a segment: incomplete writes when the process ended, and later
//! damage.

use super::super::event::{Event, OpenError};
use super::super::format::Header;
use super::super::fs::File;
use super::super::ledger::{Account, Reason, Tally, UNKNOWN};
use super::super::segment::Segment;
use super::super::walk::Walked;
use super::acks::Acks;
use super::{Found, Recovery, io_error};

impl Recovery<'_> {
    /// Cuts off an incomplete write at the end of the file. Returns the end of the segment.
    pub(super) fn cut(
        &self,
        file: &dyn File,
        name: &str,
        length: u64,
        walked: Walked,
        found: &mut Vec<Found>,
    ) -> Result<u64, OpenError> {
        let mut end = walked.end;
        while let Some(last) = found.last() {
            let record = file.read_at(last.length as usize, last.offset);
            let record = record.map_err(io_error("read", name))?;
            let header = Header::decode(self.seed, &record);
            if header.is_some_and(|header| header.body(&record).is_some()) {
                break;
            }
            end = last.offset;
            found.pop();
        }
        if end < length {
            file.set_len(end).map_err(io_error("cut", name))?;
            self.tell(Event::TornTail {
                file: name.to_owned(),
                bytes: length - end,
            });
        }
        Ok(end)
    }

    /// Books records that cannot be found, as far as the ack file knows them.
    pub(super) fn account_for_damage(
        &mut self,
        segment: &mut Segment,
        found: &[Found],
        acks: &Acks,
        end: u64,
    ) {
        let expected = end - segment.first;
        if expected <= found.len() as u64 {
            return;
        }
        let mut gone = Tally {
            batches: expected - found.len() as u64,
            ..Tally::default()
        };
        if let Some(seal) = acks.seal {
            gone.samples = seal.delivered;
            gone.uncounted = seal.dropped;
            let written = Tally {
                batches: 0,
                bytes: 0,
                ..segment.written()
            };
            gone -= written;
        }
        // Some were finished before they were damaged.
        let there = |index: u32| {
            let sequence = segment.first + u64::from(index);
            let place = found.binary_search_by_key(&sequence, |found| found.entry.position.0);
            place.is_ok()
        };
        let mut known = Account::default();
        for (index, ack) in &acks.fates {
            if u64::from(*index) >= expected || there(*index) {
                continue;
            }
            let tally = Tally {
                batches: 1,
                samples: ack.delivered.saturating_add(ack.dropped),
                ..Tally::default()
            };
            known.received += tally;
            known.add(&ack.change(tally));
            gone -= tally;
        }
        self.ledger.change(&mut segment.accounts, UNKNOWN, &known);
        if gone.batches > 0 {
            self.lost(segment, segment.first, gone);
        }
    }

    pub(super) fn lost(&mut self, segment: &mut Segment, first: u64, gone: Tally) {
        let mut change = Account {
            received: gone,
            ..Account::default()
        };
        change.drop_queued(Reason::Corrupt);
        self.ledger.change(&mut segment.accounts, UNKNOWN, &change);
        self.tell(Event::Lost {
            first,
            batches: gone.batches,
            samples: gone.samples,
        });
    }
}
