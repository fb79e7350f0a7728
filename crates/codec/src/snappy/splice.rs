//! Edits the text of a snappy body without searching for repetitions. A received copy hints at a
//! likely repetition: at the place its source has moved to. The hint is verified, and its length
//! found, on the outgoing text. So the time does not depend on the data, and the output is
//! compressed as well as the input.
//!
//! The text is spliced from front to back: [`keep`](Splice::keep) takes over a range of the
//! received text, [`insert`](Splice::insert) adds other text, and ranges that are not kept are left
//! out. A copy that was left out counts as moved to where its source is.

use std::cell::RefCell;

use bytes::Bytes;

use super::{Elements, REACH};
use crate::wire::common_prefix;

/// Shortest copy that is shorter than a literal.
const SHORTEST_COPY: usize = 4;
/// Received bytes whose new positions are remembered: the reach of copies, and one range that is
/// taken over at once.
const WINDOW: usize = 128 << 10;
/// Received bytes taken over at once.
const AT_ONCE: usize = 16 << 10;
/// Adjacent bytes that are assumed to have moved together.
const TOGETHER: usize = 4;
/// Inserted texts whose positions are remembered.
const INSERTED: usize = 512;
/// Bytes of text for which elements are written at once.
const PENDING: usize = 8 << 10;
/// Bytes of text held before the part beyond the reach of copies is released.
const HELD: usize = 512 << 10;

/// Displacement of a text that is gone: beyond any output.
const GONE: u32 = 1 << 31;
/// Position of a text that was never inserted.
const NOWHERE: u32 = u32::MAX;

/// A body and its text. The body was decompressed to that text before, so it is valid.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// Elements after the header.
    pub(crate) elements: &'a [u8],
    pub(crate) text: &'a [u8],
}

/// An element of the received body: the end of its text, and a copy's distance, or 0 for a literal.
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    end: usize,
    offset: usize,
}

/// A position in the output, an earlier one that may have the same bytes, and the least length of
/// that repetition.
#[derive(Clone, Copy, Debug, Default)]
struct Hint {
    at: u32,
    from: u32,
    len: u32,
}

/// Decoded tag of an element.
#[derive(Clone, Copy)]
struct Form {
    /// Mask of a copy's offset bits in the two bytes after the tag.
    mask: u16,
    /// Upper bits of the offset, if the tag holds them.
    high: u16,
    len: u8,
    /// Length of the element; 0 for the rare ones that the tag alone does not describe.
    size: u8,
}

const FORMS: [Form; 256] = {
    let rare = Form {
        mask: 0,
        high: 0,
        len: 0,
        size: 0,
    };
    let mut forms = [rare; 256];
    let mut tag = 0;
    while tag < 256 {
        let form = &mut forms[tag];
        let upper = (tag >> 2) as u8;
        match tag & 3 {
            0 if upper < 60 => (form.len, form.size) = (upper + 1, upper + 2),
            1 => {
                (form.len, form.size) = (4 + (upper & 7), 2);
                (form.mask, form.high) = (0xff, (tag as u16 >> 5) << 8);
            }
            2 => (form.len, form.size, form.mask) = (upper + 1, 3, 0xffff),
            _ => {}
        }
        tag += 1;
    }
    forms
};

/// A compressed body assembled from parts of another one.
#[derive(Default)]
pub(crate) struct Splice {
    out: Elements,
    /// Outgoing text without its first `gone` bytes; elements have been written for the first
    /// `done`.
    text: Vec<u8>,
    gone: usize,
    done: usize,
    /// Hints for text without elements, by position; only the first `hinted` are valid.
    hints: Vec<Hint>,
    hinted: usize,
    /// Ring of displacements, one per [`TOGETHER`] bytes of the received text.
    moved: Vec<u32>,
    /// Start of the source's next element.
    next: usize,
    element: Element,
    /// Position in the received text up to which it has been kept or left out.
    at: usize,
    /// Positions of inserted texts, by hash.
    inserted: Vec<u32>,
}

thread_local! {
    /// Scratch memory. After a restart its earlier content has no influence on the output.
    static SPLICE: RefCell<Option<Box<Splice>>> = const { RefCell::new(None) };
}

impl Splice {
    /// Begins a body in this thread's scratch memory; `len` is the length of the received text.
    pub(crate) fn begin(len: usize) -> Box<Self> {
        let mut splice = SPLICE.take().unwrap_or_default();
        splice.restart(len);
        splice
    }

    /// Returns the compressed body.
    pub(crate) fn end(mut self: Box<Self>) -> Bytes {
        let body = self.finish();
        SPLICE.set(Some(self));
        body
    }

