//! The walk over a 2.0 message.

use std::fmt;

use metrifold_model::SeriesCounts;

use crate::wire::{Fields, LEN, Parts, WireError, tag};
use crate::{Arena, Label, Series, Span, name_head, name_head_within, wire};

use super::{Decoder, Labels, Limits, ROOM, Reason, is_ascii};

/// A label reference without a symbol.
#[derive(Clone, Copy, Debug)]
pub(super) enum WrongRef {
    /// A field refers to a symbol outside the table.
    Outside {
        field: &'static str,
        number: u64,
        symbols: usize,
    },
    /// A field has a reference to a label's name but none to its value.
    Odd(&'static str),
}

impl fmt::Display for WrongRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside {
                field,
                number,
                symbols,
            } => write!(f, "{field} {number} is not below the {symbols} symbols,"),
            Self::Odd(field) => write!(f, "{field} are odd in number,"),
        }
    }
}

/// Bytes around a text that is written out, at least.
const AROUND: usize = 3;

const LABEL_REFS: &str = "labels_refs";
const EXEMPLAR_REFS: &str = "exemplar labels_refs";

const REFS: u8 = tag(1, LEN);
const REF: u8 = tag(1, wire::VARINT);
const SAMPLE: u8 = tag(2, LEN);
const HISTOGRAM: u8 = tag(3, LEN);
const EXEMPLAR: u8 = tag(4, LEN);
const METADATA: u8 = tag(5, LEN);

