//! Encodes and compresses a 1.0 arena in one step, by what is known of its structure.
//!
//! A general compressor hashes every few bytes to find where they stood before. Here it is known
//! beforehand: most labels of a series stood in the series before, in the same order, and nearly
//! all others in one that is not far back. So a label is compared with those places, whole, and
//! written as a copy from there; uncompressed bytes are never put together. It takes less than
//! half the time, and what it writes is as short.

use std::cell::RefCell;
use std::ops::Range;

use bytes::Bytes;

use crate::protocol::snappy::{Elements, REACH};
use crate::protocol::wire::{self, LEN, put_bytes, tag};
use crate::signal::{Arena, Label, Series, Span, name_head};

/// Labels that are remembered beside those of the series before.
const REMEMBERED: usize = 2048;
/// A copy that interrupts a literal has to save at least so many bytes to be worth its tags.
const WORTHWHILE: usize = 6;

/// What stands behind the labels is searched for repetitions from this size on: a sample or two
/// have none that is worth it.
const LONG: usize = 128;

thread_local! {
    static WRITER: RefCell<Option<Box<Writer>>> = const { RefCell::new(None) };
}

/// Encodes and compresses an arena of 1.0.
pub(super) fn encode(arena: &Arena) -> Bytes {
    Writer::write(|writer| {
        writer.series(arena);
        for &span in &arena.metadata {
            writer.text(arena.text(span));
        }
    })
}

/// Writes series, a few at a time or all at once.
#[derive(Default)]
pub(super) struct Writer {
    out: Elements,
    /// By hash, where a label was written last.
    remembered: Vec<Place>,
    before: Written,
    now: Written,
}

/// Where a label was written.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Its entry, in the arena's text.
    start: u32,
    end: u32,
    /// In the output, uncompressed.
    position: u32,
}

/// A series that was written.
#[derive(Debug, Default)]
struct Written {
    /// Its labels in the arena.
    labels: Range<usize>,
    runs: Vec<Run>,
    rest: Span,
    rest_position: usize,
}

impl Written {
    fn forget(&mut self) {
        self.labels = 0..0;
        self.runs.clear();
        self.rest = Span::default();
    }
}

/// Labels of a series whose entries stand next to each other in the arena's text.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// Their indexes in the arena.
    labels: (u32, u32),
    /// Where the entries stand in the text, and where in the output.
    start: u32,
    end: u32,
    position: u32,
}

/// The label of the series before that is expected next.
#[derive(Clone, Copy)]
struct Twin {
    /// The run that it is in, and that run's number.
    run: Run,
    number: usize,
    label: u32,
    /// Where its entry stands in the text.
    start: u32,
}

impl Twin {
    /// The first label of a run.
    #[inline(always)]
    fn first(runs: &[Run], number: usize) -> Self {
        let run = runs.get(number).copied().unwrap_or_default();
        Self {
            run,
            number,
            label: run.labels.0,
            start: run.start,
        }
    }

    /// Whether there is such a label.
    #[inline(always)]
    fn is_there(&self) -> bool {
        self.label < self.run.labels.1
    }

    /// Goes on behind so many labels of its run.
    #[inline(always)]
    fn pass(&mut self, runs: &[Run], labels: &[Label], count: usize) {
        self.label += count as u32;
        if self.is_there() {
            self.start = labels[self.label as usize - 1].end();
        } else {
            *self = Self::first(runs, self.number + 1);
        }
    }

    /// Goes on behind the label that has the name of this one, or would stand before it.
    #[inline(always)]
    fn realign(&mut self, runs: &[Run], text: Text<'_>, labels: &[Label], label: Label) {
        let own = text.head(label);
        while self.is_there() {
            let other = text.head(labels[self.label as usize]);
            if other > own {
                return;
            }
            self.pass(runs, labels, 1);
            if other == own {
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
    /// From a place to the end of its part.
    #[inline(always)]
    fn from(self, start: u32) -> &'a [u8] {
        let start = start as usize;
        match self.raw.get(start..) {
            Some(text) if start < self.raw.len() => text,
            _ => &self.extra[start - self.raw.len()..],
        }
    }

    #[inline(always)]
    fn range(self, start: u32, end: u32) -> &'a [u8] {
        &self.from(start)[..(end - start) as usize]
    }

    /// The first bytes of a label's name as a number that sorts as they do.
    #[inline(always)]
    fn head(self, label: Label) -> u64 {
        let name = label.name();
        name_head(self.range(name.start, name.start + name.len))
    }
}

impl Writer {
    /// Runs `write` with this thread's writer; returns the compressed body.
    pub(super) fn write(write: impl FnOnce(&mut Self)) -> Bytes {
        let mut writer = Self::take();
        write(&mut writer);
        writer.finish()
    }

