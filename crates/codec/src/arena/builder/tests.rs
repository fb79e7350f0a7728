use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use metrifold_model::{Origin, Version};

use super::*;
use crate::remote_write::messages::{self, v1, v2};
use crate::remote_write::tests::{snappy, unsnappy, v1_request};
use crate::remote_write::{CompressionChoice, decode, encode_v1, encode_v2, lost_in_v1};
use crate::{Batch, Name};

fn push(builder: &mut ArenaBuilder, series: &v1::TimeSeries, backwards: bool) {
    builder.start_series();
    let labels = series
        .labels
        .iter()
        .map(|label| (&*label.name, &*label.value));
    match backwards {
        true => labels
            .rev()
            .for_each(|(name, value)| builder.push_label(name, value)),
        false => labels.for_each(|(name, value)| builder.push_label(name, value)),
    }
    for sample in &series.samples {
        builder.push_sample(sample.value, sample.timestamp);
    }
    for exemplar in &series.exemplars {
        let labels = exemplar.labels.iter();
        let labels = labels.map(|label| (&*label.name, &*label.value));
        builder.push_exemplar(labels, exemplar.value, exemplar.timestamp);
    }
    for histogram in &series.histograms {
        builder.push_histogram(&histogram.encode_to_vec());
    }
}

const TYPES: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

