//! Encodes and compresses 1.0, a few series at a time or all at once.
//!
//! There are two ways: by the structure of series, which costs less processor time than to encode
//! first and compress then, and by a general search for repetitions. Where most labels are those of a neighbour, both are
//! as short; where series have little in common but parts of names, the search wins. So now and
//! then a body is written in both ways, and what follows goes the better one.

use std::cell::RefCell;

use bytes::Bytes;

use super::encode_v1::put_labels;
use super::structure_v1::Structure;
use crate::snappy;
use crate::snappy::BLOCK;
use crate::wire;
use crate::wire::{LEN, tag};
use crate::{Arena, Raw};

/// How many bodies go one way before both are compared again.
const TRIAL_EVERY: u32 = 256;
/// A body below this size, uncompressed, says too little.
const TRIAL_BYTES: usize = 16 << 10;
/// How long a searched body may be, in percent of one written by structure, to be worth its time.
const WORTHWHILE: usize = 95;

thread_local! {
    static WRITER: RefCell<Option<Box<Writer>>> = const { RefCell::new(None) };
}

/// Encodes and compresses an arena of 1.0.
pub(super) fn encode(arena: &Arena) -> Bytes {
    let mut writer = Writer::take();
    writer.series(arena);
    for &span in &arena.metadata {
        writer.text(arena.text(span));
    }
    writer.finish()
}

/// Writes one body after another.
#[derive(Default)]
pub(super) struct Writer {
    structure: Structure,
    /// Whether bodies are searched, and what is still to be searched of this one.
    searches: bool,
    pending: Vec<u8>,
    /// How many bodies go the same way before the next comparison.
    until_trial: u32,
}

impl Writer {
    /// This thread's writer, which has written nothing yet.
    pub(super) fn take() -> Box<Self> {
        let mut writer = WRITER.take().unwrap_or_default();
        writer.structure.restart();
        writer.pending.clear();
        writer
    }

    /// The compressed body.
    pub(super) fn finish(mut self: Box<Self>) -> Bytes {
        self.flush();
        let len = self.structure.out.position();
        let mut body = self.structure.out.finish();
        if self.is_trial() && len >= TRIAL_BYTES {
            body = self.compare(body, len);
        }
        self.until_trial = self.until_trial.saturating_sub(1);
        WRITER.set(Some(self));
        body
    }

    /// Writes the series that are not dropped.
    pub(super) fn series(&mut self, arena: &Arena) {
        if !self.searches || self.is_trial() {
            return self.structure.series(arena);
        }
        for index in 0..arena.series.len() {
            if !arena.series[index].dropped {
                self.plain(arena, index);
            }
        }
    }

    /// Writes fields as they are.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.flush();
        self.structure.out.search(text);
    }

    /// Removes all series from the arena, but for what the next ones are compared with.
    pub(super) fn make_room(&mut self, arena: &mut Arena) {
        self.structure.make_room(arena);
    }

    fn is_trial(&self) -> bool {
        self.until_trial == 0
    }

    /// Searches a body that was written by structure; returns the shorter one.
    fn compare(&mut self, body: Bytes, len: usize) -> Bytes {
        let mut text = Raw::with_len(len);
        if snappy::decompress(&body, text.as_mut_slice()).is_err() {
            return body; // never: it was just compressed
        }
        self.structure.out.restart();
        self.structure.out.search(text.as_slice());
        let searched = self.structure.out.finish();
        self.until_trial = TRIAL_EVERY;
        self.searches = searched.len() * 100 < body.len() * WORTHWHILE;
        if searched.len() < body.len() {
            searched
        } else {
            body
        }
    }

    /// Encodes a series, to be searched.
    fn plain(&mut self, arena: &Arena, index: usize) {
        let series = &arena.series[index];
        let out = &mut self.pending;
        if series.edited {
            out.push(tag(1, LEN));
            wire::put_varint(out, u64::from(series.labels_bytes + series.rest.len));
            put_labels(arena, arena.labels_of(index), out);
            out.extend_from_slice(arena.text(series.rest));
        } else {
            out.extend_from_slice(arena.text(series.whole));
        }
        if self.pending.len() >= BLOCK {
            let complete = self.pending.len() / BLOCK * BLOCK;
            self.structure.out.search(&self.pending[..complete]);
            self.pending.drain(..complete);
        }
    }

    /// Searches what is pending.
    fn flush(&mut self) {
        self.structure.out.search(&self.pending);
        self.pending.clear();
    }
}
