//! Bodies of a few bytes that refer to many: refused before anything of that size is made.

use std::sync::Arc;

use metrifold_model::Origin;

use crate::Batch;
use crate::remote_write::decode::Decoder;

use super::*;

const LONG: usize = 16 << 10;

fn exemplar(labels_refs: Vec<u32>) -> v2::Exemplar {
    v2::Exemplar {
        labels_refs,
        ..v2::Exemplar::default()
    }
}

fn series(labels_refs: Vec<u32>, samples: usize, exemplars: Vec<v2::Exemplar>) -> v2::TimeSeries {
    v2::TimeSeries {
        labels_refs,
        samples: vec![v2::Sample::default(); samples],
        exemplars,
        ..v2::TimeSeries::default()
    }
}

/// A body of 2.0 whose symbols are names, and one long text, which is the last.
fn body(names: usize, timeseries: Vec<v2::TimeSeries>) -> Vec<u8> {
    let mut symbols = vec![String::new(), "__name__".into(), "m".into()];
    symbols.extend((0..names).map(|number| format!("n{number:05}")));
    symbols.push("x".repeat(LONG));
    let request = v2::Request {
        symbols,
        timeseries,
    };
    snappy(&request.encode_to_vec())
}

fn expands(version: Version, body: &[u8]) -> bool {
    let limit = Limits::default().decoded_bytes;
    match decode(version, body, &Limits::default()) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error, DecodeError::Expands { limit });
            true
        }
    }
}

#[test]
fn what_takes_more_than_the_bound_when_it_is_written_out_is_refused() {
    let names = 120;
    let long = 3 + names as u32;
    let mut labels = vec![1, 2];
    labels.extend((0..names as u32).flat_map(|name| [3 + name, long]));
    let with_labels = |count| body(names, vec![series(labels.clone(), 1, Vec::new()); count]);
    assert!(expands(Version::V2, &with_labels(100)));
    assert!(!expands(Version::V2, &with_labels(10)));

    let refs = |labels: usize| exemplar([3, long].repeat(labels));
    let with_exemplars = |count| body(names, vec![series(vec![1, 2], 1, vec![refs(100); count])]);
    assert!(expands(Version::V2, &with_exemplars(100)));
    assert!(!expands(Version::V2, &with_exemplars(10)));

    let with_help = |count| {
        let mut one = series(vec![1, 2], 1, Vec::new());
        one.metadata = Some(v2::Metadata {
            help_ref: long,
            ..v2::Metadata::default()
        });
        body(names, vec![one; count])
    };
    assert!(expands(Version::V2, &with_help(10_000)));
    assert!(!expands(Version::V2, &with_help(1_000)));

    let empty = |count| {
        body(
            names,
            vec![series(vec![1, 2], 1, vec![exemplar(Vec::new()); count])],
        )
    };
    assert!(expands(Version::V2, &empty(3_000_000)));
    assert!(!expands(Version::V2, &empty(100_000)));

    let of_v1 = |count| {
        let label = |name: &str, value: &str| v1::Label {
            name: name.into(),
            value: value.into(),
        };
        let request = v1::WriteRequest {
            timeseries: vec![v1::TimeSeries {
                labels: vec![label("__name__", "m")],
                samples: vec![v1::Sample::default()],
                exemplars: vec![v1::Exemplar::default(); count],
                ..v1::TimeSeries::default()
            }],
            ..v1::WriteRequest::default()
        };
        snappy(&request.encode_to_vec())
    };
    assert!(expands(Version::V1, &of_v1(3_000_000)));
    assert!(!expands(Version::V1, &of_v1(100_000)));
}

