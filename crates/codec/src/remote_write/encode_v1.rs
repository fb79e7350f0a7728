//! From an [`Arena`] to a remote-write 1.0 body.

use bytes::Bytes;

use metrifold_model::Version;

use crate::snappy::Compressor;
use crate::wire::{Fields, LEN, Value, put_bytes, tag};
use crate::{Arena, Label, wire};

use super::compress_v1::{self, CompressionChoice};
use super::families::family;

/// Encodes and compresses, with the compression that `choice` has found to suit the sink's data;
/// without a choice, by the structure of the series.
pub fn encode(arena: &Arena, choice: Option<&CompressionChoice>) -> Bytes {
    match arena.version {
        Version::V1 if arena.exceeds_v1 => Compressor::compress(|out| reduced(arena, out)),
        Version::V1 => compress_v1::encode(arena, choice),
        Version::V2 => Compressor::compress(|out| from_v2(arena, out)),
    }
}

fn entries_len(labels: &[Label]) -> usize {
    labels.iter().map(|label| label.entry_len()).sum()
}

/// Appends labels as 1.0 fields.
pub(crate) fn put_labels(arena: &Arena, labels: &[Label], out: &mut Vec<u8>) {
    for label in labels {
        put_label(arena.text(label.name()), arena.text(label.value()), out);
    }
}

/// Appends a label as a 1.0 field.
pub(super) fn put_label(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let message = Label::entry(0, name.len(), value.len()).message_len();
    out.push(tag(1, LEN));
    wire::put_varint(out, message as u64);
    put_bytes(out, 1, name);
    put_bytes(out, 2, value);
}

/// Number of histograms in a batch that 1.0 cannot represent.
pub fn lost_in_v1(arena: &Arena) -> u64 {
    let may_have = arena.version == Version::V2 || arena.exceeds_v1;
    if !may_have || arena.counts().histograms == 0 {
        return 0;
    }
    let number = match arena.version {
        Version::V1 => 4,
        Version::V2 => 3,
    };
    let histograms = arena
        .iter()
        .flat_map(|series| Fields::new(series.rest()).map_while(Result::ok));
    let custom = |field: &wire::Field<'_>| {
        field.number == number && field.bytes().is_ok_and(has_custom_buckets)
    };
    histograms.filter(custom).count() as u64
}

/// Encodes a 2.0 batch. Data that 1.0 cannot represent (start timestamps, histograms with custom
/// buckets) is left out; metadata becomes one entry per metric family.
fn from_v2(arena: &Arena, out: &mut Compressor) {
    let mut families = std::collections::BTreeMap::new();
    let mut rest = Vec::new();
    for series in arena.iter() {
        rest.clear();
        let mut metadata = None;
        for field in Fields::new(series.rest()).map_while(Result::ok) {
            let Value::Len(bytes) = field.value else {
                continue; // start timestamp of a draft of 2.0
            };
            match field.number {
                2 => {
                    // Without the start timestamp, field 3.
                    without(bytes, 2, |number| number <= 2, &mut rest);
                }
                3 if !has_custom_buckets(bytes) => {
                    without(bytes, 4, |number| number <= 15, &mut rest);
                }
                4 => exemplar(arena, bytes, &mut rest),
                5 => metadata = Some(bytes),
                _ => {}
            }
        }
        if let Some(metadata) = metadata
            && let Some(entry) = metric_metadata(arena, metadata)
        {
            let name = series.get(name_label()).unwrap_or_default();
            families.entry(family(name, entry.0)).or_insert(entry);
        }
        put_series(arena, series.index(), &rest, out);
    }
    for (family, (kind, help, unit)) in families {
        let mut message = Vec::new();
        message.push(tag(1, wire::VARINT));
        wire::put_varint(&mut message, kind);
        put_bytes(&mut message, 2, family);
        if !help.is_empty() {
            put_bytes(&mut message, 4, help);
        }
        if !unit.is_empty() {
            put_bytes(&mut message, 5, unit);
        }
        put_bytes(out.buffer(), 3, &message);
        out.flush();
    }
}

