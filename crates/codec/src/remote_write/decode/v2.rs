//! The walk over a 2.0 message.

use std::fmt;

use metrifold_model::SeriesCounts;

use crate::wire::{Fields, LEN, Parts, WireError, tag};
use crate::{Label, Span, wire};

use super::{Decoder, Labels, Reason};

/// A reference that no symbol answers to.
#[derive(Clone, Copy, Debug)]
pub(super) enum WrongRef {
    /// This field names a symbol that is not in the table.
    Outside {
        field: &'static str,
        number: u64,
        symbols: usize,
    },
    /// This field names a label and not its value.
    Odd(&'static str),
}

impl fmt::Display for WrongRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside {
                field,
                number,
                symbols,
            } => write!(f, "{field} {number} is not below the {symbols} symbols,"),
            Self::Odd(field) => write!(f, "{field} are odd in number,"),
        }
    }
}

const LABEL_REFS: &str = "labels_refs";
const EXEMPLAR_REFS: &str = "exemplar labels_refs";

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
        for (whole, start, end) in found {
            self.v2_series(whole, start, end, utf8)?;
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
    ) -> Result<(), WireError> {
        const REFS: u8 = tag(1, LEN);
        const REF: u8 = tag(1, wire::VARINT);
        const SAMPLE: u8 = tag(2, LEN);
        const HISTOGRAM: u8 = tag(3, LEN);
        const EXEMPLAR: u8 = tag(4, LEN);
        const METADATA: u8 = tag(5, LEN);
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
                    labels.refuse(WrongRef::Odd(LABEL_REFS));
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
                held @ (EXEMPLAR | METADATA) => {
                    pos += 1;
                    let message_end = wire::length(buf, &mut pos)?;
                    let message = &buf[pos..message_end];
                    if held == EXEMPLAR {
                        counts.exemplars += 1;
                        self.check_exemplar(&mut labels, message)?;
                    } else {
                        self.check_metadata(&mut labels, message)?;
                    }
                    pos = message_end;
                    continue;
                }
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
        Ok(())
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
                (4, wire::Value::Len(exemplar)) => {
                    counts.exemplars += 1;
                    self.check_exemplar(labels, exemplar)?;
                }
                (5, wire::Value::Len(metadata)) => self.check_metadata(labels, metadata)?,
                (number @ 2..=5, _) => return Err(WireError::Field(number)),
                _ => {}
            }
        }
        let pairs = refs.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            labels.refuse(WrongRef::Odd(LABEL_REFS));
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
            (None, _) => self.check_ref(labels, LABEL_REFS, name),
            (_, None) => self.check_ref(labels, LABEL_REFS, value),
        }
    }

    /// Checks a reference that is copied, and not followed here.
    #[inline(always)]
    fn check_ref(&self, labels: &mut Labels, field: &'static str, number: u64) {
        let symbols = self.arena.symbols.len();
        if number >= symbols as u64 {
            labels.refuse(WrongRef::Outside {
                field,
                number,
                symbols,
            });
        }
    }

    /// Checks the references of a series' metadata.
    #[inline(always)]
    fn check_metadata(&self, labels: &mut Labels, metadata: &[u8]) -> Result<(), WireError> {
        for field in Fields::new(metadata) {
            let field = field?;
            let name = match field.number {
                3 => "help_ref",
                4 => "unit_ref",
                _ => continue,
            };
            self.check_ref(labels, name, field.number()?);
        }
        Ok(())
    }

    /// Checks the references of an exemplar's labels, which come packed or one by one.
    #[inline(always)]
    fn check_exemplar(&self, labels: &mut Labels, exemplar: &[u8]) -> Result<(), WireError> {
        let mut refs = 0usize;
        for field in Fields::new(exemplar) {
            let field = field?;
            match (field.number, field.value) {
                (1, wire::Value::Varint(number)) => {
                    self.check_ref(labels, EXEMPLAR_REFS, number);
                    refs += 1;
                }
                (1, _) => {
                    for number in wire::packed(field.bytes()?) {
                        self.check_ref(labels, EXEMPLAR_REFS, number?);
                        refs += 1;
                    }
                }
                _ => {}
            }
        }
        if !refs.is_multiple_of(2) {
            labels.refuse(WrongRef::Odd(EXEMPLAR_REFS));
        }
        Ok(())
    }
}

impl Labels {
    /// Has the series left out for a reference, of several for the first one.
    #[cold]
    fn refuse(&mut self, wrong: WrongRef) {
        self.broken = Some(Reason::BadSymbolRef);
        self.wrong_ref.get_or_insert(wrong);
    }
}
