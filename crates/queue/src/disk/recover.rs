//! Opening a queue: reconstructs its state from the files, whatever has happened to them.
//!
//! Only segments that the checkpoint covers are removed, and only an unreadable end of the newest
//! segment is cut off, provided that no seal says it was complete.

mod acks;
mod damage;

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;

use super::checkpoint::{CHECKPOINT, Checkpoint, SPARE, read_checkpoint, replace_checkpoint};
use super::event::{Event, OpenError};
use super::format::{FILE_HEADER, FileHeader, HeaderError, Kind, Seed};
use super::fs::{Fs, Mode};
use super::ledger::{Ledger, Tally};
use super::segment::Segment;
use super::state::{DiskState, Listener, ack_name, log_name};
use super::walk::{Bounds, walk};
use super::{Entry, Options};

pub(super) const LOCK: &str = "lock";

/// Offsets of records have 31 bits.
const MAX_LENGTH: u64 = (1 << 31) - 1;

/// The recovered state.
pub(super) struct Recovered {
    pub(super) id: u64,
    pub(super) state: DiskState,
}

struct Recovery<'a> {
    fs: &'a dyn Fs,
    id: u64,
    seed: Seed,
    ledger: Ledger,
    listener: &'a Listener,
}

/// Reads the directory, which must be locked.
pub(super) fn recover(
    fs: &dyn Fs,
    options: &Options,
    listener: &Listener,
) -> Result<Recovered, OpenError> {
    let mut ledger = Ledger::new(options.tenants());
    let mut firsts = BTreeSet::new();
    for name in fs.list().map_err(io_error("list", "the directory"))? {
        match first_of(&name) {
            Some(first) => drop(firsts.insert(first)),
            None if [CHECKPOINT, SPARE, LOCK].contains(&&*name) => {}
            None => listener(Event::Stray { file: name }),
        }
    }
    let checkpoint = read_checkpoint(fs, listener, !firsts.is_empty())?;
    let (id, folded) = match &checkpoint {
        Some(checkpoint) => (checkpoint.header.id, checkpoint.header.first),
        None => (any_id(fs, &firsts)?.unwrap_or_else(random), 0),
    };
    let lines = checkpoint.iter().flat_map(|checkpoint| &checkpoint.lines);
    for (index, (tenant, account)) in lines.enumerate() {
        ledger.restore((index > 0).then_some(&**tenant), account);
    }
    let mut recovery = Recovery {
        fs,
        id,
        seed: Seed::new(id),
        ledger,
        listener,
    };

    // Segments covered by the checkpoint were about to be removed.
    let live = firsts.split_off(&folded);
    for first in firsts {
        recovery.remove(first)?;
    }
    let firsts: Vec<u64> = live.into_iter().collect();
    let mut segments = VecDeque::new();
    // Without a checkpoint, the expected first sequence is unknown.
    let mut next = match &checkpoint {
        Some(_) => folded,
        None => firsts.first().copied().unwrap_or(0),
    };
    for (place, first) in firsts.iter().enumerate() {
        let limit = firsts.get(place + 1).copied();
        let (mut segment, end) = recovery.segment(*first, limit)?;
        if *first > next {
            // The number of samples in these batches is unknown.
            let batches = *first - next;
            recovery.lost(
                &mut segment,
                next,
                Tally {
                    batches,
                    ..Tally::default()
                },
            );
        }
        next = end.max(next);
        segments.push_back(segment);
    }
    if checkpoint.is_none() {
        recovery.first_checkpoint(next.min(firsts.first().copied().unwrap_or(0)))?;
    }
    Ok(Recovered {
        id,
        state: DiskState::new(recovery.ledger, segments, next),
    })
}

pub(super) fn io_error<'a>(
    action: &'static str,
    file: &'a str,
) -> impl Fn(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io {
        action,
        file: file.to_owned(),
        source,
    }
}

/// The sequence in a file's name.
fn first_of(name: &str) -> Option<u64> {
    let digits = name
        .strip_suffix(".log")
        .or_else(|| name.strip_suffix(".ack"))?;
    let valid = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    // Sequences close to the maximum would leave no room for the next ones.
    let first = valid.then(|| digits.parse().ok()).flatten();
    first.filter(|first| *first < u64::MAX / 2)
}

/// A random id for a new queue. The standard library's only source of randomness is the seed of
/// hash maps.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

/// The id in the first intact header of any file.
fn any_id(fs: &dyn Fs, firsts: &BTreeSet<u64>) -> Result<Option<u64>, OpenError> {
    for first in firsts {
        for (kind, name) in [
            (Kind::Segment, log_name(*first)),
            (Kind::Acks, ack_name(*first)),
        ] {
            let Ok(file) = fs.open(&name, Mode::Existing) else {
                continue;
            };
            let header = file
                .read_at(FILE_HEADER, 0)
                .map_err(io_error("read", &name))?;
            if let Ok(header) = FileHeader::decode(kind, &header) {
                return Ok(Some(header.id));
            }
        }
    }
    Ok(None)
}