    fn restart(&mut self, len: usize) {
        self.out.restart();
        self.text.clear();
        (self.gone, self.done, self.hinted) = (0, 0, 0);
        self.moved.resize(WINDOW / TOGETHER, GONE);
        let used = self.moved.len().min(len / TOGETHER + 1);
        self.moved[..used].fill(GONE);
        self.inserted.clear();
        self.inserted.resize(INSERTED, NOWHERE);
        (self.next, self.at, self.element) = (0, 0, Element::default());
    }

    fn finish(&mut self) -> Bytes {
        self.flush();
        self.out.finish()
    }

    /// Position in the received text up to which it has been kept or left out; earlier text can
    /// only be inserted.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Uncompressed bytes so far.
    #[inline(always)]
    fn position(&self) -> usize {
        self.gone + self.text.len()
    }

    /// Takes over a range of the received text, at or after [`at`](Self::at).
    #[inline(always)]
    pub(crate) fn keep(&mut self, source: Source<'_>, start: usize, end: usize) {
        if start >= end {
            return;
        }
        self.leave_out(source, start);
        self.at = end;
        let mut at = start;
        while end - at > AT_ONCE {
            self.take(source, at, at + AT_ONCE);
            at += AT_ONCE;
        }
        self.take(source, at, end);
    }

    /// Adds up to eight bytes that replace the received byte at a position; the bytes after it
    /// count as moved accordingly.
    #[inline(always)]
    pub(crate) fn instead(&mut self, source: Source<'_>, place: usize, bytes: u64, len: usize) {
        self.leave_out(source, place);
        self.at = place + 1;
        self.reach(source, place);
        self.hint(place, place + 1);
        let end = self.text.len() + len;
        self.text.extend_from_slice(&bytes.to_le_bytes());
        self.text.truncate(end);
    }

