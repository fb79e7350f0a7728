//! The bytes of segments and ack files. All numbers are little-endian.
//!
//! Every file begins with 32 bytes: magic (4), version u32, queue id u64, first sequence u64,
//! zero u32, CRC-32C of these 28 bytes u32.
//!
//! A record is 64 bytes, the tenant's name, and the body. A header's checksum begins with the
//! queue's id, which is random: no body can carry bytes that pass for a record when what stands
//! around them is damaged.
//!
//! | at | | |
//! | --- | --- | --- |
//! | 0 | magic | `MFr1` |
//! | 4 | u32 | checksum of the id, of bytes 8 to 63 and of the tenant's name |
//! | 8, 12 | u32, u32 | length and checksum of the body |
//! | 16, 24, 32 | u64 each | sequence, accepted at (ms since 1970), lane |
//! | 40 to 59 | u32 each | series, samples, histograms, exemplars, metadata |
//! | 60 | u16 | length of the tenant's name, at most 1,024 |
//! | 62, 63 | u8, u8 | remote write version (1, 2); 1 if the counts are unknown, 2 if the body was counted without being checked, else 0 |
//!
//! An entry of an ack file is 32 bytes: checksum of the id and the rest u32, index in the segment
//! u32, kind u8 (1 delivered, 2 dropped, 3 partly, 4 seal), reason u8, six zero bytes, samples
//! delivered u64, samples dropped u64. A seal says how a segment was left: its index is the number
//! of records, its "delivered" their samples.

use std::sync::Arc;

use metrifold_model::{Counts, Version};

use super::{Append, Entry, Position};

pub(super) const FILE_HEADER: usize = 32;
pub(super) const RECORD_HEADER: usize = 64;
pub(super) const ACK: usize = 32;
/// The longest name of a tenant, in bytes.
pub(crate) const MAX_TENANT: usize = 1024;

/// Version of the files that are written.
const FORMAT_VERSION: u32 = 2;
/// Versions that can be read. They differ only in the lanes of records: those of version 1 came from a hash that
/// another build may compute differently.
const READABLE: std::ops::RangeInclusive<u32> = 1..=FORMAT_VERSION;
const RECORD_MAGIC: [u8; 4] = *b"MFr1";

/// Kind of a file of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Acks,
    Checkpoint,
}

impl Kind {
    fn magic(self) -> [u8; 4] {
        *match self {
            Self::Segment => b"MFqs",
            Self::Acks => b"MFqa",
            Self::Checkpoint => b"MFqc",
        }
    }
}

/// Reason why a file's header is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    /// The header is intact, but of an unknown format version.
    Version(u32),
}

/// Content of a file's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) id: u64,
    pub(super) first: u64,
}

impl FileHeader {
    pub(super) fn encode(self, kind: Kind) -> [u8; FILE_HEADER] {
        let mut out = [0; FILE_HEADER];
        out[..4].copy_from_slice(&kind.magic());
        out[4..8].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<FILE_HEADER>() else {
            return Err(HeaderError::Damaged);
        };
        if bytes[..4] != kind.magic() || u32_at(bytes, 28) != crc32c::crc32c(&bytes[..28]) {
            return Err(HeaderError::Damaged);
        }
        match u32_at(bytes, 4) {
            version if READABLE.contains(&version) => Ok(Self {
                id: u64_at(bytes, 8),
                first: u64_at(bytes, 16),
            }),
            other => Err(HeaderError::Version(other)),
        }
    }

    /// Whether the lanes in a segment that begins with these bytes have format version 1, or may have.
    pub(super) fn has_unspecified_lanes(bytes: &[u8]) -> bool {
        let known = Self::decode(Kind::Segment, bytes).is_ok();
        !known || u32_at(bytes, 4) < FORMAT_VERSION
    }
}

/// Initial value of all checksums of a queue, derived from its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(id: u64) -> Self {
        Self(crc32c::crc32c(&id.to_le_bytes()))
    }

    fn of(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

/// State of a record's counts.
const CHECKED: u8 = 0;
const UNCOUNTED: u8 = 1;
const COUNTED: u8 = 2;

/// A record's header and tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) sequence: u64,
    pub(super) accepted_at: u64,
    pub(super) lane: u64,
    pub(super) version: Version,
    pub(super) counts: Option<Counts>,
    pub(super) checked: bool,
    pub(super) tenant: &'a str,
    body_length: u32,
    body_crc: u32,
}

impl<'a> Header<'a> {
    /// Decodes the header at the beginning of `bytes`; `None` if there is no valid one.
    pub(super) fn decode(seed: Seed, bytes: &'a [u8]) -> Option<Self> {
        let fixed = bytes.first_chunk::<RECORD_HEADER>()?;
        if fixed[..4] != RECORD_MAGIC {
            return None;
        }
        let tenant = usize::from(u16::from_le_bytes([fixed[60], fixed[61]]));
        if tenant > MAX_TENANT {
            return None;
        }
        let end = RECORD_HEADER + tenant;
        if seed.of(bytes.get(8..end)?) != u32_at(fixed, 4) {
            return None;
        }
        let count = |at| u64::from(u32_at(fixed, at));
        Some(Self {
            sequence: u64_at(fixed, 16),
            accepted_at: u64_at(fixed, 24),
            lane: u64_at(fixed, 32),
            version: match fixed[62] {
                1 => Version::V1,
                2 => Version::V2,
                _ => return None,
            },
            counts: match fixed[63] {
                CHECKED | COUNTED => Some(Counts {
                    series: count(40),
                    samples: count(44),
                    histograms: count(48),
                    exemplars: count(52),
                    metadata: count(56),
                }),
                UNCOUNTED => None,
                _ => return None,
            },
            checked: fixed[63] == CHECKED,
            tenant: std::str::from_utf8(&bytes[RECORD_HEADER..end]).ok()?,
            body_length: u32_at(fixed, 8),
            body_crc: u32_at(fixed, 12),
        })
    }

