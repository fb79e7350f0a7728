//! Rewrites 2.0 bodies: series are decoded and edited a few at a time, and only the symbol numbers
//! of the result are kept. The new symbol table contains only the symbols that these need, and
//! keeps its compressed form, since symbols are never edited. The series are renumbered and
//! compressed again; they are short.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::RandomState;

use metrifold_model::Version;

use crate::snappy::Compressor;
use crate::wire::{Fields, LEN, Value, put_bytes, put_varint, tag, varint_len};
use crate::{Arena, Label, SeriesMut, Span, wire};

use super::decode::{DecodeError, Decoder, Limits, Refs};
use super::exemplars::is_lone;
use super::rewrite::{BLOCK, Rewritten};

const SYMBOL: u8 = tag(4, LEN);

/// Cache size: added labels whose symbol numbers are remembered.
const RECENT: usize = 64;

/// Added texts that are searched for among the symbols linearly; a body with more of them gets a
/// map.
const LOOKED_FOR: usize = 6;

/// Largest list that is kept for the next body, in bytes.
const KEPT: usize = 2 << 20;

thread_local! {
    /// Scratch memory. After a restart its earlier content has no influence on the output.
    static OUTPUT: RefCell<Option<Box<Output>>> = const { RefCell::new(None) };
}

/// Rewrites a body of 2.0; see [`rewrite`](super::rewrite::rewrite).
pub(super) fn rewrite(
    body: &[u8],
    limits: &Limits,
    mut edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
) -> Result<Rewritten, DecodeError> {
    let raw = Decoder::decompress(body, limits)?;
    let mut decoder = Decoder::new(Version::V2, &raw, limits);
    decoder.refs.keep();
    let mut output = OUTPUT.take().unwrap_or_default();
    output.restart();
    let walked = decoder.v2(|arena, refs| {
        if arena.series.len() >= BLOCK {
            output.block(arena, refs, &mut edit);
        }
    });
    walked.map_err(DecodeError::walk(Version::V2, limits))?;
    let mut refs = std::mem::take(&mut decoder.refs);
    let (mut arena, invalid) = decoder.finish();
    output.block(&mut arena, &mut refs, &mut edit);
    if arena.overflowed {
        return Err(DecodeError::GrewTooLarge);
    }
    let rewritten = Rewritten {
        counts: arena.counts(),
        body: arena.changed.then(|| output.finish(raw.as_slice(), &arena)),
        invalid,
        has_lone_exemplars: output.has_lone_exemplars,
    };
    if output.weight() <= KEPT {
        OUTPUT.set(Some(output));
    }
    Ok(rewritten)
}

/// Remaining series so far, as numbers of symbols: received symbols first, then those that edits
/// added.
#[derive(Default)]
struct Output {
    /// Labels of all series, in order.
    labels: Vec<[u32; 2]>,
    series: Vec<Kept>,
    /// Whether the symbol is needed, by received number.
    needed: Vec<bool>,
    added: Added,
    has_lone_exemplars: bool,
}

/// A remaining series.
#[derive(Clone, Copy)]
struct Kept {
    /// End of its labels, which start at the end of the previous series' labels.
    labels: u32,
    /// Fields after its labels, and whether they refer to symbols.
    rest: Span,
    has_refs: bool,
}

impl Output {
    /// Clears the output.
    fn restart(&mut self) {
        self.labels.clear();
        self.series.clear();
        self.needed.clear();
        self.added.restart();
        self.has_lone_exemplars = false;
    }

    /// Memory of the output, in bytes.
    fn weight(&self) -> usize {
        self.labels.capacity() * size_of::<[u32; 2]>()
            + self.series.capacity() * size_of::<Kept>()
            + self.needed.capacity()
            + self.added.weight()
    }