    /// Adds a text that was not received.
    pub(crate) fn insert(&mut self, text: &[u8]) {
        if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            let mixed = u64::from_le_bytes(*head).rotate_left(23) ^ u64::from_le_bytes(*tail);
            let hash = mixed.wrapping_add(text.len() as u64).wrapping_mul(HASH);
            let position = self.position();
            let place = &mut self.inserted[(hash >> (64 - INSERTED.ilog2())) as usize];
            let from = std::mem::replace(place, position as u32);
            self.put_hint(position, from as usize, text.len());
        }
        self.text.extend_from_slice(text);
    }

    /// Adds text without known repetitions, compressed by search. Nothing can be kept after it.
    pub(crate) fn search(&mut self, text: &[u8]) {
        self.flush();
        self.out.search(text);
    }

    /// Leaves out the received text up to a position.
    #[inline(always)]
    fn leave_out(&mut self, source: Source<'_>, to: usize) {
        // Too short to be copied from.
        if to < self.at + TOGETHER {
            self.at = self.at.max(to);
            return;
        }
        while self.at < to {
            self.reach(source, self.at);
            let end = self.element.end.min(to);
            let offset = self.element.offset;
            for place in self.at / TOGETHER..end.div_ceil(TOGETHER) {
                let from = (place * TOGETHER)
                    .checked_sub(offset)
                    .filter(|_| offset > 0);
                // The same bytes may still be in the output, where they were copied from.
                let moved = from.map_or(GONE, |from| self.moved(from).wrapping_sub(offset as u32));
                self.moved[place % (WINDOW / TOGETHER)] = moved;
            }
            self.at = end;
        }
    }

    /// Takes over a range of bounded length.
    #[inline(always)]
    fn take(&mut self, source: Source<'_>, start: usize, end: usize) {
        if self.position() - self.done >= PENDING {
            self.flush();
        }
        let moved = (self.position() as u32).wrapping_sub(start as u32);
        let (first, last) = (start / TOGETHER, (end - 1) / TOGETHER);
        let place = first % (WINDOW / TOGETHER);
        match self.moved.get_mut(place..=place + last - first) {
            Some(all) => all.fill(moved),
            None => {
                for place in first..=last {
                    self.moved[place % (WINDOW / TOGETHER)] = moved;
                }
            }
        }
        let mut at = start;
        let shift = self.position().wrapping_sub(start);
        while at < end {
            self.reach(source, at);
            let stop = self.element.end.min(end);
            self.hint_at(at.wrapping_add(shift), at, stop);
            at = stop;
        }
        self.text.extend_from_slice(&source.text[start..end]);
    }

    /// Adds a hint for received bytes of one element that are written next.
    #[inline(always)]
    fn hint(&mut self, start: usize, end: usize) {
        self.hint_at(self.position(), start, end);
    }

    #[inline(always)]
    fn hint_at(&mut self, position: usize, start: usize, end: usize) {
        // A literal's source would be itself, which is not earlier.
        let from = start.wrapping_sub(self.element.offset);
        let from = (from as u32).wrapping_add(self.moved(from));
        self.put_hint(position, from as usize, end - start);
    }

    #[inline(always)]
    fn put_hint(&mut self, at: usize, from: usize, len: usize) {
        if self.hinted == self.hints.len() {
            self.hints.resize(2 * self.hinted + 256, Hint::default());
        }
        self.hints[self.hinted] = Hint {
            at: at as u32,
            from: from as u32,
            len: len as u32,
        };
        // Branch-free: whether the hint is usable cannot be predicted.
        self.hinted += usize::from(at.wrapping_sub(from).wrapping_sub(1) < REACH);
    }

    /// Displacement of the received text at a position.
    #[inline(always)]
    fn moved(&self, place: usize) -> u32 {
        self.moved[place / TOGETHER % (WINDOW / TOGETHER)]
    }

    /// Writes the elements of the text that has none yet.
    #[inline(never)]
    fn flush(&mut self) {
        let (text, gone) = (&self.text[..], self.gone);
        let mut done = self.done - gone;
        for hint in &self.hints[..self.hinted] {
            let [mut at, mut from] = [hint.at, hint.from].map(|place| place as usize - gone);
            if let Some(passed) = done.checked_sub(at) {
                // A copy covers its start: the repetition may continue after it.
                if passed >= hint.len as usize {
                    continue;
                }
                (at, from) = (done, from + passed);
            }
            let (own, other) = (&text[at..], &text[from..]);
            if own.first_chunk::<SHORTEST_COPY>() != other.first_chunk() {
                continue;
            }
            let len = common_prefix(own, other, own.len());
            if len < SHORTEST_COPY {
                continue; // at the end
            }
            self.out.first_of(&text[done..], at - done);
            self.out.copy(at - from, len);
            done = at + len;
        }
        self.out.first_of(&text[done..], text.len() - done);
        self.hinted = 0;
        if self.text.len() > HELD {
            let unreached = self.text.len() - REACH;
            self.text.drain(..unreached);
            self.gone += unreached;
        }
        self.done = self.position();
    }

    /// Reads elements up to the one at a position; no element read so far may end after it.
    #[inline(always)]
    fn reach(&mut self, source: Source<'_>, place: usize) {
        while self.element.end <= place {
            self.read(source);
        }
    }

    /// Reads the next element.
    #[inline(always)]
    fn read(&mut self, source: Source<'_>) {
        let rest = source.elements.get(self.next..).unwrap_or_default();
        let start = self.element.end;
        // Copies and literals take the same path: the kind of the next element cannot be predicted.
        let Some(&[tag, low, high]) = rest.first_chunk::<3>() else {
            return self.read_rare(source, rest, start);
        };
        let form = FORMS[usize::from(tag)];
        if form.size == 0 {
            return self.read_rare(source, rest, start);
        }
        self.next += usize::from(form.size);
        self.element = Element {
            end: start + usize::from(form.len),
            offset: usize::from(form.high | u16::from_le_bytes([low, high]) & form.mask),
        };
    }

    /// Reads a long literal, a far copy, or one of the last elements. An unreadable element counts
    /// as a literal up to the end; a valid body has none.
    #[cold]
    fn read_rare(&mut self, source: Source<'_>, rest: &[u8], start: usize) {
        let number = |from: usize, bytes: usize| {
            let bytes = rest.get(from..from + bytes).unwrap_or_default();
            let low_first = bytes.iter().rev();
            low_first.fold(0, |number, byte| number << 8 | usize::from(*byte))
        };
        let tag = rest.first().copied().unwrap_or_default();
        let (size, len, offset) = match (tag & 3, usize::from(tag >> 2)) {
            (0, len @ 0..60) => (2 + len, 1 + len, 0),
            (0, len) => {
                let bytes = len - 59;
                let len = number(1, bytes) + 1;
                (1 + bytes + len, len, 0)
            }
            (1, len) => (2, 4 + (len & 7), (len >> 3) << 8 | number(1, 1)),
            (2, len) => (3, 1 + len, number(1, 2)),
            (_, len) => (5, 1 + len, number(1, 4)),
        };
        self.next += size;
        let sound = !rest.is_empty() && start + len <= source.text.len() && offset <= start;
        self.element = match sound {
            true => Element {
                end: start + len,
                offset,
            },
            false => Element {
                end: source.text.len().max(start + 1),
                offset: 0,
            },
        };
    }
}

