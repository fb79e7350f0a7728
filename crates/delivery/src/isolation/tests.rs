//! Isolation, against an endpoint that refuses certain series.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use metrifold_codec::remote_write::messages::v1;
use metrifold_codec::remote_write::{CompressionChoice, Limits, decode};
use metrifold_model::{Origin, Version};

use super::*;

/// An encoded batch of numbered series.
fn batch(series: usize, metadata: bool) -> Batch {
    let timeseries = (0..series).map(|number| labelled(&[("__name__", &format!("m{number:05}"))]));
    let request = v1::WriteRequest {
        timeseries: timeseries.collect(),
        metadata: vec![v1::MetricMetadata::default(); usize::from(metadata)],
    };
    arrived(&request)
}

fn labelled(labels: &[(&str, &str)]) -> v1::TimeSeries {
    let label = |&(name, value): &(&str, &str)| v1::Label {
        name: name.into(),
        value: value.into(),
    };
    v1::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: vec![v1::Sample::default()],
        ..Default::default()
    }
}

fn arrived(request: &v1::WriteRequest) -> Batch {
    let body = snap::raw::Encoder::new()
        .compress_vec(&request.encode_to_vec())
        .unwrap();
    let origin = Arc::new(Origin::internal("test".into()));
    Batch::from_body(Version::V1, body.into(), Limits::default(), origin)
}

/// The numbers of the series in a request, and the number of metadata entries.
fn sent(part: &mut Batch) -> (Vec<usize>, usize) {
    part.settle(Version::V1, &CompressionChoice::default())
        .unwrap();
    let body = part.body(Version::V1).unwrap();
    let (arena, _) = decode(Version::V1, &body, &Limits::default()).unwrap();
    let number = |series: metrifold_codec::SeriesRef<'_>| {
        let name = series.labels().next().unwrap().1;
        std::str::from_utf8(&name[1..]).unwrap().parse().unwrap()
    };
    (
        arena.iter().map(number).collect(),
        arena.counts().metadata as usize,
    )
}

/// Result of a delivery.
#[derive(Debug, Default)]
struct Result {
    requests: usize,
    accepted: Vec<usize>,
    metadata: usize,
    alone: Vec<(Vec<usize>, usize)>,
    together: Vec<usize>,
}

/// Delivers a batch to an endpoint whose answers `answer` determines.
fn deliver(mut batch: Batch, answer: impl Fn(&[usize], usize) -> Option<RefusalClass>) -> Result {
    let mut isolation = Isolation::default();
    let mut result = Result::default();
    let mut rest = vec![batch.clone()];
    while let Some(next) = rest.pop() {
        batch = next;
        let (series, metadata) = sent(&mut batch);
        result.requests += 1;
        let Some(class) = answer(&series, metadata) else {
            result.accepted.extend(series);
            result.metadata += metadata;
            continue;
        };
        match isolation.step(&mut batch, &refusal(class)) {
            Step::Mended { .. } => rest.push(batch),
            Step::Halves(first, second) => rest.extend([second, first]),
            Step::Alone => result.alone.push((series, metadata)),
            Step::Together(count) => {
                assert_eq!(count, series.len());
                result.together.extend(series);
            }
        }
    }
    result
}

const REFUSED: Option<RefusalClass> = Some(RefusalClass::Content);
const TOO_LARGE: Option<RefusalClass> = Some(RefusalClass::Size);

fn refusal(class: RefusalClass) -> Refusal {
    Refusal {
        code: String::new(),
        class,
        reason: String::new(),
    }
}

