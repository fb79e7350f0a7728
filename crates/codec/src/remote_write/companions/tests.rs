use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;

use metrifold_model::Origin;

use crate::remote_write::messages::{v1, v2};
use crate::remote_write::tests::{snappy, unsnappy};
use crate::remote_write::{CompressionChoice, Limits};

use super::*;

const BOUNDS: CompanionBounds = CompanionBounds {
    metadata_bytes: 64 << 10,
    metadata_bytes_per_tenant: 32 << 10,
    exemplar_bytes: 64 << 10,
    exemplar_max_age: Duration::from_secs(120),
};

/// Series of a request: each with a sample, or only with exemplars of these numbers.
type Sent = Vec<(u8, Option<Vec<u16>>)>;

fn label(name: &str, value: &str) -> v1::Label {
    v1::Label {
        name: name.into(),
        value: value.into(),
    }
}

/// A request of 1.0. An exemplar's number is its value and in its label.
fn request(sent: &Sent) -> v1::WriteRequest {
    let series = sent.iter().map(|(name, exemplars)| {
        let exemplar = |number: &u16| v1::Exemplar {
            labels: vec![label("trace_id", &number.to_string()), label("empty", "")],
            value: f64::from(*number),
            timestamp: 1,
        };
        let sample = v1::Sample {
            value: 1.0,
            timestamp: 1,
        };
        v1::TimeSeries {
            labels: vec![label("__name__", "m"), label("series", &name.to_string())],
            samples: exemplars.is_none().then_some(sample).into_iter().collect(),
            exemplars: exemplars.iter().flatten().map(exemplar).collect(),
            histograms: vec![],
        }
    });
    v1::WriteRequest {
        timeseries: series.collect(),
        metadata: vec![],
    }
}

fn batch(version: Version, body: Vec<u8>, tenant: &str) -> Batch {
    let origin = Arc::new(Origin::internal("test".into()));
    let mut batch = Batch::from_body(version, body.into(), Limits::default(), origin);
    batch.set_tenant(tenant.into());
    batch.decode().unwrap();
    batch
}

fn from(request: &v1::WriteRequest, tenant: &str) -> Batch {
    batch(Version::V1, snappy(&request.encode_to_vec()), tenant)
}

/// The same request in 2.0.
fn from_v2(request: &v1::WriteRequest, tenant: &str) -> Batch {
    let mut batch = from(request, tenant);
    let body = batch.body(Version::V2).unwrap().to_vec();
    self::batch(Version::V2, body, tenant)
}

/// The same request in 2.0, rewritten without being decoded.
fn rewritten_v2(request: &v1::WriteRequest, tenant: &str) -> Batch {
    let body = from(request, tenant).body(Version::V2).unwrap();
    let origin = Arc::new(Origin::internal("test".into()));
    let mut batch = Batch::from_body(Version::V2, body, Limits::default(), origin);
    batch.set_tenant(tenant.into());
    batch.rewrite(|_| true).unwrap();
    batch
}

/// The request that is sent for a batch, and the exemplars dropped for it.
fn leaves(
    companions: &Companions,
    mut batch: Batch,
    bounds: &CompanionBounds,
    now: Instant,
) -> (v2::Request, GivenUp) {
    let given_up = companions.complete(&mut batch, bounds, now).unwrap();
    let unsent = batch.settle(Version::V2, &CompressionChoice::default());
    assert_eq!(unsent.unwrap(), Default::default());
    let counts = batch.counts().unwrap();
    let body = batch.body(Version::V2).unwrap();
    let request = v2::Request::decode(&*unsnappy(&body)).unwrap();
    let exemplars = request
        .timeseries
        .iter()
        .map(|series| series.exemplars.len());
    assert_eq!(counts.exemplars, exemplars.sum::<usize>() as u64);
    (request, given_up)
}

/// Exemplars that were sent, with their series' label.
fn exemplars(request: &v2::Request) -> Vec<(u8, u16)> {
    let symbol = |number: u32| request.symbols[number as usize].as_str();
    let of = |series: &v2::TimeSeries| -> Vec<(u8, u16)> {
        let name = symbol(series.labels_refs[3]).parse().unwrap();
        let number = |exemplar: &v2::Exemplar| {
            let number: u16 = symbol(exemplar.labels_refs[1]).parse().unwrap();
            assert_eq!(exemplar.value, f64::from(number));
            (name, number)
        };
        series.exemplars.iter().map(number).collect()
    };
    request.timeseries.iter().flat_map(of).collect()
}