#[test]
fn an_exemplar_with_more_labels_than_a_series_may_have_costs_its_series() {
    let refs = |labels: usize| exemplar([3, 4].repeat(labels));
    let most = Limits::default().labels;
    for (labels, left_out) in [(most, 0), (most + 1, 1), (150_000, 1)] {
        for samples in [0, 1] {
            let body = body(1, vec![series(vec![1, 2], samples, vec![refs(labels)])]);
            let limits = Limits {
                decoded_bytes: usize::MAX,
                ..Limits::default()
            };
            let (_, invalid) = decode(Version::V2, &body, &limits).unwrap();
            assert_eq!(invalid.series(), left_out, "{labels}");

            let label = |name: &str, value: &str| v1::Label {
                name: name.into(),
                value: value.into(),
            };
            let exemplar = v1::Exemplar {
                labels: vec![label("", ""); labels],
                ..v1::Exemplar::default()
            };
            let request = v1::WriteRequest {
                timeseries: vec![v1::TimeSeries {
                    labels: vec![label("__name__", "m")],
                    samples: vec![v1::Sample::default(); samples],
                    exemplars: vec![exemplar],
                    ..v1::TimeSeries::default()
                }],
                ..v1::WriteRequest::default()
            };
            let body = snappy(&request.encode_to_vec());
            let (_, invalid) = decode(Version::V1, &body, &limits).unwrap();
            assert_eq!(invalid.series(), left_out, "{labels} in 1.0");
        }
    }
}

#[test]
fn an_exemplar_with_a_longer_label_than_a_series_may_have_costs_its_series() {
    let limits = Limits {
        name_bytes: 1 << 10,
        value_bytes: 2 << 10,
        ..Limits::default()
    };
    // A longer one would fit if names and values were confused.
    for (name, value, reason) in [
        (1 << 10, 2 << 10, None),
        ((1 << 10) + 1, 1, Some(Reason::LabelNameTooLong)),
        (1, (2 << 10) + 1, Some(Reason::LabelValueTooLong)),
    ] {
        let (name, value) = ("n".repeat(name), "v".repeat(value));
        let symbols = ["", "__name__", "m", &name, &value].map(str::to_owned);
        let of_v2 = |exemplar: &[u8]| {
            let mut one = series(vec![1, 2], 1, Vec::new()).encode_to_vec();
            one.extend([4 << 3 | 2, exemplar.len() as u8]);
            one.extend(exemplar);
            let request = v2::Request {
                symbols: symbols.clone().into(),
                timeseries: Vec::new(),
            };
            let mut request = request.encode_to_vec();
            request.extend([5 << 3 | 2, one.len() as u8]);
            request.extend(one);
            snappy(&request)
        };
        let label = |name: &str, value: &str| v1::Label {
            name: name.into(),
            value: value.into(),
        };
        let of_v1 = v1::WriteRequest {
            timeseries: vec![v1::TimeSeries {
                labels: vec![label("__name__", "m")],
                samples: vec![v1::Sample::default()],
                exemplars: vec![v1::Exemplar {
                    labels: vec![label("trace", "1"), label(&name, &value)],
                    ..v1::Exemplar::default()
                }],
                ..v1::TimeSeries::default()
            }],
            ..v1::WriteRequest::default()
        };
        for (version, body) in [
            (Version::V1, snappy(&of_v1.encode_to_vec())),
            (Version::V2, of_v2(&[0x0a, 2, 3, 4])),
            (Version::V2, of_v2(&[0x08, 3, 0x08, 4])),
        ] {
            let (_, invalid) = decode(version, &body, &limits).unwrap();
            let found: Vec<_> = invalid.by_reason().map(|(reason, _)| reason).collect();
            assert_eq!(found, Vec::from_iter(reason), "{version}");
        }
    }
}