    /// Edits the arena's series, records the remaining ones, and clears the arena for the next.
    fn block(
        &mut self,
        arena: &mut Arena,
        refs: &mut Refs,
        edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
    ) {
        arena.retain(edit);
        self.needed.resize(arena.symbols.len(), false);
        for (place, series) in arena.series.iter().enumerate() {
            if series.dropped {
                continue;
            }
            let (arrived, has_refs) = refs.of(place);
            let first = self.labels.len();
            if series.edited {
                let labels = &arena.labels[series.labels as usize..];
                self.edited(arena, &labels[..series.labels_len as usize], arrived);
            } else {
                self.labels.extend_from_slice(arrived);
            }
            for &number in self.labels[first..].as_flattened() {
                // Added symbols are not in this list.
                if let Some(needed) = self.needed.get_mut(number as usize) {
                    *needed = true;
                }
            }
            if has_refs {
                rest_refs(arena.text(series.rest), |number| {
                    if let Some(needed) = self.needed.get_mut(number as usize) {
                        *needed = true;
                    }
                });
            }
            self.has_lone_exemplars |= is_lone(series.counts);
            self.series.push(Kept {
                labels: self.labels.len() as u32,
                rest: series.rest,
                has_refs,
            });
        }
        arena.labels.clear();
        arena.series.clear();
        refs.clear();
    }

    /// Records the labels of an edited series, most of which are unchanged.
    #[inline(always)]
    fn edited(&mut self, arena: &Arena, labels: &[Label], arrived: &[[u32; 2]]) {
        let symbols = &arena.symbols;
        let arrived_as = |[name, value]: [u32; 2], label: Label| {
            label.is_of(symbols[name as usize], symbols[value as usize])
        };
        let mut next = 0;
        for &label in labels {
            if let Some(&pair) = arrived.get(next)
                && arrived_as(pair, label)
            {
                self.labels.push(pair);
                next += 1;
                continue;
            }
            let found = match label.entry_place() {
                Some(_) => None, // the label was added
                None => arrived.iter().position(|&pair| arrived_as(pair, label)),
            };
            match found {
                Some(place) => {
                    self.labels.push(arrived[place]);
                    next = place + 1;
                }
                None => self.labels.push(self.added.numbers(arena, label)),
            }
        }
    }

    /// Encodes the new body.
    fn finish(&self, text: &[u8], arena: &Arena) -> Bytes {
        let mut body = Compressor::begin();
        let codes = self.symbols(&mut body, text, arena);
        let code = |number: u64| {
            let code = usize::try_from(number).ok().and_then(|n| codes.get(n));
            code.copied().unwrap_or_default()
        };
        let (mut refs, mut rest) = (Vec::new(), Vec::new());
        let mut first = 0;
        for series in &self.series {
            let labels = &self.labels[first..series.labels as usize];
            first = series.labels as usize;
            let len = put_refs(labels, &codes, &mut refs);
            let mut behind = arena.text(series.rest);
            if series.has_refs {
                renumber(behind, code, &mut rest);
                behind = &rest;
            }
            let whole = 1 + varint_len(len as u64) + len + behind.len();
            let out = body.buffer();
            out.push(tag(5, LEN));
            put_varint(out, whole as u64);
            out.push(tag(1, LEN));
            put_varint(out, len as u64);
            out.extend_from_slice(&refs[..len]);
            out.extend_from_slice(behind);
            body.flush();
        }
        body.end()
    }

