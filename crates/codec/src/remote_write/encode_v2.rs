//! From an [`Arena`] to a remote-write 2.0 body.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;

use metrifold_model::Version;

use crate::snappy::Compressor;
use crate::wire::{Fields, Value, put_bytes, tag};
use crate::{Arena, Name, Span, wire};

use super::families;

/// Encodes and compresses. The symbol table contains only the strings of the remaining series: a
/// dropped series may be another tenant's, whose strings must not be sent.
pub fn encode(arena: &Arena) -> Bytes {
    let mut symbols = Symbols::new(arena);
    let mut body = Vec::with_capacity(arena.raw.as_slice().len() / 2);
    match arena.version {
        Version::V1 => from_v1(arena, &mut symbols, &mut body),
        Version::V2 => same_version(arena, &mut symbols, &mut body),
    }
    Compressor::compress(|out| {
        // Field 4 precedes field 5, so that a receiver can resolve symbols while it reads.
        for symbol in &symbols.table {
            put_bytes(out.buffer(), 4, symbol);
            out.flush();
        }
        out.put(&body);
    })
}

/// Interns strings in the symbol table of the outgoing request.
struct Symbols<'a> {
    arena: &'a Arena,
    table: Vec<&'a [u8]>,
    numbers: HashMap<&'a [u8], u32, RandomState>,
    /// By received symbol number, its outgoing number plus one; 0 if it has none yet. Empty for a
    /// 1.0 batch.
    arrived: Vec<u32>,
    /// By [`BUCKET`] of the text, the first symbol that starts at or after it.
    buckets: Vec<u32>,
    /// Symbol number of each string that an edit added, by the string's start in the text.
    added: HashMap<u32, u32, RandomState>,
}

/// Bytes of the text per entry of `buckets`.
const BUCKET: usize = 32;

impl<'a> Symbols<'a> {
    fn new(arena: &'a Arena) -> Self {
        // A symbol shared by many series is looked up for each: by its position, not by its text.
        let mut buckets = Vec::new();
        for (number, symbol) in arena.symbols.iter().enumerate() {
            let bucket = symbol.start as usize / BUCKET;
            buckets.resize(buckets.len().max(bucket + 1), number as u32);
        }
        let mut symbols = Self {
            arena,
            table: Vec::new(),
            numbers: HashMap::default(),
            arrived: vec![0; arena.symbols.len()],
            buckets,
            added: HashMap::default(),
        };
        symbols.intern(b"");
        symbols
    }

    fn intern(&mut self, text: &'a [u8]) -> u32 {
        let next = self.table.len() as u32;
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.table.push(text);
        }
        number
    }

    #[inline(always)]
    fn span(&mut self, span: Span) -> u32 {
        let arena = self.arena;
        let Some(&first) = self.buckets.get(span.start as usize / BUCKET) else {
            return self.span_elsewhere(span);
        };
        let symbols = arena.symbols.iter().enumerate().skip(first as usize);
        for (index, symbol) in symbols {
            if symbol.start < span.start {
                continue;
            }
            if symbol.start > span.start {
                break;
            }
            if self.arrived[index] == 0 {
                self.arrived[index] = self.intern(arena.text(span)) + 1;
            }
            return self.arrived[index] - 1;
        }
        self.span_elsewhere(span)
    }

    fn span_elsewhere(&mut self, span: Span) -> u32 {
        if (span.start as usize) < self.arena.raw.as_slice().len() {
            return self.intern(self.arena.text(span));
        }
        if let Some(&number) = self.added.get(&span.start) {
            return number;
        }
        let number = self.intern(self.arena.text(span));
        self.added.insert(span.start, number);
        number
    }

    /// Outgoing number of the received symbol `number`.
    fn symbol(&mut self, number: u64) -> u32 {
        match usize::try_from(number)
            .ok()
            .and_then(|n| self.arena.symbols.get(n))
        {
            Some(&span) => self.span(span),
            None => 0,
        }
    }

    /// Appends the label references of a series, field 1.
    fn put_labels(&mut self, index: usize, refs: &mut Vec<u8>, out: &mut Vec<u8>) {
        let arena = self.arena;
        refs.clear();
        for label in arena.labels_of(index) {
            wire::put_varint(refs, self.span(label.name()).into());
            wire::put_varint(refs, self.span(label.value()).into());
        }
        put_bytes(out, 1, refs);
    }
}

fn same_version<'a>(arena: &'a Arena, symbols: &mut Symbols<'a>, out: &mut Vec<u8>) {
    let (mut refs, mut message) = (Vec::new(), Vec::new());
    for series in arena.iter() {
        message.clear();
        symbols.put_labels(series.index(), &mut refs, &mut message);
        // Samples and histograms are copied; messages with symbol references are renumbered.
        for field in Fields::new(series.rest()).map_while(Result::ok) {
            match (field.number, field.value) {
                (4, Value::Len(exemplar)) => {
                    renumber(exemplar, symbols, &[1], &mut refs);
                    put_bytes(&mut message, 4, &refs);
                }
                (5, Value::Len(metadata)) => {
                    renumber(metadata, symbols, &[3, 4], &mut refs);
                    put_bytes(&mut message, 5, &refs);
                }
                _ => message.extend_from_slice(field.whole),
            }
        }
        put_bytes(out, 5, &message);
    }
}

