//! Rewrites 2.0 bodies: series are decoded and edited a few at a time, and encoded at once, with
//! symbols numbered in the order in which they are needed. So the new symbol table contains only
//! those that remaining series refer to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::mem::take;

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

/// Output of a rewrite so far. Symbols are numbered as they are needed: received ones first in
/// `codes`, then those that edits added.
#[derive(Default)]
struct Output {
    /// Series before the first change, and their labels one behind the other.
    unchanged: Vec<Unchanged>,
    labels: Vec<[u32; 2]>,
    /// Encoded series; none before the first change.
    series: Vec<u8>,
    /// By symbol, its outgoing number.
    codes: Vec<Code>,
    /// Needed symbols, by outgoing number.
    table: Vec<u32>,
    added: Added,
    has_lone_exemplars: bool,
    /// References of the series that is being encoded, up to `len`, and its renumbered fields.
    refs: Vec<u8>,
    len: usize,
    rest: Vec<u8>,
}

/// A series before the first change.
#[derive(Clone, Copy)]
struct Unchanged {
    labels: u32,
    /// Fields after its labels, and whether they refer to symbols.
    rest: Span,
    has_refs: bool,
}

impl Output {
    /// Clears the output.
    fn restart(&mut self) {
        self.unchanged.clear();
        self.labels.clear();
        self.series.clear();
        self.codes.clear();
        self.table.clear();
        self.added.restart();
        self.has_lone_exemplars = false;
    }

    /// Memory of the output, in bytes.
    fn weight(&self) -> usize {
        self.unchanged.capacity() * size_of::<Unchanged>()
            + self.labels.capacity() * size_of::<[u32; 2]>()
            + self.series.capacity()
            + self.codes.capacity() * size_of::<Code>()
            + self.table.capacity() * size_of::<u32>()
            + self.added.weight()
            + self.refs.capacity()
            + self.rest.capacity()
    }

    /// Edits the arena's series, encodes the remaining ones, and clears the arena for the next.
    fn block(
        &mut self,
        arena: &mut Arena,
        refs: &mut Refs,
        edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
    ) {
        arena.retain(edit);
        if arena.changed && self.codes.is_empty() {
            self.begin(arena);
        }
        for (place, series) in arena.series.iter().enumerate() {
            if series.dropped {
                continue;
            }
            self.has_lone_exemplars |= is_lone(series.counts);
            let (arrived, has_refs) = refs.of(place);
            if !arena.changed {
                self.labels.extend_from_slice(arrived);
                self.unchanged.push(Unchanged {
                    labels: arrived.len() as u32,
                    rest: series.rest,
                    has_refs,
                });
                continue;
            }
            if series.edited {
                let labels = &arena.labels[series.labels as usize..];
                self.edited(arena, &labels[..series.labels_len as usize], arrived);
            } else {
                self.received(arrived);
            }
            self.put(arena.text(series.rest), has_refs);
        }
        arena.labels.clear();
        arena.series.clear();
        refs.clear();
    }

    /// Encodes the series before the first change.
    #[cold]
    fn begin(&mut self, arena: &Arena) {
        // The first symbol, the empty string, stands for absent ones: it exists even if none was
        // received.
        self.codes
            .resize(arena.symbols.len().max(1), Code::default());
        self.need(0);
        let (labels, unchanged) = (take(&mut self.labels), take(&mut self.unchanged));
        let mut left = &labels[..];
        for series in &unchanged {
            let (own, behind) = left.split_at(series.labels as usize);
            self.received(own);
            self.put(arena.text(series.rest), series.has_refs);
            left = behind;
        }
        (self.labels, self.unchanged) = (labels, unchanged);
    }

    /// Makes room for the references of this many labels.
    #[inline(always)]
    fn room(&mut self, labels: usize) {
        self.len = 0;
        if self.refs.len() < 8 * labels + 8 {
            self.refs.resize(8 * labels + 8, 0);
        }
    }

    /// Encodes references to labels as they were received.
    #[inline(always)]
    fn received(&mut self, arrived: &[[u32; 2]]) {
        self.room(arrived.len());
        for &pair in arrived {
            self.put_refs(pair);
        }
    }