    /// This thread's writer, which has written nothing yet.
    pub(super) fn take() -> Box<Self> {
        let mut writer = WRITER.take().unwrap_or_default();
        writer.out.restart();
        writer.remembered.clear();
        writer.remembered.resize(REMEMBERED, Place::default());
        writer.before.forget();
        writer
    }

    /// The compressed body.
    pub(super) fn finish(mut self: Box<Self>) -> Bytes {
        let body = self.out.finish();
        WRITER.set(Some(self));
        body
    }

    /// Writes fields as they are.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.out.search(text);
    }

    /// Writes the series that are not dropped.
    pub(super) fn series(&mut self, arena: &Arena) {
        let text = Text {
            raw: arena.raw.as_slice(),
            extra: &arena.extra,
        };
        for series in arena.series.iter().filter(|series| !series.dropped) {
            self.one(text, &arena.labels, series);
        }
    }

    /// Removes all series from the arena, but for what the next ones are compared with.
    pub(super) fn make_room(&mut self, arena: &mut Arena) {
        let kept = self.before.labels.clone();
        arena.labels.copy_within(kept.clone(), 0);
        arena.labels.truncate(kept.len());
        arena.series.clear();
        self.before.labels = 0..kept.len();
        for run in &mut self.before.runs {
            run.labels.0 -= kept.start as u32;
            run.labels.1 -= kept.start as u32;
        }
    }

    #[inline(always)]
    fn one(&mut self, text: Text<'_>, labels: &[Label], series: &Series) {
        self.header(series.labels_bytes as usize + series.rest.len as usize);
        self.now.runs.clear();
        let mut twin = Twin::first(&self.before.runs, 0);
        let end = (series.labels + series.labels_len) as usize;
        let mut label = series.labels as usize;
        self.now.labels = label..end;
        while label < end {
            match run(text, labels, label, end) {
                Some(mut run) => {
                    run.position = self.out.position() as u32;
                    label = run.labels.1 as usize;
                    self.run(text, labels, run, &mut twin);
                    self.now.runs.push(run);
                }
                None => {
                    self.compose(text, labels[label]);
                    label += 1;
                }
            }
        }
        self.rest(text, series.rest);
        std::mem::swap(&mut self.now, &mut self.before);
    }

    #[inline(always)]
    fn header(&mut self, len: usize) {
        let mut header = [0; 16];
        header[0] = tag(1, LEN);
        let mut left = len;
        let mut end = 1;
        while left >= 0x80 && end < 10 {
            header[end] = left as u8 | 0x80;
            left >>= 7;
            end += 1;
        }
        header[end] = left as u8;
        self.out.first_of(&header, end + 1);
    }

    /// Writes labels that stand next to each other.
    #[inline(always)]
    fn run(&mut self, text: Text<'_>, labels: &[Label], run: Run, twin: &mut Twin) {
        let (mut label, last) = (run.labels.0 as usize, run.labels.1 as usize);
        let mut start = run.start;
        while label < last {
            // What is as in the series before, as far as it goes.
            let (mut alike, mut offset) = (0, usize::MAX);
            if twin.is_there() {
                let other = twin.run.position + twin.start - twin.run.start;
                offset = self.out.position() - other as usize;
                if offset <= REACH {
                    let most = (run.end - start).min(twin.run.end - twin.start);
                    alike = if twin.start == start {
                        // A label that a transform appended once for all series.
                        most
                    } else {
                        common_prefix(text.from(start), text.from(twin.start), most)
                    };
                }
            }
            let reach = start + alike;
            let (first, mut whole) = (label, start);
            for next in &labels[label..last] {
                if next.end() > reach {
                    break;
                }
                whole = next.end();
                label += 1;
            }
            if whole > start {
                self.out.copy(offset, (whole - start) as usize);
                twin.pass(&self.before.runs, labels, label - first);
                start = whole;
                if reach == whole {
                    continue;
                }
            }
            let end = labels[label].end();
            self.other(text, (start, end), reach - start, offset, twin.start);
            twin.realign(&self.before.runs, text, labels, labels[label]);
            label += 1;
            start = end;
        }
    }

