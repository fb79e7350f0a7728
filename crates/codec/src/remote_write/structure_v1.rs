//! Compresses the series of a 1.0 arena by their structure.
//!
//! A general compressor hashes every few bytes to find earlier occurrences. Here they are known
//! beforehand: most labels of a series occurred in the previous series, in the same order, and many
//! others in one not far back. The decoder has marked the labels that repeat the previous series;
//! others are compared as a whole with their last occurrence. Both are written as copies, without
//! ever assembling the uncompressed bytes.

use std::ops::Range;

use super::encode_v1::put_label;
use crate::snappy::{Elements, REACH};
use crate::wire::{LEN, common_prefix, tag};
use crate::{Arena, Label, Series, Span, name_head, name_head_within};

/// Labels remembered beside those of the previous series.
const REMEMBERED: usize = 1024;
/// Bytes that a copy which interrupts a literal must save at least, to be worth its tags.
const WORTHWHILE: usize = 6;
/// Length from which the fields after the labels are searched for repetitions: one or two samples
/// have none worth it.
const LONG: usize = 128;

/// A compressed body, written series by series.
#[derive(Default)]
pub(super) struct Structure {
    pub(super) out: Elements,
    /// By hash of a label, where it was written last.
    remembered: Vec<Place>,
    before: Written,
}

/// Position of a written text.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Start in the arena's text.
    start: u32,
    len: u32,
    /// Position in the uncompressed output.
    position: u32,
}

/// A written series.
#[derive(Debug, Default)]
struct Written {
    /// Indexes of its labels in the arena, and the position of the first in the output; the others
    /// follow.
    labels: Range<usize>,
    labels_position: usize,
    /// Tag and length as a number, and the positions of this header and of the fields after the
    /// labels.
    header: u64,
    header_position: usize,
    rest: Span,
    rest_position: usize,
}

/// Labels of the previous series that are expected next, and the position of the first in the
/// output.
#[derive(Clone, Copy)]
struct Twins<'a> {
    labels: &'a [Label],
    position: usize,
}

impl Twins<'_> {
    /// Moves past `count` labels of `bytes` bytes.
    #[inline(always)]
    fn pass(&mut self, count: usize, bytes: usize) {
        self.labels = &self.labels[count..];
        self.position += bytes;
    }

    /// Moves past the labels that sort before this one or have its name.
    #[inline(never)]
    fn realign(&mut self, text: Text<'_>, label: Label) {
        let own = text.head(label);
        while let [twin, ..] = *self.labels {
            let head = text.head(twin);
            if head <= own {
                self.pass(1, twin.entry_len());
            }
            if head >= own {
                return;
            }
        }
    }
}

/// The arena's text, in its two parts.
#[derive(Clone, Copy)]
struct Text<'a> {
    raw: &'a [u8],
    extra: &'a [u8],
}

impl<'a> Text<'a> {
    fn of(arena: &'a Arena) -> Self {
        Self {
            raw: arena.raw.as_slice(),
            extra: &arena.extra,
        }
    }

    /// The text from a position to the end of its part.
    #[inline(always)]
    fn from(self, start: u32) -> &'a [u8] {
        let start = start as usize;
        match self.raw.get(start..) {
            Some(text) if start < self.raw.len() => text,
            _ => &self.extra[start - self.raw.len()..],
        }
    }

    #[inline(always)]
    fn range(self, start: u32, len: u32) -> &'a [u8] {
        &self.from(start)[..len as usize]
    }

    /// First bytes of a label's name, as a number that sorts like the name.
    #[inline(always)]
    fn head(self, label: Label) -> u64 {
        let name = label.name();
        let (rest, len) = (self.from(name.start), name.len as usize);
        name_head_within(rest, len).unwrap_or_else(|| name_head(&rest[..len]))
    }
}

impl Structure {
    /// Clears the output.
    pub(super) fn restart(&mut self) {
        self.out.restart();
        self.remembered.clear();
        self.remembered.resize(REMEMBERED, Place::default());
        self.before = Written::default();
    }

    /// Writes the series that are not dropped.
    pub(super) fn series(&mut self, arena: &Arena) {
        let text = Text::of(arena);
        for series in arena.series.iter().filter(|series| !series.dropped) {
            self.one(text, &arena.labels, series);
        }
    }

    #[inline(always)]
    fn one(&mut self, text: Text<'_>, labels: &[Label], series: &Series) {
        self.labels(text, labels, series, series.rest.len as usize);
        self.rest(text, series.rest);
    }