    /// Offset of the body within the record.
    pub(super) fn body_start(&self) -> usize {
        RECORD_HEADER + self.tenant.len()
    }

    /// Length of the whole record.
    pub(super) fn length(&self) -> u64 {
        self.body_start() as u64 + u64::from(self.body_length)
    }

    /// The body, if its checksum matches.
    pub(super) fn body<'b>(&self, record: &'b [u8]) -> Option<&'b [u8]> {
        let end = usize::try_from(self.length()).ok()?;
        let body = record.get(self.body_start()..end)?;
        (crc32c::crc32c(body) == self.body_crc).then_some(body)
    }

    pub(super) fn entry(&self, tenant: Arc<str>, lane_unspecified: bool) -> Entry {
        Entry {
            position: Position(self.sequence),
            accepted_at: self.accepted_at,
            lane: self.lane,
            lane_unspecified,
            version: self.version,
            counts: self.counts,
            checked: self.checked,
            tenant,
            body_length: self.body_length,
        }
    }
}

/// Length of the record on disk; `None` if it cannot be represented.
pub(super) fn record_length(append: &Append) -> Option<u64> {
    let counts = append.counts.unwrap_or_default();
    let fits = |count| u32::try_from(count).is_ok();
    let known = fits(counts.series)
        && fits(counts.samples)
        && fits(counts.histograms)
        && fits(counts.exemplars)
        && fits(counts.metadata);
    (known && append.tenant.len() <= MAX_TENANT && fits(append.body.len() as u64))
        .then(|| (head_length(append) + append.body.len()) as u64)
}

/// Length of the header and tenant in front of the body.
pub(super) fn head_length(append: &Append) -> usize {
    RECORD_HEADER + append.tenant.len()
}

/// Writes the header and tenant of a record whose [`record_length`] is known.
pub(super) fn put_head(
    out: &mut Vec<u8>,
    seed: Seed,
    sequence: u64,
    append: &Append,
    body_crc: u32,
) {
    let counts = append.counts.unwrap_or_default();
    let mut fixed = [0; RECORD_HEADER];
    fixed[..4].copy_from_slice(&RECORD_MAGIC);
    fixed[8..12].copy_from_slice(&(append.body.len() as u32).to_le_bytes());
    fixed[12..16].copy_from_slice(&body_crc.to_le_bytes());
    for (at, value) in [(16, sequence), (24, append.accepted_at), (32, append.lane)] {
        fixed[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    for (at, count) in [
        (40, counts.series),
        (44, counts.samples),
        (48, counts.histograms),
        (52, counts.exemplars),
        (56, counts.metadata),
    ] {
        fixed[at..at + 4].copy_from_slice(&(count as u32).to_le_bytes());
    }
    fixed[60..62].copy_from_slice(&(append.tenant.len() as u16).to_le_bytes());
    fixed[62] = match append.version {
        Version::V1 => 1,
        Version::V2 => 2,
    };
    fixed[63] = match append.counts {
        None => UNCOUNTED,
        Some(_) if append.checked => CHECKED,
        Some(_) => COUNTED,
    };
    let crc = crc32c::crc32c_append(seed.of(&fixed[8..]), append.tenant.as_bytes());
    fixed[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&fixed);
    out.extend_from_slice(append.tenant.as_bytes());
}

/// Offset of the next bytes that may begin a record.
pub(super) fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == RECORD_MAGIC)
}

/// An entry of an ack file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) index: u32,
    pub(super) kind: AckKind,
    pub(super) reason: u8,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind {
    Delivered = 1,
    Dropped = 2,
    Partly = 3,
    Seal = 4,
}

impl Ack {
    pub(super) fn put(&self, out: &mut Vec<u8>, seed: Seed) {
        let mut fixed = [0; ACK];
        fixed[4..8].copy_from_slice(&self.index.to_le_bytes());
        fixed[8] = self.kind as u8;
        fixed[9] = self.reason;
        fixed[16..24].copy_from_slice(&self.delivered.to_le_bytes());
        fixed[24..32].copy_from_slice(&self.dropped.to_le_bytes());
        let crc = seed.of(&fixed[4..]);
        fixed[..4].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&fixed);
    }

    pub(super) fn decode(seed: Seed, bytes: &[u8; ACK]) -> Option<Self> {
        (seed.of(&bytes[4..]) == u32_at(bytes, 0)).then_some(())?;
        Some(Self {
            index: u32_at(bytes, 4),
            kind: match bytes[8] {
                1 => AckKind::Delivered,
                2 => AckKind::Dropped,
                3 => AckKind::Partly,
                4 => AckKind::Seal,
                _ => return None,
            },
            reason: bytes[9],
            delivered: u64_at(bytes, 16),
            dropped: u64_at(bytes, 24),
        })
    }
}

/// Reads a number; panics if `bytes` is too short.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

/// Reads a number; panics if `bytes` is too short.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}