fn built(request: &v1::WriteRequest, backwards: bool) -> Arena {
    let mut builder = ArenaBuilder::new(Limits::default());
    for series in &request.timeseries {
        push(&mut builder, series, backwards);
        builder.finish_series().unwrap();
    }
    for family in &request.metadata {
        let kind = TYPES[family.r#type as usize];
        let name = &family.metric_family_name;
        assert!(builder.push_metadata(name, kind, &family.help, &family.unit));
    }
    builder.finish()
}

fn sample(labels: &[(&str, &str)]) -> Result<(), SeriesError> {
    let limits = Limits {
        series: 1000,
        decoded_bytes: 200,
        labels: 3,
        name_bytes: 8,
        value_bytes: 5,
    };
    let mut builder = ArenaBuilder::new(limits);
    builder.start_series();
    for (name, value) in labels {
        builder.push_label(name, value);
    }
    builder.push_sample(1.0, 1);
    builder.finish_series()
}

#[test]
fn a_series_that_breaks_a_rule_is_refused() {
    let f = |labels: &[(&str, &str)], reason| {
        assert_eq!(
            sample(labels),
            Err(SeriesError::Invalid(reason)),
            "{labels:?}"
        );
    };
    let name = ("__name__", "up");
    f(&[("a", "1")], Reason::MissingName);
    f(&[name, ("", "1")], Reason::EmptyLabelName);
    f(&[name, ("a", "1"), ("a", "2")], Reason::DuplicateLabel);
    f(&[name, ("nine_long", "1")], Reason::LabelNameTooLong);
    f(&[name, ("a", "123456")], Reason::LabelValueTooLong);
    let four = [name, ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")];
    f(&four, Reason::TooManyLabels);
    // A label with an empty value is ignored.
    assert_eq!(sample(&[name, ("a", "1"), ("a", ""), ("", "")]), Ok(()));
    let mut builder = ArenaBuilder::new(Limits::default());
    builder.start_series();
    builder.push_label("__name__", "up");
    let empty = Err(SeriesError::Invalid(Reason::NoSamples));
    assert_eq!(builder.finish_series(), empty);
}

#[test]
fn a_batch_grows_no_larger_than_its_limit() {
    let limits = Limits {
        decoded_bytes: 300,
        ..Limits::default()
    };
    let mut builder = ArenaBuilder::new(limits);
    let mut added = 0;
    let full = loop {
        builder.start_series();
        builder.push_label("__name__", "up");
        builder.push_sample(1.0, added);
        match builder.finish_series() {
            Ok(()) => added += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, SeriesError::Full);
    assert!(!builder.push_metadata("f", MetricType::Gauge, &"h".repeat(300), ""));
    // A series that is too large by itself is not kept in memory either.
    builder.start_series();
    builder.push_label("__name__", "up");
    for _ in 0..1000 {
        builder.push_sample(1.0, 1);
        builder.push_histogram(&[0; 301]);
    }
    assert!(builder.rest.len() < 400);
    assert_eq!(builder.finish_series(), Err(SeriesError::Full));
    let arena = builder.finish();
    assert_eq!(arena.counts().series, added as u64);
    assert!(arena.raw.as_slice().len() <= 300);
}

#[test]
fn what_only_one_version_has_leaves_only_with_that() {
    let mut builder = ArenaBuilder::new(Limits::default());
    builder.start_series();
    builder.push_label("__name__", "a_total");
    builder.push_sample_since(1.5, 2000, 1000);
    builder.finish_series().unwrap();
    let histogram = messages::Histogram {
        count: Some(messages::Count::Int(3)),
        timestamp: 2000,
        ..messages::Histogram::default()
    };
    builder.start_series();
    builder.push_label("__name__", "h");
    builder.push_histogram_since(&histogram.encode_to_vec(), 1000);
    builder.finish_series().unwrap();
    let custom = messages::Histogram {
        schema: -53,
        custom_values: vec![1.0],
        ..histogram.clone()
    };
    builder.start_series();
    builder.push_label("__name__", "i");
    builder.push_histogram(&custom.encode_to_vec());
    builder.finish_series().unwrap();
    let mut arena = ArenaBuilder::new(Limits::default()).finish();
    arena.append(&builder.finish());
    let new = v2::Request::decode(&*unsnappy(&encode_v2(&arena))).unwrap();
    let sample = new.timeseries[0].samples[0];
    assert_eq!((sample.value, sample.timestamp), (1.5, 2000));
    assert_eq!(sample.start_timestamp, 1000);
    assert_eq!(new.timeseries[1].histograms[0].start_timestamp, 1000);
    assert_eq!(new.timeseries[2].histograms[0], custom);
    assert_eq!(lost_in_v1(&arena), 1);
    let old = unsnappy(&encode_v1(&arena, None));
    let read = v1::WriteRequest::decode(&*old).unwrap();
    assert_eq!(read.timeseries[0].samples[0].timestamp, 2000);
    assert_eq!(read.timeseries[1].histograms[0], histogram);
    assert_eq!(read.timeseries.len(), 2);
    // Nothing that this version does not know is left in the body.
    assert_eq!(read.encode_to_vec(), old);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_built_leaves_as_prost_encodes_it(request in v1_request(), backwards: bool) {
        let arena = built(&request, backwards);
        prop_assert_eq!(unsnappy(&encode_v1(&arena, None)), request.encode_to_vec());
        let (decoded, _) = decode(Version::V1, &snappy(&request.encode_to_vec()), &Limits::default()).unwrap();
        prop_assert_eq!(arena.counts(), decoded.counts());
        prop_assert_eq!(unsnappy(&encode_v2(&arena)), unsnappy(&encode_v2(&decoded)));
    }

    #[test]
    fn what_is_appended_leaves_as_if_it_had_been_built_together(
        request in v1_request(),
        at in any::<prop::sample::Index>(),
        edits: bool,
    ) {
        let name = Name::new("tenant");
        let edit = |arena: &mut Arena| arena.retain(|series| {
            series.set(&name, b"team");
            true
        });
        let mut whole = built(&request, false);
        let split = at.index(request.timeseries.len() + 1);
        let part = |series: &[v1::TimeSeries], metadata: &[v1::MetricMetadata]| {
            let request = v1::WriteRequest {
                timeseries: series.to_vec(),
                metadata: metadata.to_vec(),
            };
            built(&request, false)
        };
        let mut first = part(&request.timeseries[..split], &[]);
        let second = part(&request.timeseries[split..], &request.metadata);
        if edits {
            // Interned before appending, so that the first arena has text of its own, and after.
            edit(&mut first);
            edit(&mut whole);
        }
        first.append(&second);
        if edits {
            edit(&mut first);
        }
        prop_assert_eq!(first.counts(), whole.counts());
        prop_assert_eq!(unsnappy(&encode_v1(&first, None)), unsnappy(&encode_v1(&whole, None)));
        prop_assert_eq!(unsnappy(&encode_v2(&first)), unsnappy(&encode_v2(&whole)));
        first.forget_metadata();
        prop_assert_eq!(first.counts().metadata, 0);
    }

    #[test]
    fn a_built_batch_behaves_as_one_that_was_decoded(
        request in v1_request(),
        version in prop::sample::select(vec![Version::V1, Version::V2]),
        part in any::<prop::sample::Index>(),
    ) {
        let body = snappy(&request.encode_to_vec());
        let origin = Arc::new(Origin::internal("test".into()));
        let received = Batch::from_body(Version::V1, body.into(), Limits::default(), origin.clone());
        let built = Batch::from_arena(built(&request, false), origin);
        let (tenant, removed) = (Name::new("tenant"), Name::new("a"));
        let mut results = [received, built].map(|mut batch| {
            // Relabel it,
            let edited = batch.edit(|arena| arena.retain(|series| {
                series.set(&tenant, b"team");
                series.remove(&removed);
                !series.is_empty()
            }));
            edited.unwrap();
            // take a part of it
            let arena = batch.arena().unwrap().clone();
            let indexes: Vec<_> = arena.iter().map(|series| series.index()).collect();
            let len = if indexes.is_empty() { 0 } else { part.index(indexes.len()) };
            let mut batch = batch.with_arena(arena.extract(true, &indexes[..len]));
            // and encode that.
            let lost = batch.settle(version, &CompressionChoice::default()).unwrap();
            let body = batch.body(version).unwrap();
            (lost, batch.counts(), unsnappy(&body))
        });
        let [received, built] = &mut results;
        prop_assert_eq!(built, received);
    }
}

#[test]
fn labels_that_repeat_the_previous_series_are_marked_wherever_they_stand() {
    let mut builder = ArenaBuilder::new(Limits::default());
    let series: [&[(&str, &str)]; 5] = [
        &[("__name__", "a"), ("b", "1"), ("d", "1")],
        &[("__name__", "a"), ("b", "2"), ("d", "1")],
        &[("c", "1"), ("__name__", "a"), ("d", "1")],
        &[("__name__", "a"), ("a", "1"), ("d", "1")],
        &[("__name__", "e")],
    ];
    for labels in series {
        builder.start_series();
        for (name, value) in labels {
            builder.push_label(name, value);
        }
        builder.push_sample(1.0, 1);
        builder.finish_series().unwrap();
    }
    let arena = builder.finish();
    let marked = |at: usize| -> Vec<bool> {
        let before = arena.labels_of(at - 1);
        let repeats = |label: &Label| before.iter().any(|twin| label.repeats(*twin));
        arena.labels_of(at).iter().map(repeats).collect()
    };
    assert_eq!(marked(1), [true, false, true]);
    assert_eq!(marked(2), [true, false, true]);
    assert_eq!(marked(3), [true, false, true]);
    assert_eq!(marked(4), [false]);
}

proptest! {
    /// The labels of edited series are encoded anew, in the same form.
    #[test]
    fn encoded_labels_are_equal_for_equal_labels(request in v1_request(), backwards: bool) {
        let mut arena = built(&request, backwards);
        let encoded = |arena: &Arena| -> Vec<Vec<u8>> {
            let mut scratch = Vec::new();
            let series = arena.iter();
            series.map(|series| series.encoded_labels(&mut scratch).to_vec()).collect()
        };
        let before = encoded(&arena);
        for (series, encoded) in request.timeseries.iter().zip(&before) {
            let decoded = v1::TimeSeries::decode(&**encoded).unwrap();
            prop_assert_eq!(&decoded.labels, &series.labels);
        }
        let name = Name::new("__name__");
        arena.retain(|series| {
            series.remove(&Name::new("a"));
            series.set(&name, b"other");
            true
        });
        let mut scratch = Vec::new();
        for series in arena.iter() {
            let fresh: Vec<(Vec<u8>, Vec<u8>)> = {
                let encoded = series.encoded_labels(&mut scratch);
                let decoded = v1::TimeSeries::decode(encoded).unwrap();
                let labels = decoded.labels.into_iter();
                labels.map(|label| (label.name.into(), label.value.into())).collect()
            };
            let labels = series.labels().map(|(name, value)| (name.to_vec(), value.to_vec()));
            prop_assert_eq!(fresh, labels.collect::<Vec<_>>());
        }
    }
}