    /// Encodes references to the labels of an edited series, most of which are unchanged.
    #[inline(always)]
    fn edited(&mut self, arena: &Arena, labels: &[Label], arrived: &[[u32; 2]]) {
        self.room(labels.len());
        let symbols = &arena.symbols;
        let arrived_as = |[name, value]: [u32; 2], label: Label| {
            label.is_of(symbols[name as usize], symbols[value as usize])
        };
        let mut next = 0;
        for &label in labels {
            if let Some(&pair) = arrived.get(next)
                && arrived_as(pair, label)
            {
                self.put_refs(pair);
                next += 1;
                continue;
            }
            let found = match label.entry_place() {
                Some(_) => None, // the label was added
                None => arrived.iter().position(|&pair| arrived_as(pair, label)),
            };
            match found {
                Some(place) => {
                    self.put_refs(arrived[place]);
                    next = place + 1;
                }
                None => {
                    let pair = self.added.numbers(arena, label);
                    let symbols = arena.symbols.len().max(1) + self.added.texts.len();
                    if self.codes.len() < symbols {
                        self.codes.resize(symbols, Code::default());
                    }
                    self.put_refs(pair);
                }
            }
        }
    }

    /// Encodes the references to a label.
    #[inline(always)]
    fn put_refs(&mut self, pair: [u32; 2]) {
        let [name, value] = pair.map(|number| self.code(number));
        let both = u64::from(name.text) | u64::from(value.text) << (8 * name.len);
        self.refs[self.len..self.len + 8].copy_from_slice(&both.to_le_bytes());
        self.len += (name.len + value.len) as usize;
    }

    /// Outgoing number of a symbol.
    #[inline(always)]
    fn code(&mut self, number: u32) -> Code {
        let code = self.codes[number as usize];
        if code.len > 0 {
            code
        } else {
            self.need(number)
        }
    }

    /// Numbers a symbol that is needed for the first time.
    #[inline(never)]
    fn need(&mut self, number: u32) -> Code {
        let code = Code::of(self.table.len() as u32);
        self.table.push(number);
        self.codes[number as usize] = code;
        code
    }

    /// Writes a series whose references are encoded.
    #[inline(always)]
    fn put(&mut self, behind: &[u8], has_refs: bool) {
        let mut rest = take(&mut self.rest);
        let behind = if has_refs {
            // A number without a symbol stands for the empty string, as everywhere.
            let within = |number: u64, out: &Self| match usize::try_from(number) {
                Ok(place) if place < out.codes.len() => number as u32,
                _ => 0,
            };
            renumber(behind, |number| self.code(within(number, self)), &mut rest);
            &rest
        } else {
            behind
        };
        let refs = &self.refs[..self.len];
        let whole = 1 + varint_len(refs.len() as u64) + refs.len() + behind.len();
        let out = &mut self.series;
        out.push(tag(5, LEN));
        put_varint(out, whole as u64);
        out.push(tag(1, LEN));
        put_varint(out, refs.len() as u64);
        out.extend_from_slice(refs);
        out.extend_from_slice(behind);
        self.rest = rest;
    }

    /// Compresses the new body.
    fn finish(&self, text: &[u8], arena: &Arena) -> Bytes {
        Compressor::compress(|out| {
            self.symbols(out, text, arena);
            out.put(&self.series);
        })
    }

    /// Writes the symbol table; symbols that follow each other in the received text are copied at
    /// once.
    fn symbols(&self, out: &mut Compressor, text: &[u8], arena: &Arena) {
        let (mut start, mut end) = (0, 0);
        for &number in &self.table {
            let (symbol, entry) = match arena.symbols.get(number as usize) {
                Some(symbol) => (*symbol, entry(text, *symbol)),
                None => (self.added(number, arena), None),
            };
            if entry != Some(end) {
                out.keep(text, start, end);
                start = entry.unwrap_or_default();
                end = start;
                out.flush();
            }
            match entry {
                Some(_) => end = (symbol.start + symbol.len) as usize,
                None => put_bytes(out.buffer(), 4, arena.text(symbol)),
            }
        }
        out.keep(text, start, end);
    }

    /// Text of a symbol that was not received.
    fn added(&self, number: u32, arena: &Arena) -> Span {
        let place = (number as usize).checked_sub(arena.symbols.len().max(1));
        // The first symbol exists even if none was received.
        place.map_or_else(Span::default, |place| self.added.texts[place])
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

/// A number encoded as a varint, and the varint's length; 0 for none.
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
fn renumber(rest: &[u8], mut code: impl FnMut(u64) -> Code, out: &mut Vec<u8>) {
    out.clear();
    let mut put = |number: u64, out: &mut Vec<u8>| {
        let code = code(number);
        out.extend_from_slice(&code.text.to_le_bytes()[..code.len as usize]);
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
