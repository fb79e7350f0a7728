//! Writes the elements of a snappy body, literals and copies: found by a search for repetitions, or
//! given by a writer that knows where its text repeats.

use bytes::Bytes;

use super::{BLOCK, HEADER};
use crate::wire;

/// Longest literal whose length fits in its tag.
const SHORT_LITERAL: usize = 60;

/// Largest buffer kept for the next body, in bytes: every thread has one.
pub(super) const KEPT: usize = 2 << 20;

/// Largest distance of a three-byte copy.
pub(crate) const REACH: usize = u16::MAX as usize;

/// Writes a body piece by piece. Adjacent literals are merged, and so are adjacent copies from one
/// distance.
pub(crate) struct Elements {
    /// Room for the header, the elements, and scratch bytes that are overwritten.
    out: Vec<u8>,
    /// End of the elements. 32 bits, as lengths in the format.
    end: u32,
    encoder: snap::raw::Encoder,
    /// Uncompressed bytes written.
    len: usize,
    /// Position of the open literal's tag; 0 if none is open.
    literal: usize,
    /// The open copy; none if its length is 0.
    offset: usize,
    copied: usize,
}

impl Default for Elements {
    fn default() -> Self {
        Self {
            out: Vec::new(),
            end: 0,
            encoder: snap::raw::Encoder::new(),
            len: 0,
            literal: 0,
            offset: 0,
            copied: 0,
        }
    }
}

impl Elements {
    /// Clears the output.
    pub(crate) fn restart(&mut self) {
        self.end = 0;
        self.room(HEADER);
        self.end = HEADER as u32;
        (self.len, self.literal, self.copied) = (0, 0, 0);
    }

    /// Uncompressed bytes written.
    #[inline(always)]
    pub(crate) fn position(&self) -> usize {
        self.len
    }

    /// Whether the next piece can extend a copy from this distance at no cost.
    #[inline(always)]
    pub(crate) fn copies_from(&self, offset: usize) -> bool {
        self.copied > 0 && self.offset == offset
    }

    /// Appends the first `len` bytes of a text as a literal. Short ones are moved as one number,
    /// without a loop.
    #[inline(always)]
    pub(crate) fn first_of(&mut self, text: &[u8], len: usize) {
        if len == 0 {
            return;
        }
        if self.literal == 0 {
            self.end_copy();
            self.literal = self.end as usize;
            self.end += 1;
        }
        match text.first_chunk::<16>() {
            Some(chunk) if len <= 16 => self.put(*chunk, len),
            _ => self.put_slice(&text[..len]),
        }
        self.len += len;
    }

    /// Appends a copy of the bytes `offset` back, which is at most [`REACH`].
    #[inline(always)]
    pub(crate) fn copy(&mut self, offset: usize, len: usize) {
        debug_assert!((1..=REACH.min(self.len)).contains(&offset));
        if !self.copies_from(offset) {
            self.end_literal();
            self.end_copy();
            self.offset = offset;
        }
        self.copied += len;
        self.len += len;
    }

    /// Appends at most 60 bytes as a literal of their own; returns their place among the elements.
    pub(crate) fn apart(&mut self, bytes: &[u8]) -> usize {
        debug_assert!((1..=SHORT_LITERAL).contains(&bytes.len()));
        self.end_literal();
        self.first_of(bytes, bytes.len());
        self.end_literal();
        self.end as usize - HEADER - bytes.len()
    }

