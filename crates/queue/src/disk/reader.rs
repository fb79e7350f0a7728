//! Reads records.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::event::Event;
use super::format::{Header, MAX_TENANT, RECORD_HEADER};
use super::fs::{File, Mode};
use super::ledger::Reason;
use super::segment::Place;
use super::state::{DiskShared, log_name};
use super::{Entry, Fate, Position};
use crate::clock::age;

/// A record with its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Header of the record.
    pub entry: Entry,
    /// The compressed body.
    pub body: Bytes,
}

/// The disk failed. The record still exists: reading it again may succeed, and
/// [`super::DiskQueue::give_up`] drops it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}: {source}")]
pub struct ReadError {
    /// Position of the record.
    pub position: Position,
    /// Name of the segment.
    pub file: String,
    /// Error of the system.
    pub source: io::Error,
}

/// A cursor over the undone records, in order; it continues with records that are appended later.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<DiskShared>,
    next: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    segment: u64,
    file: Arc<dyn File>,
}

enum Loaded {
    Record(Record),
    /// Only the header is readable.
    Header(Entry),
    Nothing,
}

impl Reader {
    pub(super) fn new(shared: Arc<DiskShared>) -> Self {
        Self {
            shared,
            next: 0,
            open: None,
        }
    }

    /// Reads the next undone record; `None` at the end. Damaged records and those beyond the
    /// maximum age are dropped on the way. `now` is in milliseconds since 1970.
    pub fn next(&mut self, now: u64) -> Result<Option<Record>, ReadError> {
        while let Some(place) = self.next_place() {
            let record = self.load(place, now)?;
            self.next = place.sequence + 1;
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// Reads the header of the next undone record; `None` at the end. Unreadable records are
    /// dropped on the way.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, ReadError> {
        while let Some(place) = self.next_place() {
            let entry = self.load_entry(place)?;
            self.next = place.sequence + 1;
            if entry.is_some() {
                return Ok(entry);
            }
        }
        Ok(None)
    }

    fn next_place(&mut self) -> Option<Place> {
        let place = self.shared.state().next_undone(self.next);
        if place.is_none() {
            self.close();
        }
        place
    }

    /// Closes the file that was read last: an open file takes space even after it is removed.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Moves the cursor.
    pub(crate) fn seek(&mut self, position: Position) {
        self.next = position.0;
    }

    /// Reads one record; `None` if it is done, damaged or too old.
    pub fn read(&mut self, position: Position, now: u64) -> Result<Option<Record>, ReadError> {
        let place = self.shared.state().place_of(position.0);
        place.map_or(Ok(None), |place| self.load(place, now))
    }

    fn load(&mut self, place: Place, now: u64) -> Result<Option<Record>, ReadError> {
        let record = self.load_any(place)?;
        let max_age = self.shared.options().max_age;
        let too_old =
            |record: &Record| max_age.is_some_and(|max| age(record.entry.accepted_at, now) > max);
        match record {
            Some(record) if too_old(&record) => {
                let fate = Fate::Dropped(Reason::TooOld);
                self.shared.done(&record.entry, fate);
                Ok(None)
            }
            record => Ok(record),
        }
    }

    /// Reads the header of a record. Drops the record if it is damaged.
    fn load_entry(&mut self, place: Place) -> Result<Option<Entry>, ReadError> {
        let length = (place.end - place.offset).min(HEADER_MAX);
        let read = self.bytes_of(place, length);
        match read {
            Ok(bytes) => match self.header(place, &bytes) {
                Some(header) => Ok(Some(self.entry(place, &header))),
                // Reads the whole record, which reports the damage.
                None => Ok(self.load_any(place)?.map(|record| record.entry)),
            },
            Err(_) => Ok(self.load_any(place)?.map(|record| record.entry)),
        }
    }

    /// Reads a record. Drops it if it is damaged.
    fn load_any(&mut self, place: Place) -> Result<Option<Record>, ReadError> {
        let file = log_name(place.segment);
        match self.try_load(place) {
            Ok(Loaded::Record(record)) => return Ok(Some(record)),
            Ok(_) | Err(_) if self.shared.state().place_of(place.sequence).is_none() => {
                // The record was finished meanwhile, and its segment may be removed.
            }
            Ok(Loaded::Header(entry)) => {
                self.damaged(file, place);
                let counts = entry.counts.unwrap_or_default();
                if self.shared.done(&entry, Fate::Dropped(Reason::Corrupt)) {
                    self.shared.tell(Event::Lost {
                        first: place.sequence,
                        batches: 1,
                        samples: counts.all_samples(),
                    });
                }
            }
            Ok(Loaded::Nothing) => {
                self.damaged(file, place);
                self.shared.lose(place.sequence);
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.shared.fs.is_in_place() =>
            {
                self.shared.tell(Event::Missing { file });
                self.shared.lose(place.sequence);
            }
            Err(source) => {
                self.open = None;
                return Err(ReadError {
                    position: Position(place.sequence),
                    file,
                    source,
                });
            }
        }
        Ok(None)
    }

    fn damaged(&self, file: String, place: Place) {
        self.shared.tell(Event::Damaged {
            file,
            offset: u64::from(place.offset),
            bytes: u64::from(place.end - place.offset),
        });
    }

    fn try_load(&mut self, place: Place) -> io::Result<Loaded> {
        let record = self.bytes_of(place, place.end - place.offset)?;
        let Some(header) = self.header(place, &record) else {
            return Ok(Loaded::Nothing);
        };
        let entry = self.entry(place, &header);
        let Some(body) = header.body(&record) else {
            return Ok(Loaded::Header(entry));
        };
        let body = header.body_start()..header.body_start() + body.len();
        Ok(Loaded::Record(Record {
            entry,
            body: Bytes::from(record).slice(body),
        }))
    }

    /// The bytes at a place, as far as the file has them.
    fn bytes_of(&mut self, place: Place, length: u32) -> io::Result<Vec<u8>> {
        let open = match self.open.take() {
            Some(open) if open.segment == place.segment => open,
            _ => Open {
                segment: place.segment,
                file: self
                    .shared
                    .fs
                    .open(&log_name(place.segment), Mode::Existing)?,
            },
        };
        let bytes = open
            .file
            .read_at(length as usize, u64::from(place.offset))?;
        self.open = Some(open);
        Ok(bytes)
    }

    fn header<'a>(&self, place: Place, bytes: &'a [u8]) -> Option<Header<'a>> {
        let header = Header::decode(self.shared.seed, bytes)?;
        (header.sequence == place.sequence).then_some(header)
    }

    fn entry(&self, place: Place, header: &Header) -> Entry {
        let tenant = self.shared.state().ledger.name(header.tenant);
        header.entry(tenant, place.lane_unspecified)
    }
}

/// The most bytes of a header including the tenant's name.
const HEADER_MAX: u32 = (RECORD_HEADER + MAX_TENANT) as u32;