impl Decoder<'_> {
    /// Walks a 2.0 message; `then` is called after each series, and may remove it from the arena.
    pub(in super::super) fn v2(
        &mut self,
        mut then: impl FnMut(&mut Arena, &mut Refs),
    ) -> Result<(), WireError> {
        const SYMBOL: u8 = tag(4, LEN);
        const SERIES: u8 = tag(5, LEN);
        let buf = self.buf;
        let most = |parts| self.limits.most(parts);
        let (most_series, most_symbols) = (most(Parts::Series), most(Parts::Symbols));
        let mut found: Vec<[u32; 3]> = Vec::new();
        let mut utf8 = true;
        let mut pos = 0;
        while pos < buf.len() {
            let whole = pos;
            match buf[pos] {
                SYMBOL => {
                    if self.arena.symbols.len() >= most_symbols {
                        return Err(WireError::TooMany(Parts::Symbols));
                    }
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    let text = &buf[pos..end];
                    utf8 &= is_ascii(text) || std::str::from_utf8(text).is_ok();
                    self.arena.symbols.push(Span::new(pos, end));
                    pos = end;
                }
                SERIES => {
                    if found.len() >= most_series {
                        return Err(WireError::TooMany(Parts::Series));
                    }
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    found.push([whole as u32, pos as u32, end as u32]);
                    pos = end;
                }
                _ => {
                    let key = wire::key(buf, &mut pos)?;
                    wire::skip(buf, &mut pos, (key & 7) as u8)?;
                }
            }
        }
        if self
            .arena
            .symbols
            .first()
            .is_some_and(|first| first.len > 0)
        {
            return Err(WireError::FirstSymbol);
        }
        for places in found {
            let [whole, start, end] = places.map(|place| place as usize);
            if !utf8 || !self.v2_plain_series(whole, start, end) {
                self.v2_odd_series(whole, start, end, utf8)?;
            }
            self.check_written()?;
            then(&mut self.arena, &mut self.refs);
        }
        Ok(())
    }

    /// Reads a series of the common shape; returns false, without any effect, for another.
    #[inline(always)]
    fn v2_plain_series(&mut self, whole: usize, start: usize, end: usize) -> bool {
        let buf = &self.buf[..end];
        let mut pos = start;
        if buf.get(pos) != Some(&REFS) {
            return false;
        }
        pos += 1;
        let Ok(rest) = wire::length(buf, &mut pos) else {
            return false;
        };
        let arena = &self.arena;
        let read = self
            .refs
            .read(self.buf, &arena.symbols, self.limits, pos, rest);
        let Some((count, labels_bytes)) = read else {
            return false;
        };
        let Some((counts, has_refs, text)) = self.v2_rest(rest, end) else {
            return false;
        };
        if counts.samples + counts.histograms + counts.exemplars == 0 {
            return false;
        }
        let first = self.arena.labels.len();
        let labels = &self.refs.labels[..count + ROOM];
        self.arena.labels.extend_from_slice(labels);
        self.arena.count(counts);
        self.write_out(labels_bytes + text, counts.exemplars);
        self.arena.series.push(Series {
            whole: Span::new(whole, end),
            rest: Span::new(rest, end),
            labels: first as u32,
            labels_len: count as u32,
            labels_room: (count + ROOM) as u32,
            labels_bytes: labels_bytes as u32,
            counts,
            edited: false,
            dropped: false,
        });
        self.refs.keep_read(count, has_refs);
        true
    }

    /// Counts the fields after the labels of a series, if all of them are common ones; returns also
    /// whether they refer to symbols, and the bytes of the text that they refer to.
    #[inline(always)]
    fn v2_rest(&self, rest: usize, end: usize) -> Option<(SeriesCounts, bool, usize)> {
        let buf = &self.buf[..end];
        let mut counts = SeriesCounts::default();
        let (mut pos, mut has_refs, mut text) = (rest, false, 0);
        while pos < end {
            let field = buf[pos];
            pos += 1;
            let next = wire::length(buf, &mut pos).ok()?;
            match field {
                SAMPLE => counts.samples += 1,
                HISTOGRAM => counts.histograms += 1,
                EXEMPLAR | METADATA => {
                    has_refs = true;
                    let mut labels = self.labels();
                    if field == EXEMPLAR {
                        counts.exemplars += 1;
                        self.check_exemplar(&mut labels, &buf[pos..next]).ok()?;
                    } else {
                        self.check_metadata(&mut labels, &buf[pos..next]).ok()?;
                    }
                    if labels.broken.is_some() {
                        return None;
                    }
                    text += labels.text;
                }
                _ => return None,
            }
            pos = next;
        }
        Some((counts, has_refs, text))
    }

    /// Walks a series of any shape.
    #[cold]
    #[inline(never)]
    fn v2_odd_series(
        &mut self,
        whole: usize,
        start: usize,
        end: usize,
        utf8: bool,
    ) -> Result<(), WireError> {
        let buf = &self.buf[..end];
        let mut labels = self.labels();
        let mut counts = SeriesCounts::default();
        let (before, series) = (self.refs.numbers.len(), self.arena.series.len());
        let mut has_refs = false;
        let mut pos = start;
        let mut rest = start;
        if pos < end && buf[pos] == REFS {
            pos += 1;
            let refs_end = wire::length(buf, &mut pos)?;
            let refs = &buf[..refs_end];
            while pos < refs_end {
                let name = wire::varint(refs, &mut pos)?;
                if pos == refs_end {
                    labels.refuse(WrongRef::Odd(LABEL_REFS));
                    break;
                }
                let value = wire::varint(refs, &mut pos)?;
                // Labels without a value count as well: they are left out, and yet take room.
                if self.refs.numbers.len() - before >= self.limits.labels {
                    labels.broken.get_or_insert(Reason::TooManyLabels);
                }
                // The labels of a series that is left out need not be read.
                if labels.broken.is_none() {
                    self.v2_label(&mut labels, name, value);
                }
            }
            rest = pos;
        }
        let mut scattered = false;
        while pos < end {
            match buf[pos] {
                SAMPLE => counts.samples += 1,
                HISTOGRAM => counts.histograms += 1,
                held @ (EXEMPLAR | METADATA) => {
                    has_refs = true;
                    pos += 1;
                    let message_end = wire::length(buf, &mut pos)?;
                    let message = &buf[pos..message_end];
                    if held == EXEMPLAR {
                        counts.exemplars += 1;
                        self.check_exemplar(&mut labels, message)?;
                    } else {
                        self.check_metadata(&mut labels, message)?;
                    }
                    pos = message_end;
                    continue;
                }
                REFS | REF => {
                    scattered = true;
                    break;
                }
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
            self.arena.labels.truncate(labels.first);
            labels = self.labels();
            labels.edited = true;
            has_refs = true;
            counts = self.v2_scattered(&mut labels, start, end)?;
            self.gather(start, end, 1)?
        } else {
            Span::new(rest, end)
        };
        if counts.samples + counts.histograms + counts.exemplars == 0 {
            labels.broken.get_or_insert(Reason::NoSamples);
        }
        // Also for a series that is left out: its labels were read, and may be shown.
        self.write_out(labels.bytes + labels.text, counts.exemplars);
        self.add(labels, utf8, Span::new(whole, end), rest, counts);
        match self.arena.series.len() > series {
            true => self.refs.keep_from(before, has_refs),
            false => self.refs.numbers.truncate(before),
        }
        Ok(())
    }

    /// A series whose label references come late, in pieces, or one by one: legal, and rare.
    #[cold]
    fn v2_scattered(
        &mut self,
        labels: &mut Labels,
        start: usize,
        end: usize,
    ) -> Result<SeriesCounts, WireError> {
        let mut refs = Vec::new();
        let most = self.limits.labels.min(usize::MAX / 4) * 2;
        let mut counts = SeriesCounts::default();
        for field in Fields::new(&self.buf[start..end]) {
            let field = field?;
            match (field.number, field.value) {
                // One more than allowed shows that there are too many.
                (1, _) if refs.len() > most => {}
                (1, wire::Value::Varint(number)) => refs.push(number),
                (1, _) => {
                    for number in wire::packed(field.bytes()?).take(most + 2) {
                        refs.push(number?);
                    }
                }
                (2, wire::Value::Len(_)) => counts.samples += 1,
                (3, wire::Value::Len(_)) => counts.histograms += 1,
                (4, wire::Value::Len(exemplar)) => {
                    counts.exemplars += 1;
                    self.check_exemplar(labels, exemplar)?;
                }
                (5, wire::Value::Len(metadata)) => self.check_metadata(labels, metadata)?,
                (number @ 2..=5, _) => return Err(WireError::Field(number)),
                _ => {}
            }
        }
        if refs.len() > most {
            labels.broken = Some(Reason::TooManyLabels);
            return Ok(counts);
        }
        let pairs = refs.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            labels.refuse(WrongRef::Odd(LABEL_REFS));
        }
        for pair in pairs {
            self.v2_label(labels, pair[0], pair[1]);
        }
        Ok(counts)
    }

    #[inline(always)]
    fn v2_label(&mut self, labels: &mut Labels, name: u64, value: u64) {
        let symbols = &self.arena.symbols;
        let symbol = |number: u64| symbols.get(usize::try_from(number).ok()?).copied();
        match (symbol(name), symbol(value)) {
            (Some(name_text), Some(value_text)) => {
                self.refs.numbers.push([name as u32, value as u32]);
                self.label(labels, Label::apart(name_text, value_text));
            }
            (None, _) => self.check_ref(labels, LABEL_REFS, name),
            (_, None) => self.check_ref(labels, LABEL_REFS, value),
        }
    }

    /// Checks a reference that is copied and not resolved here.
    #[inline(always)]
    fn check_ref(&self, labels: &mut Labels, field: &'static str, number: u64) {
        let symbols = self.arena.symbols.len();
        if number >= symbols as u64 {
            labels.refuse(WrongRef::Outside {
                field,
                number,
                symbols,
            });
        }
    }

    /// Checks the references of a series' metadata.
    #[inline(always)]
    fn check_metadata(&self, labels: &mut Labels, metadata: &[u8]) -> Result<(), WireError> {
        for field in Fields::new(metadata) {
            let field = field?;
            let name = match field.number {
                3 => "help_ref",
                4 => "unit_ref",
                _ => continue,
            };
            labels.text += self.referred(labels, name, field.number()?);
        }
        Ok(())
    }

    /// Checks the references of an exemplar's labels, which come packed or one by one.
    #[inline(always)]
    fn check_exemplar(&self, labels: &mut Labels, exemplar: &[u8]) -> Result<(), WireError> {
        let mut refs = 0usize;
        for field in Fields::new(exemplar) {
            let field = field?;
            match (field.number, field.value) {
                (1, wire::Value::Varint(number)) => {
                    self.exemplar_ref(labels, refs, number);
                    refs += 1;
                }
                (1, _) => {
                    for number in wire::packed(field.bytes()?) {
                        self.exemplar_ref(labels, refs, number?);
                        refs += 1;
                        if refs / 2 > self.limits.labels {
                            break;
                        }
                    }
                }
                _ => {}
            }
            if refs / 2 > self.limits.labels {
                // The series is left out, so its further references need not be read.
                labels.broken = Some(Reason::TooManyLabels);
                return Ok(());
            }
        }
        if !refs.is_multiple_of(2) {
            labels.refuse(WrongRef::Odd(EXEMPLAR_REFS));
        }
        Ok(())
    }

    /// Checks a reference of an exemplar's labels: names and values take turns.
    #[inline(always)]
    fn exemplar_ref(&self, labels: &mut Labels, place: usize, number: u64) {
        let bytes = self.referred(labels, EXEMPLAR_REFS, number);
        labels.text += bytes;
        let (most, reason) = match place.is_multiple_of(2) {
            true => (self.limits.name_bytes, Reason::LabelNameTooLong),
            false => (self.limits.value_bytes, Reason::LabelValueTooLong),
        };
        if bytes - AROUND > most {
            labels.broken.get_or_insert(reason);
        }
    }

    /// Checks a reference; returns the bytes that it takes when it is written out.
    #[inline(always)]
    fn referred(&self, labels: &mut Labels, field: &'static str, number: u64) -> usize {
        self.check_ref(labels, field, number);
        let symbol = usize::try_from(number).ok();
        let symbol = symbol.and_then(|number| self.arena.symbols.get(number));
        AROUND + symbol.map_or(0, |symbol| symbol.len as usize)
    }
}

