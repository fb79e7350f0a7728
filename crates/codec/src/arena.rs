//! The decoded form of a batch: offsets into one text, no `String` per label, no struct per sample.
//!
//! The text is the decompressed request (`raw`, shared by all copies of the arena) followed by text
//! that edits added (`extra`). A label is two ranges of the text. A series is a range of labels and
//! the range of its remaining fields (samples, histograms, exemplars), which are counted but not
//! parsed. An edit changes labels only; series that no edit changed are copied out byte for byte.

mod builder;
mod pool;
mod series;

use std::sync::Arc;

use metrifold_model::{Counts, SeriesCounts, Version};

use crate::wire;

use pool::{Pool, size_of_lists};

pub use builder::{ArenaBuilder, MetricType, SeriesError};
pub(crate) use pool::Raw;
pub use series::{Name, SeriesMut, SeriesRef};
use series::{head, head_within};
pub(crate) use series::{head as name_head, head_within as name_head_within};

/// Set in a label's name length when its encoded 1.0 `Label` entry surrounds it in the text, so
/// that encoding can copy the entry, and neighbouring entries in one go.
const ENTRY: u32 = 1 << 31;

/// A label: its name and its value as ranges of the arena's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label {
    name: u32,
    name_len: u32,
    /// Start of the value in the text. For a label with an entry, whose value's place follows from
    /// the name's, this is instead the distance back to the same entry in the previous series; 0 if
    /// that series lacks it or was not compared.
    value_or_back: u32,
    value_len: u32,
}

impl Label {
    /// A label whose 1.0 entry surrounds it: `0x0a len 0x0a len name 0x12 len value`.
    #[inline(always)]
    pub(crate) fn entry(name: usize, name_len: usize, value_len: usize) -> Self {
        Self {
            name: name as u32,
            name_len: name_len as u32 | ENTRY,
            value_or_back: 0,
            value_len: value_len as u32,
        }
    }

    /// A label whose name and value lie anywhere in the text.
    #[inline(always)]
    pub(crate) fn apart(name: Span, value: Span) -> Self {
        Self {
            name: name.start,
            name_len: name.len,
            value_or_back: value.start,
            value_len: value.len,
        }
    }

    /// Whether this label consists of exactly these two ranges, without an entry.
    #[inline(always)]
    pub(crate) fn is_of(self, name: Span, value: Span) -> bool {
        self == Self::apart(name, value)
    }

    /// The same label in a text where it starts `by` bytes later.
    fn shifted(self, by: u32) -> Self {
        // The distance to a repeated entry does not change.
        let apart = self.name_len & ENTRY == 0;
        Self {
            name: self.name + by,
            value_or_back: self.value_or_back + if apart { by } else { 0 },
            ..self
        }
    }

    /// The label `back` bytes later in the text whose entry repeats this one's.
    #[inline(always)]
    pub(crate) fn repeated(self, back: u32) -> Self {
        Self {
            name: self.name + back,
            value_or_back: back,
            ..self
        }
    }

    /// Whether both share one entry, or this entry is known to repeat the other's. False does not
    /// mean that the labels differ.
    #[inline(always)]
    pub(crate) fn repeats(self, other: Self) -> bool {
        self.name_len & other.name_len & ENTRY != 0
            && self.name.wrapping_sub(self.value_or_back) == other.name
    }

    #[inline(always)]
    pub(crate) fn name(self) -> Span {
        Span {
            start: self.name,
            len: self.name_len & !ENTRY,
        }
    }

    #[inline(always)]
    pub(crate) fn value(self) -> Span {
        let start = if self.name_len & ENTRY == 0 {
            self.value_or_back
        } else {
            let len = wire::varint_len(self.value_len.into()) as u32;
            self.name + (self.name_len & !ENTRY) + 1 + len
        };
        Span {
            start,
            len: self.value_len,
        }
    }

    /// The length of the `Label` message in 1.0, without its own tag and length.
    #[inline(always)]
    pub(crate) fn message_len(self) -> usize {
        let name = self.name().len as usize;
        let value = self.value_len as usize;
        2 + wire::varint_len(name as u64) + name + wire::varint_len(value as u64) + value
    }

    /// Start and length of the encoded entry, if the text contains one.
    #[inline(always)]
    pub(crate) fn entry_place(self) -> Option<(u32, u32)> {
        if self.name_len & ENTRY == 0 {
            return None;
        }
        let len = self.entry_len() as u32;
        if len < 0x80 {
            return Some((self.name - 4, len));
        }
        let value = self.value();
        Some((value.start + value.len - len, len))
    }

    /// The length of the `Label` field in 1.0.
    #[inline(always)]
    pub(crate) fn entry_len(self) -> usize {
        let short = 6 + (self.name_len & !ENTRY) + self.value_len;
        if short < 0x80 {
            // All three lengths take one byte.
            return short as usize;
        }
        let message = self.message_len();
        1 + wire::varint_len(message as u64) + message
    }
}