proptest! {
    /// For any order of samples and exemplars, of several tenants and in both versions, each
    /// exemplar is sent once with a sample of its own series and tenant, or waits, or is dropped.
    #[test]
    fn an_exemplar_leaves_once_with_a_sample_of_its_series(
        requests in prop::collection::vec(
            (
                prop::sample::select(vec![from as fn(&v1::WriteRequest, &str) -> Batch, from_v2, rewritten_v2]),
                0..2u8,
                prop::collection::vec((0..4u8, prop::option::of(1..4usize)), 1..6),
                0..100u64,
            ),
            1..20,
        ),
        room in prop_oneof![Just(64usize << 10), Just(2 << 10), Just(0)],
    ) {
        let bounds = CompanionBounds { exemplar_bytes: room, ..BOUNDS };
        let companions = Companions::default();
        let mut now = Instant::now();
        let mut number = 0;
        // Tenant and series of each exemplar, by its number.
        let mut owed: BTreeMap<u16, (u8, u8)> = BTreeMap::new();
        let (mut sent, mut given_up) = (0, 0);
        for (batch, tenant, series, seconds) in requests {
            now += Duration::from_secs(seconds);
            let series: Sent = series.into_iter().map(|(name, exemplars)| {
                let exemplars = exemplars.map(|count| (0..count).map(|_| {
                    number += 1;
                    sent += 1;
                    owed.insert(number, (tenant, name));
                    number
                }).collect());
                (name, exemplars)
            }).collect();
            let message = request(&series);
            let text = tenant.to_string();
            let (left, given) = leaves(&companions, batch(&message, &text), &bounds, now);
            given_up += given.expired + given.unsent;
            for series in &left.timeseries {
                prop_assert!(!series.samples.is_empty(), "an exemplar leaves alone");
            }
            for (name, number) in exemplars(&left) {
                prop_assert_eq!(owed.remove(&number), Some((tenant, name)));
            }
            let state = companions.state();
            prop_assert!(state.exemplar_bytes <= bounds.exemplar_bytes);
            let bytes = state.tenants.values().map(|known| known.waiting.bytes);
            prop_assert_eq!(bytes.sum::<usize>(), state.exemplar_bytes);
        }
        given_up += companions.give_up();
        prop_assert_eq!(owed.len() as u64, given_up, "of {}", sent);
    }

    /// However many tenants send metadata of however many families, the kept data stays within its
    /// bounds, and no tenant gets another's.
    #[test]
    fn metadata_is_bounded_and_its_tenants_own(
        requests in prop::collection::vec((0..6u8, 0..40u8, 0..400usize), 1..80),
    ) {
        let bounds = CompanionBounds {
            metadata_bytes: 4 << 10,
            metadata_bytes_per_tenant: 2 << 10,
            ..BOUNDS
        };
        let companions = Companions::default();
        for (tenant, family, len) in requests {
            let text = tenant.to_string();
            let mut message = metadata(&format!("f{family}"), &"x".repeat(len));
            message.metadata[0].help.insert_str(0, &text);
            leaves(&companions, from(&message, &text), &bounds, Instant::now());
            let (left, _) = leaves(&companions, from(&one("f7_bucket"), &text), &bounds, Instant::now());
            for symbol in &left.symbols {
                prop_assert!(!symbol.contains('x') || symbol.starts_with(&text));
            }
            let state = companions.state();
            let kept = state.tenants.values().map(|known| known.families.bytes());
            let kept: Vec<_> = kept.collect();
            prop_assert!(kept.iter().all(|bytes| *bytes <= bounds.metadata_bytes_per_tenant));
            prop_assert_eq!(kept.iter().sum::<usize>(), state.metadata_bytes);
            prop_assert!(state.metadata_bytes <= bounds.metadata_bytes);
            for known in state.tenants.values() {
                for (map, bytes) in [
                    (&known.families.young, known.families.young_bytes),
                    (&known.families.old, known.families.old_bytes),
                ] {
                    let sum = map.iter().map(|(name, family)| family.bytes(name));
                    prop_assert_eq!(sum.sum::<usize>(), bytes);
                }
            }
        }
    }
}

