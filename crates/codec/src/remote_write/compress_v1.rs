//! Encodes and compresses 1.0, a few series at a time or all at once.
//!
//! There are two ways: by the structure of series, which costs less processor time than encoding
//! first and compressing then, and by a general search for repetitions. Where most labels repeat
//! those of a neighbour, both give the same size; where series share only parts of names, the
//! search gives a smaller body. So now and then a body is written in both ways, and the following
//! ones use the better: a [`CompressionChoice`] remembers it per sink.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::encode_v1::put_labels;
use super::structure_v1::Structure;
use crate::snappy;
use crate::snappy::BLOCK;
use crate::wire;
use crate::wire::{LEN, tag};
use crate::{Arena, Raw};

/// Bodies written one way before both are compared again.
const TRIAL_EVERY: u32 = 256;
/// Smallest uncompressed body that is compared, in bytes: a smaller one is not representative.
const TRIAL_BYTES: usize = 16 << 10;
/// Largest size of a searched body, in percent of the structural one, that justifies the search.
const WORTHWHILE: usize = 95;

thread_local! {
    /// Scratch memory. After a restart its earlier content has no influence on the output.
    static WRITER: RefCell<Option<Box<Writer>>> = const { RefCell::new(None) };
}

/// Encodes and compresses an arena of 1.0.
pub(super) fn encode(arena: &Arena, choice: Option<&CompressionChoice>) -> Bytes {
    let mut writer = Writer::take(choice);
    writer.series(arena);
    for &span in &arena.metadata {
        writer.text(arena.text(span));
    }
    writer.finish(choice)
}

/// The better of the two ways of compressing 1.0 for the data of one sink. It is learned from that
/// sink's bodies alone, so that data of another tenant or sink does not influence this one's
/// output.
#[derive(Debug, Default)]
pub struct CompressionChoice {
    /// Bodies until the next comparison, and the [`SEARCHES`] bit if the search is in use.
    state: AtomicU32,
}

/// Bit in a [`CompressionChoice`]: bodies are searched.
const SEARCHES: u32 = 1 << 31;

impl CompressionChoice {
    /// Chooses the way for the next body.
    fn next(&self) -> Way {
        let one_less = |state: u32| (state & !SEARCHES > 0).then(|| state - 1);
        let before = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        match before {
            Ok(state) if state & SEARCHES != 0 => Way::Search,
            Ok(_) => Way::Structure,
            Err(_) => Way::Both,
        }
    }

    fn learn(&self, searches: bool) {
        let way = if searches { SEARCHES } else { 0 };
        // The compared body counts as the first.
        self.state.store(way | (TRIAL_EVERY - 1), Ordering::Relaxed);
    }
}

/// Way of writing a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Structure,
    Search,
    /// By structure and then, if the body is large enough, by search; the shorter one is sent.
    Both,
}

/// Writes one body after another.
#[derive(Default)]
pub(super) struct Writer {
    structure: Structure,
    way: Way,
    /// Bytes of this body that have not been searched for repetitions yet.
    pending: Vec<u8>,
}

impl Writer {
    /// Takes this thread's writer, restarted; without a choice it writes by structure.
    pub(super) fn take(choice: Option<&CompressionChoice>) -> Box<Self> {
        let mut writer = WRITER.take().unwrap_or_default();
        writer.structure.restart();
        writer.pending.clear();
        writer.way = choice.map_or(Way::Structure, CompressionChoice::next);
        writer
    }

    /// Returns the compressed body; `choice`, the one given to [`take`](Self::take), learns from
    /// it.
    pub(super) fn finish(mut self: Box<Self>, choice: Option<&CompressionChoice>) -> Bytes {
        self.flush();
        let len = self.structure.out.position();
        let mut body = self.structure.out.finish();
        if let Some(choice) = choice
            && self.way == Way::Both
            && len >= TRIAL_BYTES
        {
            body = self.compare(body, len, choice);
        }
        WRITER.set(Some(self));
        body
    }