/// An odd number with pseudo-random bits.
const HASH: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{declared_len, decompress};
    use super::*;
    use crate::wire;

    /// Text with near and far repetitions, as compressors like it.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 0..40),
            1 => (any::<u8>(), 1usize..200).prop_map(|(byte, len)| vec![byte; len]),
        ];
        let picks = prop::collection::vec(any::<prop::sample::Index>(), 1..200);
        (prop::collection::vec(piece, 1..20), picks).prop_map(|(pieces, picks)| {
            let picked = picks.iter().flat_map(|index| index.get(&pieces).clone());
            picked.collect()
        })
    }

    #[derive(Clone, Debug)]
    enum Part {
        Keep(usize),
        LeaveOut(usize),
        Insert(Vec<u8>),
    }

    fn part() -> impl Strategy<Value = Part> {
        let other = prop::sample::select(vec![&b"tenant=team-a"[..], b"x", b"", b"another text"]);
        prop_oneof![
            4 => (0usize..200).prop_map(Part::Keep),
            2 => (0usize..90).prop_map(Part::LeaveOut),
            1 => other.prop_map(|text| Part::Insert(text.to_vec())),
        ]
    }

    /// Elements of a body, after its header.
    fn elements(body: &[u8]) -> &[u8] {
        let mut pos = 0;
        wire::varint(body, &mut pos).unwrap();
        &body[pos..]
    }

    fn splice(body: &[u8], text: &[u8], parts: &[Part]) -> (Vec<u8>, Bytes) {
        let source = Source {
            elements: elements(body),
            text,
        };
        let mut splice = Splice::default();
        splice.restart(text.len());
        let (mut expected, mut at) = (Vec::new(), 0);
        for part in parts {
            match part {
                Part::Keep(len) => {
                    let end = text.len().min(at + len);
                    splice.keep(source, at, end);
                    expected.extend_from_slice(&text[at..end]);
                    at = end;
                }
                Part::LeaveOut(len) => at = text.len().min(at + len),
                Part::Insert(other) => {
                    splice.insert(other);
                    expected.extend_from_slice(other);
                }
            }
        }
        (expected, splice.finish())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_spliced_body_decompresses_to_the_spliced_text(
            text in text(),
            parts in prop::collection::vec(part(), 0..300),
        ) {
            let body = snap::raw::Encoder::new().compress_vec(&text).unwrap();
            let (expected, spliced) = splice(&body, &text, &parts);
            let decompressed = snap::raw::Decoder::new().decompress_vec(&spliced).unwrap();
            prop_assert_eq!(decompressed, expected);
        }

        #[test]
        fn elements_in_any_spelling_are_spliced(
            spellings in prop::collection::vec((0u8..5, 1usize..70, 1usize..400), 1..60),
            parts in prop::collection::vec(part(), 0..60),
        ) {
            let (mut block, mut text) = (Vec::new(), Vec::new());
            for (number, (kind, len, offset)) in spellings.into_iter().enumerate() {
                let offset = offset.min(text.len());
                match kind {
                    _ if offset == 0 => literal(&mut block, &mut text, number, len),
                    0 | 1 => literal(&mut block, &mut text, number, len * len),
                    2 => {
                        let len = 4 + len % 8;
                        block.extend([(offset >> 8 << 5 | (len - 4) << 2 | 1) as u8, offset as u8]);
                        copy(&mut text, offset, len);
                    }
                    3 => {
                        let len = len.min(64);
                        block.push(((len - 1) << 2 | 2) as u8);
                        block.extend((offset as u16).to_le_bytes());
                        copy(&mut text, offset, len);
                    }
                    _ => {
                        let len = len.min(64);
                        block.push(((len - 1) << 2 | 3) as u8);
                        block.extend((offset as u32).to_le_bytes());
                        copy(&mut text, offset, len);
                    }
                }
            }
            let mut body = Vec::new();
            wire::put_varint(&mut body, text.len() as u64);
            body.extend(block);
            let mut raw = vec![0; declared_len(&body, 1 << 20).unwrap()];
            decompress(&body, &mut raw).unwrap();
            prop_assert_eq!(&raw, &text);
            let (expected, spliced) = splice(&body, &text, &parts);
            let decompressed = snap::raw::Decoder::new().decompress_vec(&spliced).unwrap();
            prop_assert_eq!(decompressed, expected);
        }
    }

    fn literal(block: &mut Vec<u8>, text: &mut Vec<u8>, seed: usize, len: usize) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 31 + seed * 7) as u8).collect();
        match len {
            1..=60 => block.push(((len - 1) << 2) as u8),
            _ => {
                block.push(61 << 2);
                block.extend(((len - 1) as u16).to_le_bytes());
            }
        }
        block.extend(&bytes);
        text.extend(bytes);
    }

    fn copy(text: &mut Vec<u8>, offset: usize, len: usize) {
        for _ in 0..len {
            text.push(text[text.len() - offset]);
        }
    }

    #[test]
    fn text_whose_first_copy_was_left_out_is_still_copied() {
        let unit: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(37)).collect();
        let text = unit.repeat(50);
        let body = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        // Every other repetition is left out.
        let parts = vec![[Part::Keep(100), Part::LeaveOut(100)]; 25].concat();
        let (_, spliced) = splice(&body, &text, &parts);
        assert!(spliced.len() < 400, "{} bytes", spliced.len());
    }
}
