//! From a compressed body to an [`Arena`]: one walk that records offsets and checks every series.
//!
//! A series that is invalid costs only itself: it is left out and counted by [`Reason`]. Labels
//! that arrive unsorted are sorted and labels with an empty value removed, as Prometheus reads
//! them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;
use thiserror::Error;

use crate::protocol::Version;
use crate::protocol::snappy::{self, SnappyError};
use crate::protocol::wire::{self, Fields, LEN, WireError, tag};
use crate::signal::{Arena, Label, Raw, Series, SeriesCounts, Span};

/// Room for labels that transforms add, per series.
const ROOM: u32 = 2;
/// How many invalid series an answer describes.
const EXAMPLES: usize = 3;

/// Bounds on what is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the decompressed body.
    pub decoded_bytes: usize,
    /// Labels of a series.
    pub labels: usize,
    /// Bytes of a label's name.
    pub name_bytes: usize,
    /// Bytes of a label's value.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            decoded_bytes: 128 << 20,
            labels: 128,
            name_bytes: 1 << 10,
            value_bytes: 16 << 10,
        }
    }
}

/// Why a body cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It cannot be decompressed.
    #[error(transparent)]
    Snappy(#[from] SnappyError),
    /// It is not the message that it claims to be.
    #[error("body is not a valid remote-write {version} message: {error}")]
    Wire {
        /// What it claims to be.
        version: Version,
        /// What is wrong.
        error: WireError,
    },
    /// Edits made it larger than can be handled.
    #[error("batch grew too large by the edits of transforms")]
    GrewTooLarge,
    /// There is nothing to decode.
    #[error("batch is empty")]
    Missing,
}

/// Why a series is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// No label `__name__`.
    MissingName,
    /// A label without a name.
    EmptyLabelName,
    /// Two labels of one name.
    DuplicateLabel,
    /// More labels than allowed.
    TooManyLabels,
    /// A longer label name than allowed.
    LabelNameTooLong,
    /// A longer label value than allowed.
    LabelValueTooLong,
    /// A name or a value is not UTF-8.
    InvalidUtf8,
    /// A reference points outside of the symbol table, or a label's value has none.
    BadSymbolRef,
    /// Neither samples nor histograms nor exemplars.
    NoSamples,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::MissingName,
        Self::EmptyLabelName,
        Self::DuplicateLabel,
        Self::TooManyLabels,
        Self::LabelNameTooLong,
        Self::LabelValueTooLong,
        Self::InvalidUtf8,
        Self::BadSymbolRef,
        Self::NoSamples,
    ];

    /// In metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingName => "missing_metric_name",
            Self::EmptyLabelName => "empty_label_name",
            Self::DuplicateLabel => "duplicate_label",
            Self::TooManyLabels => "too_many_labels",
            Self::LabelNameTooLong => "label_name_too_long",
            Self::LabelValueTooLong => "label_value_too_long",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::BadSymbolRef => "bad_symbol_ref",
            Self::NoSamples => "no_samples",
        }
    }
}

/// The series that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalid {
    series: [u64; Reason::ALL.len()],
    samples: [u64; Reason::ALL.len()],
    examples: Vec<String>,
}

impl Invalid {
    /// How many series were left out.
    pub fn series(&self) -> u64 {
        self.series.iter().sum()
    }

    /// Samples and histograms that were left out, by reason.
    pub fn by_reason(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL
            .into_iter()
            .filter(|&reason| self.series[reason as usize] > 0)
            .map(|reason| (reason, self.samples[reason as usize]))
    }

    #[cold]
    fn add(&mut self, reason: Reason, counts: SeriesCounts, describe: impl FnOnce() -> String) {
        self.series[reason as usize] += 1;
        self.samples[reason as usize] += u64::from(counts.samples + counts.histograms);
        if self.examples.len() < EXAMPLES {
            self.examples
                .push(format!("{}: {}", reason.as_str(), describe()));
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} invalid series left out", self.series())?;
        for example in &self.examples {
            write!(f, "; {example}")?;
        }
        Ok(())
    }
}

/// Decompresses and walks a body.
///
/// # Errors
///
/// Fails when the body as a whole is not what it claims to be.
pub fn decode(
    version: Version,
    body: &[u8],
    limits: &Limits,
) -> Result<(Arena, Invalid), DecodeError> {
    let raw = Decoder::decompress(body, limits)?;
    let mut decoder = Decoder::new(version, &raw, limits);
    let walked = match version {
        Version::V1 => decoder.v1(|_| {}),
        Version::V2 => decoder.v2(),
    };
    walked.map_err(|error| DecodeError::Wire { version, error })?;
    Ok(decoder.finish())
}

