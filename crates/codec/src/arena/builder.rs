//! Builds batches that no request brought: scrapes and the gateway's own metrics write their series
//! straight into the form that a decoded 1.0 request has. There is no `String` per label and no
//! struct per sample; each byte is copied twice, since labels may come in any order and the length
//! of a series precedes it. Labels that repeat those of the previous series are marked, as those of
//! a decoded request are, so that encoding need not compare them.
//!
//! Limits: those of requests, per series and for the whole batch.

use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use metrifold_model::{SeriesCounts, Version};

use crate::remote_write::{Limits, Reason, has_custom_buckets};
use crate::wire::{self, FIXED64, LEN, VARINT, put_bytes, put_varint, tag};

use super::{Arena, Label, Raw, Series, Span};

/// Room for labels that transforms add, per series.
const ROOM: usize = 2;

/// Type of a metric family, with its number in `MetricMetadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the exposition formats'")]
pub enum MetricType {
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

/// Why a series was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SeriesError {
    /// The series breaks a rule of remote write.
    #[error("series is invalid: {}", .0.as_str())]
    Invalid(Reason),
    /// The series does not fit within the limit on decoded bytes.
    #[error("batch has reached the limit on its decoded size")]
    Full,
}

/// Builds a decoded batch series by series: start a series, push its labels (in any order) and its
/// samples, exemplars or histograms, and finish it.
#[derive(Debug)]
pub struct ArenaBuilder {
    arena: Arena,
    /// The request of 1.0 that the arena's offsets point into.
    text: Vec<u8>,
    limits: Limits,
    /// Labels of the series under construction, and their encoded entries in the order of their
    /// coming.
    labels: Vec<Pending>,
    entries: Vec<u8>,
    /// Properties of these labels that decide whether the series is valid.
    seen: Seen,
    /// Indexes of the previous series' labels in the arena.
    before: Range<usize>,
    /// Samples, exemplars and histograms of the series under construction, encoded.
    rest: Vec<u8>,
    counts: SeriesCounts,
}

/// A label of the series under construction: range of its entry, and start and length of its name.
#[derive(Clone, Copy, Debug)]
struct Pending {
    start: usize,
    end: usize,
    name: usize,
    name_len: usize,
    value_len: usize,
}

impl Pending {
    fn entry(self, entries: &[u8]) -> &[u8] {
        &entries[self.start..self.end]
    }

    fn name(self, entries: &[u8]) -> &[u8] {
        &entries[self.name..][..self.name_len]
    }
}

/// Properties of the labels of a series.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Whether each name sorts behind the one before it.
    sorted: bool,
    /// Whether there is a `__name__`.
    named: bool,
    shortest_name: usize,
    longest_name: usize,
    longest_value: usize,
}

impl Seen {
    const NOTHING: Self = Self {
        sorted: true,
        named: false,
        shortest_name: usize::MAX,
        longest_name: 0,
        longest_value: 0,
    };
}