    /// Writes the labels of each series that is not dropped; `rest` writes the fields after them,
    /// which take `len` bytes.
    pub(super) fn labels_with(
        &mut self,
        arena: &Arena,
        len: usize,
        mut rest: impl FnMut(&mut Elements),
    ) {
        let text = Text::of(arena);
        for series in arena.series.iter().filter(|series| !series.dropped) {
            self.labels(text, &arena.labels, series, len);
            rest(&mut self.out);
        }
    }

    /// Writes the header and the labels of a series whose fields after the labels take `rest` bytes.
    #[inline(always)]
    fn labels(&mut self, text: Text<'_>, labels: &[Label], series: &Series, rest: usize) {
        self.header(series.labels_bytes as usize + rest);
        let range = series.labels as usize..(series.labels + series.labels_len) as usize;
        let position = self.out.position();
        let mut left = &labels[range.clone()];
        let mut twins = Twins {
            labels: &labels[self.before.labels.clone()],
            position: self.before.labels_position,
        };
        loop {
            let offset = self.out.position() - twins.position;
            if offset <= REACH {
                let (count, bytes) = repeats(left, twins.labels);
                if count > 0 {
                    self.out.copy(offset, bytes);
                    left = &left[count..];
                    twins.pass(count, bytes);
                }
            }
            let [label, behind @ ..] = left else {
                break;
            };
            self.other(text, *label, &mut twins);
            left = behind;
        }
        self.before.labels = range;
        self.before.labels_position = position;
    }

    #[inline(always)]
    fn header(&mut self, len: usize) {
        let (header, size) = header(len);
        let position = self.out.position();
        let before = &mut self.before;
        let mut common = 0;
        if self.out.copies_from(position - before.header_position) {
            // If both series ended alike, the bytes that followed the previous one repeat here.
            common = size.min((header ^ before.header).trailing_zeros() as usize / 8);
            self.out.copy(position - before.header_position, common);
        }
        let left = u128::from(header >> (8 * common));
        self.out.first_of(&left.to_le_bytes(), size - common);
        (before.header, before.header_position) = (header, position);
    }

    /// Writes a label that is not known to repeat the previous series.
    #[inline(always)]
    fn other(&mut self, text: Text<'_>, label: Label, twins: &mut Twins<'_>) {
        let Some((start, len)) = label.entry_place() else {
            return self.compose(text, label, twins);
        };
        let (position, offset) = (self.out.position(), self.out.position() - twins.position);
        let (tail, len) = (text.from(start), len as usize);
        // The expected label is compared from its third byte on: if the values differ in length, so
        // does the second.
        let (mut alike, mut shift) = (0, 2);
        let twin = twins.labels.first().and_then(|twin| twin.entry_place());
        let name = label.name().start - start + label.name().len;
        match twin {
            Some((twin_start, twin_len)) if offset <= REACH => {
                let twin_text = text.from(twin_start);
                if let ([_, second, own @ ..], [_, twin_second, twin @ ..]) = (tail, twin_text) {
                    // The bytes after the twin here need not follow it in the output.
                    alike = common_prefix(own, twin, len.min(twin_len as usize) - 2);
                    if second == twin_second {
                        (alike, shift) = (alike + 2, 0);
                    }
                }
                if alike + shift >= name as usize {
                    twins.pass(1, twin_len as usize);
                } else {
                    twins.realign(text, label);
                }
            }
            _ => twins.realign(text, label),
        }
        if alike == len {
            return self.out.copy(offset, len);
        }
        let entry = &tail[..len];
        let place = &mut self.remembered[slot(entry)];
        let old = std::mem::replace(
            place,
            Place {
                start,
                len: len as u32,
                position: position as u32,
            },
        );
        let back = position - old.position as usize;
        if old.len as usize == len && back <= REACH && equal(text.range(old.start, old.len), entry)
        {
            return self.out.copy(back, len);
        }
        let mut written = 0;
        if alike >= WORTHWHILE || shift == 0 && self.out.copies_from(offset) {
            self.out.first_of(tail, shift);
            self.out.copy(offset, alike);
            written = shift + alike;
        }
        self.out.first_of(&tail[written..], len - written);
    }