    /// Appends text without known repetitions, compressed by search.
    pub(crate) fn search(&mut self, text: &[u8]) {
        self.end_literal();
        self.end_copy();
        for block in text.chunks(BLOCK) {
            // The encoder writes a header before its elements: over the last bytes so far, which
            // are put back.
            let header = wire::varint_len(block.len() as u64);
            let most = snap::raw::max_compress_len(block.len());
            self.room(most);
            let (start, end) = (self.end as usize - header, self.end as usize);
            let mut last = [0; HEADER];
            last[..header].copy_from_slice(&self.out[start..end]);
            #[expect(
                clippy::expect_used,
                reason = "the buffer has the length that the encoder asks for, its only error"
            )]
            let written = self
                .encoder
                .compress(block, &mut self.out[start..start + most])
                .expect("the buffer has max_compress_len bytes");
            self.out[start..end].copy_from_slice(&last[..header]);
            self.end = (start + written) as u32;
            self.len += block.len();
        }
    }

    /// Returns the body with its header.
    pub(crate) fn finish(&mut self) -> Bytes {
        self.end_literal();
        self.end_copy();
        let mut header = Vec::with_capacity(HEADER);
        wire::put_varint(&mut header, self.len as u64);
        let start = HEADER - header.len();
        self.out[start..HEADER].copy_from_slice(&header);
        let body = Bytes::copy_from_slice(&self.out[start..self.end as usize]);
        if self.out.len() > KEPT {
            self.out = Vec::new();
        }
        body
    }

    #[inline(always)]
    fn end_literal(&mut self) {
        let tag = std::mem::take(&mut self.literal);
        if tag == 0 {
            return;
        }
        let len = self.end as usize - tag - 1;
        if len <= SHORT_LITERAL {
            self.out[tag] = ((len - 1) as u8) << 2;
        } else {
            self.long_literal(tag, len);
        }
    }

    /// Encodes the length after the tag, in as many bytes as it needs.
    #[cold]
    fn long_literal(&mut self, tag: usize, len: usize) {
        let bytes = ((len - 1) as u32).to_le_bytes();
        let used = 4 - ((len - 1) as u32).leading_zeros() as usize / 8;
        self.out[tag] = ((SHORT_LITERAL - 1 + used) as u8) << 2;
        self.room(used);
        self.out
            .copy_within(tag + 1..self.end as usize, tag + 1 + used);
        self.out[tag + 1..][..used].copy_from_slice(&bytes[..used]);
        self.end += used as u32;
    }

    #[inline(always)]
    fn end_copy(&mut self) {
        let mut left = std::mem::take(&mut self.copied);
        // Leaves at least 4 bytes, the shortest length that the short form can copy.
        while left >= 68 {
            self.long_copy(64);
            left -= 64;
        }
        if left > 64 {
            self.long_copy(60);
            left -= 60;
        }
        match left {
            0 => {}
            4..12 if self.offset < 1 << 11 => {
                let high = (self.offset >> 8) as u8;
                let tag = high << 5 | ((left - 4) as u8) << 2 | 1;
                self.put([tag, self.offset as u8], 2);
            }
            _ => self.long_copy(left),
        }
    }

    #[inline(always)]
    fn long_copy(&mut self, len: usize) {
        let [low, high] = (self.offset as u16).to_le_bytes();
        self.put([((len - 1) as u8) << 2 | 2, low, high, 0], 3);
    }

    /// Appends the first `len` bytes of a chunk to the elements.
    #[inline(always)]
    fn put<const N: usize>(&mut self, chunk: [u8; N], len: usize) {
        let end = self.end as usize;
        match self.out.get_mut(end..end + N) {
            Some(room) => room.copy_from_slice(&chunk),
            None => self.room(N).copy_from_slice(&chunk),
        }
        self.end += len as u32;
    }

    fn put_slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.end += bytes.len() as u32;
    }

    /// Appends this many bytes after the elements, for the caller to fill.
    #[inline(never)]
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.end as usize;
        let needed = end + len;
        if self.out.len() < needed {
            self.out.resize(needed.max(2 * self.out.len()), 0);
        }
        &mut self.out[end..needed]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Piece {
        Literal(Vec<u8>),
        Search(Vec<u8>),
        Copy { back: usize, len: usize },
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let literal = prop::collection::vec(any::<u8>(), 0..300);
        let long = (any::<u8>(), 60usize..70_000).prop_map(|(byte, len)| vec![byte; len]);
        prop_oneof![
            8 => literal.clone().prop_map(Piece::Literal),
            2 => literal.prop_map(Piece::Search),
            1 => long.clone().prop_map(Piece::Literal),
            1 => long.prop_map(Piece::Search),
            8 => (1usize..5_000, 1usize..300).prop_map(|(back, len)| Piece::Copy { back, len }),
            1 => (1usize..=REACH, 1usize..3_000).prop_map(|(back, len)| Piece::Copy { back, len }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn elements_decompress_to_what_was_written(
            pieces in prop::collection::vec(piece(), 0..40),
        ) {
            let mut elements = Elements::default();
            elements.restart();
            let mut expected = Vec::new();
            for piece in pieces {
                match piece {
                    Piece::Literal(bytes) => {
                        let half = bytes.len() / 2;
                        elements.first_of(&bytes, half);
                        elements.first_of(&bytes[half..], bytes.len() - half);
                        expected.extend(bytes);
                    }
                    Piece::Search(bytes) => {
                        elements.search(&bytes);
                        expected.extend(bytes);
                    }
                    Piece::Copy { back, len } if !expected.is_empty() => {
                        let offset = back.min(expected.len());
                        elements.copy(offset, len);
                        for _ in 0..len {
                            expected.push(expected[expected.len() - offset]);
                        }
                    }
                    Piece::Copy { .. } => {}
                }
                prop_assert_eq!(elements.position(), expected.len());
            }
            let block = elements.finish();
            let decompressed = snap::raw::Decoder::new().decompress_vec(&block).unwrap();
            prop_assert_eq!(decompressed, expected);
        }
    }

    #[test]
    fn literals_of_every_length_around_the_bounds_of_their_forms() {
        let mut elements = Elements::default();
        for len in [
            1,
            59,
            60,
            61,
            255,
            256,
            257,
            65_535,
            65_536,
            65_537,
            1 << 24,
            (1 << 24) + 1,
            1,
        ] {
            let text: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            elements.restart();
            elements.first_of(&text, len);
            let block = elements.finish();
            let decompressed = snap::raw::Decoder::new().decompress_vec(&block).unwrap();
            assert!(decompressed == text, "{len}");
        }
    }
}
