//! Rewrites 1.0 bodies: series are decoded, edited and written a few at a time, while they are in
//! the processor's cache, and unedited parts are copied at once.

use bytes::Bytes;

use metrifold_model::Version;

use crate::snappy::Compressor;
use crate::{Arena, SeriesMut, Span};

use super::compress_v1::put_series;
use super::decode::{DecodeError, Decoder, Limits};
use super::rewrite::{BLOCK, Rewritten};

/// Rewrites a body of 1.0; see [`rewrite`](super::rewrite::rewrite).
pub(super) fn rewrite(
    body: &[u8],
    limits: &Limits,
    mut edit: impl FnMut(&mut SeriesMut<'_>) -> bool,
) -> Result<Rewritten, DecodeError> {
    let raw = Decoder::decompress(body, limits)?;
    let mut decoder = Decoder::new(Version::V1, &raw, limits);
    let mut output = Output {
        text: raw.as_slice(),
        out: None,
        as_received: 0,
        metadata: 0,
    };
    let walked = decoder.v1(|arena| {
        if arena.series.len() >= BLOCK {
            output.block(arena, &mut edit);
        }
    });
    let (mut arena, invalid) = decoder.finish();
    walked.map_err(DecodeError::walk(Version::V1, limits))?;
    output.block(&mut arena, &mut edit);
    if arena.overflowed {
        return Err(DecodeError::GrewTooLarge);
    }
    Ok(Rewritten {
        counts: arena.counts(),
        body: output.finish(&arena),
        invalid,
        has_lone_exemplars: false, // 1.0 allows them
    })
}

/// Output of a rewrite so far.
struct Output<'a> {
    /// The received text.
    text: &'a [u8],
    /// The body under construction; None as long as every series is unchanged.
    out: Option<Box<Compressor>>,
    /// Length of the received text that was unchanged when the first change was met.
    as_received: usize,
    /// Number of metadata entries written or contained in the unchanged part.
    metadata: usize,
}

impl Output<'_> {
    /// Edits and writes the arena's series, and clears the arena for the next ones.
    fn block(&mut self, arena: &mut Arena, edit: impl FnMut(&mut SeriesMut<'_>) -> bool) {
        arena.retain(edit);
        if self.out.is_none() && arena.changed {
            let mut out = Compressor::begin();
            out.put(&self.text[..self.as_received]);
            let before = |span: &&Span| (span.start as usize) < self.as_received;
            self.metadata = arena.metadata.iter().take_while(before).count();
            self.out = Some(out);
        }
        match &mut self.out {
            Some(out) => {
                for series in arena.series.iter().filter(|series| !series.dropped) {
                    let start = series.whole.start;
                    metadata(out, self.text, arena, &mut self.metadata, start);
                    put_series(out, self.text, arena, series);
                }
            }
            None => {
                if let Some(last) = arena.series.last() {
                    self.as_received = (last.whole.start + last.whole.len) as usize;
                }
            }
        }
        arena.labels.clear();
        arena.series.clear();
    }

    fn finish(mut self, arena: &Arena) -> Option<Bytes> {
        let mut out = self.out.take()?;
        metadata(&mut out, self.text, arena, &mut self.metadata, u32::MAX);
        Some(out.end())
    }
}

