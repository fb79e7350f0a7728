//! What has to hold for every body.

use metrifold_codec::{Arena, Name};
use metrifold_codec::remote_write::{decode, encode_v1, encode_v2, Limits, lost_in_v1};
use metrifold_model::Version;

pub const LIMITS: Limits = Limits {
    decoded_bytes: 1 << 20,
    series: 4096,
    labels: 16,
    name_bytes: 64,
    // Entries with a length of two bytes, of which the second may be any.
    value_bytes: 4 << 10,
};

/// The input is a message.
pub fn protobuf(version: Version, message: &[u8]) {
    let compressed = snap::raw::Encoder::new().compress_vec(message);
    body(version, &compressed.expect("short enough"));
}

/// The input is a compressed body.
pub fn body(version: Version, body: &[u8]) {
    let Ok((mut arena, invalid)) = decode(version, body, &LIMITS) else {
        return;
    };
    let _ = invalid.to_string();
    labels_are_valid(&arena);
    round_trip(version, &arena);

    // The first byte of the body decides what is edited, so that every edit is tried.
    let choice = body.first().copied().unwrap_or(0);
    let (tenant, name) = (Name::new("tenant_id"), Name::new("__name__"));
    let mut turn = choice;
    arena.retain(|series| {
        turn = turn.wrapping_mul(5).wrapping_add(1);
        match turn % 4 {
            0 => return false,
            1 => series.set(&tenant, b"a"),
            2 => series.set(&name, b""),
            _ => series.remove(&name),
        }
        !series.is_empty()
    });
    round_trip(version, &arena);
}

fn labels_are_valid(arena: &Arena) {
    for series in arena.iter() {
        let names: Vec<_> = series.labels().map(|(name, _)| name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "sorted and unique");
        assert!(names.iter().all(|name| !name.is_empty()));
        for (name, value) in series.labels() {
            assert!(std::str::from_utf8(name).is_ok() && std::str::from_utf8(value).is_ok());
        }
    }
}

type Labels = Vec<(Vec<u8>, Vec<u8>)>;

fn labels(arena: &Arena) -> Vec<Labels> {
    let pair = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    let series = arena.iter();
    series
        .map(|series| series.labels().map(pair).collect())
        .collect()
}

/// What leaves can be read again and says the same.
fn round_trip(arrived: Version, arena: &Arena) {
    let limits = Limits {
        decoded_bytes: 64 << 20,
        ..LIMITS
    };
    for (version, body) in [
        (Version::V1, encode_v1(arena, None)),
        (Version::V2, encode_v2(arena)),
    ] {
        let again = decode(version, &body, &limits);
        let (again, _) = again.expect("what was encoded can be decoded");
        let lost = match (arrived, version) {
            (Version::V2, Version::V1) => lost_in_v1(arena),
            _ => 0,
        };
        let name = Name::new("__name__");
        if lost == 0 && arena.iter().all(|series| series.get(&name).is_some()) {
            // What cannot be read inside of a sample is still one.
            assert_eq!(arena.counts().all_samples(), again.counts().all_samples());
        }
        let before = labels(arena);
        for labels in labels(&again) {
            assert!(before.contains(&labels));
        }
    }
}
