//! Encodes and compresses 1.0.
//!
//! There are two ways: by the structure of series, which costs less processor time than encoding
//! first and compressing then, and by a general search for repetitions. Where most labels repeat
//! those of a neighbour, both give the same size; where series share only parts of names, the
//! search gives a smaller body. So now and then a body is written in both ways, and the following
//! ones use the better: a [`CompressionChoice`] remembers it per sink.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;

use super::encode_v1::put_label;
use super::structure_v1::{Structure, header};
use crate::snappy::Compressor;
use crate::{Arena, Label, Series};

/// Bodies written one way before both are compared again.
const TRIAL_EVERY: u32 = 256;
/// Smallest uncompressed body that is compared, in bytes: a smaller one is not representative.
const TRIAL_BYTES: usize = 16 << 10;
/// Largest size of a searched body, in percent of the structural one, that justifies the search.
const WORTHWHILE: usize = 95;

thread_local! {
    /// Scratch memory. After a restart its earlier content has no influence on the output.
    static STRUCTURE: RefCell<Option<Box<Structure>>> = const { RefCell::new(None) };
}

/// Encodes and compresses an arena of 1.0; without a choice, by the structure of the series.
pub(super) fn encode(arena: &Arena, choice: Option<&CompressionChoice>) -> Bytes {
    let way = choice.map_or(Way::Structure, CompressionChoice::next);
    if way == Way::Search {
        return searched(arena);
    }
    let mut structure = STRUCTURE.take().unwrap_or_default();
    structure.restart();
    structure.series(arena);
    for &span in &arena.metadata {
        structure.out.search(arena.text(span));
    }
    let len = structure.out.position();
    let body = structure.out.finish();
    STRUCTURE.set(Some(structure));
    match choice {
        Some(choice) if way == Way::Both && len >= TRIAL_BYTES => {
            let searched = searched(arena);
            choice.learn(searched.len() * 100 < body.len() * WORTHWHILE);
            if searched.len() < body.len() {
                searched
            } else {
                body
            }
        }
        _ => body,
    }
}

/// Encodes an arena of 1.0, compressed by search.
fn searched(arena: &Arena) -> Bytes {
    Compressor::compress(|out| {
        let text = arena.raw.as_slice();
        for series in arena.series.iter().filter(|series| !series.dropped) {
            put_series(out, text, arena, series);
        }
        for &span in &arena.metadata {
            out.put(arena.text(span));
        }
    })
}

/// Appends a series; `text` is the received text.
#[inline(always)]
pub(super) fn put_series(out: &mut Compressor, text: &[u8], arena: &Arena, series: &Series) {
    if series.edited {
        put_edited(out, text, arena, series);
    } else {
        out.put(arena.text(series.whole));
    }
    out.flush();
}

/// Appends an edited series: labels that follow each other in the received text are copied at once.
#[inline(always)]
fn put_edited(out: &mut Compressor, text: &[u8], arena: &Arena, series: &Series) {
    let (bytes, len) = header(series.labels_bytes as usize + series.rest.len as usize);
    let pending = out.buffer();
    let end = pending.len() + len;
    pending.extend_from_slice(&bytes.to_le_bytes());
    pending.truncate(end);
    // The range to be copied next.
    let (mut start, mut end) = (0, 0);
    let labels = &arena.labels[series.labels as usize..][..series.labels_len as usize];
    for label in labels {
        let Some((place, len)) = label.entry_place() else {
            out.keep(text, start, end);
            (start, end) = (0, 0);
            compose(out.buffer(), arena, *label);
            continue;
        };
        let (place, len) = (place as usize, len as usize);
        if let Some(place) = place.checked_sub(text.len()) {
            // Added by an edit.
            out.keep(text, start, end);
            (start, end) = (0, 0);
            out.keep(&arena.extra, place, place + len);
            continue;
        }
        if place != end {
            out.keep(text, start, end);
            start = place;
        }
        end = place + len;
    }
    let rest = series.rest.start as usize;
    if rest == end && rest < text.len() {
        return out.keep(text, start, end + series.rest.len as usize);
    }
    out.keep(text, start, end);
    out.buffer().extend_from_slice(arena.text(series.rest));
}

/// Appends a label that has no entry in the text.
#[cold]
fn compose(out: &mut Vec<u8>, arena: &Arena, label: Label) {
    put_label(arena.text(label.name()), arena.text(label.value()), out);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Structure,
    Search,
    /// By structure and then, if the body is large enough, by search; the shorter one is sent.
    Both,
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
