//! Tests the codec against prost: everything that prost encodes must survive, in either version.

mod expansion;
mod neighbours;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;

use metrifold_model::Version;

use crate::Name;

use super::messages::{BucketSpan, Count, Histogram, ZeroCount, v1, v2};
use super::*;

pub(crate) fn snappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

pub(crate) fn unsnappy(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(bytes).unwrap()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_][a-z0-9_]{0,12}",
        "[A-Za-z.é世 -]{1,9}",
        // Names with a common beginning longer than the bytes that are compared as one number.
        "container_[a-z]{0,3}",
        Just("a".repeat(200)),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9/:.-]{1,20}",
        1 => "\\PC{1,12}",
        1 => (100usize..400).prop_map(|n| "v".repeat(n)),
    ]
}

/// Sorted, unique labels with a metric name.
fn labels() -> impl Strategy<Value = Vec<v1::Label>> {
    // Sometimes more than the fast path reads.
    let others = prop_oneof![
        19 => btree_map(name(), value(), 0..8),
        1 => btree_map(name(), value(), 60..80),
    ];
    (others, "[a-z_:]{1,20}").prop_map(|(mut labels, metric)| {
        labels.insert("__name__".into(), metric);
        labels
            .into_iter()
            .map(|(name, value)| v1::Label { name, value })
            .collect()
    })
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        Just(f64::from_bits(0x7ff0_0000_0000_0002)), // the stale marker
        Just(f64::INFINITY),
        Just(0.0),
    ]
    // prost omits a negative zero like any default.
    .prop_map(|value| if value == 0.0 { 0.0 } else { value })
}

prop_compose! {
    fn sample()(value in float(), timestamp: i64) -> v1::Sample {
        v1::Sample { value, timestamp }
    }
}

prop_compose! {
    fn v1_exemplar()(
        labels in btree_map(name(), value(), 0..3),
        value in float(),
        timestamp: i64,
    ) -> v1::Exemplar {
        let labels = labels.into_iter().map(|(name, value)| v1::Label { name, value });
        v1::Exemplar { labels: labels.collect(), value, timestamp }
    }
}

prop_compose! {
    fn histogram()(
        int: bool,
        count: u32,
        sum in float(),
        schema in -4i32..9,
        spans in vec((any::<i32>(), any::<u32>()), 0..3),
        deltas in vec(any::<i64>(), 0..5),
        floats in vec(float(), 0..5),
        reset_hint in 0i32..4,
        timestamp: i64,
    ) -> Histogram {
        let spans: Vec<_> = spans
            .into_iter()
            .map(|(offset, length)| BucketSpan { offset, length })
            .collect();
        Histogram {
            count: Some(if int { Count::Int(count.into()) } else { Count::Float(count.into()) }),
            sum,
            schema,
            zero_threshold: 0.001,
            zero_count: Some(if int { ZeroCount::Int(1) } else { ZeroCount::Float(1.0) }),
            negative_spans: spans.clone(),
            negative_deltas: if int { deltas.clone() } else { vec![] },
            negative_counts: if int { vec![] } else { floats.clone() },
            positive_spans: spans,
            positive_deltas: if int { deltas } else { vec![] },
            positive_counts: if int { vec![] } else { floats },
            reset_hint,
            timestamp,
            custom_values: vec![],
            start_timestamp: 0,
        }
    }
}

prop_compose! {
    fn v1_series()(
        labels in labels(),
        samples in vec(sample(), 1..4),
        exemplars in vec(v1_exemplar(), 0..3),
        histograms in vec(histogram(), 0..3),
    ) -> v1::TimeSeries {
        v1::TimeSeries { labels, samples, exemplars, histograms }
    }
}

