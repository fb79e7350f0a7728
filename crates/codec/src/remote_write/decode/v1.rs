//! The walk over a 1.0 message.

use metrifold_model::SeriesCounts;

use crate::wire::{Fields, LEN, Parts, WireError, common_prefix, tag};
use crate::{Arena, Label, Series, Span, name_head, wire};

use super::{Decoder, Limits, ROOM, Reason, is_ascii, is_utf8};

const LABEL: u8 = tag(1, LEN);
const SAMPLE: u8 = tag(2, LEN);
const EXEMPLAR: u8 = tag(3, LEN);
const HISTOGRAM: u8 = tag(4, LEN);

impl Decoder<'_> {
    /// Walks a 1.0 message; `then` is called after each series, and may remove it from the arena.
    pub(in super::super) fn v1(
        &mut self,
        mut then: impl FnMut(&mut Arena),
    ) -> Result<(), WireError> {
        const SERIES: u8 = tag(1, LEN);
        const METADATA: u8 = tag(3, LEN);
        let buf = self.buf;
        let mut pos = 0;
        let mut left = self.limits.series;
        while pos < buf.len() {
            let start = pos;
            match buf[pos] {
                SERIES => {
                    left = left
                        .checked_sub(1)
                        .ok_or(WireError::TooMany(Parts::Series))?;
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    self.v1_series(start, pos, end)?;
                    self.check_written()?;
                    then(&mut self.arena);
                    pos = end;
                }
                METADATA => {
                    if self.arena.metadata.len() >= self.limits.series {
                        return Err(WireError::TooMany(Parts::Metadata));
                    }
                    pos += 1;
                    pos = wire::length(buf, &mut pos)?;
                    self.arena.metadata.push(Span::new(start, pos));
                    self.arena.counts.metadata += 1;
                }
                _ => {
                    let key = wire::key(buf, &mut pos)?;
                    wire::skip(buf, &mut pos, (key & 7) as u8)?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn v1_series(&mut self, whole: usize, start: usize, end: usize) -> Result<(), WireError> {
        let (rest, count) = self.found.read(self.buf, self.limits, start, end);
        let named = |label: &Label| is_name(self.buf, *label);
        if let Some(counts) = self.v1_rest(rest, end)
            && self.found.labels[..count].iter().any(named)
        {
            let first = self.arena.labels.len();
            let labels = &self.found.labels[..count + ROOM];
            self.arena.labels.extend_from_slice(labels);
            if is_ascii(&self.buf[start..rest]) || is_utf8(&self.arena, first..first + count) {
                self.arena.count(counts);
                self.write_out(0, counts.exemplars);
                self.arena.series.push(Series {
                    whole: Span::new(whole, end),
                    rest: Span::new(rest, end),
                    labels: first as u32,
                    labels_len: count as u32,
                    labels_room: (count + ROOM) as u32,
                    labels_bytes: (rest - start) as u32,
                    counts,
                    edited: false,
                    dropped: false,
                });
                return Ok(());
            }
            self.arena.labels.truncate(first);
        }
        self.v1_odd_series(whole, start, end)
    }

    /// Counts the fields after the labels of a series, if all of them are common ones.
    #[inline(always)]
    fn v1_rest(&self, rest: usize, end: usize) -> Option<SeriesCounts> {
        let buf = &self.buf[..end];
        let mut counts = SeriesCounts::default();
        let mut pos = rest;
        while pos < end {
            let field = buf[pos];
            match field {
                SAMPLE => counts.samples += 1,
                EXEMPLAR => counts.exemplars += 1,
                HISTOGRAM => counts.histograms += 1,
                _ => return None,
            }
            pos += 1;
            let next = wire::length(buf, &mut pos).ok()?;
            if field == EXEMPLAR && self.exceeded_by(&buf[pos..next]).is_some() {
                return None;
            }
            pos = next;
        }
        Some(counts)
    }

    /// The limit of a series' labels that the labels of an exemplar exceed.
    #[inline(always)]
    fn exceeded_by(&self, exemplar: &[u8]) -> Option<Reason> {
        /// Bytes of the shortest label.
        const SHORTEST: usize = 2;
        let Limits {
            labels,
            name_bytes,
            value_bytes,
            ..
        } = *self.limits;
        // Nearly every exemplar is too short for that.
        let shortest = labels.saturating_mul(SHORTEST);
        match exemplar.len() > shortest.min(name_bytes).min(value_bytes) {
            true => self.exceeded_by_long(exemplar),
            false => None,
        }
    }

    #[cold]
    fn exceeded_by_long(&self, exemplar: &[u8]) -> Option<Reason> {
        let mut count = 0;
        for field in Fields::new(exemplar).map_while(Result::ok) {
            let (1, Ok(label)) = (field.number, field.bytes()) else {
                continue;
            };
            count += 1;
            if count > self.limits.labels {
                return Some(Reason::TooManyLabels);
            }
            for part in Fields::new(label).map_while(Result::ok) {
                let len = part.bytes().map_or(0, <[u8]>::len);
                match part.number {
                    1 if len > self.limits.name_bytes => return Some(Reason::LabelNameTooLong),
                    2 if len > self.limits.value_bytes => return Some(Reason::LabelValueTooLong),
                    _ => {}
                }
            }
        }
        None
    }

    /// Walks a series of any shape.
    #[cold]
    #[inline(never)]
    fn v1_odd_series(&mut self, whole: usize, start: usize, end: usize) -> Result<(), WireError> {
        let buf = &self.buf[..end];
        let mut labels = self.labels();
        let mut counts = SeriesCounts::default();
        let (mut pos, mut rest, mut scattered) = (start, start, false);
        while pos < end {
            match buf[pos] {
                LABEL => {
                    let (label, next) = v1_label(buf, pos)?;
                    self.label(&mut labels, label);
                    scattered |= rest < pos;
                    pos = next;
                    if !scattered {
                        rest = pos;
                    }
                    continue;
                }
                SAMPLE => counts.samples += 1,
                EXEMPLAR => {
                    counts.exemplars += 1;
                    pos += 1;
                    let next = wire::length(buf, &mut pos)?;
                    if let Some(reason) = self.exceeded_by(&buf[pos..next]) {
                        labels.broken = Some(reason);
                    }
                    pos = next;
                    continue;
                }
                HISTOGRAM => counts.histograms += 1,
                _ => {
                    let key = wire::key(buf, &mut pos)?;
                    wire::skip(buf, &mut pos, (key & 7) as u8)?;
                    continue;
                }
            }
            pos += 1;
            pos = wire::length(buf, &mut pos)?;
        }
        let rest = if scattered {
            labels.edited = true;
            self.gather(start, end, 1)?
        } else {
            Span::new(rest, end)
        };
        self.write_out(0, counts.exemplars);
        self.add(labels, false, Span::new(whole, end), rest, counts);
        Ok(())
    }
}

/// Labels as read by [`read`](Self::read).
pub(super) struct Found {
    labels: [Label; AT_ONCE + ROOM],
    /// First bytes of the label names, as numbers that sort like the names.
    heads: [u64; AT_ONCE],
    /// Leading labels that belong to the previous series: the next one mostly has the same.
    known: usize,
}

/// Most labels read by the fast path; longer series take the general one.
const AT_ONCE: usize = 64;

/// Bytes read at once: the longest entry whose lengths take one byte each, rounded up.
const LONGEST: usize = 4 + 127 + 2;

impl Default for Found {
    fn default() -> Self {
        Self {
            labels: [Label::default(); AT_ONCE + ROOM],
            heads: [0; AT_ONCE],
            known: 0,
        }
    }
}

impl Found {
    /// Reads labels as long as they are sorted, within the limits and minimally encoded, which
    /// nearly all are. Returns the position of the first other byte, and the number of labels read.
    /// Kept out of line, with its rare cases out of line too, so that everything it needs stays in
    /// registers.
    #[inline(never)]
    fn read(&mut self, buf: &[u8], limits: &Limits, start: usize, end: usize) -> (usize, usize) {
        let room = limits.labels.min(AT_ONCE);
        let (mut pos, mut last) = (start, 0);
        let mut known = self.known.min(room);
        let mut count = 0;
        while count < room {
            if count < known {
                let (repeated, next) = repeat(buf, &mut self.labels[count..known], pos, end);
                if repeated > 0 {
                    // The repeated labels are sorted among themselves.
                    if self.heads[count] <= last && !ascend(buf, &self.labels[..=count]) {
                        break;
                    }
                    (count, pos) = (count + repeated, next);
                    last = self.heads[count - 1];
                    if count == room {
                        break;
                    }
                }
            }
            let found = short_label(buf, pos, end, limits)
                .or_else(|| long_label(buf, pos, end, limits))
                .or_else(|| any_label(buf, pos, end, limits));
            let Some((label, next, head)) = found else {
                break;
            };
            if count < known && self.labels[count].name().len != label.name().len {
                known = 0; // the previous series has another label here
            }
            (self.labels[count], self.heads[count]) = (label, head);
            if head <= last && !ascend(buf, &self.labels[..=count]) {
                break;
            }
            last = head;
            count += 1;
            pos = next;
        }
        self.known = count;
        (pos, count)
    }
}

/// Reads a label whose lengths take one byte each and that begins well before the end of the
/// buffer; returns also the position after it, and the first bytes of its name as a number that
/// sorts like the name.
#[inline(always)]
fn short_label(buf: &[u8], pos: usize, end: usize, limits: &Limits) -> Option<(Label, usize, u64)> {
    let chunk = buf.get(pos..)?.first_chunk::<LONGEST>()?;
    // Tag and length of the entry, tag and length of the name, the name's first bytes: each read
    // as one number.
    let front = u32::from_le_bytes(*chunk.first_chunk()?);
    let head = u64::from_be_bytes(*chunk[4..].first_chunk()?);
    let (entry, name_len) = ((front >> 8 & 0xff) as usize, (front >> 24 & 0x7f) as usize);
    let middle = u16::from_le_bytes(*chunk[4 + name_len..].first_chunk()?);
    let value_len = usize::from(middle >> 8);
    let next = pos + 2 + entry;
    if front & 0x80ff_80ff != 0x000a_000a
        || middle & 0x80ff != 0x0012
        || name_len + value_len + 4 != entry
        || name_len.wrapping_sub(1) >= limits.name_bytes
        || value_len.wrapping_sub(1) >= limits.value_bytes
        || next > end
    {
        return None;
    }
    // Shifts out the bytes after a shorter name.
    let behind = 64 - 8 * name_len.min(8);
    let label = Label::entry(pos + 4, name_len, value_len);
    Some((label, next, head >> behind << behind))
}

/// The same for a label whose entry has a length of two bytes, as container labels often do.
#[inline(always)]
fn long_label(buf: &[u8], pos: usize, end: usize, limits: &Limits) -> Option<(Label, usize, u64)> {
    let front = u64::from_le_bytes(*buf.get(pos..)?.first_chunk()?);
    let head = u64::from_be_bytes(*buf.get(pos + 5..)?.first_chunk()?);
    let entry = (front >> 8 & 0x7f | front >> 9 & 0x3f80) as usize;
    let name_len = (front >> 32 & 0x7f) as usize;
    let middle = u32::from_le_bytes(*buf.get(pos + 5 + name_len..)?.first_chunk()?);
    let (value_len, size) = match middle & 0x8000 {
        0 => (middle >> 8 & 0x7f, 1),
        _ => (middle >> 8 & 0x7f | middle >> 9 & 0x3f80, 2),
    };
    let value_len = value_len as usize;
    let next = pos + 3 + entry;
    if front & 0x80_ff80_80ff != 0x0a00_800a
        || entry < 0x80
        || middle & 0xff != 0x12
        || size == 2 && (middle & 0x80_0000 != 0 || value_len < 0x80)
        || name_len + value_len + 3 + size != entry
        || name_len.wrapping_sub(1) >= limits.name_bytes
        || value_len.wrapping_sub(1) >= limits.value_bytes
        || next > end
    {
        return None;
    }
    let behind = 64 - 8 * name_len.min(8);
    let label = Label::entry(pos + 5, name_len, value_len);
    Some((label, next, head >> behind << behind))
}

/// The same for any length at any place.
#[cold]
#[inline(never)]
fn any_label(buf: &[u8], pos: usize, end: usize, limits: &Limits) -> Option<(Label, usize, u64)> {
    if pos >= end || buf[pos] != LABEL {
        return None;
    }
    let (label, next) = v1_label(&buf[..end], pos).ok()?;
    let (name, value) = (label.name(), label.value());
    label.entry_place()?;
    let fits = (1..=limits.name_bytes).contains(&(name.len as usize))
        && (1..=limits.value_bytes).contains(&(value.len as usize));
    let name = &buf[name.start as usize..][..name.len as usize];
    fits.then(|| (label, next, name_head(name)))
}

/// Number of these adjacent labels that are repeated at a position, and the position after them.
/// The repeated labels are replaced by those at that position.
#[inline(always)]
fn repeat(buf: &[u8], labels: &mut [Label], pos: usize, end: usize) -> (usize, usize) {
    let Some(first) = labels.first() else {
        return (0, pos);
    };
    let Some((from, _)) = first.entry_place() else {
        return (0, pos); // cannot happen: all labels found have an entry
    };
    let from = from as usize;
    let (own, other) = (&buf[pos..], &buf[from..]);
    if own.first_chunk::<4>() != other.first_chunk::<4>() {
        return (0, pos); // mostly a value of another length
    }
    let reach = pos + common_prefix(own, other, end - pos);
    let (mut count, mut next) = (0, pos);
    for label in labels {
        let behind = next + label.entry_len();
        if behind > reach {
            break;
        }
        *label = label.repeated((pos - from) as u32);
        next = behind;
        count += 1;
    }
    (count, next)
}

/// Whether the last label's name sorts after the previous label's, for names whose first bytes are
/// equal or out of order.
#[cold]
#[inline(never)]
fn ascend(buf: &[u8], labels: &[Label]) -> bool {
    let [.., before, last] = labels else {
        return false;
    };
    let name = |label: &Label| {
        let name = label.name();
        &buf[name.start as usize..][..name.len as usize]
    };
    name(before) < name(last)
}

/// Whether the label is the metric's name, which is mostly the first sorted label.
#[inline(always)]
fn is_name(buf: &[u8], label: Label) -> bool {
    let name = label.name();
    name.len == 8 && buf[name.start as usize..].starts_with(b"__name__")
}

/// Reads a `Label` field of any shape; returns it and the position after it.
#[cold]
fn v1_label(buf: &[u8], start: usize) -> Result<(Label, usize), WireError> {
    let mut pos = start + 1;
    let end = wire::length(buf, &mut pos)?;
    let entry = &buf[..end];
    let (mut name, mut value) = (Span::default(), Span::default());
    while pos < end {
        let key = wire::key(entry, &mut pos)?;
        match key {
            0x0a | 0x12 => {
                let text_end = wire::length(entry, &mut pos)?;
                let text = Span::new(pos, text_end);
                *(if key == 0x0a { &mut name } else { &mut value }) = text;
                pos = text_end;
            }
            _ => wire::skip(entry, &mut pos, (key & 7) as u8)?,
        }
    }
    // The entry can be found from the name only if it is minimally encoded.
    let label = Label::entry(name.start as usize, name.len as usize, value.len as usize);
    let shortest = name.len > 0
        && value.len > 0
        && label.message_len() == end - name.start as usize + 1 + wire::varint_len(name.len.into())
        && name.start as usize >= start + 4
        && label.entry_place() == Some((start as u32, (end - start) as u32))
        && value.start as usize
            == name.start as usize + name.len as usize + 1 + wire::varint_len(value.len.into());
    if shortest {
        Ok((label, end))
    } else {
        Ok((Label::apart(name, value), end))
    }
}