#[test]
fn a_series_of_any_length_is_converted_as_its_parts_are() {
    // 64 exemplars of 3 labels take 3 MiB, more than are kept at once.
    let long = exemplar([3, 4].repeat(3));
    let help = v2::Metadata {
        help_ref: 1,
        ..v2::Metadata::default()
    };
    let mut one = series(vec![1, 2], 3, vec![long; 64]);
    one.metadata = Some(help);
    let body = body(1, vec![one.clone(), series(vec![1, 2], 1, Vec::new()), one]);
    let (arena, _) = decode(Version::V2, &body, &Limits::default()).unwrap();
    let request = v1::WriteRequest::decode(&unsnappy(&encode_v1(&arena, None))[..]).unwrap();
    assert_eq!(request.metadata.len(), 1);
    let [first, second, third] = &request.timeseries[..] else {
        panic!("{} series", request.timeseries.len());
    };
    assert_eq!(first, third);
    assert_eq!((first.samples.len(), first.exemplars.len()), (3, 64));
    assert_eq!((second.samples.len(), second.exemplars.len()), (1, 0));
    let labels = &first.exemplars[63].labels;
    let text = |label: &v1::Label| (label.name.clone(), label.value.len());
    assert!(
        labels
            .iter()
            .map(text)
            .eq(vec![("n00000".to_owned(), LONG); 3])
    );
}

#[test]
fn a_stored_batch_is_bound_by_its_offsets_alone() {
    let (tenant, origin) = ("t".into(), Arc::new(Origin::internal("test".into())));
    let stored = |series: usize| {
        // Twice the limit of a source, or more than offsets can tell apart.
        let refs = exemplar([3, 4].repeat(120));
        let body = body(1, vec![self::series(vec![1, 2], 1, vec![refs; 9]); series]);
        let counts = metrifold_model::Counts::default();
        let known = (Some(counts), true);
        Batch::from_record(Version::V2, body.into(), known, &tenant, origin.clone())
    };
    let kept = stored(15).decode().unwrap();
    assert_eq!(kept.series(), 0);
    let error = stored(125).decode().unwrap_err();
    assert_eq!(error, DecodeError::Expands { limit: 2 << 30 });
    assert_eq!(
        metrifold_model::Rejection::from(error).kind,
        metrifold_model::RejectionKind::TooLarge
    );
}

/// Bytes of a body, those that it takes written out as they are computed, and those of its content
/// in each version.
fn sizes(version: Version, body: &[u8]) -> (usize, usize, [usize; 2]) {
    let limits = Limits::default();
    let raw = Decoder::decompress(body, &limits).unwrap();
    let mut decoder = Decoder::new(version, &raw, &limits);
    match version {
        Version::V1 => decoder.v1(|_| {}).unwrap(),
        Version::V2 => decoder.v2(|_, _| {}).unwrap(),
    }
    let written = decoder.written;
    let (arena, _) = decoder.finish();
    let bodies = [encode_v1(&arena, None), encode_v2(&arena)];
    (
        raw.as_slice().len(),
        written,
        bodies.map(|body| unsnappy(&body).len()),
    )
}

proptest! {
    #[test]
    fn what_a_batch_takes_written_out_is_computed_before_it_is_written(
        request in v2_request(),
        times in 1usize..50,
    ) {
        // The more often a series comes, the less of it is text of its own.
        let mut request = request;
        let series = request.timeseries.clone();
        for _ in 1..times {
            request.timeseries.extend(series.clone());
        }
        let exemplars: usize = request.timeseries.iter().map(|one| one.exemplars.len()).sum();
        let symbol = |number: u32| request.symbols[number as usize].len() + 3;
        let metadata = request.timeseries.iter().filter_map(|one| one.metadata);
        let metadata: usize = metadata.map(|one| symbol(one.help_ref) + symbol(one.unit_ref)).sum();
        let (own, written, [v1, v2]) = sizes(Version::V2, &snappy(&request.encode_to_vec()));
        // What has no text of its own, as samples, takes as much in either version. Metadata that
        // comes with each series is written once; around a text, a few bytes are not counted.
        prop_assert!(v1 <= own + written + written / 16, "{v1} of {own} and {written}");
        prop_assert!(written <= v1 + metadata + 64 * exemplars, "{written} for {v1}");
        prop_assert!(v2 <= own + own / 4, "{v2} of {own}");
    }

    #[test]
    fn what_has_no_references_takes_no_more_in_another_version(
        request in v1_request(),
        times in 1usize..50,
    ) {
        let mut request = request;
        let series = request.timeseries.clone();
        for _ in 1..times {
            request.timeseries.extend(series.clone());
        }
        let exemplars: usize = request.timeseries.iter().map(|one| one.exemplars.len()).sum();
        let (own, written, [v1, v2]) = sizes(Version::V1, &snappy(&request.encode_to_vec()));
        prop_assert_eq!(written, 64 * exemplars);
        prop_assert!(v1 <= own, "{v1} of {own}");
        // Metadata of a family goes to each of its series, as two references.
        prop_assert!(v2 <= 2 + 2 * own + 16 * request.timeseries.len(), "{v2} of {own}");
    }
}