    /// Writes the series that are not dropped.
    pub(super) fn series(&mut self, arena: &Arena) {
        if self.way != Way::Search {
            return self.structure.series(arena);
        }
        for index in 0..arena.series.len() {
            if !arena.series[index].dropped {
                self.plain(arena, index);
            }
        }
    }

    /// Writes encoded fields unchanged.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.flush();
        self.structure.out.search(text);
    }

    /// Compresses by search a body that was written by structure; returns the shorter one.
    fn compare(&mut self, body: Bytes, len: usize, choice: &CompressionChoice) -> Bytes {
        let mut text = Raw::with_len(len);
        if snappy::decompress(&body, text.as_mut_slice()).is_err() {
            return body; // cannot fail: it was just compressed
        }
        self.structure.out.restart();
        self.structure.out.search(text.as_slice());
        let searched = self.structure.out.finish();
        choice.learn(searched.len() * 100 < body.len() * WORTHWHILE);
        if searched.len() < body.len() {
            searched
        } else {
            body
        }
    }

    /// Encodes a series into the pending bytes.
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

    /// Compresses the pending bytes by search.
    fn flush(&mut self) {
        self.structure.out.search(&self.pending);
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use metrifold_model::Version;

    use super::*;
    use crate::remote_write::messages::v1;
    use crate::remote_write::tests::snappy;
    use crate::remote_write::{Limits, decode, encode_v1};

    fn arena(labels: impl Fn(usize) -> Vec<(&'static str, String)>) -> Arena {
        let series = |number| v1::TimeSeries {
            labels: labels(number)
                .into_iter()
                .map(|(name, value)| v1::Label {
                    name: name.into(),
                    value,
                })
                .collect(),
            samples: vec![v1::Sample {
                value: 1.0,
                timestamp: 1_700_000_000_000,
            }],
            ..Default::default()
        };
        let request = v1::WriteRequest {
            timeseries: (0..1000).map(series).collect(),
            metadata: vec![],
        };
        let body = snappy(&prost::Message::encode_to_vec(&request));
        decode(Version::V1, &body, &Limits::default()).unwrap().0
    }

    /// Series that share their labels with their neighbours.
    fn alike() -> Arena {
        arena(|number| {
            vec![
                ("__name__", format!("family_{}", number % 20)),
                ("pod", format!("service-{:08x}", number / 20 * 0x9e37_79b9)),
            ]
        })
    }

    /// Series that only share parts of values.
    fn unlike() -> Arena {
        let part = |number: usize| "a-part-of-values-that-is-often-there".repeat(1 + number % 2);
        arena(|number| {
            let value = format!("{number}{}{}", part(number), number * 7);
            vec![
                ("__name__", value),
                ("x", format!("{}{number}", part(number))),
            ]
        })
    }

    #[test]
    fn what_is_written_depends_on_its_sink_alone() {
        let (own, foreign) = (alike(), unlike());
        let alone = || {
            let choice = CompressionChoice::default();
            [(); 3].map(|()| encode_v1(&own, Some(&choice)))
        };
        let expected = alone();
        let other = CompressionChoice::default();
        let learned = [(); 2].map(|()| encode_v1(&foreign, Some(&other)));
        assert_eq!(
            other.next(),
            Way::Search,
            "the foreign data is not searched"
        );
        assert_eq!(learned[0], learned[1]);
        assert_eq!(alone(), expected);
        // The sink that searches continues to do so, whatever others write.
        assert_eq!(encode_v1(&foreign, Some(&other)), learned[0]);
        assert_eq!(encode_v1(&own, None), encode_v1(&own, None));
    }

    #[test]
    fn both_ways_are_compared_again_after_a_while() {
        let arena = alike();
        let choice = CompressionChoice::default();
        for _ in 0..2 {
            assert_eq!(choice.next(), Way::Both);
            encode_v1(&arena, Some(&choice));
            for _ in 1..TRIAL_EVERY {
                assert_eq!(choice.next(), Way::Structure);
            }
        }
    }
}
