//! From an [`Arena`] to a remote-write 1.0 body.

use bytes::Bytes;

use metrifold_model::Version;

use crate::snappy::Compressor;
use crate::wire::{Field, Fields, LEN, Value, put_bytes, tag};
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
        // A few references may stand for much text: of a long series, only the length is taken first.
        let mut passed = 0;
        let mut metadata = None;
        for field in Fields::new(series.rest()).map_while(Result::ok) {
            if let (5, Value::Len(bytes)) = (field.number, field.value) {
                metadata = Some(bytes);
            }
            put_converted(arena, &field, &mut rest);
            if rest.len() > AT_ONCE {
                passed += rest.len();
                rest.clear();
            }
        }
        match passed {
            0 => put_series(arena, series.index(), &rest, out),
            _ => {
                put_head(arena, series.index(), passed + rest.len(), out.buffer());
                for field in Fields::new(series.rest()).map_while(Result::ok) {
                    put_converted(arena, &field, out.buffer());
                    out.flush();
                }
            }
        }
        if let Some(metadata) = metadata
            && let Some(entry) = metric_metadata(arena, metadata)
        {
            let name = series.get(name_label()).unwrap_or_default();
            families.entry(family(name, entry.0)).or_insert(entry);
        }
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

/// Bytes of a series, without its labels, that are kept until its length is known.
const AT_ONCE: usize = 1 << 20;

/// Appends a field of a 2.0 series as one of 1.0, if 1.0 has a place for it.
fn put_converted(arena: &Arena, field: &Field<'_>, out: &mut Vec<u8>) {
    let Value::Len(bytes) = field.value else {
        return; // start timestamp of a draft of 2.0
    };
    match field.number {
        // Without the start timestamp, field 3.
        2 => without(bytes, 2, |number| number <= 2, out),
        3 if !has_custom_buckets(bytes) => without(bytes, 4, |number| number <= 15, out),
        4 => exemplar(arena, bytes, out),
        _ => {}
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
    put_head(arena, index, rest.len(), out.buffer());
    out.buffer().extend_from_slice(rest);
    out.flush();
}

/// Appends the beginning of a series, up to its labels; `rest` bytes follow.
fn put_head(arena: &Arena, index: usize, rest: usize, out: &mut Vec<u8>) {
    let labels = arena.labels_of(index);
    out.push(tag(1, LEN));
    wire::put_varint(out, (entries_len(labels) + rest) as u64);
    put_labels(arena, labels, out);
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
    out.push(tag(3, LEN));
    wire::put_varint(out, exemplar_message_len(arena, exemplar) as u64);
    for field in exemplar_fields(exemplar) {
        out.extend_from_slice(field.whole);
    }
    for (name, value) in exemplar_labels(arena, exemplar) {
        put_label(name, value, out);
    }
}

/// The length of what [`exemplar`] appends.
pub(super) fn exemplar_len(arena: &Arena, exemplar: &[u8]) -> usize {
    let message = exemplar_message_len(arena, exemplar);
    1 + wire::varint_len(message as u64) + message
}

fn exemplar_message_len(arena: &Arena, exemplar: &[u8]) -> usize {
    let fields = exemplar_fields(exemplar).map(|field| field.whole.len());
    let labels = exemplar_labels(arena, exemplar)
        .map(|(name, value)| Label::entry(0, name.len(), value.len()).entry_len());
    fields.sum::<usize>() + labels.sum::<usize>()
}

/// Value and timestamp of an exemplar, which have the same field numbers in both versions.
fn exemplar_fields(exemplar: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let fields = Fields::new(exemplar).map_while(Result::ok);
    fields.filter(|field| matches!(field.number, 2 | 3))
}

/// Labels of a 2.0 exemplar, whose references come packed or one by one.
fn exemplar_labels<'a>(
    arena: &'a Arena,
    exemplar: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let fields = Fields::new(exemplar).map_while(Result::ok);
    let mut refs = fields.flat_map(|field| {
        let (packed, single) = match (field.number, field.value) {
            (1, Value::Len(bytes)) => (bytes, None),
            (1, Value::Varint(number)) => (&[][..], Some(number)),
            _ => (&[][..], None),
        };
        wire::packed(packed).map_while(Result::ok).chain(single)
    });
    let symbol = |number: u64| arena.symbol(number).unwrap_or_default();
    std::iter::from_fn(move || Some((symbol(refs.next()?), symbol(refs.next()?))))
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