/// Metadata alone, of a histogram.
fn metadata(family: &str, help: &str) -> v1::WriteRequest {
    v1::WriteRequest {
        timeseries: vec![],
        metadata: vec![v1::MetricMetadata {
            r#type: 3,
            metric_family_name: family.into(),
            help: help.into(),
            unit: String::new(),
        }],
    }
}

/// A sample of one series.
fn one(name: &str) -> v1::WriteRequest {
    let mut message = request(&vec![(0, None)]);
    message.timeseries[0].labels[0].value = name.into();
    message
}

fn help(request: &v2::Request) -> Option<&str> {
    let metadata = request.timeseries[0].metadata?;
    Some(&request.symbols[metadata.help_ref as usize])
}

#[test]
fn the_newest_metadata_of_a_family_goes_with_its_series_from_then_on() {
    let companions = Companions::default();
    let now = Instant::now();
    let leave = |message: &v1::WriteRequest, tenant: &str| {
        leaves(&companions, from(message, tenant), &BOUNDS, now).0
    };
    assert_eq!(help(&leave(&one("size_bucket"), "a")), None);
    leave(&metadata("size", "Old."), "a");
    leave(&metadata("size", "New."), "a");
    for name in ["size_bucket", "size_sum", "size_count", "size"] {
        assert_eq!(help(&leave(&one(name), "a")), Some("New."), "{name}");
    }
    for (name, tenant) in [("size_total", "a"), ("other", "a"), ("size_sum", "b")] {
        assert_eq!(help(&leave(&one(name), tenant)), None, "{name} {tenant}");
    }
    // Metadata in the request itself is newer.
    let mut both = one("size_sum");
    both.metadata = metadata("size", "Newest.").metadata;
    assert_eq!(help(&leave(&both, "a")), Some("Newest."));
    assert_eq!(help(&leave(&one("size_sum"), "a")), Some("Newest."));
}

#[test]
fn families_that_series_come_of_outlive_those_that_none_comes_of() {
    let companions = Companions::default();
    let now = Instant::now();
    let leave =
        |message: &v1::WriteRequest| leaves(&companions, from(message, "a"), &BOUNDS, now).0;
    leave(&metadata("used", "Used."));
    for number in 0..1000 {
        leave(&metadata(&format!("unused_{number}"), "Unused."));
        assert_eq!(help(&leave(&one("used_sum"))), Some("Used."), "{number}");
    }
    assert_eq!(help(&leave(&one("unused_0_sum"))), None);
    assert_eq!(help(&leave(&one("unused_999_sum"))), Some("Unused."));
}

#[test]
fn an_exemplar_that_waits_for_too_long_is_given_up() {
    let companions = Companions::default();
    let now = Instant::now();
    let f = |series: Sent, seconds| {
        let now = now + Duration::from_secs(seconds);
        leaves(&companions, from(&request(&series), "a"), &BOUNDS, now)
    };
    f(vec![(1, Some(vec![1, 2]))], 0);
    f(vec![(2, Some(vec![3]))], 60);
    assert_eq!(f(vec![(9, None)], 119).1.expired, 0);
    assert_eq!(f(vec![(9, None)], 150).1.expired, 2);
    let (left, given_up) = f(vec![(1, None), (2, None)], 170);
    assert_eq!((exemplars(&left), given_up.expired), (vec![(2, 3)], 0));
}

#[test]
fn a_tenant_has_a_quarter_of_the_room_for_exemplars() {
    let companions = Companions::default();
    let now = Instant::now();
    let flood: Sent = (0..200).map(|name| (name, Some(vec![1; 4]))).collect();
    let (_, given_up) = leaves(&companions, from(&request(&flood), "a"), &BOUNDS, now);
    assert!(given_up.unsent > 0);
    assert!(companions.state().exemplar_bytes <= BOUNDS.exemplar_bytes / 4);
    let (_, given_up) = leaves(
        &companions,
        from(&request(&vec![(1, Some(vec![1]))]), "b"),
        &BOUNDS,
        now,
    );
    assert_eq!(given_up.unsent, 0);
}