prop_compose! {
    fn metadata()(
        r#type in 1i32..8,
        metric_family_name in "[a-z]{1,6}",
        help in "\\PC{0,10}",
        unit in "[a-z]{0,5}",
    ) -> v1::MetricMetadata {
        v1::MetricMetadata { r#type, metric_family_name, help, unit }
    }
}

prop_compose! {
    pub(crate) fn v1_request()(
        timeseries in vec(v1_series(), 0..12),
        metadata in vec(metadata(), 0..4),
    ) -> v1::WriteRequest {
        v1::WriteRequest { timeseries, metadata }
    }
}

/// A 2.0 request with the content of a 1.0 request, and with fields that only 2.0 has.
pub(crate) fn v2_request() -> impl Strategy<Value = v2::Request> {
    let extra = (any::<bool>(), 0i64..1000, 0i32..8, "[a-z ]{0,8}");
    vec((v1_series(), extra), 0..12).prop_map(|series| {
        let mut request = v2::Request {
            symbols: vec![String::new()],
            timeseries: vec![],
        };
        for (series, (histograms, start, kind, help)) in series {
            let mut symbol = |text: &str| -> u32 {
                let symbols = &mut request.symbols;
                let known = symbols.iter().position(|s| s == text);
                known.unwrap_or_else(|| {
                    symbols.push(text.into());
                    symbols.len() - 1
                }) as u32
            };
            let mut refs = |labels: &[v1::Label]| -> Vec<u32> {
                labels
                    .iter()
                    .flat_map(|l| [symbol(&l.name), symbol(&l.value)])
                    .collect()
            };
            let mut new = v2::TimeSeries {
                labels_refs: refs(&series.labels),
                exemplars: series
                    .exemplars
                    .iter()
                    .map(|e| v2::Exemplar {
                        labels_refs: refs(&e.labels),
                        value: e.value,
                        timestamp: e.timestamp,
                    })
                    .collect(),
                created_timestamp: start,
                ..Default::default()
            };
            if histograms && !series.histograms.is_empty() {
                new.histograms = series.histograms;
                for histogram in &mut new.histograms {
                    histogram.start_timestamp = start;
                }
            } else {
                new.samples = series
                    .samples
                    .iter()
                    .map(|s| v2::Sample {
                        value: s.value,
                        timestamp: s.timestamp,
                        start_timestamp: start,
                    })
                    .collect();
            }
            if kind > 0 {
                new.metadata = Some(v2::Metadata {
                    r#type: kind,
                    help_ref: symbol(&help),
                    unit_ref: 0,
                });
            }
            request.timeseries.push(new);
        }
        request
    })
}

/// Labels, bits of the value, and timestamp.
type FlatExemplar = (Vec<(String, String)>, u64, i64);

/// A series with its strings resolved, for comparison.
#[derive(Clone, Debug, Default)]
struct Flat {
    labels: Vec<(String, String)>,
    samples: Vec<v2::Sample>,
    histograms: Vec<Histogram>,
    exemplars: Vec<FlatExemplar>,
    metadata: Option<(i32, String, String)>,
    created: i64,
}

impl PartialEq for Flat {
    /// Compares the encodings, so that NaNs compare by their bits.
    fn eq(&self, other: &Self) -> bool {
        let bits = |flat: &Self| {
            let samples: Vec<_> = flat.samples.iter().map(Message::encode_to_vec).collect();
            let histograms: Vec<_> = flat.histograms.iter().map(Message::encode_to_vec).collect();
            (samples, histograms)
        };
        bits(self) == bits(other)
            && self.labels == other.labels
            && self.exemplars == other.exemplars
            && self.metadata == other.metadata
            && self.created == other.created
    }
}

fn flat_v1(request: &v1::WriteRequest) -> Vec<Flat> {
    let pairs = |labels: &[v1::Label]| -> Vec<_> {
        labels
            .iter()
            .map(|l| (l.name.clone(), l.value.clone()))
            .collect()
    };
    let flat = |series: &v1::TimeSeries| Flat {
        labels: pairs(&series.labels),
        samples: series
            .samples
            .iter()
            .map(|s| v2::Sample {
                value: s.value,
                timestamp: s.timestamp,
                start_timestamp: 0,
            })
            .collect(),
        histograms: series.histograms.clone(),
        exemplars: series
            .exemplars
            .iter()
            .map(|e| (pairs(&e.labels), e.value.to_bits(), e.timestamp))
            .collect(),
        ..Flat::default()
    };
    request.timeseries.iter().map(flat).collect()
}

fn flat_v2(request: &v2::Request) -> Vec<Flat> {
    let symbol = |number: u32| request.symbols[number as usize].clone();
    let pairs = |refs: &[u32]| -> Vec<_> {
        refs.chunks(2)
            .map(|pair| (symbol(pair[0]), symbol(pair[1])))
            .collect()
    };
    let flat = |series: &v2::TimeSeries| Flat {
        labels: pairs(&series.labels_refs),
        samples: series.samples.clone(),
        histograms: series.histograms.clone(),
        exemplars: series
            .exemplars
            .iter()
            .map(|e| (pairs(&e.labels_refs), e.value.to_bits(), e.timestamp))
            .collect(),
        metadata: series
            .metadata
            .map(|m| (m.r#type, symbol(m.help_ref), symbol(m.unit_ref))),
        created: series.created_timestamp,
    };
    request.timeseries.iter().map(flat).collect()
}

fn decoded(version: Version, message: &impl Message) -> crate::Arena {
    let body = snappy(&message.encode_to_vec());
    let (arena, invalid) = decode(version, &body, &Limits::default()).unwrap();
    assert_eq!(invalid.series(), 0, "{invalid}");
    arena
}

/// Marks all series as edited, by an edit and its reversal.
fn touch(arena: &mut crate::Arena) {
    let name = Name::new("zzz");
    arena.retain(|series| {
        series.set(&name, b"1");
        series.remove(&name);
        true
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn v1_comes_out_as_it_went_in(request in v1_request(), edit: bool) {
        let mut arena = decoded(Version::V1, &request);
        if edit {
            touch(&mut arena);
        }
        let out = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&arena, None))).unwrap();
        prop_assert_eq!(flat_v1(&out), flat_v1(&request));
        prop_assert_eq!(out.metadata, request.metadata);
    }

    #[test]
    fn v2_comes_out_as_it_went_in(request in v2_request(), edit: bool) {
        let mut arena = decoded(Version::V2, &request);
        if edit {
            touch(&mut arena);
        }
        let out = v2::Request::decode(&*unsnappy(&encode_v2(&arena))).unwrap();
        prop_assert_eq!(flat_v2(&out), flat_v2(&request));
    }

    #[test]
    fn v1_becomes_v2_with_samples_and_histograms_apart(request in v1_request()) {
        let arena = decoded(Version::V1, &request);
        let out = v2::Request::decode(&*unsnappy(&encode_v2(&arena))).unwrap();
        prop_assert_eq!(&out.symbols[0], "");
        let mut expected = Vec::new();
        for series in flat_v1(&request) {
            let mut rest = series.clone();
            let mut first = series;
            if !first.samples.is_empty() && !first.histograms.is_empty() {
                rest.samples.clear();
                rest.exemplars.clear();
                first.histograms.clear();
                expected.push(first);
                expected.push(rest);
            } else {
                expected.push(first);
            }
        }
        let mut actual = flat_v2(&out);
        for series in &mut actual {
            series.metadata = None;
        }
        prop_assert_eq!(actual, expected);
    }

    #[test]
    fn v2_becomes_v1_without_what_v1_cannot_say(request in v2_request()) {
        let arena = decoded(Version::V2, &request);
        let out = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&arena, None))).unwrap();
        let mut expected = flat_v2(&request);
        for series in &mut expected {
            series.created = 0;
            series.metadata = None;
            series.samples.iter_mut().for_each(|s| s.start_timestamp = 0);
            series.histograms.iter_mut().for_each(|h| h.start_timestamp = 0);
        }
        prop_assert_eq!(flat_v1(&out), expected);
    }

    #[test]
    fn unsorted_labels_are_sorted_and_empty_values_removed(request in v1_request(), seed: u64) {
        let mut shuffled = request.clone();
        for series in &mut shuffled.timeseries {
            let by = seed as usize % series.labels.len();
            series.labels.rotate_left(by);
            series.labels.push(v1::Label { name: "empty".into(), value: String::new() });
        }
        let arena = decoded(Version::V1, &shuffled);
        let out = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&arena, None))).unwrap();
        prop_assert_eq!(flat_v1(&out), flat_v1(&request));
    }

    #[test]
    fn foreign_bytes_never_panic(mut bytes: Vec<u8>, request in v1_request(), at: prop::sample::Index, v: bool) {
        let version = if v { Version::V1 } else { Version::V2 };
        if let Ok((arena, _)) = decode(version, &snappy(&bytes), &Limits::default()) {
            let _ = (encode_v1(&arena, None), encode_v2(&arena));
        }
        // Damage in the middle of a valid body reaches deeper code.
        let mut valid = request.encode_to_vec();
        if !valid.is_empty() {
            let at = at.index(valid.len());
            valid[at] = bytes.pop().unwrap_or(0xff);
            if let Ok((arena, _)) = decode(version, &snappy(&valid), &Limits::default()) {
                let _ = (encode_v1(&arena, None), encode_v2(&arena));
            }
        }
    }
}