/// Writes the metadata before a position that has not been written yet.
#[inline(always)]
fn metadata(out: &mut Compressor, text: &[u8], arena: &Arena, done: &mut usize, to: u32) {
    while let Some(span) = arena.metadata.get(*done)
        && span.start < to
    {
        out.keep(text, span.start as usize, (span.start + span.len) as usize);
        out.flush();
        *done += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::remote_write::messages::v1;
    use crate::remote_write::tests::{snappy, unsnappy};
    use crate::remote_write::{CompressionChoice, decode, encode_v1};
    use crate::wire::{self, LEN, tag};
    use crate::{Arena, Name};

    /// Edit of one series by the test's transform.
    #[derive(Clone, Copy, Debug)]
    enum Edit {
        Nothing,
        Drop,
        /// Sets a label to a value of this length.
        Set(usize),
        Remove,
    }

    fn edit() -> impl Strategy<Value = Edit> {
        prop_oneof![
            4 => Just(Edit::Nothing),
            2 => Just(Edit::Drop),
            4 => prop_oneof![Just(4usize), Just(5), Just(300)].prop_map(Edit::Set),
            2 => Just(Edit::Remove),
        ]
    }

    /// Series that resemble their neighbours: most labels equal, some of another length, some
    /// missing.
    fn series() -> impl Strategy<Value = v1::TimeSeries> {
        let labels = prop::collection::btree_map(
            prop::sample::select(vec!["Zone", "a", "cluster", "instance", "job", "pod", "é"]),
            prop::sample::select(vec![
                "a",
                "b",
                "node-0001",
                "node-0002",
                "node-17",
                "long value",
            ]),
            0..7,
        );
        let name = prop::sample::select(vec!["up", "go_goroutines", "go_threads", ""]);
        let samples = prop::collection::vec((0u8..4, 0i64..3), 0..4);
        let many = prop_oneof![9 => Just(1usize), 1 => Just(20)];
        (labels, name, samples, many).prop_map(|(mut labels, name, samples, many)| {
            // A series without a name is invalid.
            if !name.is_empty() {
                labels.insert("__name__", name);
            }
            let labels = labels.into_iter().map(|(name, value)| v1::Label {
                name: name.into(),
                value: value.into(),
            });
            let samples = samples.iter().cycle().take(samples.len() * many);
            let samples = samples.map(|&(value, minute)| v1::Sample {
                value: value.into(),
                timestamp: 1_700_000_000_000 + minute * 60_000,
            });
            v1::TimeSeries {
                labels: labels.collect(),
                samples: samples.collect(),
                ..Default::default()
            }
        })
    }

    /// Metadata may stand between series.
    fn request() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            9 => series().prop_map(|series| v1::WriteRequest {
                timeseries: vec![series],
                metadata: vec![],
            }),
            1 => "[a-z]{1,9}".prop_map(|family| v1::WriteRequest {
                timeseries: vec![],
                metadata: vec![v1::MetricMetadata {
                    metric_family_name: family,
                    ..Default::default()
                }],
            }),
        ];
        let parts = prop::collection::vec(part, 0..6 * BLOCK);
        parts.prop_map(|parts| parts.iter().flat_map(Message::encode_to_vec).collect())
    }

    fn apply<'a>(edits: &'a [Edit], quiet: usize) -> impl FnMut(&mut SeriesMut<'_>) -> bool + 'a {
        let (pod, tenant) = (Name::new("pod"), Name::new("tenant"));
        let mut index = 0;
        let mut shared = None;
        move |series| {
            index += 1;
            if index <= quiet {
                return true;
            }
            match edits[index % edits.len()] {
                Edit::Nothing => {}
                Edit::Drop => return false,
                Edit::Set(4) => {
                    let label = *shared.get_or_insert_with(|| series.push_label(&tenant, b"team"));
                    series.set_label(&tenant, label);
                }
                Edit::Set(len) => series.set(&tenant, &vec![b't'; len]),
                Edit::Remove => series.remove(&pod),
            }
            true
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_body_is_rewritten_to_what_its_decoded_and_edited_form_is_encoded_to(
            request in request(),
            edits in prop::collection::vec(edit(), 1..12),
            quiet in 0..6 * BLOCK,
        ) {
            let limits = Limits::default();
            let body = snappy(&request);
            let (mut arena, invalid) = decode(Version::V1, &body, &limits).unwrap();
            arena.retain(apply(&edits, quiet));
            let expected = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&arena, None))).unwrap();

            let rewritten = rewrite(&body, &limits, apply(&edits, quiet)).unwrap();
            prop_assert_eq!(rewritten.counts, arena.counts());
            prop_assert_eq!(rewritten.invalid, invalid);
            prop_assert_eq!(rewritten.body.is_some(), arena.changed);
            let body = rewritten.body.as_deref().unwrap_or(&body);
            prop_assert_eq!(v1::WriteRequest::decode(&*unsnappy(body)).unwrap(), expected);
        }
    }

    /// A field of a series, in a spelling that few senders use.
    fn field() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::sample::select(vec!["", "__name__", "pod", "a", "tenant", "zone"]);
        let long = prop_oneof![9 => Just(1usize), 1 => Just(40)];
        let label =
            (text.clone(), text, long, 0u8..4).prop_map(|(name, value, times, spelling)| {
                let value = value.repeat(times);
                let mut entry = Vec::new();
                match spelling {
                    // The value before the name, and a field that nobody knows.
                    0 => {
                        wire::put_bytes(&mut entry, 2, value.as_bytes());
                        wire::put_bytes(&mut entry, 1, name.as_bytes());
                        wire::put_bytes(&mut entry, 9, b"?");
                    }
                    // A length of more bytes than it needs.
                    1 => {
                        entry.extend([tag(1, LEN), name.len() as u8 | 0x80, 0]);
                        entry.extend_from_slice(name.as_bytes());
                        wire::put_bytes(&mut entry, 2, value.as_bytes());
                    }
                    _ => {
                        wire::put_bytes(&mut entry, 1, name.as_bytes());
                        wire::put_bytes(&mut entry, 2, value.as_bytes());
                    }
                }
                let mut out = Vec::new();
                wire::put_bytes(&mut out, 1, &entry);
                out
            });
        let sample = Just({
            let sample = v1::Sample {
                value: 1.0,
                timestamp: 1_700_000_000_000,
            };
            let mut out = Vec::new();
            wire::put_bytes(&mut out, 2, &sample.encode_to_vec());
            out
        });
        prop_oneof![4 => label, 2 => sample, 1 => Just(vec![tag(15, LEN), 1, b'?'])]
    }

    /// Series of such fields in any order.
    fn spelled() -> impl Strategy<Value = Vec<u8>> {
        let series = prop::collection::vec(field(), 0..6);
        prop::collection::vec((series, 0u8..8), 0..3 * BLOCK).prop_map(|all| {
            let mut out = Vec::new();
            for (fields, unnamed) in all {
                let mut series = fields.concat();
                if unnamed > 0 {
                    series.extend(b"\x0a\x0e\x0a\x08__name__\x12\x02up");
                }
                wire::put_bytes(&mut out, 1, &series);
            }
            out
        })
    }

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn labels(arena: &Arena) -> Vec<Pairs> {
        let pair = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        let series = arena
            .iter()
            .map(|series| series.labels().map(pair).collect());
        series.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn bodies_in_any_spelling_or_damaged_are_rewritten_or_refused_as_the_decoder_does(
            request in prop_oneof![request(), spelled()],
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            edits in prop::collection::vec(edit(), 1..12),
            quiet in prop_oneof![3 => Just(0), 1 => 0..3 * BLOCK],
        ) {
            let mut message = request;
            for (at, byte) in damage {
                if !message.is_empty() {
                    let at = at.index(message.len());
                    message[at] = byte;
                }
            }
            let (body, limits) = (snappy(&message), Limits::default());
            let decoded = decode(Version::V1, &body, &limits);
            let rewritten = rewrite(&body, &limits, apply(&edits, quiet));
            let ((mut arena, invalid), rewritten) = match (decoded, rewritten) {
                (Ok(decoded), Ok(rewritten)) => (decoded, rewritten),
                (decoded, rewritten) => {
                    let refused = decoded.map(drop).unwrap_err();
                    prop_assert_eq!(rewritten.map(drop).unwrap_err(), refused);
                    return Ok(());
                }
            };
            arena.retain(apply(&edits, quiet));
            prop_assert_eq!(rewritten.counts, arena.counts());
            prop_assert_eq!(rewritten.invalid, invalid);
            prop_assert_eq!(rewritten.body.is_some(), arena.changed);
            // Both ways of compressing an arena, and the rewriter, write the same series.
            let choice = CompressionChoice::default();
            let choices = [None, Some(&choice), Some(&choice)];
            let written = choices.map(|choice| encode_v1(&arena, choice));
            for body in written.iter().chain(&rewritten.body) {
                let (again, invalid) = decode(Version::V1, body, &Limits::ACCEPTED).unwrap();
                prop_assert_eq!(invalid.series(), 0);
                prop_assert_eq!(again.counts(), arena.counts());
                prop_assert_eq!(labels(&again), labels(&arena));
            }
        }
    }

    /// Labels that an edit adds have the places behind the received text: they do not continue a
    /// series that ends there.
    #[test]
    fn a_label_at_the_very_end_of_a_body_is_followed_by_nothing() {
        let label = |name: &str, value: &str| v1::TimeSeries {
            labels: vec![v1::Label {
                name: name.into(),
                value: value.into(),
            }],
            ..Default::default()
        };
        let sample = v1::TimeSeries {
            samples: vec![v1::Sample {
                value: 1.0,
                timestamp: 1_700_000_000_000,
            }],
            ..Default::default()
        };
        let parts = [label("__name__", "up"), label("pod", "a")].map(|part| part.encode_to_vec());
        let [name, pod] = &parts;
        let sample = sample.encode_to_vec();
        for fields in [
            vec![name],
            vec![name, pod],
            vec![&sample, name],
            vec![name, &sample, pod],
            vec![name, &sample, pod, &sample],
        ] {
            let series: Vec<u8> = fields.into_iter().flatten().copied().collect();
            let mut request = Vec::new();
            crate::wire::put_bytes(&mut request, 1, &series);
            let body = snappy(&request);
            for edits in [[Edit::Set(4)], [Edit::Remove]] {
                let limits = Limits::default();
                let (mut arena, _) = decode(Version::V1, &body, &limits).unwrap();
                arena.retain(apply(&edits, 0));
                let expected = unsnappy(&encode_v1(&arena, None));
                let expected = v1::WriteRequest::decode(&*expected).unwrap();
                let rewritten = rewrite(&body, &limits, apply(&edits, 0)).unwrap();
                let body = rewritten.body.as_deref().unwrap_or(&body);
                assert_eq!(
                    v1::WriteRequest::decode(&*unsnappy(body)).unwrap(),
                    expected
                );
            }
        }
    }

    #[test]
    fn a_body_does_not_grow_by_being_rewritten() {
        let labels = |series: usize| {
            let pod = series / 20;
            let pairs = [
                (
                    "__name__",
                    format!("some_family_of_metrics_{}", series % 20),
                ),
                ("cluster", "eu-1-prod".into()),
                ("instance", format!("10.0.{}.{}:8080", pod, pod * 7 % 250)),
                ("namespace", ["payments", "checkout"][pod % 2].into()),
                (
                    "pod",
                    format!("service-{}-{:08x}", pod % 7, pod * 0x9e37_79b9),
                ),
            ];
            let label = |(name, value): (&str, String)| v1::Label {
                name: name.into(),
                value,
            };
            pairs.into_iter().map(label).collect()
        };
        let timeseries = (0..2000).map(|series| v1::TimeSeries {
            labels: labels(series),
            samples: vec![v1::Sample {
                value: series as f64,
                timestamp: 1_700_000_000_000 + series as i64 % 100,
            }],
            ..Default::default()
        });
        let request = v1::WriteRequest {
            timeseries: timeseries.collect(),
            metadata: vec![],
        };
        let searched = snappy(&request.encode_to_vec());
        let (arena, _) = decode(Version::V1, &searched, &Limits::default()).unwrap();
        let choice = CompressionChoice::default();
        // The first body is written in both ways.
        let bodies = [(); 2].map(|()| encode_v1(&arena, Some(&choice)).len());
        let written = bodies[0].max(bodies[1]);
        assert!(
            written <= searched.len() * 101 / 100,
            "{written} bytes instead of {}",
            searched.len()
        );
    }
}