/// A range of the arena's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    #[inline(always)]
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            len: (end - start) as u32,
        }
    }

    fn shifted(self, by: u32) -> Self {
        Self {
            start: self.start + by,
            len: self.len,
        }
    }
}

/// A series of an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    /// The series' field as it arrived, with tag and length.
    pub(crate) whole: Span,
    /// All fields except labels (1.0) or label references (2.0), in their original order.
    pub(crate) rest: Span,
    /// Labels: index of the first, number, and capacity reserved in the list.
    pub(crate) labels: u32,
    pub(crate) labels_len: u32,
    pub(crate) labels_room: u32,
    /// Size of the labels as encoded 1.0 fields; kept for batches that arrived as 1.0.
    pub(crate) labels_bytes: u32,
    pub(crate) counts: SeriesCounts,
    /// Whether an edit made `whole` out of date.
    pub(crate) edited: bool,
    pub(crate) dropped: bool,
}

/// A decoded batch.
#[derive(Clone, Debug)]
pub struct Arena {
    /// The version in which `Series::whole` and `Series::rest` are encoded.
    pub(crate) version: Version,
    pub(crate) raw: Arc<Raw>,
    pub(crate) extra: Vec<u8>,
    pub(crate) labels: Vec<Label>,
    pub(crate) series: Vec<Series>,
    /// `MetricMetadata` fields of 1.0, with tag and length.
    pub(crate) metadata: Vec<Span>,
    /// The symbol table of 2.0.
    pub(crate) symbols: Vec<Span>,
    pub(crate) counts: Counts,
    pub(crate) changed: bool,
    /// Whether a 1.0 text has what only 2.0 can hold: start timestamps, or histograms with custom
    /// buckets.
    pub(crate) exceeds_v1: bool,
    /// Whether edits made the text too long for its offsets.
    pub(crate) overflowed: bool,
}

/// Longest text of an arena, in bytes.
pub(crate) const TEXT_MAX: usize = 2 << 30;

#[cfg(any(test, feature = "testing"))]
impl Arena {
    /// Whether the series differ from the body that the arena was decoded from.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Version in which the batch arrived.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Declares the present content to be the content that arrived.
    pub fn mark_unchanged(&mut self) {
        self.changed = false;
    }
}

impl Arena {
    pub(crate) fn new(version: Version, raw: Arc<Raw>) -> Self {
        let (labels, series) = Pool::take_lists(raw.as_slice().len());
        Self {
            version,
            raw,
            extra: Vec::new(),
            labels,
            series,
            metadata: Vec::new(),
            symbols: Vec::new(),
            counts: Counts::default(),
            changed: false,
            exceeds_v1: false,
            overflowed: false,
        }
    }

    /// Counts of the content, without dropped series.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Memory of the arena, in bytes.
    pub fn weight(&self) -> usize {
        self.raw.capacity()
            + self.extra.capacity()
            + size_of_lists(&self.labels, &self.series)
            + (self.metadata.capacity() + self.symbols.capacity()) * size_of::<Span>()
    }

    /// A range of the text.
    #[inline(always)]
    pub(crate) fn text(&self, span: Span) -> &[u8] {
        let (start, len) = (span.start as usize, span.len as usize);
        let raw = self.raw.as_slice();
        if start < raw.len() {
            &raw[start..start + len]
        } else {
            &self.extra[start - raw.len()..][..len]
        }
    }

    /// First eight bytes of a range, padded with zeros, as a number that sorts like the text.
    #[inline(always)]
    pub(crate) fn head(&self, span: Span) -> u64 {
        let rest = self.raw.as_slice().get(span.start as usize..);
        let within = rest.and_then(|rest| head_within(rest, span.len as usize));
        within.unwrap_or_else(|| head(self.text(span)))
    }

    /// A symbol of a 2.0 batch.
    pub(crate) fn symbol(&self, number: u64) -> Option<&[u8]> {
        let span = *self.symbols.get(usize::try_from(number).ok()?)?;
        Some(self.text(span))
    }

    /// Appends text; returns its range.
    pub(crate) fn push_text(&mut self, text: &[u8]) -> Span {
        let start = self.raw.as_slice().len() + self.extra.len();
        if start + text.len() > TEXT_MAX {
            self.overflowed = true;
            return Span::default();
        }
        self.extra.extend_from_slice(text);
        Span::new(start, start + text.len())
    }