fn series(labels: &[(&str, &str)]) -> v1::TimeSeries {
    let label = |&(name, value): &(&str, &str)| v1::Label {
        name: name.into(),
        value: value.into(),
    };
    v1::TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: vec![v1::Sample {
            value: 1.0,
            timestamp: 1,
        }],
        ..Default::default()
    }
}

#[test]
fn an_invalid_series_costs_only_itself() {
    let f = |bad: v1::TimeSeries, reason: Reason| {
        let good = series(&[("__name__", "up"), ("job", "x")]);
        let request = v1::WriteRequest {
            timeseries: vec![good.clone(), bad, good.clone()],
            metadata: vec![],
        };
        let body = snappy(&request.encode_to_vec());
        let (arena, invalid) = decode(Version::V1, &body, &Limits::default()).unwrap();
        assert_eq!(invalid.by_reason().collect::<Vec<_>>(), [(reason, 1)]);
        let out = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&arena, None))).unwrap();
        assert_eq!(out.timeseries, [good.clone(), good]);
    };
    f(series(&[("job", "x")]), Reason::MissingName);
    f(series(&[("__name__", "")]), Reason::MissingName);
    f(series(&[]), Reason::MissingName);
    f(
        series(&[("", "x"), ("__name__", "up")]),
        Reason::EmptyLabelName,
    );
    let twice = [("__name__", "up"), ("a", "1"), ("a", "2")];
    f(series(&twice), Reason::DuplicateLabel);
    let apart = [("a", "1"), ("__name__", "up"), ("a", "1")];
    f(series(&apart), Reason::DuplicateLabel);
    let long = "x".repeat(1 << 20);
    f(
        series(&[("__name__", "up"), ("a", &long)]),
        Reason::LabelValueTooLong,
    );
    f(
        series(&[("__name__", "up"), (&long, "a")]),
        Reason::LabelNameTooLong,
    );
    let names: Vec<String> = (0..10_000).map(|i| format!("l{i:05}")).collect();
    let mut many = vec![("__name__", "up")];
    many.extend(names.iter().map(|name| (name.as_str(), "x")));
    f(series(&many), Reason::TooManyLabels);
}