/// Encodes a batch in 1.0's form without what only 2.0 has: start timestamps, and histograms with
/// custom buckets.
fn reduced(arena: &Arena, out: &mut Compressor) {
    let mut rest = Vec::new();
    for series in arena.iter() {
        rest.clear();
        for field in Fields::new(series.rest()).map_while(Result::ok) {
            match (field.number, field.value) {
                (2, Value::Len(sample)) => without(sample, 2, |number| number <= 2, &mut rest),
                (4, Value::Len(histogram)) => {
                    if !has_custom_buckets(histogram) {
                        without(histogram, 4, |number| number <= 15, &mut rest);
                    }
                }
                _ => rest.extend_from_slice(field.whole),
            }
        }
        put_series(arena, series.index(), &rest, out);
    }
    for &metadata in &arena.metadata {
        out.buffer().extend_from_slice(arena.text(metadata));
        out.flush();
    }
}

/// Appends a series with these fields after its labels; none if there are no fields.
fn put_series(arena: &Arena, index: usize, rest: &[u8], out: &mut Compressor) {
    if rest.is_empty() {
        return;
    }
    let labels = arena.labels_of(index);
    let buffer = out.buffer();
    buffer.push(tag(1, LEN));
    wire::put_varint(buffer, (entries_len(labels) + rest.len()) as u64);
    put_labels(arena, labels, buffer);
    buffer.extend_from_slice(rest);
    out.flush();
}

fn name_label() -> &'static crate::Name {
    static NAME: std::sync::LazyLock<crate::Name> =
        std::sync::LazyLock::new(|| crate::Name::new("__name__"));
    &NAME
}

/// Appends a message under `field`, with only the fields for which `keep` returns true. A malformed
/// message is copied unchanged, for the endpoint to refuse: cut short, it would be another sample.
fn without(message: &[u8], field: u8, keep: impl Fn(u32) -> bool, out: &mut Vec<u8>) {
    let mut len = 0;
    for part in Fields::new(message) {
        match part {
            Ok(part) if keep(part.number) => len += part.whole.len(),
            Ok(_) => {}
            Err(_) => return put_bytes(out, field, message),
        }
    }
    out.push(tag(field, LEN));
    wire::put_varint(out, len as u64);
    for part in Fields::new(message).map_while(Result::ok) {
        if keep(part.number) {
            out.extend_from_slice(part.whole);
        }
    }
}

/// Schema −53: 1.0 has no field for its bucket bounds.
pub(crate) fn has_custom_buckets(histogram: &[u8]) -> bool {
    const ZIGZAG_MINUS_53: u64 = 105;
    Fields::new(histogram)
        .map_while(Result::ok)
        .any(|f| f.number == 4 && f.value == Value::Varint(ZIGZAG_MINUS_53))
}

/// Appends a 2.0 exemplar as one of 1.0.
pub(super) fn exemplar(arena: &Arena, exemplar: &[u8], out: &mut Vec<u8>) {
    let mut message = Vec::new();
    let mut refs = Vec::new();
    for field in Fields::new(exemplar).map_while(Result::ok) {
        match (field.number, field.value) {
            (1, Value::Len(bytes)) => refs.extend(wire::packed(bytes).map_while(Result::ok)),
            (1, Value::Varint(number)) => refs.push(number),
            // Value and timestamp have the same field numbers in both versions.
            (2 | 3, _) => message.extend_from_slice(field.whole),
            _ => {}
        }
    }
    let symbol = |number: u64| arena.symbol(number).unwrap_or_default();
    for pair in refs.chunks_exact(2) {
        let (name, value) = (symbol(pair[0]), symbol(pair[1]));
        let mut label = Vec::with_capacity(name.len() + value.len() + 4);
        put_bytes(&mut label, 1, name);
        put_bytes(&mut label, 2, value);
        put_bytes(&mut message, 1, &label);
    }
    put_bytes(out, 3, &message);
}

/// Type, help and unit of a 2.0 metadata message; None if all of them are empty.
fn metric_metadata<'a>(arena: &'a Arena, metadata: &[u8]) -> Option<(u64, &'a [u8], &'a [u8])> {
    let (mut kind, mut help, mut unit) = (0, &[][..], &[][..]);
    for field in Fields::new(metadata).map_while(Result::ok) {
        let Value::Varint(number) = field.value else {
            continue;
        };
        match field.number {
            1 => kind = number,
            3 => help = arena.symbol(number).unwrap_or_default(),
            4 => unit = arena.symbol(number).unwrap_or_default(),
            _ => {}
        }
    }
    (kind != 0 || !help.is_empty() || !unit.is_empty()).then_some((kind, help, unit))
}
