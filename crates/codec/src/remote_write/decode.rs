//! From a compressed body to an [`Arena`]: one pass that records offsets and checks every series.
//!
//! An invalid series is left out alone and counted by [`Reason`]. Unsorted labels are sorted and
//! labels with an empty value removed, as Prometheus reads them.

mod invalid;
mod v1;
mod v2;

use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use metrifold_model::{Rejection, RejectionKind, SeriesCounts, Version};

use crate::snappy::SnappyError;
use crate::wire::{Fields, Parts, WireError};
use crate::{Arena, Label, Raw, Series, Span, TEXT_MAX, snappy};

pub use invalid::{Invalid, Reason};
pub(super) use v2::Refs;

/// Room for labels that transforms add, per series.
const ROOM: usize = 2;

/// Limit on 2.0 symbols, as a multiple of the limit on series.
pub(super) const SYMBOLS_PER_SERIES: usize = 16;

/// Bounds on what is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the decompressed body, and of its labels, exemplars and metadata once every reference
    /// to a symbol is replaced by its text.
    pub decoded_bytes: usize,
    /// Most series of a body, and most metadata entries. The limit on 2.0 symbols is
    /// `SYMBOLS_PER_SERIES` times as high.
    pub series: usize,
    /// Most labels of a series.
    pub labels: usize,
    /// Most bytes of a label's name.
    pub name_bytes: usize,
    /// Most bytes of a label's value.
    pub value_bytes: usize,
}

impl Limits {
    /// Upper bound for a source's configured limit on series.
    pub const MOST_SERIES: usize = 10_000_000;

    /// For batches that were accepted before, and may have grown by edits since: only the bounds of
    /// offsets, which the text of a batch has to keep in every form.
    pub const ACCEPTED: Self = Self {
        decoded_bytes: TEXT_MAX,
        series: Self::MOST_SERIES,
        labels: usize::MAX,
        name_bytes: usize::MAX,
        value_bytes: usize::MAX,
    };

    /// Most parts of this kind in a body.
    pub(super) fn most(&self, parts: Parts) -> usize {
        match parts {
            Parts::Series | Parts::Metadata => self.series,
            Parts::Symbols => self.series.saturating_mul(SYMBOLS_PER_SERIES),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            decoded_bytes: 128 << 20,
            series: 500_000,
            labels: 128,
            name_bytes: 1 << 10,
            value_bytes: 16 << 10,
        }
    }
}

/// Why a body cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The body cannot be decompressed.
    #[error(transparent)]
    Snappy(#[from] SnappyError),
    /// The body is not the message that its headers claim.
    #[error("body is not a valid remote-write {version} message: {error}")]
    Wire {
        /// The message that the headers claim.
        version: Version,
        /// The violation of the wire format.
        error: WireError,
    },
    /// The body has more series, labels, samples or bytes than its limit allows.
    #[error("request has more than {limit} {parts} (max_series_per_request): send fewer at once")]
    TooMany {
        /// Kind of the parts that exceed the limit.
        parts: Parts,
        /// The limit that was exceeded.
        limit: usize,
    },
    /// Its labels, exemplars and metadata take more bytes than allowed once they are written out.
    #[error(
        "request's labels, exemplars and metadata take more than {limit} bytes when written out (max_decoded_bytes): send fewer at once"
    )]
    Expands {
        /// The limit that was exceeded.
        limit: usize,
    },
    /// There is no memory for it at the moment.
    #[error("memory is short: try again")]
    NoRoom,
    /// Edits made it larger than can be handled.
    #[error("batch grew too large by the edits of transforms")]
    GrewTooLarge,
    /// The batch has neither a body nor series.
    #[error("batch is empty")]
    Missing,
}

impl DecodeError {
    /// Maps an error met in a walk within `limits`.
    pub(super) fn walk(version: Version, limits: &Limits) -> impl Fn(WireError) -> Self {
        move |error| match error {
            WireError::TooMany(parts) => Self::TooMany {
                parts,
                limit: limits.most(parts),
            },
            WireError::Expands => Self::Expands {
                limit: limits.decoded_bytes,
            },
            WireError::NoRoom => Self::NoRoom,
            error => Self::Wire { version, error },
        }
    }
}

impl From<DecodeError> for Rejection {
    fn from(error: DecodeError) -> Self {
        let kind = match error {
            DecodeError::GrewTooLarge
            | DecodeError::TooMany { .. }
            | DecodeError::Expands { .. }
            | DecodeError::Snappy(SnappyError::TooLarge { .. }) => RejectionKind::TooLarge,
            DecodeError::NoRoom => RejectionKind::Unavailable,
            _ => RejectionKind::Invalid,
        };
        Self::new(kind, error.to_string())
    }
}

/// Memory that batches take while they are decoded and encoded, beyond what their senders declare.
pub trait Room: std::fmt::Debug + Send + Sync {
    /// Takes more memory; returns whether there is any.
    fn take(&self, bytes: usize) -> bool;
}

/// Bytes for which no room is asked: nearly all batches take less.
const FREE: usize = 1 << 20;

