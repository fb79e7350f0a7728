//! Changes the text of a snappy body without compressing it again. What is kept of the text keeps
//! its elements: a literal stays one, and a copy is taken from where its source stands now. So
//! nothing is searched for, whatever the text looks like, and what leaves is compressed as well as
//! what came.
//!
//! The text is spliced from front to back: [`keep`](Splice::keep) takes over a range of the text
//! that arrived, [`insert`](Splice::insert) adds other text, and what is not kept is left out. A
//! list of segments says for the ranges of the text that arrived where the same bytes stand in the
//! output. A copy that was left out has a segment, too: that of its source.

use bytes::Bytes;

use super::{Elements, REACH};

/// Bytes of the arrived text that share an entry into the list of segments.
const BUCKET: usize = 32;
/// A shorter copy is no shorter than a literal.
const SHORTEST_COPY: usize = 4;
/// Inserted texts that are remembered, to be copied when they are inserted again.
const REMEMBERED: usize = 512;

/// A body and its text. The body has been decompressed to that text before, so it is sound.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The elements, behind the header.
    pub(crate) elements: &'a [u8],
    pub(crate) text: &'a [u8],
}

/// A range of the arrived text whose bytes stand at `out` in the output.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u32,
    end: u32,
    out: u32,
}

/// An element of the arrived body: what it yields, and from how far back, or 0 for a literal.
#[derive(Clone, Copy, Debug, Default)]
struct Element {
    end: usize,
    offset: usize,
}

/// What a tag says of its element.
#[derive(Clone, Copy)]
struct Form {
    /// Which of the two bytes behind the tag are the offset of a copy.
    mask: u16,
    /// The upper bits of the offset, if the tag holds them.
    high: u16,
    len: u8,
    /// The length of the element; 0 for the rare ones that the tag alone does not describe.
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

/// A text that was inserted: where it is kept, and where it stands in the output.
#[derive(Clone, Copy, Debug, Default)]
struct Inserted {
    start: u32,
    len: u32,
    position: u32,
}

/// A compressed body that is put together of parts of another one.
#[derive(Default)]
pub(crate) struct Splice {
    pub(crate) out: Elements,
    segments: Vec<Segment>,
    /// For each bucket of the arrived text, the first segment that ends behind its start.
    buckets: Vec<u32>,
    /// Where the next element of the source begins.
    next: usize,
    element: Element,
    /// Up to where the arrived text has been kept or left out.
    at: usize,
    /// By hash.
    remembered: Vec<Inserted>,
    inserted: Vec<u8>,
}

impl Splice {
    /// Forgets what was written.
    pub(crate) fn restart(&mut self) {
        self.out.restart();
        self.segments.clear();
        self.buckets.clear();
        self.inserted.clear();
        self.remembered.clear();
        self.remembered.resize(REMEMBERED, Inserted::default());
        (self.next, self.at, self.element) = (0, 0, Element::default());
    }

    /// Up to where the arrived text has been kept or left out; what comes before can be inserted
    /// only.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Takes over a range of the arrived text, which begins at [`at`](Self::at) or later.
    #[inline(always)]
    pub(crate) fn keep(&mut self, source: Source<'_>, start: usize, end: usize) {
        if start < end {
            self.leave_out(source, start);
            self.map(start, end, self.out.position());
            self.take(source, start, end);
            self.at = end;
        }
    }

    /// From how far back the arrived text is copied at a place, which is [`at`](Self::at) or behind
    /// it; 0 if it is a literal there.
    #[inline(always)]
    pub(crate) fn copied_from(&mut self, source: Source<'_>, place: usize) -> usize {
        self.leave_out(source, place);
        self.at = self.at.max(place);
        if self.element.end <= place {
            self.read(source);
        }
        self.element.offset
    }

    /// Adds a text that has not arrived.
    pub(crate) fn insert(&mut self, text: &[u8]) {
        if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
            let mixed = u64::from_le_bytes(*head).rotate_left(23) ^ u64::from_le_bytes(*tail);
            let hash = mixed.wrapping_add(text.len() as u64).wrapping_mul(HASH);
            let place = &mut self.remembered[(hash >> (64 - REMEMBERED.ilog2())) as usize];
            let position = self.out.position();
            let known = &self.inserted[place.start as usize..][..place.len as usize];
            if known == text {
                let back = position - place.position as usize;
                place.position = position as u32;
                if back <= REACH {
                    return self.out.copy(back, text.len());
                }
            } else {
                *place = Inserted {
                    start: self.inserted.len() as u32,
                    len: text.len() as u32,
                    position: position as u32,
                };
                self.inserted.extend_from_slice(text);
            }
        }
        self.out.first_of(text, text.len());
    }

