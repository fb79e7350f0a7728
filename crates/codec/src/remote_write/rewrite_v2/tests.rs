//! Compares rewriting a body with decoding, editing and encoding it as a whole.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::Name;
use crate::remote_write::messages::v2;
use crate::remote_write::tests::{snappy, unsnappy, v2_request};
use crate::remote_write::{decode, encode_v2};

type Pairs = Vec<(String, String)>;

/// A series whose symbols are resolved.
#[derive(Debug, PartialEq)]
struct Resolved {
    labels: Pairs,
    /// Labels of each exemplar, and its other fields as bytes, so that NaNs compare equal.
    exemplars: Vec<(Pairs, Vec<u8>)>,
    metadata: Option<(i32, String, String)>,
    /// All other fields, encoded.
    rest: Vec<u8>,
}

fn resolved(body: &[u8]) -> Vec<Resolved> {
    let request = v2::Request::decode(&*unsnappy(body)).unwrap();
    let symbol = |number: &u32| request.symbols[*number as usize].clone();
    let pairs = |refs: &[u32]| -> Pairs {
        let pairs = refs.chunks_exact(2);
        pairs
            .map(|pair| (symbol(&pair[0]), symbol(&pair[1])))
            .collect()
    };
    let series = request.timeseries.iter().map(|series| Resolved {
        labels: pairs(&series.labels_refs),
        exemplars: series
            .exemplars
            .iter()
            .map(|exemplar| {
                let mut other = exemplar.clone();
                other.labels_refs.clear();
                (pairs(&exemplar.labels_refs), other.encode_to_vec())
            })
            .collect(),
        metadata: series
            .metadata
            .as_ref()
            .map(|m| (m.r#type, symbol(&m.help_ref), symbol(&m.unit_ref))),
        rest: v2::TimeSeries {
            labels_refs: vec![],
            exemplars: vec![],
            metadata: None,
            ..series.clone()
        }
        .encode_to_vec(),
    });
    series.collect()
}

fn symbols(body: &[u8]) -> Vec<String> {
    v2::Request::decode(&*unsnappy(body)).unwrap().symbols
}

/// Edit of one series by the test's transform.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Nothing,
    Drop,
    /// Sets a label that all series share.
    Shared,
    /// Sets a label to a value of this length.
    Set(usize),
    /// Sets a label to a value that no other series has.
    Own,
    /// Sets a label to a text that the symbol table may already contain.
    Known,
    Remove,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => Just(Edit::Nothing),
        2 => Just(Edit::Drop),
        3 => Just(Edit::Shared),
        2 => prop_oneof![Just(4usize), Just(300)].prop_map(Edit::Set),
        2 => Just(Edit::Own),
        1 => Just(Edit::Known),
        2 => Just(Edit::Remove),
    ]
}

