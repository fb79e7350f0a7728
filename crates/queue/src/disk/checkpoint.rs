//! The checkpoint: the accounts of removed segments.
//!
//! The file begins with the header, whose "first sequence" is that of the oldest segment that still
//! exists. Then follow a u32 number of lines, the lines, and a CRC-32C of everything before it. A line
//! is a u16 length, the tenant's name, eight u64 (batches, samples, uncounted batches, bytes:
//! received, then delivered), a u8 number of reasons, and for each a u8 code and four u64. The first
//! line is that of all tenants without a line of their own. The file is replaced as a whole.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::event::{Event, OpenError};
use super::format::{FILE_HEADER, FileHeader, HeaderError, Kind, u32_at, u64_at};
use super::fs::{File, Fs, Mode};
use super::ledger::{Account, Reason, Tally};
use super::recover::io_error;
use super::state::Listener;

pub(super) const CHECKPOINT: &str = "checkpoint";
/// The file that becomes the next checkpoint.
pub(super) const SPARE: &str = "checkpoint.next";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) header: FileHeader,
    /// The lines, that of the rest first.
    pub(super) lines: Vec<(Arc<str>, Account)>,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.header.encode(Kind::Checkpoint).to_vec();
        out.extend_from_slice(&(self.lines.len() as u32).to_le_bytes());
        for (tenant, account) in &self.lines {
            out.extend_from_slice(&(tenant.len() as u16).to_le_bytes());
            out.extend_from_slice(tenant.as_bytes());
            put_tally(&mut out, account.received);
            put_tally(&mut out, account.delivered);
            out.push(account.dropped.len() as u8);
            for (reason, tally) in &account.dropped {
                out.push(reason.code());
                put_tally(&mut out, *tally);
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header = FileHeader::decode(Kind::Checkpoint, bytes)?;
        Self::lines(bytes)
            .map(|lines| Self { header, lines })
            .ok_or(HeaderError::Damaged)
    }

    fn lines(bytes: &[u8]) -> Option<Vec<(Arc<str>, Account)>> {
        let (content, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        (crc32c::crc32c(content) == u32_at(crc, 0)).then_some(())?;
        let mut rest = Bytes(content.get(FILE_HEADER..)?);
        let count = u32_at(rest.take(4)?, 0);
        let mut lines = Vec::new();
        for _ in 0..count {
            let length = rest.take(2)?;
            let length = u16::from_le_bytes([length[0], length[1]]);
            let tenant = std::str::from_utf8(rest.take(usize::from(length))?).ok()?;
            let mut account = Account {
                received: rest.tally()?,
                delivered: rest.tally()?,
                dropped: BTreeMap::new(),
            };
            for _ in 0..rest.take(1)?[0] {
                let reason = Reason::from_code(rest.take(1)?[0]);
                account.dropped.insert(reason, rest.tally()?);
            }
            lines.push((Arc::from(tenant), account));
        }
        rest.0.is_empty().then_some(lines)
    }
}

fn put_tally(out: &mut Vec<u8>, tally: Tally) {
    for value in [tally.batches, tally.samples, tally.uncounted, tally.bytes] {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn tally(&mut self) -> Option<Tally> {
        let raw = self.take(32)?;
        Some(Tally {
            batches: u64_at(raw, 0),
            samples: u64_at(raw, 8),
            uncounted: u64_at(raw, 16),
            bytes: u64_at(raw, 24),
        })
    }
}

/// Reads the checkpoint; `None` if it is missing or damaged.
pub(super) fn read_checkpoint(
    fs: &dyn Fs,
    listener: &Listener,
    expected: bool,
) -> Result<Option<Checkpoint>, OpenError> {
    let file = match fs.open(CHECKPOINT, Mode::Existing) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if expected {
                let file = CHECKPOINT.to_owned();
                listener(Event::Missing { file });
            }
            return Ok(None);
        }
        Err(error) => return Err(io_error("open", CHECKPOINT)(error)),
    };
    let bytes = read_all(&*file).map_err(io_error("read", CHECKPOINT))?;
    match Checkpoint::decode(&bytes) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(HeaderError::Version(version)) => Err(OpenError::Version {
            file: CHECKPOINT.to_owned(),
            version,
        }),
        Err(HeaderError::Damaged) => {
            listener(Event::Damaged {
                file: CHECKPOINT.to_owned(),
                offset: 0,
                bytes: bytes.len() as u64,
            });
            // Kept for inspection until the next damaged one.
            let damaged = "checkpoint.damaged";
            fs.rename(CHECKPOINT, damaged)
                .map_err(io_error("rename", CHECKPOINT))?;
            Ok(None)
        }
    }
}

/// Replaces the checkpoint.
pub(super) fn replace_checkpoint(fs: &dyn Fs, bytes: &[u8]) -> io::Result<()> {
    // Overwrites the space that was reserved for it, so that it succeeds on a full disk.
    let file = fs.open(SPARE, Mode::Keep)?;
    file.write_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync()?;
    fs.rename(SPARE, CHECKPOINT)?;
    fs.sync_dir()
}

/// The largest ack file or checkpoint that is read: far above the size of those that the queue writes.
const MAX_READ: u64 = 64 << 20;

pub(super) fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    file.read_at(file.length()?.min(MAX_READ) as usize, 0)
}