impl ArenaBuilder {
    /// A builder that enforces the limits of decoded requests.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            // The largest text that offsets can address.
            decoded_bytes: limits.decoded_bytes.min(Limits::ACCEPTED.decoded_bytes),
            ..limits
        };
        Self {
            arena: Arena::new(Version::V1, Arc::default()),
            text: Vec::new(),
            limits,
            labels: Vec::new(),
            entries: Vec::new(),
            seen: Seen::NOTHING,
            before: 0..0,
            rest: Vec::new(),
            counts: SeriesCounts::default(),
        }
    }

    /// Makes room for about this many series with this much text.
    pub fn reserve(&mut self, series: usize, bytes: usize) {
        self.text.reserve(bytes.min(self.limits.decoded_bytes));
        self.arena.series.reserve(series);
    }

    /// Starts a series; an unfinished one is discarded.
    pub fn start_series(&mut self) {
        self.labels.clear();
        self.entries.clear();
        self.seen = Seen::NOTHING;
        self.rest.clear();
        self.counts = SeriesCounts::default();
    }

    /// Adds a label; one with an empty value is ignored, as everywhere in Prometheus.
    pub fn push_label(&mut self, name: &str, value: &str) {
        // One label or byte beyond the limit is enough to refuse the series.
        if value.is_empty() || self.labels.len() > self.limits.labels {
            return;
        }
        let name = cut(name, self.limits.name_bytes);
        let value = cut(value, self.limits.value_bytes);
        if let Some(last) = self.labels.last() {
            self.seen.sorted &= last.name(&self.entries) < name;
        }
        self.seen.named |= name == b"__name__";
        self.seen.shortest_name = self.seen.shortest_name.min(name.len());
        self.seen.longest_name = self.seen.longest_name.max(name.len());
        self.seen.longest_value = self.seen.longest_value.max(value.len());
        let start = self.entries.len();
        let name_start = put_entry(&mut self.entries, name, value);
        self.labels.push(Pending {
            start,
            end: self.entries.len(),
            name: name_start,
            name_len: name.len(),
            value_len: value.len(),
        });
    }

    /// Whether the series has a label of this name already.
    pub fn has_label(&self, name: &str) -> bool {
        let mut labels = self.labels.iter();
        labels.any(|label| label.name(&self.entries) == name.as_bytes())
    }

    /// Adds a sample; `timestamp` is in milliseconds.
    pub fn push_sample(&mut self, value: f64, timestamp: i64) {
        if self.is_full() {
            return;
        }
        self.counts.samples += 1;
        self.rest.push(tag(2, LEN));
        put_varint(&mut self.rest, point_len(value, timestamp) as u64);
        put_point(&mut self.rest, 1, value, timestamp);
    }

    /// Adds a sample of a series that has been counting since `start`, in milliseconds. Only remote
    /// write 2.0 sends the start timestamp.
    pub fn push_sample_since(&mut self, value: f64, timestamp: i64, start: i64) {
        if self.is_full() {
            return;
        }
        self.arena.exceeds_v1 = true;
        self.counts.samples += 1;
        self.rest.push(tag(2, LEN));
        let len = point_len(value, timestamp) + 1 + wire::varint_len(start as u64);
        put_varint(&mut self.rest, len as u64);
        put_point(&mut self.rest, 1, value, timestamp);
        self.rest.push(tag(3, VARINT));
        put_varint(&mut self.rest, start as u64);
    }

    /// Adds an exemplar with labels of its own.
    pub fn push_exemplar<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)> + Clone,
        value: f64,
        timestamp: i64,
    ) {
        let entry = |(name, value): (&str, &str)| Label::entry(0, name.len(), value.len());
        let lens = labels
            .clone()
            .into_iter()
            .map(|label| entry(label).entry_len());
        let len = lens.sum::<usize>() + point_len(value, timestamp);
        if self.is_full() || len > self.limits.decoded_bytes {
            return;
        }
        self.counts.exemplars += 1;
        self.rest.push(tag(3, LEN));
        put_varint(&mut self.rest, len as u64);
        for (name, value) in labels {
            put_entry(&mut self.rest, name.as_bytes(), value.as_bytes());
        }
        put_point(&mut self.rest, 2, value, timestamp);
    }

    /// Adds a native histogram: an encoded `Histogram` message. Only remote write 2.0 sends one with
    /// custom buckets.
    pub fn push_histogram(&mut self, message: &[u8]) {
        if self.is_full() || message.len() > self.limits.decoded_bytes {
            return;
        }
        self.arena.exceeds_v1 |= has_custom_buckets(message);
        self.counts.histograms += 1;
        put_bytes(&mut self.rest, 4, message);
    }

    /// Adds a native histogram that has been counting since `start`, in milliseconds. Only remote
    /// write 2.0 sends the start timestamp.
    pub fn push_histogram_since(&mut self, message: &[u8], start: i64) {
        if self.is_full() || message.len() > self.limits.decoded_bytes {
            return;
        }
        self.arena.exceeds_v1 = true;
        self.counts.histograms += 1;
        self.rest.push(tag(4, LEN));
        let len = message.len() + 2 + wire::varint_len(start as u64);
        put_varint(&mut self.rest, len as u64);
        self.rest.extend_from_slice(message);
        // Field 17: its key takes two bytes.
        put_varint(&mut self.rest, 17 << 3 | u64::from(VARINT));
        put_varint(&mut self.rest, start as u64);
    }

    /// Whether the series alone exceeds the limit: further parts are discarded, and the series is
    /// refused.
    fn is_full(&self) -> bool {
        self.rest.len() > self.limits.decoded_bytes
    }

    /// Adds the series to the batch.
    ///
    /// # Errors
    ///
    /// Fails when the series is invalid or does not fit. The batch is then unchanged.
    pub fn finish_series(&mut self) -> Result<(), SeriesError> {
        self.check().map_err(SeriesError::Invalid)?;
        let labels_bytes = self.entries.len();
        let len = labels_bytes + self.rest.len();
        let start = self.text.len();
        if !self.has_room(1 + wire::varint_len(len as u64) + len) {
            return Err(SeriesError::Full);
        }
        self.text.push(tag(1, LEN));
        put_varint(&mut self.text, len as u64);
        let first = self.arena.labels.len();
        self.put_labels();
        self.before = first..self.arena.labels.len();
        let room = [Label::default(); ROOM];
        self.arena.labels.extend_from_slice(&room);
        let rest = self.text.len();
        self.text.extend_from_slice(&self.rest);
        let end = self.text.len();
        self.arena.series.push(Series {
            whole: Span::new(start, end),
            rest: Span::new(rest, end),
            labels: first as u32,
            labels_len: self.labels.len() as u32,
            labels_room: (self.labels.len() + ROOM) as u32,
            labels_bytes: labels_bytes as u32,
            counts: self.counts,
            edited: false,
            dropped: false,
        });
        self.arena.count(self.counts);
        self.start_series();
        Ok(())
    }

    /// Appends the sorted labels to the batch, and marks those that repeat the previous series'.
    fn put_labels(&mut self) {
        let before = self.before.clone();
        let mut twin = before.start;
        for pending in &self.labels {
            let (entry, name) = (pending.entry(&self.entries), pending.name(&self.entries));
            let start = self.text.len();
            let name_start = start + pending.name - pending.start;
            let mut label = Label::entry(name_start, pending.name_len, pending.value_len);
            while twin < before.end {
                let other = self.arena.labels[twin];
                let place = other.entry_place().unwrap_or_default();
                let (from, len) = (place.0 as usize, place.1 as usize);
                if self.text[from..from + len] == *entry {
                    label = other.repeated((start - from) as u32);
                    twin += 1;
                    break;
                }
                let span = other.name();
                let other = &self.text[span.start as usize..][..span.len as usize];
                // A label of the same name has another value, and the next ones sort behind both.
                twin += usize::from(other <= name);
                if other >= name {
                    break;
                }
            }
            self.text.extend_from_slice(entry);
            self.arena.labels.push(label);
        }
    }

    /// Sorts the labels and checks the series.
    fn check(&mut self) -> Result<(), Reason> {
        let Self {
            labels,
            entries,
            limits,
            seen,
            ..
        } = self;
        if !seen.sorted {
            labels.sort_by(|a, b| a.name(entries).cmp(b.name(entries)));
            let in_order = |pair: &[Pending]| pair[0].name(entries) < pair[1].name(entries);
            if !labels.windows(2).all(in_order) {
                return Err(Reason::DuplicateLabel);
            }
        }
        if seen.shortest_name == 0 {
            return Err(Reason::EmptyLabelName);
        }
        if seen.longest_name > limits.name_bytes {
            return Err(Reason::LabelNameTooLong);
        }
        if seen.longest_value > limits.value_bytes {
            return Err(Reason::LabelValueTooLong);
        }
        if labels.len() > limits.labels {
            return Err(Reason::TooManyLabels);
        }
        if !seen.named {
            return Err(Reason::MissingName);
        }
        if self.rest.is_empty() {
            return Err(Reason::NoSamples);
        }
        Ok(())
    }

    /// Adds the metadata of a metric family. Returns whether there was room.
    pub fn push_metadata(
        &mut self,
        family: &str,
        kind: MetricType,
        help: &str,
        unit: &str,
    ) -> bool {
        if !self.has_room(family.len() + help.len() + unit.len() + METADATA) {
            return false;
        }
        let mut message = Vec::with_capacity(family.len() + help.len() + unit.len() + METADATA);
        if kind != MetricType::Unknown {
            message.push(tag(1, VARINT));
            put_varint(&mut message, kind as u64);
        }
        for (field, text) in [(2, family), (4, help), (5, unit)] {
            if !text.is_empty() {
                put_bytes(&mut message, field, text.as_bytes());
            }
        }
        let start = self.text.len();
        put_bytes(&mut self.text, 3, &message);
        let span = Span::new(start, self.text.len());
        self.arena.metadata.push(span);
        self.arena.counts.metadata += 1;
        true
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.text.len() + bytes <= self.limits.decoded_bytes
    }

    /// Returns the decoded batch, without an unfinished series.
    pub fn finish(self) -> Arena {
        let mut arena = self.arena;
        arena.raw = Arc::new(Raw::from(self.text));
        arena
    }
}