/// Memory that a batch takes at most, as a multiple of its bytes written out: a label, whose least is
/// eight bytes, takes sixteen, and an exemplar is copied.
const PER_BYTE: usize = 2;

/// Decompresses and walks a body.
///
/// # Errors
///
/// Fails when the body as a whole is malformed or exceeds a limit.
pub fn decode(
    version: Version,
    body: &[u8],
    limits: &Limits,
) -> Result<(Arena, Invalid), DecodeError> {
    decode_within(version, body, limits, None)
}

/// The same, taking `room` for what a body takes beyond the size that it declares.
pub(crate) fn decode_within(
    version: Version,
    body: &[u8],
    limits: &Limits,
    room: Option<&dyn Room>,
) -> Result<(Arena, Invalid), DecodeError> {
    let raw = Decoder::decompress(body, limits)?;
    let mut decoder = Decoder::new(version, &raw, limits);
    if room.is_some() {
        // For the declared size, three times as much as it takes itself is taken already.
        let free = (raw.as_slice().len() * 3 / PER_BYTE).max(FREE);
        (decoder.room, decoder.paid) = (room, free.min(limits.decoded_bytes));
    }
    let walked = match version {
        Version::V1 => decoder.v1(|_| {}),
        Version::V2 => decoder.v2(|_, _| {}),
    };
    walked.map_err(DecodeError::walk(version, limits))?;
    Ok(decoder.finish())
}

pub(super) struct Decoder<'a> {
    buf: &'a [u8],
    limits: &'a Limits,
    arena: Arena,
    invalid: Invalid,
    /// Bytes of the labels and metadata of 2.0 and of the exemplars so far, written out.
    pub(super) written: usize,
    /// Value of `written` beyond which more room is taken, or the batch refused.
    paid: usize,
    room: Option<&'a dyn Room>,
    /// Labels of a 1.0 series before they enter the arena.
    found: v1::Found,
    /// Label references of a 2.0 series before they enter the arena.
    pub(super) refs: v2::Refs,
}

/// Findings of the walk over one series' labels.
struct Labels {
    first: usize,
    head: u64,
    sorted: bool,
    named: bool,
    edited: bool,
    /// Bytes of the kept labels, encoded as 1.0 fields.
    bytes: usize,
    /// Bytes of the text that exemplars and metadata of 2.0 refer to.
    text: usize,
    broken: Option<Reason>,
    /// The first invalid 2.0 reference, if any.
    wrong_ref: Option<v2::WrongRef>,
}

/// Bytes that an exemplar takes beside its text, at least, when it is held in a form of its own.
const EXEMPLAR_BYTES: usize = 64;

const NAME: u64 = u64::from_be_bytes(*b"__name__");

impl<'a> Decoder<'a> {
    pub(super) fn decompress(body: &[u8], limits: &Limits) -> Result<Arc<Raw>, DecodeError> {
        let len = snappy::declared_len(body, limits.decoded_bytes)?;
        let mut raw = Raw::with_len(len);
        snappy::decompress(body, raw.as_mut_slice())?;
        Ok(Arc::new(raw))
    }

    pub(super) fn new(version: Version, raw: &'a Arc<Raw>, limits: &'a Limits) -> Self {
        Self {
            buf: raw.as_slice(),
            limits,
            arena: Arena::new(version, raw.clone()),
            invalid: Invalid::default(),
            written: 0,
            paid: limits.decoded_bytes,
            room: None,
            found: v1::Found::default(),
            refs: v2::Refs::default(),
        }
    }

    /// Returns the arena and the series that were left out.
    pub(super) fn finish(self) -> (Arena, Invalid) {
        (self.arena, self.invalid)
    }

    /// Adds what a series takes when it is written out: a few bytes may refer to many.
    #[inline(always)]
    fn write_out(&mut self, text: usize, exemplars: u32) {
        self.written += text + exemplars as usize * EXEMPLAR_BYTES;
    }

    /// Fails once the series so far take more than is allowed when they are written out, or than there
    /// is memory for.
    #[inline(always)]
    fn check_written(&mut self) -> Result<(), WireError> {
        match self.written > self.paid {
            true => self.pay(),
            false => Ok(()),
        }
    }

    #[cold]
    fn pay(&mut self) -> Result<(), WireError> {
        let most = self.limits.decoded_bytes;
        if self.written > most {
            return Err(WireError::Expands);
        }
        let next = self.written.saturating_mul(2).min(most);
        if let Some(room) = self.room
            && !room.take((next - self.paid) * PER_BYTE)
        {
            return Err(WireError::NoRoom);
        }
        self.paid = next;
        Ok(())
    }

    fn labels(&self) -> Labels {
        Labels {
            first: self.arena.labels.len(),
            head: 0,
            sorted: true,
            named: false,
            edited: false,
            bytes: 0,
            text: 0,
            broken: None,
            wrong_ref: None,
        }
    }