    /// Appends a label to the text, encoded as a 1.0 entry. The result can be passed to
    /// [`SeriesMut::set_label`] any number of times.
    pub fn push_label(&mut self, name: &[u8], value: &[u8]) -> Label {
        let mut label = Label::entry(0, name.len(), value.len());
        let base = self.raw.as_slice().len();
        let out = &mut self.extra;
        if base + out.len() + label.message_len() + 16 > TEXT_MAX {
            self.overflowed = true;
            return Label::apart(Span::default(), Span::default());
        }
        out.push(wire::tag(1, wire::LEN));
        wire::put_varint(out, label.message_len() as u64);
        out.push(wire::tag(1, wire::LEN));
        wire::put_varint(out, name.len() as u64);
        label.name = (base + out.len()) as u32;
        out.extend_from_slice(name);
        out.push(wire::tag(2, wire::LEN));
        wire::put_varint(out, value.len() as u64);
        out.extend_from_slice(value);
        label
    }

    /// The series that are not dropped.
    pub fn iter(&self) -> impl Iterator<Item = SeriesRef<'_>> {
        (0..self.series.len())
            .filter(|&i| !self.series[i].dropped)
            .map(|index| SeriesRef { arena: self, index })
    }

    /// A series by its index.
    pub(crate) fn get(&self, index: usize) -> SeriesRef<'_> {
        SeriesRef { arena: self, index }
    }

    /// Removes a series.
    pub(crate) fn drop_series(&mut self, index: usize) {
        let series = &mut self.series[index];
        if !series.dropped {
            series.dropped = true;
            self.counts.sub(series.counts);
            self.changed = true;
        }
    }

    /// Calls `edit` for each series and drops those for which it returns false.
    pub fn retain(&mut self, mut edit: impl FnMut(&mut SeriesMut<'_>) -> bool) {
        for index in 0..self.series.len() {
            if self.series[index].dropped {
                continue;
            }
            if !edit(&mut SeriesMut { arena: self, index }) {
                self.drop_series(index);
            }
        }
    }

    /// Removes the metadata of all metric families.
    pub fn forget_metadata(&mut self) {
        self.changed |= !self.metadata.is_empty();
        self.metadata.clear();
        self.counts.metadata = 0;
    }

    /// Appends the series and the metadata of another arena. Both must be of 1.0, as builders make
    /// them.
    pub fn append(&mut self, other: &Self) {
        let (raw, extra) = (other.raw.as_slice(), &other.extra);
        let shift = self.raw.as_slice().len() + self.extra.len();
        let foreign = self.version != Version::V1 || other.version != Version::V1;
        if foreign || shift + raw.len() + extra.len() > TEXT_MAX {
            self.overflowed = true;
            return;
        }
        self.extra.extend_from_slice(raw);
        self.extra.extend_from_slice(extra);
        let shift = shift as u32;
        let first = self.labels.len() as u32;
        self.labels
            .extend(other.labels.iter().map(|label| label.shifted(shift)));
        self.series.extend(other.series.iter().map(|series| Series {
            whole: series.whole.shifted(shift),
            rest: series.rest.shifted(shift),
            labels: series.labels + first,
            ..*series
        }));
        let metadata = other.metadata.iter().map(|span| span.shifted(shift));
        self.metadata.extend(metadata);
        self.counts += other.counts;
        self.exceeds_v1 |= other.exceeds_v1;
        self.changed = true;
    }

    /// Copies the series at these indexes, and the 1.0 metadata if `metadata` is set. It reserves
    /// no room for the other series, so that one arena can be split into many.
    pub fn extract(&self, metadata: bool, indexes: &[usize]) -> Self {
        let mut part = Self {
            version: self.version,
            raw: self.raw.clone(),
            extra: self.extra.clone(),
            labels: Vec::new(),
            series: Vec::with_capacity(indexes.len()),
            metadata: Vec::new(),
            symbols: self.symbols.clone(),
            counts: Counts::default(),
            changed: true,
            exceeds_v1: self.exceeds_v1,
            overflowed: self.overflowed,
        };
        for &index in indexes {
            let mut series = self.series[index];
            let start = series.labels as usize;
            let room = start..start + series.labels_room as usize;
            series.labels = part.labels.len() as u32;
            part.labels.extend_from_slice(&self.labels[room]);
            part.series.push(series);
            if !series.dropped {
                part.counts.add(series.counts);
            }
        }
        if metadata {
            part.metadata.clone_from(&self.metadata);
            part.counts.metadata = self.counts.metadata;
        }
        part
    }

    pub(crate) fn count(&mut self, series: SeriesCounts) {
        self.counts.add(series);
    }

    #[inline(always)]
    pub(crate) fn labels_of(&self, index: usize) -> &[Label] {
        let series = &self.series[index];
        &self.labels[series.labels as usize..][..series.labels_len as usize]
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let labels = std::mem::take(&mut self.labels);
        let series = std::mem::take(&mut self.series);
        Pool::give_lists(labels, series);
    }
}