    /// Writes the symbol table; returns the outgoing numbers of the symbols.
    fn symbols(&self, out: &mut Compressor, text: &[u8], arena: &Arena) -> Vec<Code> {
        let mut codes = Vec::with_capacity(arena.symbols.len() + self.added.texts.len());
        let mut next = 0;
        let mut take = |codes: &mut Vec<Code>| {
            codes.push(Code::of(next));
            next += 1;
        };
        // The run of entries to be written next.
        let (mut start, mut end) = (0, 0);
        for (number, symbol) in arena.symbols.iter().enumerate() {
            // The first symbol, the empty string, stands for absent ones.
            if number > 0 && !self.needed.get(number).is_some_and(|needed| *needed) {
                codes.push(Code::default());
                continue;
            }
            take(&mut codes);
            match entry(text, *symbol) {
                Some(place) => {
                    if place != end {
                        out.keep(text, start, end);
                        out.flush();
                        start = place;
                    }
                    end = (symbol.start + symbol.len) as usize;
                }
                None => {
                    out.keep(text, start, end);
                    (start, end) = (0, 0);
                    put_bytes(out.buffer(), 4, arena.text(*symbol));
                    out.flush();
                }
            }
        }
        out.keep(text, start, end);
        if arena.symbols.is_empty() {
            put_bytes(out.buffer(), 4, b"");
            take(&mut codes);
        }
        for text in &self.added.texts {
            put_bytes(out.buffer(), 4, arena.text(*text));
            out.flush();
            take(&mut codes);
        }
        codes
    }
}

/// Start of a symbol's entry, if its length is minimally encoded.
#[inline(always)]
fn entry(text: &[u8], symbol: Span) -> Option<usize> {
    let place = (symbol.start as usize).checked_sub(1 + varint_len(symbol.len.into()))?;
    let mut pos = place + 1;
    let is_entry = text[place] == SYMBOL
        && wire::varint(text, &mut pos) == Ok(symbol.len.into())
        && pos == symbol.start as usize;
    is_entry.then_some(place)
}

/// A number encoded as a varint, and the varint's length.
#[derive(Clone, Copy, Default)]
struct Code {
    text: u32,
    len: u32,
}

impl Code {
    /// Four bytes are enough: a body of 1 GiB has no more symbols.
    fn of(number: u32) -> Self {
        let (mut text, mut left, mut len) = (0, number, 0);
        while left >= 0x80 {
            text |= (left & 0x7f | 0x80) << (8 * len);
            left >>= 7;
            len += 1;
        }
        Self {
            text: text | left << (8 * len),
            len: len + 1,
        }
    }
}

/// Encodes the numbers of labels into a list, which is grown as needed; returns the encoded length.
#[inline(always)]
fn put_refs(labels: &[[u32; 2]], codes: &[Code], out: &mut Vec<u8>) -> usize {
    let room = 8 * labels.len() + 8;
    if out.len() < room {
        out.resize(room, 0);
    }
    let mut len = 0;
    for &[name, value] in labels {
        let (name, value) = (codes[name as usize], codes[value as usize]);
        let both = u64::from(name.text) | u64::from(value.text) << (8 * name.len);
        out[len..len + 8].copy_from_slice(&both.to_le_bytes());
        len += (name.len + value.len) as usize;
    }
    len
}

/// Calls `each` with the symbol numbers in the exemplars and the metadata of a series.
fn rest_refs(rest: &[u8], mut each: impl FnMut(u64)) {
    for field in Fields::new(rest).map_while(Result::ok) {
        let holders = holders(field.number);
        if let (false, Value::Len(message)) = (holders.is_empty(), field.value) {
            for part in Fields::new(message).map_while(Result::ok) {
                match part.value {
                    _ if !holders.contains(&part.number) => {}
                    Value::Varint(number) => each(number),
                    Value::Len(packed) => wire::packed(packed)
                        .map_while(Result::ok)
                        .for_each(&mut each),
                    Value::Fixed32(_) | Value::Fixed64(_) => {}
                }
            }
        }
    }
}

/// Fields with symbol numbers inside a field of a series: those of exemplars and metadata.
#[inline(always)]
fn holders(field: u32) -> &'static [u32] {
    match field {
        4 => &[1],
        5 => &[3, 4],
        _ => &[],
    }
}