pub(super) struct Decoder<'a> {
    buf: &'a [u8],
    limits: &'a Limits,
    arena: Arena,
    invalid: Invalid,
}

/// What the walk over the labels of one series found.
struct Labels {
    first: usize,
    head: u64,
    sorted: bool,
    named: bool,
    edited: bool,
    /// Of the labels that are kept, encoded as 1.0 fields.
    bytes: usize,
    broken: Option<Reason>,
}

const NAME: u64 = u64::from_be_bytes(*b"__name__");

impl<'a> Decoder<'a> {
    pub(super) fn decompress(body: &[u8], limits: &Limits) -> Result<Arc<Raw>, DecodeError> {
        let len = snappy::declared_len(body, limits.decoded_bytes)?;
        let mut raw = Raw::with_len(len);
        snappy::decompress(body, raw.as_mut_slice())?;
        Ok(Arc::new(raw))
    }

    pub(super) fn new(version: Version, raw: &'a Arc<Raw>, limits: &'a Limits) -> Self {
        Self {
            buf: raw.as_slice(),
            limits,
            arena: Arena::new(version, raw.clone()),
            invalid: Invalid::default(),
        }
    }

    /// What was decoded, and what was left out.
    pub(super) fn finish(self) -> (Arena, Invalid) {
        (self.arena, self.invalid)
    }

