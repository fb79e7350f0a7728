//! Snappy's block format: bounded decompression, and compression of a stream of pieces.
//!
//! Source: <https://github.com/google/snappy/blob/main/format_description.txt>.

mod decompress;
mod elements;

use std::cell::RefCell;

use bytes::Bytes;
use thiserror::Error;

use crate::wire;

pub(crate) use elements::{Elements, REACH};

/// A search for repeated text looks back no farther than the start of a block of this size.
pub(crate) const BLOCK: usize = 64 << 10;

/// Most bytes of the declared length, which has 32 bits. Longer varints are read differently by
/// different decoders.
const HEADER_MAX: usize = 5;

/// Why a body cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnappyError {
    /// The body is not in the snappy block format.
    #[error("body is not valid snappy block format: {0}")]
    Corrupt(String),
    /// The body declares that it decompresses to more than is allowed.
    #[error("body declares {declared} decoded bytes, more than the limit of {limit}")]
    TooLarge {
        /// Length that the body declares.
        declared: u64,
        /// Length that is allowed.
        limit: usize,
    },
}

/// Decompressed length that a body declares; refused if it exceeds `limit` or what its bytes can
/// yield, so that no memory is allocated for a false claim. The densest element is a copy of 3
/// bytes, which yields up to 64.
pub fn declared_len(body: &[u8], limit: usize) -> Result<usize, SnappyError> {
    let mut pos = 0;
    let declared = wire::varint(body, &mut pos)
        .map_err(|_| SnappyError::Corrupt("header is truncated".into()))?;
    if declared > limit as u64 {
        return Err(SnappyError::TooLarge { declared, limit });
    }
    if pos > HEADER_MAX {
        return Err(SnappyError::Corrupt("header is too long".into()));
    }
    if declared > (body.len() - pos) as u64 * 64 / 3 {
        return Err(SnappyError::Corrupt(format!(
            "header declares {declared} bytes, more than the body can hold"
        )));
    }
    Ok(declared as usize)
}

/// Elements of a body, after its header.
pub(crate) fn elements(body: &[u8]) -> &[u8] {
    let mut pos = 0;
    match wire::varint(body, &mut pos) {
        Ok(_) => &body[pos..],
        Err(_) => &[],
    }
}

/// Decompresses into a buffer of exactly the declared length.
pub fn decompress(body: &[u8], out: &mut [u8]) -> Result<(), SnappyError> {
    let mut pos = 0;
    let declared = wire::varint(body, &mut pos);
    if declared != Ok(out.len() as u64) {
        return Err(SnappyError::Corrupt(
            "header declares another length".into(),
        ));
    }
    decompress::decompress(&body[pos..], out)
}

/// Joins bodies into one whose text is theirs in order: elements refer to earlier text by distance,
/// so they stay valid after other elements. Returned in parts, so that large bodies are not copied.
/// None if a body has no header, or if the total length is too large.
pub fn join(bodies: &[Bytes]) -> Option<Vec<Bytes>> {
    let mut total = 0u64;
    let mut parts = Vec::with_capacity(bodies.len());
    for body in bodies {
        let mut pos = 0;
        total += wire::varint(body, &mut pos).ok()?;
        parts.push(body.slice(pos..));
    }
    let total = u32::try_from(total).ok()?;
    let mut joined = Vec::new();
    let mut copied = Vec::new();
    wire::put_varint(&mut copied, u64::from(total));
    for part in parts {
        if part.len() < COPIED {
            copied.extend_from_slice(&part);
        } else {
            joined.extend([Bytes::from(std::mem::take(&mut copied)), part]);
        }
    }
    joined.push(Bytes::from(copied));
    Some(joined)
}

/// Largest body that is copied when joined, in bytes: a part of its own would cost as much.
const COPIED: usize = 16 << 10;

/// Compresses pieces as they come, block by block, while they are in the processor's cache. All
/// pieces form one snappy body.
#[derive(Default)]
pub struct Compressor {
    pending: Vec<u8>,
    out: Elements,
}

/// The longest header: the total length as a varint.
const HEADER: usize = 10;

/// Bytes that are copied at once: the excess is cut off again.
const WIDE: usize = 64;

thread_local! {
    /// Scratch memory. After a restart its earlier content has no influence on the output.
    static COMPRESSOR: RefCell<Option<Box<Compressor>>> = const { RefCell::new(None) };
}

impl Compressor {
    /// Runs `write` with this thread's compressor; returns the compressed body.
    pub fn compress(write: impl FnOnce(&mut Self)) -> Bytes {
        let mut compressor = Self::begin();
        write(&mut compressor);
        compressor.end()
    }

    /// Begins a body in this thread's scratch memory.
    pub(crate) fn begin() -> Box<Self> {
        let mut compressor = COMPRESSOR.take().unwrap_or_default();
        compressor.pending.clear();
        compressor.pending.reserve(BLOCK + WIDE);
        compressor.out.restart();
        compressor
    }

    /// Returns the compressed body.
    pub(crate) fn end(mut self: Box<Self>) -> Bytes {
        let Self { pending, out } = &mut *self;
        out.search(pending);
        let body = out.finish();
        if pending.capacity() > elements::KEPT {
            *pending = Vec::new();
        }
        COMPRESSOR.set(Some(self));
        body
    }

