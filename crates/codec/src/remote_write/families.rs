//! Metric families of remote write 1.0: their series and their metadata.

use crate::Arena;
use crate::wire::{Fields, Value};

// Type numbers of `MetricMetadata` and `Metadata`.
const COUNTER: u64 = 1;
const HISTOGRAM: u64 = 3;
const GAUGE_HISTOGRAM: u64 = 4;
const SUMMARY: u64 = 5;
const INFO: u64 = 6;

/// Suffixes of series names after the family's name, in the order of lookup.
const SUFFIXES: [&[u8]; 8] = [
    b"", b"_total", b"_info", b"_bucket", b"_count", b"_sum", b"_gcount", b"_gsum",
];

/// The metric family that a series belongs to: its name without the suffix of the parts of
/// histograms and summaries.
pub(super) fn family(name: &[u8], kind: u64) -> &[u8] {
    let suffixes: &[&[u8]] = match kind {
        HISTOGRAM => &[b"_bucket", b"_count", b"_sum"],
        GAUGE_HISTOGRAM => &[b"_bucket", b"_gcount", b"_gsum"],
        SUMMARY => &[b"_count", b"_sum"],
        _ => &[],
    };
    suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(*suffix))
        .unwrap_or(name)
}

/// Possible family names of a series, each with the suffix that the series then has.
pub(super) fn candidates(name: &[u8]) -> impl Iterator<Item = (&[u8], &'static [u8])> {
    let split = move |suffix: &'static [u8]| Some((name.strip_suffix(suffix)?, suffix));
    SUFFIXES.into_iter().filter_map(split)
}

/// Whether a family of type `kind` named `base` has the series `name`, which is `base` and
/// `suffix`.
pub(super) fn has_member(kind: u64, base: &[u8], name: &[u8], suffix: &[u8]) -> bool {
    // OpenMetrics names the family of a counter or an info without the suffix; Prometheus' text
    // format names it with the suffix.
    let openmetrics = matches!((kind, suffix), (COUNTER, b"_total") | (INFO, b"_info"));
    openmetrics || family(name, kind) == base
}

/// A 1.0 metadata entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry<'a> {
    pub(super) kind: u64,
    pub(super) name: &'a [u8],
    pub(super) help: &'a [u8],
    pub(super) unit: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a `metadata` field, whose message is its only content.
    pub(super) fn read(field: &'a [u8]) -> Option<Self> {
        let field = Fields::new(field).next()?.ok()?;
        let mut entry = Self::default();
        for field in Fields::new(field.bytes().ok()?).map_while(Result::ok) {
            match (field.number, field.value) {
                (1, Value::Varint(number)) => entry.kind = number,
                (2, Value::Len(text)) => entry.name = text,
                (4, Value::Len(text)) => entry.help = text,
                (5, Value::Len(text)) => entry.unit = text,
                _ => {}
            }
        }
        Some(entry)
    }
}

/// A batch's metadata fields with their entries.
pub(super) fn entries(arena: &Arena) -> impl Iterator<Item = (&[u8], Entry<'_>)> {
    let fields = arena.metadata.iter().map(|span| arena.text(*span));
    fields.filter_map(|field| Some((field, Entry::read(field)?)))
}
