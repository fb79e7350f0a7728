//! Batches of series that no request brought: what scrapes and renders its own series writes them
//! straight into the form that decoding gives to a request of 1.0. There is no `String` per label
//! and no struct per sample; each byte is copied twice, since labels may come in any order and the
//! length of a series stands before it.
//!
//! Limits: those of requests, by series and for the whole.

use std::sync::Arc;

use thiserror::Error;

use metrifold_model::{SeriesCounts, Version};

use crate::remote_write::{Limits, Reason};
use crate::wire::{self, FIXED64, LEN, VARINT, put_bytes, put_varint, tag};

use super::{Arena, Label, Raw, Series, Span};

/// Room for labels that transforms add, per series.
const ROOM: usize = 2;

/// What a metric family measures, by its number in `MetricMetadata`.
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

/// Builds a decoded batch series by series: start one, push its labels in any order and what it
/// carries, and finish it.
#[derive(Debug)]
pub struct ArenaBuilder {
    arena: Arena,
    /// The request of 1.0 that the arena's offsets point into.
    text: Vec<u8>,
    limits: Limits,
    /// The labels of the series that is being built, and their names and values.
    labels: Vec<Pending>,
    names: Vec<u8>,
    /// Its samples, exemplars and histograms, encoded.
    rest: Vec<u8>,
    counts: SeriesCounts,
}

/// A label of the series that is being built: its value stands behind its name.
#[derive(Clone, Copy, Debug)]
struct Pending {
    start: usize,
    name: usize,
    value: usize,
}

impl Pending {
    fn name(self, text: &[u8]) -> &[u8] {
        &text[self.start..][..self.name]
    }

    fn value(self, text: &[u8]) -> &[u8] {
        &text[self.start + self.name..][..self.value]
    }
}

impl ArenaBuilder {
    /// A builder that keeps to the limits of decoded requests.
    pub fn new(limits: Limits) -> Self {
        let limits = Limits {
            // Beyond that offsets do not reach.
            decoded_bytes: limits.decoded_bytes.min(Limits::NONE.decoded_bytes),
            ..limits
        };
        Self {
            arena: Arena::new(Version::V1, Arc::default()),
            text: Vec::new(),
            limits,
            labels: Vec::new(),
            names: Vec::new(),
            rest: Vec::new(),
            counts: SeriesCounts::default(),
        }
    }

    /// Starts a series. One that was not finished is forgotten.
    pub fn start_series(&mut self) {
        self.labels.clear();
        self.names.clear();
        self.rest.clear();
        self.counts = SeriesCounts::default();
    }

    /// Adds a label; one without a value is none, as everywhere in Prometheus.
    pub fn push_label(&mut self, name: &str, value: &str) {
        // One label more than allowed, or one byte, is enough to refuse the series.
        if value.is_empty() || self.labels.len() > self.limits.labels {
            return;
        }
        let name = cut(name, self.limits.name_bytes);
        let value = cut(value, self.limits.value_bytes);
        self.labels.push(Pending {
            start: self.names.len(),
            name: name.len(),
            value: value.len(),
        });
        self.names.extend_from_slice(name);
        self.names.extend_from_slice(value);
    }

    /// Whether the series has a label of this name already.
    pub fn has_label(&self, name: &str) -> bool {
        let mut labels = self.labels.iter();
        labels.any(|label| label.name(&self.names) == name.as_bytes())
    }

    /// Adds a sample; its timestamp is in milliseconds.
    pub fn push_sample(&mut self, value: f64, timestamp: i64) {
        if self.is_full() {
            return;
        }
        self.counts.samples += 1;
        self.rest.push(tag(2, LEN));
        put_varint(&mut self.rest, point_len(value, timestamp) as u64);
        put_point(&mut self.rest, 1, value, timestamp);
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

    /// Adds a native histogram: an encoded message `Histogram`, of the fields that both versions
    /// know.
    pub fn push_histogram(&mut self, message: &[u8]) {
        if self.is_full() || message.len() > self.limits.decoded_bytes {
            return;
        }
        self.counts.histograms += 1;
        put_bytes(&mut self.rest, 4, message);
    }

    /// Whether the series alone is larger than allowed: what is added then is not kept, and the
    /// series is refused.
    fn is_full(&self) -> bool {
        self.rest.len() > self.limits.decoded_bytes
    }

    /// Adds the series to the batch.
    ///
    /// # Errors
    ///
    /// Fails when it is invalid or there is no room for it. The batch stays as it was.
    pub fn finish_series(&mut self) -> Result<(), SeriesError> {
        self.check().map_err(SeriesError::Invalid)?;
        let entries = self.labels.iter();
        let entries = entries.map(|label| Label::entry(0, label.name, label.value).entry_len());
        let labels_bytes = entries.sum::<usize>();
        let len = labels_bytes + self.rest.len();
        let start = self.text.len();
        if !self.has_room(1 + wire::varint_len(len as u64) + len) {
            return Err(SeriesError::Full);
        }
        self.text.push(tag(1, LEN));
        put_varint(&mut self.text, len as u64);
        let first = self.arena.labels.len();
        for label in &self.labels {
            let (name, value) = (label.name(&self.names), label.value(&self.names));
            let name_start = put_entry(&mut self.text, name, value);
            let label = Label::entry(name_start, name.len(), value.len());
            self.arena.labels.push(label);
        }
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

    /// Sorts the labels and checks the series.
    fn check(&mut self) -> Result<(), Reason> {
        let Self {
            labels,
            names,
            limits,
            ..
        } = self;
        let in_order = |pair: &[Pending]| pair[0].name(names) < pair[1].name(names);
        if !labels.windows(2).all(in_order) {
            labels.sort_by(|a, b| a.name(names).cmp(b.name(names)));
            if !labels.windows(2).all(in_order) {
                return Err(Reason::DuplicateLabel);
            }
        }
        let all = |holds: fn(&Pending, &Limits) -> bool| labels.iter().all(|l| holds(l, limits));
        if !all(|label, _| label.name > 0) {
            return Err(Reason::EmptyLabelName);
        }
        if !all(|label, limits| label.name <= limits.name_bytes) {
            return Err(Reason::LabelNameTooLong);
        }
        if !all(|label, limits| label.value <= limits.value_bytes) {
            return Err(Reason::LabelValueTooLong);
        }
        if labels.len() > limits.labels {
            return Err(Reason::TooManyLabels);
        }
        if !labels.iter().any(|label| label.name(names) == b"__name__") {
            return Err(Reason::MissingName);
        }
        if self.rest.is_empty() {
            return Err(Reason::NoSamples);
        }
        Ok(())
    }

    /// Adds what is known of a metric family. Returns whether there was room.
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

    /// The decoded batch. A series that was not finished is not in it.
    pub fn finish(self) -> Arena {
        let mut arena = self.arena;
        arena.raw = Arc::new(Raw::from(self.text));
        arena
    }
}

/// Tags and lengths of a metadata entry, at most.
const METADATA: usize = 32;

/// As much of a text as says that it is too long.
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

/// The length of a value and a timestamp. What is zero is left out, as protobuf does.
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
