//! Bodies of a few bytes that refer to many: refused before anything of that size is made.

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