/// Copies the fields after the labels of a series, with renumbered symbols.
fn renumber(rest: &[u8], code: impl Fn(u64) -> Code, out: &mut Vec<u8>) {
    out.clear();
    let put = |number: u64, out: &mut Vec<u8>| {
        // A number without a symbol stands for the empty string, as everywhere.
        let code = code(number);
        let bytes = code.text.to_le_bytes();
        out.extend_from_slice(&bytes[..code.len.max(1) as usize]);
    };
    let (mut message, mut packed) = (Vec::new(), Vec::new());
    for field in Fields::new(rest).map_while(Result::ok) {
        let holders = holders(field.number);
        let (false, Value::Len(old)) = (holders.is_empty(), field.value) else {
            out.extend_from_slice(field.whole);
            continue;
        };
        message.clear();
        for part in Fields::new(old).map_while(Result::ok) {
            match part.value {
                Value::Varint(number) if holders.contains(&part.number) => {
                    message.push(tag(part.number as u8, wire::VARINT));
                    put(number, &mut message);
                }
                Value::Len(numbers) if holders.contains(&part.number) => {
                    packed.clear();
                    for number in wire::packed(numbers).map_while(Result::ok) {
                        put(number, &mut packed);
                    }
                    put_bytes(&mut message, part.number as u8, &packed);
                }
                _ => message.extend_from_slice(part.whole),
            }
        }
        put_bytes(out, field.number as u8, &message);
    }
}

/// Symbols that edits added to the received ones.
#[derive(Default)]
struct Added {
    /// Ranges of the added texts, each once. Their numbers follow those of the received symbols.
    texts: Vec<Span>,
    /// Direct-mapped cache by hash of a label's position: the label and its symbol numbers.
    recent: Vec<(Label, [u32; 2])>,
    /// Symbol numbers by hash of the text.
    numbers: HashMap<u64, u32, RandomState>,
    /// Number of texts that were searched for linearly.
    looked_for: usize,
}

impl Added {
    fn restart(&mut self) {
        self.texts.clear();
        self.recent.clear();
        self.recent.resize(RECENT, (Label::default(), [0; 2]));
        self.numbers.clear();
        self.looked_for = 0;
    }

    fn weight(&self) -> usize {
        self.texts.capacity() * size_of::<Span>()
            + self.numbers.capacity() * size_of::<(u64, u32)>()
            + size_of_val(&*self.recent)
    }

    /// Symbol numbers of the name and the value of a label that an edit added.
    #[inline(always)]
    fn numbers(&mut self, arena: &Arena, label: Label) -> [u32; 2] {
        let mixed = label.name().start.wrapping_mul(0x9e37_79b1);
        let place = (mixed >> (32 - RECENT.ilog2())) as usize;
        let (known, numbers) = self.recent[place];
        if known == label {
            return numbers;
        }
        let numbers = [label.name(), label.value()].map(|text| self.number(arena, text));
        self.recent[place] = (label, numbers);
        numbers
    }

    #[cold]
    #[inline(never)]
    fn number(&mut self, arena: &Arena, span: Span) -> u32 {
        let text = arena.text(span);
        // The first symbol exists even if none was received.
        let arrived = arena.symbols.len().max(1);
        if text.is_empty() {
            return 0;
        }
        let hash = self.numbers.hasher().hash_one(text);
        if self.looked_for < LOOKED_FOR {
            self.looked_for += 1;
            let mut symbols = arena.symbols.iter();
            let is = |symbol: &Span| symbol.len == span.len && arena.text(*symbol) == text;
            if let Some(number) = symbols.position(is) {
                return number as u32;
            }
        } else if self.looked_for == LOOKED_FOR {
            self.looked_for += 1;
            for (number, symbol) in arena.symbols.iter().enumerate() {
                let hash = self.numbers.hasher().hash_one(arena.text(*symbol));
                self.numbers.entry(hash).or_insert(number as u32);
            }
        }
        if let Some(&number) = self.numbers.get(&hash) {
            let known = match (number as usize).checked_sub(arrived) {
                Some(added) => self.texts[added],
                None => arena.symbols[number as usize],
            };
            if arena.text(known) == text {
                return number;
            }
        }
        let number = (arrived + self.texts.len()) as u32;
        self.texts.push(span);
        self.numbers.insert(hash, number);
        number
    }
}

#[cfg(test)]
mod tests;
