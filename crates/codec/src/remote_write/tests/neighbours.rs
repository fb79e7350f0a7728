//! Series that nearly repeat the previous one: the decoder's assumptions about repetition must be
//! checked, not trusted.

use std::collections::BTreeMap;

use super::*;

type Pairs = Vec<(String, String)>;

const LIMITS: Limits = Limits {
    series: 1000,
    decoded_bytes: 1 << 20,
    labels: 7,
    name_bytes: 12,
    value_bytes: 200,
};

/// Change of one label from a series to the next.
#[derive(Clone, Debug)]
enum Change {
    /// Another value, of equal or other length.
    Value(prop::sample::Index, String),
    /// Another name, of equal or other length.
    Name(prop::sample::Index, String),
    Insert(prop::sample::Index, String, String),
    Remove(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    /// Restores the labels of the first series.
    Back,
}

fn name() -> impl Strategy<Value = String> {
    const NAMES: [&str; 10] = [
        "__name__",
        "aa",
        "ab",
        "b",
        "container_a",
        "container_b",
        "container_toolong",
        "pod",
        "zone",
        "",
    ];
    prop::sample::select(&NAMES[..]).prop_map(Into::into)
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(&["1", "2", "10", "value", "other", "a longer value"][..]).prop_map(String::from),
        1 => Just(String::new()),
        1 => Just("é".into()),
        // Lengths of one byte, of two, or beyond the limit.
        2 => prop::sample::select(&[110usize, 119, 125, 140, 190][..]).prop_map(|len| "v".repeat(len)),
        1 => Just("w".repeat(201)),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (index(), value()).prop_map(|(at, value)| Change::Value(at, value)),
        2 => (index(), name()).prop_map(|(at, name)| Change::Name(at, name)),
        2 => (index(), name(), value()).prop_map(|(at, name, value)| Change::Insert(at, name, value)),
        2 => index().prop_map(Change::Remove),
        1 => (index(), index()).prop_map(|(a, b)| Change::Swap(a, b)),
        3 => Just(Change::Back),
    ]
}

/// Series of which each is derived from the previous one.
fn neighbours() -> impl Strategy<Value = Vec<Pairs>> {
    let changes = vec(vec(change(), 0..3), 1..60);
    changes.prop_map(|changes| {
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        let first = vec![
            pair("__name__", "up"),
            pair("aa", "1"),
            pair("container_a", "value"),
            pair("container_b", "10"),
            pair("pod", "value"),
        ];
        let mut labels = first.clone();
        let next = |changes: Vec<Change>| {
            for change in changes {
                let count = labels.len();
                match change {
                    Change::Insert(at, name, value) => {
                        labels.insert(at.index(count + 1), (name, value));
                    }
                    Change::Back => labels.clone_from(&first),
                    _ if count == 0 => {}
                    Change::Value(at, value) => labels[at.index(count)].1 = value,
                    Change::Name(at, name) => labels[at.index(count)].0 = name,
                    Change::Remove(at) => drop(labels.remove(at.index(count))),
                    Change::Swap(a, b) => labels.swap(a.index(count), b.index(count)),
                }
            }
            labels.clone()
        };
        changes.into_iter().map(next).collect()
    })
}

/// Labels as the decoder keeps them; None if the series is invalid.
fn kept(labels: &Pairs) -> Option<Pairs> {
    let fits = |(name, value): &(String, String)| {
        (1..=LIMITS.name_bytes).contains(&name.len()) && value.len() <= LIMITS.value_bytes
    };
    let present: Pairs = labels
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .cloned()
        .collect();
    let sorted: BTreeMap<_, _> = present.iter().cloned().collect();
    let sound = labels.iter().all(fits)
        && present.len() <= LIMITS.labels
        && sorted.len() == present.len()
        && sorted.contains_key("__name__");
    sound.then(|| sorted.into_iter().collect())
}