    /// Checks a label and appends it.
    #[inline(always)]
    fn label(&mut self, labels: &mut Labels, label: Label) {
        let (name, value) = (label.name(), label.value());
        let count = self.arena.labels.len() - labels.first;
        if name.len == 0 {
            labels.broken = Some(Reason::EmptyLabelName);
            return;
        }
        if name.len as usize > self.limits.name_bytes {
            labels.broken = Some(Reason::LabelNameTooLong);
        }
        if value.len as usize > self.limits.value_bytes {
            labels.broken = Some(Reason::LabelValueTooLong);
        }
        if value.len == 0 {
            labels.edited = true;
            return;
        }
        if count >= self.limits.labels {
            labels.broken = Some(Reason::TooManyLabels);
            return;
        }
        let head = self.arena.head(name);
        if head <= labels.head && count > 0 {
            let last = self.arena.labels[labels.first + count - 1].name();
            let ordered = head == labels.head && self.arena.text(last) < self.arena.text(name);
            labels.sorted &= ordered;
        }
        labels.named |= head == NAME && name.len == 8;
        labels.head = head;
        labels.bytes += label.entry_len();
        self.arena.labels.push(label);
    }

    /// Sorts the labels, checks the series as a whole, and adds it.
    #[inline(always)]
    fn add(
        &mut self,
        mut labels: Labels,
        utf8: bool,
        whole: Span,
        rest: Span,
        counts: SeriesCounts,
    ) {
        let arena = &mut self.arena;
        if !labels.sorted && labels.broken.is_none() {
            labels.edited = true;
            labels.broken = sort(arena, labels.first);
        }
        if labels.broken.is_none() && !labels.named {
            labels.broken = Some(Reason::MissingName);
        }
        if labels.broken.is_none() && !utf8 && !is_utf8(arena, labels.first..arena.labels.len()) {
            labels.broken = Some(Reason::InvalidUtf8);
        }
        if let Some(reason) = labels.broken {
            self.invalid.add(reason, counts, || {
                let series = describe(arena, labels.first);
                match labels.wrong_ref {
                    Some(wrong) => format!("{wrong} in {series}"),
                    None => series,
                }
            });
            arena.labels.truncate(labels.first);
            arena.changed = true;
            return;
        }
        let len = (arena.labels.len() - labels.first) as u32;
        let series = Series {
            whole,
            rest,
            labels: labels.first as u32,
            labels_len: len,
            labels_room: len + ROOM as u32,
            labels_bytes: labels.bytes as u32,
            counts,
            edited: labels.edited,
            dropped: false,
        };
        arena.labels.extend_from_slice(&[Label::default(); ROOM]);
        arena.changed |= labels.edited;
        arena.count(counts);
        arena.series.push(series);
    }

    /// Copies all fields but `field` next to each other.
    #[cold]
    fn gather(&mut self, start: usize, end: usize, field: u32) -> Result<Span, WireError> {
        let mut rest = Vec::new();
        for other in Fields::new(&self.buf[start..end]) {
            let other = other?;
            if other.number != field {
                rest.extend_from_slice(other.whole);
            }
        }
        Ok(self.arena.push_text(&rest))
    }
}

#[cold]
fn sort(arena: &mut Arena, first: usize) -> Option<Reason> {
    let mut labels = arena.labels.split_off(first);
    labels.sort_by(|a, b| arena.text(a.name()).cmp(arena.text(b.name())));
    let duplicate = labels
        .windows(2)
        .any(|pair| arena.text(pair[0].name()) == arena.text(pair[1].name()));
    arena.labels.append(&mut labels);
    duplicate.then_some(Reason::DuplicateLabel)
}

fn is_utf8(arena: &Arena, labels: Range<usize>) -> bool {
    let valid = |span| {
        let text = arena.text(span);
        is_ascii(text) || std::str::from_utf8(text).is_ok()
    };
    arena.labels[labels]
        .iter()
        .all(|label| valid(label.value()) && valid(label.name()))
}

/// Whether all bytes are below 128, sixteen at a time.
#[inline(always)]
fn is_ascii(text: &[u8]) -> bool {
    let Some(tail) = text.last_chunk::<16>() else {
        return text.is_ascii();
    };
    let words = text.as_chunks::<16>().0.iter();
    // The last sixteen bytes overlap those already read.
    let seen = words.fold(u128::from_ne_bytes(*tail), |seen, word| {
        seen | u128::from_ne_bytes(*word)
    });
    seen & (u128::MAX / 255 * 0x80) == 0
}

/// The labels of a series in PromQL's notation, cut short.
#[cold]
fn describe(arena: &Arena, first: usize) -> String {
    const LABELS: usize = 8;
    const CHARS: usize = 40;
    let short = |span| {
        let text = String::from_utf8_lossy(arena.text(span)).into_owned();
        match text.char_indices().nth(CHARS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    };
    let labels = &arena.labels[first..];
    let shown: Vec<String> = labels
        .iter()
        .take(LABELS)
        .map(|label| {
            // Senders show only the first line of an answer, so it must not contain a line break.
            let name = short(label.name());
            format!("{}={:?}", name.escape_debug(), short(label.value()))
        })
        .collect();
    let more = if labels.len() > LABELS { ", …" } else { "" };
    format!("{{{}{more}}}", shown.join(", "))
}