    /// Writes a label that is not as in the series before, but for its first bytes.
    #[inline(always)]
    fn other(
        &mut self,
        text: Text<'_>,
        (start, end): (u32, u32),
        alike: u32,
        offset: usize,
        twin: u32,
    ) {
        let position = self.out.position();
        let tail = text.from(start);
        let len = (end - start) as usize;
        let entry = &tail[..len];
        let place = &mut self.remembered[slot(entry)];
        let old = std::mem::replace(
            place,
            Place {
                start,
                end,
                position: position as u32,
            },
        );
        let back = position - old.position as usize;
        if old.end - old.start == end - start
            && back <= REACH
            && equal(text.range(old.start, old.end), entry)
        {
            self.out.copy(back, len);
            return;
        }
        let alike = alike as usize;
        if alike >= WORTHWHILE || alike > 0 && self.out.copies_from(offset) {
            self.out.copy(offset, alike);
            self.out.first_of(&tail[alike..], len - alike);
            return;
        }
        if offset <= REACH {
            // A value of another length: only the length behind the tag differs at first.
            let common = match text.from(twin).get(2..) {
                Some(twin) => common_prefix(&tail[2..], twin, end - start - 2) as usize,
                None => 0,
            };
            if common >= WORTHWHILE {
                self.out.first_of(tail, 2);
                self.out.copy(offset, common);
                self.out.first_of(&tail[2 + common..], len - 2 - common);
                return;
            }
        }
        self.out.first_of(tail, len);
    }

    /// Writes what stands behind the labels: a sample, mostly, the last bytes of whose timestamp
    /// are those of its neighbour's.
    #[inline(always)]
    fn rest(&mut self, text: Text<'_>, span: Span) {
        let position = self.out.position();
        let (mut rest, mut len) = (text.from(span.start), span.len);
        let before = &self.before;
        let offset = position.saturating_sub(before.rest_position);
        if before.rest.len == span.len && offset <= REACH {
            let mut other = text.from(before.rest.start);
            if self.out.copies_from(offset) {
                let common = common_prefix(rest, other, len);
                if common > 0 {
                    self.out.copy(offset, common as usize);
                }
                (rest, other) = (&rest[common as usize..], &other[common as usize..]);
                len -= common;
            }
            let common = common_suffix(&rest[..len as usize], &other[..len as usize]);
            if common >= WORTHWHILE - 2 {
                self.out.first_of(rest, len as usize - common);
                self.out.copy(offset, common);
                len = 0;
            }
        }
        if (len as usize) < LONG {
            self.out.first_of(rest, len as usize);
        } else {
            self.out.search(&rest[..len as usize]);
        }
        self.now.rest = span;
        self.now.rest_position = position;
    }

    /// Writes a label whose entry stands nowhere in the text.
    #[cold]
    fn compose(&mut self, text: Text<'_>, label: Label) {
        let (name, value) = (label.name(), label.value());
        let mut entry = vec![tag(1, LEN)];
        wire::put_varint(&mut entry, label.message_len() as u64);
        put_bytes(&mut entry, 1, text.range(name.start, name.start + name.len));
        put_bytes(
            &mut entry,
            2,
            text.range(value.start, value.start + value.len),
        );
        self.out.literal(&entry);
    }
}

/// The labels from one on that stand next to each other; none if the first has no entry.
#[inline(always)]
fn run(text: Text<'_>, labels: &[Label], first: usize, last: usize) -> Option<Run> {
    let labels = &labels[first..last];
    let (start, mut end) = labels.first()?.entry_span()?;
    let border = text.raw.len();
    let mut count = 1;
    for label in &labels[1..] {
        if label.follows(end) && end != border {
            end = label.end() as usize;
        } else {
            break;
        }
        count += 1;
    }
    Some(Run {
        labels: (first as u32, (first + count) as u32),
        start: start as u32,
        end: end as u32,
        position: 0,
    })
}

/// Compares slices of one length, 8 bytes at a time; an entry has at least 8.
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

/// Where a label with this entry is remembered.
#[inline(always)]
fn slot(entry: &[u8]) -> usize {
    let word = |start: usize| {
        let chunk = entry.get(start..).and_then(|rest| rest.first_chunk::<8>());
        chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk))
    };
    // The ends of a value mostly tell it from others; so does its middle.
    let mixed = word(0)
        ^ word(entry.len() / 2).rotate_left(21)
        ^ word(entry.len().saturating_sub(8)).rotate_left(42);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - REMEMBERED.ilog2())) as usize
}

/// Of at most so many bytes, which both have.
#[inline(always)]
fn common_prefix(a: &[u8], b: &[u8], most: u32) -> u32 {
    let mut len = 0;
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        let differs = u128::from_le_bytes(*a) ^ u128::from_le_bytes(*b);
        if differs != 0 {
            return most.min(len + differs.trailing_zeros() / 8);
        }
        len += 16;
        if len >= most {
            return most;
        }
    }
    let tail = a[len as usize..].iter().zip(&b[len as usize..]);
    most.min(len + tail.take_while(|(a, b)| a == b).count() as u32)
}

/// Of at most the last 8 bytes.
#[inline(always)]
fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let (Some(a), Some(b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return 0;
    };
    let differs = u64::from_be_bytes(*a) ^ u64::from_be_bytes(*b);
    differs.trailing_zeros() as usize / 8
}