fn apply<'a>(edits: &'a [Edit], quiet: usize) -> impl FnMut(&mut SeriesMut<'_>) -> bool + 'a {
    let [pod, tenant, job] = ["pod", "tenant", "job"].map(Name::new);
    let (mut index, mut shared) = (0, None);
    move |series| {
        index += 1;
        if index <= quiet {
            return true;
        }
        match edits[index % edits.len()] {
            Edit::Nothing => {}
            Edit::Drop => return false,
            Edit::Shared => {
                let label = *shared.get_or_insert_with(|| series.push_label(&tenant, b"team"));
                series.set_label(&tenant, label);
            }
            Edit::Set(len) => series.set(&tenant, &vec![b't'; len]),
            Edit::Own => series.set(&tenant, format!("t{index}").as_bytes()),
            Edit::Known => series.set(&job, b"node-0001"),
            Edit::Remove => series.remove(&pod),
        }
        true
    }
}

/// Series that resemble their neighbours: most labels equal, some missing, some unsorted or empty.
fn neighbours() -> impl Strategy<Value = v2::Request> {
    const TEXTS: [&str; 12] = [
        "",
        "__name__",
        "up",
        "a",
        "pod",
        "job",
        "zone",
        "Zone",
        "b",
        "node-0001",
        "node-17",
        "é",
    ];
    const NAMES: [u32; 6] = [1, 3, 4, 5, 6, 7];
    let pairs = vec((prop::sample::select(&NAMES[..]), 2u32..12), 0..6);
    let rare = (0u8..40, 0u8..40, 0u8..40);
    let series = (pairs, rare).prop_map(|(mut pairs, (unsorted, unnamed, empty))| {
        if unnamed > 0 {
            pairs.push((1, 2));
        }
        if unsorted > 0 {
            pairs.sort_by_key(|(name, _)| TEXTS[*name as usize]);
            pairs.dedup_by_key(|(name, _)| *name);
        }
        if let (0, Some(last)) = (empty, pairs.last_mut()) {
            last.1 = 0;
        }
        v2::TimeSeries {
            labels_refs: pairs
                .iter()
                .flat_map(|&(name, value)| [name, value])
                .collect(),
            samples: vec![v2::Sample {
                value: 1.0,
                timestamp: 1_700_000_000_000,
                start_timestamp: 0,
            }],
            ..Default::default()
        }
    });
    // Symbol numbers of one byte, of two, and of both lengths.
    let padding = prop_oneof![Just(0usize), Just(120), Just(300)];
    (vec(series, 0..6 * BLOCK), padding).prop_map(|(mut timeseries, padding)| {
        let mut symbols = vec![String::new()];
        symbols.extend((0..padding).map(|number| format!("unused {number}")));
        symbols.extend(TEXTS[1..].iter().map(|text| text.to_string()));
        for number in timeseries
            .iter_mut()
            .flat_map(|series| &mut series.labels_refs)
        {
            if *number > 0 {
                *number += padding as u32;
            }
        }
        v2::Request {
            symbols,
            timeseries,
        }
    })
}

/// Encodes a request as few senders do: symbols after series, references one by one.
fn spelled(request: &v2::Request, late: usize, single: bool) -> Vec<u8> {
    let first = request.symbols.len().saturating_sub(late);
    let part = |symbols: &[String], timeseries: &[v2::TimeSeries]| {
        let part = v2::Request {
            symbols: symbols.to_vec(),
            timeseries: timeseries.to_vec(),
        };
        part.encode_to_vec()
    };
    let mut message = part(&request.symbols[..first], &[]);
    for series in &request.timeseries {
        if !single {
            message.extend(part(&[], std::slice::from_ref(series)));
            continue;
        }
        let mut others = series.clone();
        let mut fields = Vec::new();
        for number in std::mem::take(&mut others.labels_refs) {
            fields.push(tag(1, wire::VARINT));
            put_varint(&mut fields, number.into());
        }
        fields.extend(others.encode_to_vec());
        put_bytes(&mut message, 5, &fields);
    }
    message.extend(part(&request.symbols[first..], &[]));
    message
}

fn check(message: &[u8], edits: &[Edit], quiet: usize) -> Result<(), TestCaseError> {
    let limits = Limits::default();
    let body = snappy(message);
    let (mut arena, invalid) = decode(Version::V2, &body, &limits).unwrap();
    arena.retain(apply(edits, quiet));
    let expected = encode_v2(&arena);

    let rewritten = rewrite(&body, &limits, apply(edits, quiet)).unwrap();
    prop_assert_eq!(rewritten.counts, arena.counts());
    prop_assert_eq!(rewritten.invalid, invalid);
    prop_assert_eq!(rewritten.body.is_some(), arena.changed);
    let lone = arena.iter().any(|series| is_lone(series.counts()));
    prop_assert_eq!(rewritten.has_lone_exemplars, lone);
    if let Some(body) = &rewritten.body {
        prop_assert_eq!(resolved(body), resolved(&expected));
        // Each symbol occurs once, and each is needed.
        let table = symbols(body);
        prop_assert_eq!(&table[0], "");
        prop_assert_eq!(table.len(), symbols(&expected).len());
        let set: BTreeSet<String> = table.into_iter().collect();
        prop_assert_eq!(set, symbols(&expected).into_iter().collect());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_body_is_rewritten_to_what_its_decoded_and_edited_form_is_encoded_to(
        request in prop_oneof![v2_request(), neighbours()],
        edits in vec(edit(), 1..12),
        quiet in prop_oneof![3 => Just(0), 1 => 0..6 * BLOCK],
    ) {
        check(&request.encode_to_vec(), &edits, quiet)?;
    }

    #[test]
    fn and_so_is_one_in_a_spelling_that_few_senders_use(
        request in prop_oneof![v2_request(), neighbours()],
        edits in vec(edit(), 1..12),
        late in 0usize..8,
        single: bool,
    ) {
        check(&spelled(&request, late, single), &edits, 0)?;
    }

    #[test]
    fn damaged_bodies_are_refused_as_the_decoder_does(
        request in prop_oneof![v2_request(), neighbours()],
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        edits in vec(edit(), 1..12),
    ) {
        let mut message = request.encode_to_vec();
        for (at, byte) in damage {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let body = snappy(&message);
        let limits = Limits::default();
        let decoded = decode(Version::V2, &body, &limits);
        let rewritten = rewrite(&body, &limits, apply(&edits, 0));
        match (decoded, rewritten) {
            (Ok((mut arena, invalid)), Ok(rewritten)) => {
                arena.retain(apply(&edits, 0));
                prop_assert_eq!(rewritten.counts, arena.counts());
                prop_assert_eq!(rewritten.invalid, invalid);
                if let Some(body) = &rewritten.body {
                    let (again, invalid) = decode(Version::V2, body, &Limits::ACCEPTED).unwrap();
                    prop_assert_eq!(invalid.series(), 0);
                    let all = |arena: &Arena| -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
                        let labels = arena.iter().map(|series| {
                            let pairs = series.labels();
                            pairs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
                        });
                        labels.collect()
                    };
                    prop_assert_eq!(all(&again), all(&arena));
                }
            }
            (decoded, rewritten) => {
                let decoded = decoded.map(drop).unwrap_err();
                prop_assert_eq!(rewritten.map(drop).unwrap_err(), decoded);
            }
        }
    }
}

/// The text of a removed label or a dropped series must not be sent.
#[test]
fn what_no_series_needs_any_more_does_not_leave() {
    let request = v2::Request {
        symbols: ["", "__name__", "up", "token", "secret", "down", "pod", "p"]
            .map(String::from)
            .into(),
        timeseries: [[1, 2, 3, 4], [1, 5, 6, 7]]
            .map(|refs| v2::TimeSeries {
                labels_refs: refs.into(),
                samples: vec![v2::Sample::default()],
                ..Default::default()
            })
            .into(),
    };
    let token = Name::new("token");
    let mut first = true;
    let rewritten = rewrite(
        &snappy(&request.encode_to_vec()),
        &Limits::default(),
        |series| {
            series.remove(&token);
            std::mem::take(&mut first)
        },
    );
    let body = rewritten.unwrap().body.unwrap();
    assert_eq!(symbols(&body), ["", "__name__", "up"]);
}

#[test]
fn a_body_does_not_grow_by_being_rewritten() {
    let mut symbols: Vec<String> = ["", "__name__", "a_family_of_metrics", "pod", "job", "api"]
        .map(String::from)
        .into();
    let timeseries = (0..2_000u32).map(|number| {
        symbols.push(format!("service-{:016x}", number.wrapping_mul(0x9e37_79b9)));
        v2::TimeSeries {
            labels_refs: vec![1, 2, 4, 5, 3, symbols.len() as u32 - 1],
            samples: vec![v2::Sample {
                value: number.into(),
                timestamp: 1_700_000_000_000,
                start_timestamp: 0,
            }],
            ..Default::default()
        }
    });
    let timeseries = timeseries.collect();
    let body = snappy(
        &v2::Request {
            symbols,
            timeseries,
        }
        .encode_to_vec(),
    );
    let job = Name::new("job");
    let rewritten = rewrite(&body, &Limits::default(), |series| {
        series.remove(&job);
        true
    });
    let rewritten = rewritten.unwrap().body.unwrap();
    assert!(
        rewritten.len() <= body.len() + body.len() / 50,
        "{} bytes became {}",
        body.len(),
        rewritten.len()
    );
}