    /// Buffer for small pieces; call [`flush`](Self::flush) now and then.
    #[inline(always)]
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Appends a range of a text, like [`put`](Self::put): short ones are copied with a fixed width.
    #[inline(always)]
    pub(crate) fn keep(&mut self, text: &[u8], start: usize, end: usize) {
        let len = end - start;
        match text
            .get(start..)
            .and_then(|rest| rest.first_chunk::<WIDE>())
        {
            Some(wide) if len <= WIDE => {
                let end = self.pending.len() + len;
                self.pending.extend_from_slice(wide);
                self.pending.truncate(end);
            }
            _ => self.put(&text[start..end]),
        }
    }

    /// Appends a piece of any length; whole blocks of it are compressed from where they are.
    pub fn put(&mut self, mut piece: &[u8]) {
        while self.pending.len() + piece.len() >= BLOCK {
            let (first, rest) = piece.split_at(BLOCK.saturating_sub(self.pending.len()));
            piece = rest;
            if self.pending.is_empty() {
                self.out.search(first);
            } else {
                self.pending.extend_from_slice(first);
                self.flush();
            }
        }
        self.pending.extend_from_slice(piece);
    }

    /// Compresses the blocks that are complete.
    #[inline(always)]
    pub fn flush(&mut self) {
        if self.pending.len() >= BLOCK {
            let complete = self.pending.len() / BLOCK * BLOCK;
            self.out.search(&self.pending[..complete]);
            self.pending.drain(..complete);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compresses pieces, each appended in another way.
    fn stream(pieces: &[Vec<u8>]) -> Bytes {
        Compressor::compress(|out| {
            for (number, piece) in pieces.iter().enumerate() {
                match number % 3 {
                    0 => out.buffer().extend_from_slice(piece),
                    1 => out.put(piece),
                    _ => {
                        // As ranges of one text, short and long ones.
                        let mut start = 0_usize;
                        for len in [0, 1, 63, 64, 65, 70_000, usize::MAX] {
                            let end = piece.len().min(start.saturating_add(len));
                            out.keep(piece, start, end);
                            start = end;
                        }
                    }
                }
                // Complete blocks may wait for the next piece.
                if number % 5 != 4 {
                    out.flush();
                }
            }
        })
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // A text with a long period hardly repeats and stays large.
        let period = prop_oneof![9 => 1usize..300, 1 => Just(usize::MAX)];
        let piece = (any::<u8>(), 0usize..150_000, period).prop_map(|(seed, len, period)| {
            let byte = |i: usize| {
                (i % period)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(9)
            };
            (0..len)
                .map(|i| byte(i) as u8 ^ seed ^ (i / 7000) as u8)
                .collect()
        });
        prop::collection::vec(piece, 0..8)
    }

    #[test]
    fn bodies_that_have_no_header_or_are_too_long_together_are_not_joined() {
        let body = |bytes: &'static [u8]| Bytes::from_static(bytes);
        assert_eq!(join(&[body(b"\x01\x00a"), body(b"")]), None);
        let huge = body(b"\xff\xff\xff\xff\x0f\x00a");
        assert_eq!(join(&[huge.clone(), body(b"\x01\x00a")]), None);
        assert!(join(&[huge]).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn joined_bodies_decompress_to_what_each_of_them_does(
            texts in prop::collection::vec(pieces(), 0..5),
        ) {
            let mut expected = Vec::new();
            let mut bodies = Vec::new();
            for pieces in &texts {
                let text = pieces.concat();
                bodies.push(stream(pieces));
                // Other writers' copies reach back farther.
                let other = snap::raw::Encoder::new().compress_vec(&text).unwrap();
                bodies.push(Bytes::from(other));
                expected.extend_from_slice(&text);
                expected.extend_from_slice(&text);
            }
            let joined = join(&bodies).unwrap().concat();
            let mut out = vec![0; declared_len(&joined, usize::MAX).unwrap()];
            decompress(&joined, &mut out).unwrap();
            prop_assert!(out == expected);
        }

        #[test]
        fn what_is_compressed_in_pieces_decompresses_to_their_sum(
            pieces in pieces(),
        ) {
            let body = stream(&pieces);
            let whole = pieces.concat();
            prop_assert_eq!(declared_len(&body, usize::MAX), Ok(whole.len()));
            prop_assert_eq!(snap::raw::Decoder::new().decompress_vec(&body).unwrap(), whole);
        }
    }

    #[test]
    fn a_length_that_is_spelled_with_too_many_bytes_is_refused() {
        for zeros in 0..9 {
            let mut body = vec![0x80; zeros];
            body.push(0);
            assert_eq!(
                declared_len(&body, 9).is_ok(),
                zeros < HEADER_MAX,
                "{zeros}"
            );
        }
    }

    #[test]
    fn the_densest_body_is_taken_and_a_denser_one_is_not() {
        let body = snap::raw::Encoder::new()
            .compress_vec(&vec![7; 16 << 20])
            .unwrap();
        assert_eq!(declared_len(&body, usize::MAX), Ok(16 << 20));
        // Two bytes of literal, then copies of 64 bytes: the densest possible encoding.
        let dense = [&[0x80, 0x80, 0x01, 0x00, 7][..], &[0xfe, 1, 0].repeat(256)].concat();
        assert_eq!(declared_len(&dense, usize::MAX), Ok(1 << 14));
        assert!(declared_len(&dense[..dense.len() - 12], usize::MAX).is_err());
    }

    #[test]
    fn a_declared_length_above_the_limit_is_refused_before_anything_is_allocated() {
        let four_gigabytes = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        assert!(matches!(
            declared_len(&four_gigabytes, 32 << 20),
            Err(SnappyError::TooLarge {
                declared: 4294967295,
                ..
            })
        ));
    }
}