fn message(all: &[Pairs]) -> v1::WriteRequest {
    let one = |labels: &Pairs| {
        let pairs: Vec<_> = labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        series(&pairs)
    };
    v1::WriteRequest {
        timeseries: all.iter().map(one).collect(),
        metadata: vec![],
    }
}

/// Labels of the series in a body.
fn labels_in(body: &[u8]) -> Vec<Pairs> {
    let request = v1::WriteRequest::decode(&*unsnappy(body)).unwrap();
    let pairs = |series: v1::TimeSeries| {
        let labels = series.labels.into_iter();
        labels.map(|label| (label.name, label.value)).collect()
    };
    request.timeseries.into_iter().map(pairs).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_series_is_read_as_if_it_stood_alone(all in neighbours()) {
        let body = snappy(&message(&all).encode_to_vec());
        let expected: Vec<Pairs> = all.iter().filter_map(kept).collect();
        let (arena, invalid) = decode(Version::V1, &body, &LIMITS).unwrap();
        prop_assert_eq!(invalid.series(), (all.len() - expected.len()) as u64);
        prop_assert_eq!(labels_in(&encode_v1(&arena, None)), expected);
    }

    #[test]
    fn and_written_so_whatever_is_dropped_or_edited_between(
        all in neighbours(),
        picks in vec(0u8..8, 1..9),
    ) {
        let body = snappy(&message(&all).encode_to_vec());
        let (tenant, pod) = (Name::new("tenant"), Name::new("pod"));
        let (mut shared, mut turn) = (None, 0);
        let rewritten = rewrite(Version::V1, &body, &LIMITS, |series| {
            turn += 1;
            let pick = picks[turn % picks.len()];
            if pick == 0 {
                return false;
            }
            let label = *shared.get_or_insert_with(|| series.push_label(&tenant, b"team"));
            series.set_label(&tenant, label);
            match pick {
                1 => series.remove(&pod),
                2 => series.set(&pod, b"changed"),
                _ => {}
            }
            true
        });
        let mut turn = 0;
        let edited = all.iter().filter_map(kept).filter_map(|labels| {
            turn += 1;
            let pick = picks[turn % picks.len()];
            let mut labels: BTreeMap<_, _> = labels.into_iter().collect();
            labels.insert("tenant".into(), "team".into());
            match pick {
                0 => return None,
                1 => drop(labels.remove("pod")),
                2 => drop(labels.insert("pod".into(), "changed".into())),
                _ => {}
            }
            Some(labels.into_iter().collect())
        });
        let expected: Vec<Pairs> = edited.collect();
        let written = rewritten.unwrap().body.map_or_else(Vec::new, |body| labels_in(&body));
        prop_assert_eq!(written, expected);
    }
}

/// The second series' names continue as the first one's text does, after a length of one byte more:
/// its label equals the first one's beyond that one's end.
#[test]
fn a_label_that_goes_on_as_what_was_removed_is_written_whole() {
    let name = format!(
        "xxxxxxxxx\x12\x03abc\n\x08\n\x01e\x12\x03zzz{}",
        "y".repeat(76)
    );
    assert_eq!(
        name.len(),
        'd' as usize,
        "what the name of the first label begins with"
    );
    let value = "v".repeat(1200);
    let all = [
        series(&[("__name__", "up"), ("dxxxxxxxxx", "abc"), ("e", "zzz")]),
        series(&[("__name__", "up"), (&name, &value)]),
    ];
    let request = v1::WriteRequest {
        timeseries: all.to_vec(),
        metadata: vec![],
    };
    let removed = Name::new("e");
    let rewritten = rewrite(
        Version::V1,
        &snappy(&request.encode_to_vec()),
        &Limits::default(),
        |series| {
            series.remove(&removed);
            true
        },
    );
    let body = rewritten.unwrap().body.unwrap();
    let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
    let up = pair("__name__", "up");
    let expected = [
        vec![up.clone(), pair("dxxxxxxxxx", "abc")],
        vec![up, pair(&name, &value)],
    ];
    assert_eq!(labels_in(&body), expected);
}