    /// Writes the fields after the labels: mostly one sample, whose timestamp ends in the same
    /// bytes as its neighbour's.
    #[inline(always)]
    fn rest(&mut self, text: Text<'_>, span: Span) {
        let position = self.out.position();
        let (mut rest, mut len) = (text.from(span.start), span.len);
        let before = &self.before;
        let offset = position - before.rest_position;
        let other = text.range(before.rest.start, before.rest.len);
        let common = common_prefix(rest, other, len.min(before.rest.len) as usize) as u32;
        if offset <= REACH
            && (common as usize >= WORTHWHILE || self.out.copies_from(offset) && common > 0)
        {
            self.out.copy(offset, common as usize);
            rest = &rest[common as usize..];
            len -= common;
        }
        // Aligns both at their ends.
        let offset = offset + span.len as usize - other.len();
        let other = &other[other.len() - (len as usize).min(other.len())..];
        let common = common_suffix(&rest[..len as usize], other);
        if common >= WORTHWHILE - 2 && offset <= REACH {
            self.out.first_of(rest, len as usize - common);
            self.out.copy(offset, common);
            len = 0;
        }
        if (len as usize) < LONG {
            self.out.first_of(rest, len as usize);
        } else {
            self.out.search(&rest[..len as usize]);
        }
        (self.before.rest, self.before.rest_position) = (span, position);
    }

    /// Writes a label that has no entry in the text.
    #[cold]
    fn compose(&mut self, text: Text<'_>, label: Label, twins: &mut Twins<'_>) {
        twins.realign(text, label);
        let (name, value) = (label.name(), label.value());
        let mut entry = Vec::new();
        let name = text.range(name.start, name.len);
        let value = text.range(value.start, value.len);
        put_label(name, value, &mut entry);
        self.out.first_of(&entry, entry.len());
    }
}

/// Tag and length of a series, first byte lowest, and the number of their bytes. Assembled in a
/// register: bytes stored one by one are slow to load as one number.
#[inline(always)]
pub(super) fn header(len: usize) -> (u64, usize) {
    let (mut header, mut size) = (u64::from(tag(1, LEN)), 1);
    let mut left = len as u64;
    while left >= 0x80 && size < 6 {
        header |= (left & 0x7f | 0x80) << (8 * size);
        left >>= 7;
        size += 1;
    }
    (header | left << (8 * size), size + 1)
}

/// Number of leading labels that are known, one by one, to repeat the previous series, and the
/// bytes of their entries.
#[inline(always)]
fn repeats(labels: &[Label], before: &[Label]) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    for (label, twin) in labels.iter().zip(before) {
        if !label.repeats(*twin) {
            break;
        }
        count += 1;
        bytes += label.entry_len();
    }
    (count, bytes)
}

/// Compares slices 8 bytes at a time; an entry has at least 8.
#[inline(always)]
fn equal(a: &[u8], b: &[u8]) -> bool {
    let (Some(a_tail), Some(b_tail)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return a == b;
    };
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let differs = |a: &[u8; 8], b: &[u8; 8]| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
    a.len() == b.len()
        && differs(a_tail, b_tail) == 0
        && words.fold(0, |seen, (a, b)| seen | differs(a, b)) == 0
}

/// Slot in which a label with this entry is remembered.
#[inline(always)]
fn slot(entry: &[u8]) -> usize {
    let word = |start: usize| {
        let chunk = entry.get(start..).and_then(|rest| rest.first_chunk::<8>());
        chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk))
    };
    // The end of a value mostly distinguishes it from others; so does its middle.
    let mixed = word(0)
        ^ word(entry.len() / 2).rotate_left(21)
        ^ word(entry.len().saturating_sub(8)).rotate_left(42);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - REMEMBERED.ilog2())) as usize
}

/// Length of the common suffix, counted up to 8 bytes; 0 if a slice is shorter than that.
#[inline(always)]
fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let (Some(a), Some(b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return 0;
    };
    let differs = u64::from_be_bytes(*a) ^ u64::from_be_bytes(*b);
    differs.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn the_header_of_a_series_of_any_length_is_its_tag_and_a_varint() {
        let bounds = [7, 14, 21, 28, 31].map(|bits| 1 << bits);
        let lengths = bounds.iter().flat_map(|bound| bound - 2..bound + 2);
        for len in lengths.chain(0..300) {
            let mut expected = vec![tag(1, LEN)];
            wire::put_varint(&mut expected, len as u64);
            let (header, size) = header(len);
            assert_eq!(header.to_le_bytes()[..size], expected, "{len}");
        }
    }
}