#[test]
fn references_without_number_are_not_held() {
    // Symbol 1 is a name, symbol 0 no value: each pair is a label that is left out.
    for refs in [[1u32, 0].repeat(3_000_000), vec![0; 6_000_000]] {
        let whole = body(1, vec![series(refs.clone(), 1, Vec::new())]);
        // The same in pieces, behind the sample.
        let mut pieces = v2::TimeSeries::default().encode_to_vec();
        pieces.extend(series(Vec::new(), 1, Vec::new()).encode_to_vec());
        for piece in refs.chunks(1000) {
            pieces.extend(series(piece.to_vec(), 0, Vec::new()).encode_to_vec());
        }
        let symbols = v2::Request {
            symbols: vec![String::new(), "__name__".into()],
            timeseries: Vec::new(),
        };
        let mut request = symbols.encode_to_vec();
        request.push(5 << 3 | 2);
        prost::encoding::encode_varint(pieces.len() as u64, &mut request);
        request.extend(pieces);
        for body in [whole, snappy(&request)] {
            let raw = Decoder::decompress(&body, &Limits::default()).unwrap();
            let limits = Limits::default();
            let mut decoder = Decoder::new(Version::V2, &raw, &limits);
            decoder.v2(|_, _| {}).unwrap();
            assert!(decoder.refs.capacity() < 10_000);
            let (arena, invalid) = decoder.finish();
            assert_eq!((arena.iter().count(), invalid.series()), (0, 1));
        }
    }
}

/// Room of so many bytes, of which some are taken.
#[derive(Debug)]
struct Bounded(usize, std::sync::Mutex<usize>);

impl Room for Bounded {
    fn take(&self, bytes: usize) -> bool {
        let mut taken = self.1.lock().unwrap();
        *taken += bytes;
        *taken <= self.0
    }
}

#[test]
fn a_batch_asks_for_room_as_it_expands() {
    let taken = |series: usize, most: usize| {
        let refs = exemplar([3, 4].repeat(100));
        let body = body(1, vec![self::series(vec![1, 2], 1, vec![refs]); series]);
        let room = Arc::new(Bounded(most, std::sync::Mutex::default()));
        let origin = Arc::new(Origin::internal("test".into()));
        let mut batch = Batch::from_body(Version::V2, body.into(), Limits::default(), origin);
        batch.set_room(room.clone());
        let done = batch.decode();
        let taken = *room.1.lock().unwrap();
        (done.err(), taken)
    };
    // A series takes 1.6 MB written out.
    assert_eq!(taken(0, 0), (None, 0));
    let (error, asked) = taken(10, usize::MAX);
    assert_eq!(error, None);
    assert!((20 << 20..64 << 20).contains(&asked), "{asked}");
    assert_eq!(taken(10, 20 << 20).0, Some(DecodeError::NoRoom));
    let limit = Limits::default().decoded_bytes;
    let (error, asked) = taken(100, usize::MAX);
    assert_eq!(error, Some(DecodeError::Expands { limit }));
    assert!(asked <= 2 * limit, "{asked}");
}