/// Most bytes of the tags and lengths of a metadata entry.
const METADATA: usize = 32;

/// Cuts a text just above the limit, so that it is still recognised as too long.
fn cut(text: &str, limit: usize) -> &[u8] {
    let bytes = text.as_bytes();
    &bytes[..bytes.len().min(limit.saturating_add(1))]
}

/// Appends a label's entry; returns where the name starts in it.
fn put_entry(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> usize {
    let len = Label::entry(0, name.len(), value.len()).message_len();
    out.push(tag(1, LEN));
    put_varint(out, len as u64);
    put_bytes(out, 1, name);
    let start = out.len() - name.len();
    put_bytes(out, 2, value);
    start
}

/// Encoded length of a value and a timestamp. Zeros are omitted, as in protobuf.
fn point_len(value: f64, timestamp: i64) -> usize {
    let value = if value.to_bits() == 0 { 0 } else { 9 };
    let timestamp = match timestamp {
        0 => 0,
        timestamp => 1 + wire::varint_len(timestamp as u64),
    };
    value + timestamp
}

/// Appends a value under `field` and a timestamp under the next one.
fn put_point(out: &mut Vec<u8>, field: u8, value: f64, timestamp: i64) {
    if value.to_bits() != 0 {
        out.push(tag(field, FIXED64));
        out.extend_from_slice(&value.to_le_bytes());
    }
    if timestamp != 0 {
        out.push(tag(field + 1, VARINT));
        put_varint(out, timestamp as u64);
    }
}

#[cfg(test)]
mod tests;