/// Label references as read by [`read`](Self::read), and those of the series in the arena.
pub(in super::super) struct Refs {
    labels: [Label; AT_ONCE + ROOM],
    found: [[u32; 2]; AT_ONCE],
    /// Names of the previous series, of which the first `known` are sorted and within the limits:
    /// the next one mostly has the same.
    names: [Named; AT_ONCE],
    known: usize,
    /// Index of `__name__` among these names.
    metric: usize,
    /// Whether references are kept for a rewriter that takes the series out of the arena.
    kept: bool,
    /// Symbol numbers of the names and values of all labels that arrived.
    numbers: Vec<[u32; 2]>,
    /// Received references, by index of the series in the arena.
    arrived: Vec<Arrived>,
}

/// A label name: its symbol number, its text, and its first bytes as a number that sorts like it.
#[derive(Clone, Copy, Default)]
struct Named {
    number: u32,
    text: Span,
    head: u64,
}

/// Received references of a series.
#[derive(Clone, Copy)]
struct Arrived {
    /// Index of its first label in `numbers`, and its number of labels.
    first: u32,
    count: u32,
    /// Whether the fields after its labels refer to symbols.
    has_refs: bool,
}

/// Most labels read by the fast path; longer series take the general one.
const AT_ONCE: usize = 64;