/// A record found by a walk.
struct Found {
    offset: u64,
    length: u64,
    entry: Entry,
}

impl Recovery<'_> {
    fn tell(&self, event: Event) {
        (self.listener)(event);
    }

    fn remove(&self, first: u64) -> Result<(), OpenError> {
        for name in [log_name(first), ack_name(first)] {
            match self.fs.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &name)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes a new queue's checkpoint, so that its id does not depend on a segment.
    fn first_checkpoint(&self, first: u64) -> Result<(), OpenError> {
        let header = FileHeader { id: self.id, first };
        let lines = self.ledger.history(std::iter::empty());
        let bytes = Checkpoint { header, lines }.encode();
        replace_checkpoint(self.fs, &bytes).map_err(io_error("write", CHECKPOINT))
    }

    /// Whether the header of a file is intact.
    fn header(&self, kind: Kind, name: &str, first: u64, bytes: &[u8]) -> Result<bool, OpenError> {
        match FileHeader::decode(kind, bytes) {
            Ok(header) if header == (FileHeader { id: self.id, first }) => Ok(true),
            Ok(_) => Err(OpenError::Foreign {
                file: name.to_owned(),
            }),
            Err(HeaderError::Version(version)) => Err(OpenError::Version {
                file: name.to_owned(),
                version,
            }),
            Err(HeaderError::Damaged) => Ok(false),
        }
    }

    /// Recovers a segment; `limit` is the first sequence of the next one. Also returns the sequence
    /// at which the segment should end.
    fn segment(&mut self, first: u64, limit: Option<u64>) -> Result<(Segment, u64), OpenError> {
        let name = log_name(first);
        let file = match self.fs.open(&name, Mode::Existing) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.tell(Event::Missing { file: name.clone() });
                self.fs.open(&name, Mode::Keep)
            }
            opened => opened,
        };
        let file = file.map_err(io_error("open", &name))?;
        let length = file.length().map_err(io_error("read", &name))?;
        let header = file
            .read_at(FILE_HEADER, 0)
            .map_err(io_error("read", &name))?;
        let whole = self.header(Kind::Segment, &name, first, &header)?;
        let lanes_unspecified = FileHeader::has_unspecified_lanes(&header);
        let acks = self.acks(first, length > FILE_HEADER as u64)?;

        let sealed_at = acks.seal.map(|seal| first + u64::from(seal.index));
        let bounds = Bounds {
            seed: self.seed,
            // The queue never writes beyond this length.
            length: length.min(MAX_LENGTH),
            first,
            limit: sealed_at.or(limit).unwrap_or(u64::MAX),
        };
        let mut found = Vec::new();
        let walked = walk(&*file, bounds, |offset, header| {
            found.push(Found {
                offset,
                length: header.length(),
                entry: header.entry(self.ledger.name(header.tenant), lanes_unspecified),
            });
        });
        let mut walked = walked.map_err(io_error("read", &name))?;
        let open_end = acks.seal.is_none() && limit.is_none();
        // The ack file is created once the segment's header is durable.
        let unfinished = length < FILE_HEADER as u64 && acks.bytes == 0;
        if open_end && (whole || unfinished) {
            walked.end = self.cut(&*file, &name, length, walked, &mut found)?;
        } else if !whole {
            self.tell(Event::Damaged {
                file: name.clone(),
                offset: 0,
                bytes: FILE_HEADER as u64,
            });
        }
        if let Some(offset) = walked.damaged_at {
            self.tell(Event::Damaged {
                file: name.clone(),
                offset,
                bytes: walked.damaged,
            });
        }

        let mut segment = Segment::new(first);
        segment.sealed = true;
        segment.lanes_unspecified = lanes_unspecified;
        segment.ack_bytes = acks.bytes;
        for found in &found {
            // The walk has ensured that the damaged bytes have room for this many records.
            segment.push_lost((found.entry.position.0 - segment.end()) as usize);
            let entry = &found.entry;
            segment.push(&mut self.ledger, found.offset as u32, found.length, entry);
            let index = (entry.position.0 - first) as u32;
            if let Some(ack) = acks.fates.get(&index) {
                segment.restore(&mut self.ledger, entry, ack);
            }
        }
        // A file without any readable record had at least one.
        let least = first + u64::from(!whole && !unfinished);
        let end = sealed_at.unwrap_or_else(|| segment.end().max(least));
        self.account_for_damage(&mut segment, &found, &acks, end);
        if acks.seal.is_none() {
            segment.pending.push(segment.seal());
        }
        Ok((segment, end))
    }
}

/// Locks the directory against other processes.
pub(super) fn lock(fs: &Arc<dyn Fs>) -> Result<Box<dyn std::any::Any + Send>, OpenError> {
    fs.lock(LOCK).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => io_error("lock", LOCK)(error),
    })
}
