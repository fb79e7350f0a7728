//! From body to body in one go: series are decoded, edited, encoded and compressed a few at a time,
//! while they are in the processor's cache.

use bytes::Bytes;

use super::compress_v1::Writer;
use super::decode::{DecodeError, Decoder, Invalid, Limits};
use crate::protocol::Version;
use crate::signal::{Arena, Counts, SeriesMut};

/// Series that are decoded before they are edited.
const BLOCK: usize = 32;

/// What became of a body.
pub(crate) struct Rewritten {
    /// The new body; none if the old one says the same.
    pub(crate) body: Option<Bytes>,
    /// What it carries.
    pub(crate) counts: Counts,
    /// The series that were left out before anybody edited them.
    pub(crate) invalid: Invalid,
}

/// Rewrites a body of 1.0: `edit` is called for each series and says whether to keep it.
///
/// # Errors
///
/// Fails when the body as a whole is not what it claims to be, or when it grew too large.
pub(crate) fn rewrite(
    body: &[u8],
    limits: &Limits,
    mut edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
) -> Result<Rewritten, DecodeError> {
    let raw = Decoder::decompress(body, limits)?;
    let mut decoder = Decoder::new(Version::V1, &raw, limits);
    let mut output = Output {
        writer: None,
        as_received: 0,
    };
    let walked = decoder.v1(|arena| {
        if arena.series.len() >= BLOCK {
            output.block(arena, &mut edit);
        }
    });
    let (mut arena, invalid) = decoder.finish();
    walked.map_err(|error| DecodeError::Wire {
        version: Version::V1,
        error,
    })?;
    output.block(&mut arena, &mut edit);
    if arena.overflowed {
        return Err(DecodeError::GrewTooLarge);
    }
    Ok(Rewritten {
        counts: arena.counts(),
        body: output.finish(&arena),
        invalid,
    })
}

/// What has been rewritten so far.
struct Output {
    /// There is one as soon as something has changed.
    writer: Option<Box<Writer>>,
    /// How much of the decompressed body can stay as it came: what stood there when the first
    /// change was met.
    as_received: usize,
}

impl Output {
    /// Edits and writes the arena's series, and makes room for others.
    fn block(&mut self, arena: &mut Arena, edit: impl FnMut(&mut SeriesMut<'_>) -> bool) {
        arena.retain(edit);
        if self.writer.is_none() && arena.changed {
            let mut writer = Writer::take();
            writer.text(&arena.raw.as_slice()[..self.as_received]);
            self.writer = Some(writer);
        }
        match &mut self.writer {
            Some(writer) => {
                writer.series(arena);
                writer.make_room(arena);
            }
            None => {
                if let Some(last) = arena.series.last() {
                    self.as_received = (last.whole.start + last.whole.len) as usize;
                }
                arena.labels.clear();
                arena.series.clear();
            }
        }
    }

    fn finish(self, arena: &Arena) -> Option<Bytes> {
        let mut writer = self.writer?;
        for &span in &arena.metadata {
            if span.start as usize >= self.as_received {
                writer.text(arena.text(span));
            }
        }
        Some(writer.finish())
    }
}