#[test]
fn a_label_that_is_not_utf8_costs_only_its_series() {
    let request = v1::WriteRequest {
        timeseries: vec![series(&[("__name__", "up"), ("job", "bad")])],
        metadata: vec![],
    };
    let mut bytes = request.encode_to_vec();
    let at = bytes.windows(3).position(|w| w == b"bad").unwrap();
    bytes[at] = 0xff;
    let (arena, invalid) = decode(Version::V1, &snappy(&bytes), &Limits::default()).unwrap();
    assert_eq!(
        invalid.by_reason().collect::<Vec<_>>(),
        [(Reason::InvalidUtf8, 1)]
    );
    assert!(arena.counts().is_empty());
}

#[test]
fn metadata_crosses_versions_by_family() {
    let request = v1::WriteRequest {
        timeseries: vec![
            series(&[("__name__", "lat_bucket"), ("le", "1.0")]),
            series(&[("__name__", "other_bucket")]),
        ],
        metadata: vec![v1::MetricMetadata {
            r#type: 3,
            metric_family_name: "lat".into(),
            help: "Latency.".into(),
            unit: "seconds".into(),
        }],
    };
    let arena = decoded(Version::V1, &request);
    let body = encode_v2(&arena);
    let flat = flat_v2(&v2::Request::decode(&*unsnappy(&body)).unwrap());
    let expected = (3, "Latency.".to_string(), "seconds".to_string());
    assert_eq!(flat[0].metadata, Some(expected));
    assert_eq!(flat[1].metadata, None);

    let (back, _) = decode(Version::V2, &body, &Limits::default()).unwrap();
    let out = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&back, None))).unwrap();
    assert_eq!(out.metadata, request.metadata);
}

#[test]
fn histograms_with_custom_buckets_stay_in_v2_and_are_left_out_of_v1() {
    let request = v2::Request {
        symbols: ["", "__name__", "up"].map(String::from).to_vec(),
        timeseries: vec![v2::TimeSeries {
            labels_refs: vec![1, 2],
            histograms: vec![Histogram {
                schema: -53,
                custom_values: vec![0.5, 1.0],
                timestamp: 5,
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let arena = decoded(Version::V2, &request);
    let out = v2::Request::decode(&*unsnappy(&encode_v2(&arena))).unwrap();
    assert_eq!(
        out.timeseries[0].histograms,
        request.timeseries[0].histograms
    );
    let out = v1::WriteRequest::decode(&*unsnappy(&encode_v1(&arena, None))).unwrap();
    assert!(out.timeseries.is_empty());
}