impl Default for Refs {
    fn default() -> Self {
        Self {
            labels: [Label::default(); AT_ONCE + ROOM],
            found: [[0; 2]; AT_ONCE],
            names: [Named::default(); AT_ONCE],
            known: 0,
            metric: usize::MAX,
            kept: false,
            numbers: Vec::new(),
            arrived: Vec::new(),
        }
    }
}

impl Refs {
    /// References for which room is held.
    #[cfg(test)]
    pub(in super::super) fn capacity(&self) -> usize {
        self.numbers.capacity()
    }

    /// Enables keeping references for a rewriter that takes the series out of the arena.
    pub(in super::super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Symbol numbers of the labels with which a series of the arena arrived, and whether the
    /// fields after them refer to symbols.
    pub(in super::super) fn of(&self, series: usize) -> (&[[u32; 2]], bool) {
        let arrived = self.arrived[series];
        let numbers = &self.numbers[arrived.first as usize..][..arrived.count as usize];
        (numbers, arrived.has_refs)
    }

    /// Forgets the series of the arena.
    pub(in super::super) fn clear(&mut self) {
        self.numbers.clear();
        self.arrived.clear();
    }

    /// Keeps the symbol numbers of the labels read by [`read`](Self::read).
    #[inline(always)]
    fn keep_read(&mut self, count: usize, has_refs: bool) {
        if self.kept {
            let first = self.numbers.len();
            self.numbers.extend_from_slice(&self.found[..count]);
            self.keep_from(first, has_refs);
        }
    }

    /// Keeps the symbol numbers from `first` on as those of the last series.
    fn keep_from(&mut self, first: usize, has_refs: bool) {
        if self.kept {
            self.arrived.push(Arrived {
                first: first as u32,
                count: (self.numbers.len() - first) as u32,
                has_refs,
            });
        } else {
            self.numbers.clear();
        }
    }

    /// Reads the references of a series if its labels are sorted, within the limits and have
    /// values, and include the metric's name. Returns the number of labels, and their size in 1.0.
    #[inline(never)]
    fn read(
        &mut self,
        buf: &[u8],
        symbols: &[Span],
        limits: &Limits,
        start: usize,
        end: usize,
    ) -> Option<(usize, usize)> {
        let room = limits.labels.min(AT_ONCE);
        let mut known = std::mem::take(&mut self.known);
        let (mut pos, mut count, mut bytes) = (start, 0, 0);
        while pos < end {
            if count == room {
                return None;
            }
            let (name, value, next) = pair(buf, pos, end)?;
            if count >= known || self.names[count].number != name {
                known = 0; // the previous series has another label here
                self.name(buf, symbols, limits, count, name)?;
            }
            let text = *symbols.get(value as usize)?;
            if (text.len as usize).wrapping_sub(1) >= limits.value_bytes {
                return None;
            }
            let label = Label::apart(self.names[count].text, text);
            bytes += label.entry_len();
            self.labels[count] = label;
            self.found[count] = [name, value];
            count += 1;
            pos = next;
        }
        self.known = count;
        (self.metric < count).then_some((count, bytes))
    }

    /// Reads a name that differs from the previous series' name here; it must sort after the name
    /// before it.
    #[inline(never)]
    fn name(
        &mut self,
        buf: &[u8],
        symbols: &[Span],
        limits: &Limits,
        place: usize,
        number: u32,
    ) -> Option<()> {
        let span = *symbols.get(number as usize)?;
        let text = |span: Span| &buf[span.start as usize..][..span.len as usize];
        if (span.len as usize).wrapping_sub(1) >= limits.name_bytes {
            return None;
        }
        let head = name_head_within(&buf[span.start as usize..], span.len as usize);
        let head = head.unwrap_or_else(|| name_head(text(span)));
        if let Some(before) = place.checked_sub(1).map(|before| self.names[before])
            && (head < before.head || head == before.head && text(span) <= text(before.text))
        {
            return None;
        }
        self.names[place] = Named {
            number,
            text: span,
            head,
        };
        if text(span) == b"__name__" {
            self.metric = place;
        } else if self.metric == place {
            self.metric = usize::MAX;
        }
        Some(())
    }
}

/// Reads the references of a label that end before the series does; returns also the position after
/// them.
#[inline(always)]
fn pair(buf: &[u8], pos: usize, end: usize) -> Option<(u32, u32, usize)> {
    let chunk = buf.get(pos..).and_then(|rest| rest.first_chunk::<4>());
    // Symbol numbers of names take one byte, those of values one or two.
    if let Some(chunk) = chunk {
        let four = u32::from_le_bytes(*chunk);
        let long = four >> 15 & 1;
        let next = pos + 2 + long as usize;
        if four & 0x80 == 0 && four & 0x80_8000 != 0x80_8000 && next <= end {
            let value = four >> 8 & 0x7f | ((four >> 9 & 0x3f80) * long);
            return Some((four & 0x7f, value, next));
        }
    }
    any_pair(&buf[..end], pos)
}

/// The same for references of any length.
#[inline(never)]
fn any_pair(buf: &[u8], mut pos: usize) -> Option<(u32, u32, usize)> {
    let name = wire::varint(buf, &mut pos).ok()?;
    let value = wire::varint(buf, &mut pos).ok()?;
    Some((name.try_into().ok()?, value.try_into().ok()?, pos))
}

impl Labels {
    /// Marks the series invalid because of a reference; the first of several is reported.
    #[cold]
    fn refuse(&mut self, wrong: WrongRef) {
        self.broken = Some(Reason::BadSymbolRef);
        self.wrong_ref.get_or_insert(wrong);
    }
}