    /// Walks a 1.0 message; `then` is called after each series, which it may take out.
    pub(super) fn v1(&mut self, mut then: impl FnMut(&mut Arena)) -> Result<(), WireError> {
        const SERIES: u8 = tag(1, LEN);
        const METADATA: u8 = tag(3, LEN);
        let buf = self.buf;
        let mut pos = 0;
        while pos < buf.len() {
            let start = pos;
            match buf[pos] {
                SERIES => {
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    self.v1_series(start, pos, end)?;
                    then(&mut self.arena);
                    pos = end;
                }
                METADATA => {
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
        const LABEL: u8 = tag(1, LEN);
        const SAMPLE: u8 = tag(2, LEN);
        const EXEMPLAR: u8 = tag(3, LEN);
        const HISTOGRAM: u8 = tag(4, LEN);
        let buf = &self.buf[..end];
        let mut labels = self.labels();
        let mut pos = start;
        loop {
            pos = self.short_labels(&mut labels, pos, end);
            if pos >= end || buf[pos] != LABEL {
                break;
            }
            let (label, next) = v1_label(buf, pos)?;
            self.label(&mut labels, label);
            pos = next;
        }
        let rest = pos;
        let mut counts = SeriesCounts::default();
        let mut scattered = false;
        while pos < end {
            match buf[pos] {
                SAMPLE => counts.samples += 1,
                EXEMPLAR => counts.exemplars += 1,
                HISTOGRAM => counts.histograms += 1,
                LABEL => {
                    let (label, next) = v1_label(buf, pos)?;
                    self.label(&mut labels, label);
                    scattered = true;
                    pos = next;
                    continue;
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
        let ascii = is_ascii(&buf[start..rest]) && !scattered;
        let rest = if scattered {
            labels.edited = true;
            self.gather(start, end, 1)?
        } else {
            Span::new(rest, end)
        };
        self.add(labels, ascii, Span::new(whole, end), rest, counts);
        Ok(())
    }

    fn v2(&mut self) -> Result<(), WireError> {
        const SYMBOL: u8 = tag(4, LEN);
        const SERIES: u8 = tag(5, LEN);
        let buf = self.buf;
        let mut found = Vec::new();
        let mut utf8 = true;
        let mut pos = 0;
        while pos < buf.len() {
            let whole = pos;
            match buf[pos] {
                SYMBOL => {
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    let text = &buf[pos..end];
                    utf8 &= text.is_ascii() || std::str::from_utf8(text).is_ok();
                    self.arena.symbols.push(Span::new(pos, end));
                    pos = end;
                }
                SERIES => {
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    found.push((whole, pos, end));
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
        let mut lone_exemplars = false;
        for (whole, start, end) in found {
            let counts = self.v2_series(whole, start, end, utf8)?;
            lone_exemplars |= counts.samples + counts.histograms == 0;
        }
        if lone_exemplars {
            self.attach_exemplars()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn v2_series(
        &mut self,
        whole: usize,
        start: usize,
        end: usize,
        utf8: bool,
    ) -> Result<SeriesCounts, WireError> {
        const REFS: u8 = tag(1, LEN);
        const REF: u8 = tag(1, wire::VARINT);
        const SAMPLE: u8 = tag(2, LEN);
        const HISTOGRAM: u8 = tag(3, LEN);
        const EXEMPLAR: u8 = tag(4, LEN);
        let buf = &self.buf[..end];
        let mut labels = self.labels();
        let mut counts = SeriesCounts::default();
        let mut pos = start;
        let mut rest = start;
        if pos < end && buf[pos] == REFS {
            pos += 1;
            let refs_end = wire::length(buf, &mut pos)?;
            let refs = &buf[..refs_end];
            while pos < refs_end {
                let name = wire::varint(refs, &mut pos)?;
                if pos == refs_end {
                    labels.broken = Some(Reason::BadSymbolRef);
                    break;
                }
                let value = wire::varint(refs, &mut pos)?;
                self.v2_label(&mut labels, name, value);
            }
            rest = pos;
        }
        let mut scattered = false;
        while pos < end {
            match buf[pos] {
                SAMPLE => counts.samples += 1,
                HISTOGRAM => counts.histograms += 1,
                EXEMPLAR => counts.exemplars += 1,
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
            counts = self.v2_scattered(&mut labels, start, end)?;
            self.gather(start, end, 1)?
        } else {
            Span::new(rest, end)
        };
        if counts.samples + counts.histograms + counts.exemplars == 0 {
            labels.broken.get_or_insert(Reason::NoSamples);
        }
        self.add(labels, utf8, Span::new(whole, end), rest, counts);
        Ok(counts)
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
        let mut counts = SeriesCounts::default();
        for field in Fields::new(&self.buf[start..end]) {
            let field = field?;
            match (field.number, field.value) {
                (1, wire::Value::Varint(number)) => refs.push(number),
                (1, _) => {
                    for number in wire::packed(field.bytes()?) {
                        refs.push(number?);
                    }
                }
                (2, wire::Value::Len(_)) => counts.samples += 1,
                (3, wire::Value::Len(_)) => counts.histograms += 1,
                (4, wire::Value::Len(_)) => counts.exemplars += 1,
                (number @ 2..=4, _) => return Err(WireError::Field(number)),
                _ => {}
            }
        }
        let pairs = refs.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            labels.broken = Some(Reason::BadSymbolRef);
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
            (Some(name), Some(value)) => self.label(labels, Label::apart(name, value)),
            _ => labels.broken = Some(Reason::BadSymbolRef),
        }
    }

    /// Reads 1.0 labels for as long as they are sorted, have neither an empty part nor a length
    /// above 127, and end well before the buffer does, which is nearly always true for all of
    /// them. Returns the position of the first other byte.
    #[inline(always)]
    fn short_labels(&mut self, labels: &mut Labels, start: usize, end: usize) -> usize {
        let buf = self.buf;
        // In a local variable, its parts can stay in registers.
        let mut list = std::mem::take(&mut self.arena.labels);
        let room = self.limits.labels - (list.len() - labels.first);
        let (name_max, value_max) = (self.limits.name_bytes, self.limits.value_bytes);
        let (mut pos, mut last, mut named) = (start, labels.head, labels.named);
        for _ in 0..room {
            // Tag and length of the entry, tag and length of the name, the name's first bytes:
            // each read as one number.
            let Some(chunk) = buf.get(pos..).and_then(|b| b.first_chunk::<12>()) else {
                break;
            };
            let (front, head) = chunk.split_at(4);
            let front = u32::from_le_bytes([front[0], front[1], front[2], front[3]]);
            let entry = (front >> 8 & 0xff) as usize;
            let name_len = (front >> 24) as usize;
            let name = pos + 4;
            let name_end = name + name_len;
            let Some(middle) = buf.get(name_end..).and_then(|b| b.first_chunk::<2>()) else {
                break;
            };
            let middle = u16::from_le_bytes(*middle);
            let value_len = usize::from(middle >> 8);
            let next = pos + 2 + entry;
            let value = name_end + 2;
            // One branch for all conditions: `&` where `&&` would make ten of them.
            let shape = (front & 0x80ff_80ff == 0x000a_000a)
                & (middle & 0x80ff == 0x0012)
                & (name_len.wrapping_sub(1) < name_max)
                & (value_len.wrapping_sub(1) < value_max)
                & (value + value_len == next)
                & (next <= end);
            if !shape {
                break;
            }
            let unused = 64 - 8 * name_len.min(8);
            let head = head
                .first_chunk()
                .map_or(0, |head| u64::from_be_bytes(*head) >> unused << unused);
            if head <= last {
                let Some(previous) = list.last().filter(|_| head == last) else {
                    break;
                };
                let previous = previous.name();
                let previous = &buf[previous.start as usize..][..previous.len as usize];
                if previous >= &buf[name..name_end] {
                    break;
                }
            }
            named |= head == NAME && name_len == 8;
            last = head;
            list.push(Label::entry(name, name_len, value, value_len));
            pos = next;
        }
        self.arena.labels = list;
        labels.head = last;
        labels.named = named;
        labels.bytes += pos - start;
        pos
    }

    fn labels(&self) -> Labels {
        Labels {
            first: self.arena.labels.len(),
            head: 0,
            sorted: true,
            named: false,
            edited: false,
            bytes: 0,
            broken: None,
        }
    }

    /// Checks a label and appends it.
    #[inline(always)]
    fn label(&mut self, labels: &mut Labels, label: Label) {
        let (name, value) = (label.name(), label.value());
        let count = self.arena.labels.len() - labels.first;
        if name.len == 0 {
            labels.broken = Some(Reason::EmptyLabelName);
            return;
        }
        if name.len as usize > self.limits.name_bytes {
            labels.broken = Some(Reason::LabelNameTooLong);
        }
        if value.len as usize > self.limits.value_bytes {
            labels.broken = Some(Reason::LabelValueTooLong);
        }
        if value.len == 0 {
            labels.edited = true;
            return;
        }
        if count >= self.limits.labels {
            labels.broken = Some(Reason::TooManyLabels);
            return;
        }
        let head = self.arena.head(name);
        if head <= labels.head && count > 0 {
            let last = self.arena.labels[labels.first + count - 1].name();
            let ordered = head == labels.head && self.arena.text(last) < self.arena.text(name);
            labels.sorted &= ordered;
        }
        labels.named |= head == NAME && name.len == 8;
        labels.head = head;
        labels.bytes += label.entry_len();
        self.arena.labels.push(label);
    }

    /// Sorts, checks what concerns the series as a whole, and adds it.
    #[inline(always)]
    fn add(
        &mut self,
        mut labels: Labels,
        utf8: bool,
        whole: Span,
        rest: Span,
        counts: SeriesCounts,
    ) {
        let arena = &mut self.arena;
        if !labels.sorted && labels.broken.is_none() {
            labels.edited = true;
            labels.broken = sort(arena, labels.first);
        }
        if labels.broken.is_none() && !labels.named {
            labels.broken = Some(Reason::MissingName);
        }
        if labels.broken.is_none() && !utf8 && !is_utf8(arena, labels.first) {
            labels.broken = Some(Reason::InvalidUtf8);
        }
        if let Some(reason) = labels.broken {
            self.invalid
                .add(reason, counts, || describe(arena, labels.first));
            arena.labels.truncate(labels.first);
            arena.changed = true;
            return;
        }
        let len = (arena.labels.len() - labels.first) as u32;
        let series = Series {
            whole,
            rest,
            labels: labels.first as u32,
            labels_len: len,
            labels_room: len + ROOM,
            labels_bytes: labels.bytes as u32,
            counts,
            edited: labels.edited,
            dropped: false,
        };
        let filler = Label::apart(Span::default(), Span::default());
        arena.labels.extend_from_slice(&[filler; ROOM as usize]);
        arena.changed |= labels.edited;
        arena.count(counts);
        arena.series.push(series);
    }

    /// Copies all fields but `field` next to each other.
    #[cold]
    fn gather(&mut self, start: usize, end: usize, field: u32) -> Result<Span, WireError> {
        let mut rest = Vec::new();
        for other in Fields::new(&self.buf[start..end]) {
            let other = other?;
            if other.number != field {
                rest.extend_from_slice(other.whole);
            }
        }
        Ok(self.arena.push_text(&rest))
    }

    /// Moves the exemplars of series that have nothing else to the series of the same labels:
    /// Prometheus 3 sends each exemplar on its own, which its own receiver then refuses
    /// (prometheus#17857).
    #[cold]
    fn attach_exemplars(&mut self) -> Result<(), WireError> {
        let arena = &mut self.arena;
        let mut owners: HashMap<Vec<(u32, u32)>, usize, RandomState> = HashMap::default();
        let key = |arena: &Arena, index: usize| -> Vec<(u32, u32)> {
            let labels = arena.labels_of(index).iter();
            labels
                .map(|label| (label.name().start, label.value().start))
                .collect()
        };
        let lone = |series: &Series| series.counts.samples + series.counts.histograms == 0;
        for index in 0..arena.slots() {
            if !lone(&arena.series[index]) {
                owners.insert(key(arena, index), index);
            }
        }
        let mut moved: HashMap<usize, Vec<u8>, RandomState> = HashMap::default();
        for index in 0..arena.slots() {
            let series = arena.series[index];
            if !lone(&series) {
                continue;
            }
            let Some(&owner) = owners.get(&key(arena, index)) else {
                continue;
            };
            let fields = moved
                .entry(owner)
                .or_insert_with(|| arena.get(owner).rest().to_vec());
            for field in Fields::new(arena.text(series.rest)) {
                let field = field?;
                if field.number == 4 {
                    fields.extend_from_slice(field.whole);
                }
            }
            arena.drop_series(index);
            arena.series[owner].counts.exemplars += series.counts.exemplars;
            arena.counts.exemplars += u64::from(series.counts.exemplars);
        }
        for (owner, rest) in moved {
            arena.series[owner].rest = arena.push_text(&rest);
            arena.series[owner].edited = true;
        }
        Ok(())
    }
}

/// Whether all bytes are below 128, eight at a time.
#[inline(always)]
fn is_ascii(text: &[u8]) -> bool {
    let Some(tail) = text.last_chunk::<8>() else {
        return text.is_ascii();
    };
    let words = text.as_chunks::<8>().0.iter();
    // The last eight overlap what the words cover.
    let seen = words.fold(u64::from_ne_bytes(*tail), |seen, word| {
        seen | u64::from_ne_bytes(*word)
    });
    seen & 0x8080_8080_8080_8080 == 0
}

/// Reads a `Label` field of any shape; returns it and the position behind.
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
    // Only if it is written in the shortest form can the entry be found from its name.
    let label = Label::entry(
        name.start as usize,
        name.len as usize,
        value.start as usize,
        value.len as usize,
    );
    let shortest = name.len > 0
        && value.len > 0
        && label.message_len() == end - name.start as usize + 1 + wire::varint_len(name.len.into())
        && name.start as usize >= start + 4
        && label.entry_span() == Some((start, end))
        && value.start as usize
            == name.start as usize + name.len as usize + 1 + wire::varint_len(value.len.into());
    if shortest {
        Ok((label, end))
    } else {
        Ok((Label::apart(name, value), end))
    }
}

#[cold]
fn sort(arena: &mut Arena, first: usize) -> Option<Reason> {
    let mut labels = arena.labels.split_off(first);
    labels.sort_by(|a, b| arena.text(a.name()).cmp(arena.text(b.name())));
    let duplicate = labels
        .windows(2)
        .any(|pair| arena.text(pair[0].name()) == arena.text(pair[1].name()));
    arena.labels.append(&mut labels);
    duplicate.then_some(Reason::DuplicateLabel)
}

#[cold]
fn is_utf8(arena: &Arena, first: usize) -> bool {
    let valid = |span| std::str::from_utf8(arena.text(span)).is_ok();
    arena.labels[first..]
        .iter()
        .all(|label| valid(label.name()) && valid(label.value()))
}

/// The labels of a series in PromQL's notation, cut short.
#[cold]
fn describe(arena: &Arena, first: usize) -> String {
    const LABELS: usize = 8;
    const CHARS: usize = 40;
    let short = |span| {
        let text = String::from_utf8_lossy(arena.text(span)).into_owned();
        match text.char_indices().nth(CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    let labels = &arena.labels[first..];
    let shown: Vec<String> = labels
        .iter()
        .take(LABELS)
        .map(|label| {
            // Senders show the first line of an answer only, so that it must not break.
            let name = short(label.name());
            format!("{}={:?}", name.escape_debug(), short(label.value()))
        })
        .collect();
    let more = if labels.len() > LABELS { ", …" } else { "" };
    format!("{{{}{more}}}", shown.join(", "))
}