proptest! {
    #[test]
    fn offenders_are_found_and_all_others_are_accepted_once_and_in_order(
        series in 1usize..300,
        metadata: bool,
        poison in proptest::collection::btree_set(0usize..300, 0..=OFFENDERS_MAX),
        limit in proptest::option::of(1usize..50),
    ) {
        let poison: BTreeSet<usize> = poison.into_iter().filter(|p| *p < series).collect();
        let result = deliver(batch(series, metadata), |sent, _| {
            match limit {
                Some(limit) if sent.len() > limit => TOO_LARGE,
                _ if sent.iter().any(|s| poison.contains(s)) => REFUSED,
                _ => None,
            }
        });
        let good: Vec<usize> = (0..series).filter(|s| !poison.contains(s)).collect();
        let alone: Vec<_> = poison.iter().map(|&s| (vec![s], 0)).collect();
        prop_assert_eq!(result.accepted, good);
        prop_assert_eq!(result.metadata, usize::from(metadata));
        prop_assert_eq!(result.alone, alone);
        prop_assert!(result.together.is_empty());
        let bound = 1 + 2 * poison.len() * depth(series);
        prop_assert!(limit.is_some() || result.requests <= bound, "{} > {bound}", result.requests);
    }

    #[test]
    fn what_is_refused_beyond_the_most_offenders_is_given_up_in_a_bounded_number_of_requests(
        series in 1usize..700,
        share in 1usize..100,
        too_large: bool,
    ) {
        let is_poison = |s: usize| s.wrapping_mul(0x9e37_79b9) % 100 < share;
        let answer = if too_large { TOO_LARGE } else { REFUSED };
        let result = deliver(batch(series, false), |sent, _| {
            sent.iter().any(|s| is_poison(*s)).then_some(answer).flatten()
        });
        let mut all = result.accepted.clone();
        all.extend(result.alone.iter().flat_map(|(s, _)| s));
        all.extend(&result.together);
        all.sort_unstable();
        prop_assert_eq!(all, (0..series).collect::<Vec<_>>());
        prop_assert!(result.accepted.is_sorted());
        // The neighbour of the last offender may have been isolated already.
        prop_assert!(result.alone.len() <= OFFENDERS_MAX + 1);
        prop_assert!(result.alone.iter().all(|(s, _)| is_poison(s[0])));
        prop_assert!(result.requests <= 1 + 2 * OFFENDERS_MAX * depth(series));
    }

    #[test]
    fn an_endpoint_that_contradicts_itself_is_not_asked_about_every_series(
        series in 1usize..700,
    ) {
        // The endpoint refuses any part with more than one series.
        let result = deliver(batch(series, false), |sent, _| (sent.len() > 1).then_some(REFUSED)?);
        prop_assert!(result.requests <= 1 + 2 * OFFENDERS_MAX * depth(series));
        prop_assert_eq!(result.accepted.len() + result.together.len(), series);
    }
}

#[test]
fn as_many_offenders_as_are_looked_for_cost_nobody_else_anything_where_little_is_taken_at_once() {
    let result = deliver(batch(252, false), |sent, _| match sent {
        [one] => (*one < OFFENDERS_MAX).then_some(REFUSED)?,
        _ => TOO_LARGE,
    });
    assert!(result.accepted.into_iter().eq(OFFENDERS_MAX..252));
    assert!(result.together.is_empty());
}

#[test]
fn metadata_that_is_refused_takes_no_series_along() {
    let result = deliver(batch(5, true), |_, metadata| {
        (metadata > 0).then_some(REFUSED)?
    });
    assert_eq!(result.accepted, [0, 1, 2, 3, 4]);
    assert_eq!(result.alone, [(vec![], 1)]);
}

#[test]
fn what_is_invalid_in_a_batch_that_nobody_had_looked_into_is_left_out_first() {
    let request = v1::WriteRequest {
        timeseries: vec![
            labelled(&[("__name__", "m00000")]),
            labelled(&[("__name__", "m00001"), ("a", "1"), ("a", "2")]),
            labelled(&[("__name__", "m00002")]),
        ],
        metadata: vec![],
    };
    let mut batch = arrived(&request);
    let refusal = refusal(RefusalClass::Content);
    let mut isolation = Isolation::default();
    let Step::Mended { lost, outcome } = isolation.step(&mut batch, &refusal) else {
        panic!("it is mended");
    };
    assert_eq!(lost, [("duplicate_label", 1)]);
    assert!(matches!(outcome, Outcome::Rejected { lost: None, .. }));
    assert_eq!(sent(&mut batch).0, [0, 2]);
    // The batch is split if that was not enough.
    let step = isolation.step(&mut batch, &refusal);
    assert!(matches!(step, Step::Halves(..)), "{step:?}");
}

#[test]
fn what_must_not_be_sent_again_is_given_up_as_a_whole() {
    let result = deliver(batch(8, true), |_, _| Some(RefusalClass::Whole));
    assert_eq!(result.requests, 1);
    assert_eq!(result.alone, [((0..8).collect(), 1)]);
}

#[test]
fn a_body_that_cannot_be_read_is_given_up_alone() {
    let origin = Arc::new(Origin::internal("test".into()));
    let body = bytes::Bytes::from_static(b"\xff\xff\xff");
    let mut batch = Batch::from_body(Version::V1, body, Limits::default(), origin);
    let refusal = refusal(RefusalClass::Content);
    let step = Isolation::default().step(&mut batch, &refusal);
    assert!(matches!(step, Step::Alone), "{step:?}");
}
