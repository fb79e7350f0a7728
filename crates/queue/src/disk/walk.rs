//! Walks through the headers of a segment, skipping damaged parts.

use std::io;

use super::format::{FILE_HEADER, Header, MAX_TENANT, RECORD_HEADER, Seed, find_magic};
use super::fs::File;

const WINDOW: usize = 4 << 10;
const SCAN_WINDOW: usize = 64 << 10;

/// Bounds of a segment that are known before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) seed: Seed,
    pub(super) length: u64,
    /// The segment's first sequence, and the first sequence of the next segment.
    pub(super) first: u64,
    pub(super) limit: u64,
}

/// Result of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// End of the last intact record.
    pub(super) end: u64,
    /// Offset of the first damage before that, and the bytes of all damage.
    pub(super) damaged_at: Option<u64>,
    pub(super) damaged: u64,
}

/// Calls `visit` with the offset and the header of each record, in order.
pub(super) fn walk(
    file: &dyn File,
    bounds: Bounds,
    mut visit: impl FnMut(u64, &Header<'_>),
) -> io::Result<Walked> {
    let mut window = Window {
        file,
        length: bounds.length,
        start: 0,
        bytes: Vec::new(),
    };
    let mut walked = Walked {
        end: (FILE_HEADER as u64).min(bounds.length),
        ..Walked::default()
    };
    let mut expected = bounds.first;
    let mut at = walked.end;
    loop {
        let bytes = window.at(at, RECORD_HEADER + MAX_TENANT, WINDOW)?;
        // More lost records than this do not fit in front of a record.
        let most = expected.saturating_add((at - walked.end) / RECORD_HEADER as u64);
        let header = Header::decode(bounds.seed, bytes).filter(|header| {
            (expected..=most).contains(&header.sequence)
                && header.sequence < bounds.limit
                && header.length() <= bounds.length - at
        });
        if let Some(header) = header {
            if at > walked.end {
                walked.damaged_at.get_or_insert(walked.end);
                walked.damaged += at - walked.end;
            }
            visit(at, &header);
            expected = header.sequence + 1;
            at += header.length();
            walked.end = at;
        } else {
            match window.find(at + 1)? {
                Some(found) => at = found,
                None => return Ok(walked),
            }
        }
    }
}

/// A section of the file that is in memory.
struct Window<'a> {
    file: &'a dyn File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `offset` on: at least `wanted`, unless the file ends before.
    fn at(&mut self, offset: u64, wanted: usize, size: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let inside = offset
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| skip.saturating_add(wanted) <= self.bytes.len());
        let skip = match inside {
            Some(skip) => skip,
            None => {
                self.bytes = self.file.read_at(size.max(wanted).min(left), offset)?;
                self.start = offset;
                0
            }
        };
        let end = (skip + wanted).min(self.bytes.len());
        Ok(&self.bytes[skip..end])
    }

    /// The next offset from `from` on at which a record may begin.
    fn find(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut from = from;
        while from < self.length {
            let bytes = self.at(from, SCAN_WINDOW, SCAN_WINDOW)?;
            if let Some(place) = find_magic(bytes) {
                return Ok(Some(from + place as u64));
            }
            // Bytes across the end of the window are part of the next window.
            match bytes.len() {
                0..=3 => break,
                length => from += length as u64 - 3,
            }
        }
        Ok(None)
    }
}