    /// The compressed body.
    pub(crate) fn finish(&mut self) -> Bytes {
        if self.inserted.capacity() > KEPT {
            self.inserted = Vec::new();
        }
        if self.segments.capacity() * size_of::<Segment>() > KEPT {
            (self.segments, self.buckets) = (Vec::new(), Vec::new());
        }
        self.out.finish()
    }

    /// Passes over the arrived text up to a place.
    #[inline(always)]
    fn leave_out(&mut self, source: Source<'_>, to: usize) {
        let mut at = self.at;
        while at < to {
            if self.element.end <= at {
                self.read(source);
            }
            let end = self.element.end.min(to);
            let offset = self.element.offset;
            // The same bytes may stand in the output all the same, where they were copied from.
            while offset > 0 && at < end {
                let (found, len) = self.find(at - offset, end - at);
                if let Some(out) = found
                    && len >= SHORTEST_COPY
                {
                    self.map(at, at + len, out);
                }
                at += len;
            }
            at = end;
        }
    }

    /// Writes the elements of a range.
    #[inline(always)]
    fn take(&mut self, source: Source<'_>, start: usize, end: usize) {
        let mut at = start;
        loop {
            if self.element.end <= at {
                self.read(source);
            }
            let stop = self.element.end.min(end);
            let offset = self.element.offset;
            if offset == 0 {
                self.out.first_of(&source.text[at..], stop - at);
                at = stop;
            }
            while at < stop {
                let (found, len) = self.find(at - offset, stop - at);
                let back = found.map_or(usize::MAX, |out| self.out.position() - out);
                if back <= REACH && (len >= SHORTEST_COPY || self.out.copies_from(back)) {
                    self.out.copy(back, len);
                } else {
                    self.out.first_of(&source.text[at..], len);
                }
                at += len;
            }
            if at >= end {
                return;
            }
        }
    }

    /// Reads the next element.
    #[inline(always)]
    fn read(&mut self, source: Source<'_>) {
        let rest = source.elements.get(self.next..).unwrap_or_default();
        let start = self.element.end;
        // Copies and literals take the same path: which one comes next cannot be predicted.
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

    /// A long literal, a copy from far away, or one of the last elements. What cannot be read is
    /// taken for a literal up to the end: the body is sound, so there is no such thing.
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

    /// Where the bytes from a place on stand in the output, if they do, and for how many of at most
    /// so many bytes that holds.
    #[inline(always)]
    fn find(&self, from: usize, most: usize) -> (Option<usize>, usize) {
        let Some(&bucket) = self.buckets.get(from / BUCKET) else {
            return (None, most);
        };
        let segments = self.segments.get(bucket as usize..).unwrap_or_default();
        let Some(segment) = segments.iter().find(|segment| segment.end as usize > from) else {
            return (None, most);
        };
        match from.checked_sub(segment.start as usize) {
            Some(within) => {
                let len = most.min(segment.end as usize - from);
                (Some(segment.out as usize + within), len)
            }
            None => (None, most.min(segment.start as usize - from)),
        }
    }

    /// Notes where a range of the arrived text stands in the output; it lies behind all others.
    #[inline(always)]
    fn map(&mut self, start: usize, end: usize, out: usize) {
        let new = Segment {
            start: start as u32,
            end: end as u32,
            out: out as u32,
        };
        match self.segments.last_mut() {
            Some(last)
                if last.end == new.start && last.out + (last.end - last.start) == new.out =>
            {
                last.end = new.end;
            }
            _ => self.segments.push(new),
        }
        let number = self.segments.len() as u32 - 1;
        while self.buckets.len() * BUCKET < end {
            self.buckets.push(number);
        }
    }
}

/// An odd number whose bits are as good as random.
const HASH: u64 = 0x9e37_79b9_7f4a_7c15;

/// Larger lists are not kept for the next body, in bytes.
const KEPT: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{declared_len, decompress};
    use super::*;
    use crate::wire;

    /// Text that repeats itself from near and far, as compressors like it.
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

    /// The elements of a body, behind its header.
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
        splice.restart();
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
        // Every other repetition goes.
        let parts = vec![[Part::Keep(100), Part::LeaveOut(100)]; 25].concat();
        let (_, spliced) = splice(&body, &text, &parts);
        assert!(spliced.len() < 400, "{} bytes", spliced.len());
    }
}
