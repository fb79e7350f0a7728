//! Cost of each step of the hot path, and of the minimum that the whole path is compared with:
//! snappy decode, walk, copy, snappy encode.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;

use metrifold_codec::Name;
use metrifold_codec::remote_write::messages::v1;
use metrifold_codec::remote_write::{
    CompressionChoice, Limits, count, decode, encode_v1, encode_v2,
};
use metrifold_model::Version;

#[path = "support/payload.rs"]
mod payload;

fn codec(c: &mut Criterion) {
    let body = payload::body(0, 0);
    let raw = payload::request(0, 0);
    println!(
        "{} raw and {} compressed bytes per sample",
        raw.len() / payload::SERIES,
        body.len() / payload::SERIES
    );
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(payload::SERIES as u64));
    group.measurement_time(Duration::from_secs(3));
    let limits = Limits::default();
    let choice = CompressionChoice::default();

    group.bench_function("snappy decode", |b| {
        let mut out = vec![0; raw.len()];
        b.iter(|| snap::raw::Decoder::new().decompress(black_box(&body), &mut out));
    });
    group.bench_function("snappy encode", |b| {
        let mut encoder = snap::raw::Encoder::new();
        let mut out = vec![0; snap::raw::max_compress_len(raw.len())];
        b.iter(|| encoder.compress(black_box(&raw), &mut out));
    });
    group.bench_function("decode 1.0", |b| {
        b.iter(|| decode(Version::V1, black_box(&body), &limits));
    });
    group.bench_function("count 1.0", |b| {
        b.iter(|| count(Version::V1, black_box(&body), &limits));
    });
    group.bench_function("decode 1.0 by prost", |b| {
        b.iter(|| {
            let raw = snap::raw::Decoder::new()
                .decompress_vec(black_box(&body))
                .unwrap();
            v1::WriteRequest::decode(&*raw)
        });
    });
    let (arena, _) = decode(Version::V1, &body, &limits).unwrap();
    group.bench_function("encode 1.0, untouched", |b| {
        b.iter(|| encode_v1(black_box(&arena), Some(&choice)));
    });
    let name = Name::new("tenant_id");
    group.bench_function("decode 1.0, add a label, encode 1.0", |b| {
        b.iter(|| {
            let (mut arena, _) = decode(Version::V1, black_box(&body), &limits).unwrap();
            let label = arena.push_label(b"tenant_id", b"team-a");
            arena.retain(|series| {
                series.set_label(&name, label);
                true
            });
            encode_v1(&arena, Some(&choice))
        });
    });
    group.bench_function("encode 2.0 from 1.0", |b| {
        b.iter(|| encode_v2(black_box(&arena)));
    });
    let v2 = encode_v2(&arena);
    group.bench_function("decode 2.0", |b| {
        b.iter(|| decode(Version::V2, black_box(&v2), &limits));
    });
    let (arena, _) = decode(Version::V2, &v2, &limits).unwrap();
    group.bench_function("encode 2.0 from 2.0", |b| {
        b.iter(|| encode_v2(black_box(&arena)));
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
