//! The walk over a 2.0 message.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use metrifold_model::SeriesCounts;

use crate::wire::{Fields, LEN, Parts, WireError, tag};
use crate::{Arena, Label, Series, Span, wire};

use super::{Decoder, Labels, Reason};

impl Decoder<'_> {
    pub(super) fn v2(&mut self) -> Result<(), WireError> {
        const SYMBOL: u8 = tag(4, LEN);
        const SERIES: u8 = tag(5, LEN);
        let buf = self.buf;
        let most = |parts| self.limits.most(parts);
        let (most_series, most_symbols) = (most(Parts::Series), most(Parts::Symbols));
        let mut found = Vec::new();
        let mut utf8 = true;
        let mut pos = 0;
        while pos < buf.len() {
            let whole = pos;
            match buf[pos] {
                SYMBOL => {
                    if self.arena.symbols.len() >= most_symbols {
                        return Err(WireError::TooMany(Parts::Symbols));
                    }
                    pos += 1;
                    let end = wire::length(buf, &mut pos)?;
                    let text = &buf[pos..end];
                    utf8 &= text.is_ascii() || std::str::from_utf8(text).is_ok();
                    self.arena.symbols.push(Span::new(pos, end));
                    pos = end;
                }
                SERIES => {
                    if found.len() >= most_series {
                        return Err(WireError::TooMany(Parts::Series));
                    }
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