/// Copies a message, renumbering the fields in `holders`, which hold symbol numbers, single or
/// packed.
fn renumber(message: &[u8], symbols: &mut Symbols<'_>, holders: &[u32], out: &mut Vec<u8>) {
    out.clear();
    for field in Fields::new(message).map_while(Result::ok) {
        let number = field.number as u8;
        match field.value {
            Value::Varint(symbol) if holders.contains(&field.number) => {
                out.push(tag(number, wire::VARINT));
                wire::put_varint(out, symbols.symbol(symbol).into());
            }
            Value::Len(packed) if holders.contains(&field.number) => {
                let mut refs = Vec::with_capacity(packed.len());
                for symbol in wire::packed(packed).map_while(Result::ok) {
                    wire::put_varint(&mut refs, symbols.symbol(symbol).into());
                }
                put_bytes(out, number, &refs);
            }
            _ => out.extend_from_slice(field.whole),
        }
    }
}

fn from_v1<'a>(arena: &'a Arena, symbols: &mut Symbols<'a>, out: &mut Vec<u8>) {
    let families = Families::of(arena, symbols);
    let name_label = Name::new("__name__");
    let (mut refs, mut labels, mut message) = (Vec::new(), Vec::new(), Vec::new());
    let (mut samples, mut histograms, mut exemplars) = (Vec::new(), Vec::new(), Vec::new());
    for series in arena.iter() {
        labels.clear();
        symbols.put_labels(series.index(), &mut refs, &mut labels);
        samples.clear();
        histograms.clear();
        exemplars.clear();
        for field in Fields::new(series.rest()).map_while(Result::ok) {
            match (field.number, field.value) {
                (2, _) => samples.extend_from_slice(field.whole),
                (3, Value::Len(bytes)) => {
                    exemplar(bytes, &mut |text| symbols.intern(text), &mut exemplars);
                }
                (4, Value::Len(bytes)) => put_bytes(&mut histograms, 3, bytes),
                _ => {}
            }
        }
        if samples.is_empty() && histograms.is_empty() && exemplars.is_empty() {
            continue; // 2.0 has no series without data: receivers refuse the request
        }
        let metadata = families.metadata(series.get(&name_label).unwrap_or_default());
        // 2.0 has either samples or histograms in a series.
        let parts: &[&[u8]] = match (samples.is_empty(), histograms.is_empty()) {
            (false, false) => &[&samples, &histograms],
            (true, false) => &[&histograms],
            _ => &[&samples],
        };
        for (i, part) in parts.iter().enumerate() {
            message.clear();
            message.extend_from_slice(&labels);
            message.extend_from_slice(part);
            if i == 0 {
                message.extend_from_slice(&exemplars);
            }
            message.extend_from_slice(metadata);
            put_bytes(out, 5, &message);
        }
    }
}

/// Appends a 1.0 exemplar as 2.0's field 4; `symbol` interns its texts.
pub(super) fn exemplar<'a>(
    exemplar: &'a [u8],
    symbol: &mut impl FnMut(&'a [u8]) -> u32,
    out: &mut Vec<u8>,
) {
    let (mut refs, mut message) = (Vec::new(), Vec::new());
    for field in Fields::new(exemplar).map_while(Result::ok) {
        match (field.number, field.value) {
            (1, Value::Len(label)) => {
                let (mut name, mut value) = (&[][..], &[][..]);
                for part in Fields::new(label).map_while(Result::ok) {
                    match (part.number, part.value) {
                        (1, Value::Len(text)) => name = text,
                        (2, Value::Len(text)) => value = text,
                        _ => {}
                    }
                }
                wire::put_varint(&mut refs, symbol(name).into());
                wire::put_varint(&mut refs, symbol(value).into());
            }
            (2 | 3, _) => message.extend_from_slice(field.whole),
            _ => {}
        }
    }
    let mut whole = Vec::with_capacity(refs.len() + message.len() + 4);
    put_bytes(&mut whole, 1, &refs);
    whole.extend_from_slice(&message);
    put_bytes(out, 4, &whole);
}

/// Metadata of the batch's metric families, encoded for their series.
struct Families<'a>(HashMap<&'a [u8], (u64, Vec<u8>), RandomState>);

impl<'a> Families<'a> {
    fn of(arena: &'a Arena, symbols: &mut Symbols<'a>) -> Self {
        let mut known = HashMap::default();
        for (_, entry) in families::entries(arena) {
            let mut metadata = Vec::new();
            for (number, value) in [
                (1, entry.kind),
                (3, symbols.intern(entry.help).into()),
                (4, symbols.intern(entry.unit).into()),
            ] {
                if value != 0 {
                    metadata.push(tag(number, wire::VARINT));
                    wire::put_varint(&mut metadata, value);
                }
            }
            let mut field = Vec::new();
            put_bytes(&mut field, 5, &metadata);
            known.insert(entry.name, (entry.kind, field));
        }
        Self(known)
    }

    /// Field 5 of the series with this name; empty if its family has no metadata.
    fn metadata(&self, name: &[u8]) -> &[u8] {
        if self.0.is_empty() {
            return &[];
        }
        for (base, suffix) in families::candidates(name) {
            if let Some((kind, field)) = self.0.get(base)
                && families::has_member(*kind, base, name, suffix)
            {
                return field;
            }
        }
        &[]
    }
}
