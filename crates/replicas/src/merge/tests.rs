//! Answers that arrive in pieces, merged while they do, beside the merge of whole answers.

mod oracle;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::Value;

use metrifold_http::{Body, BoxError};

use super::fill::Gaps;
use super::join::Join;
use super::reader::{Item, Key, Reader, Shape};
use super::stream::Merging;

/// Random numbers below a bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A piece of a body.
#[derive(Clone)]
enum Piece {
    Text(Bytes),
    Error,
    /// Nothing more comes, and the body does not end.
    Silence,
}

struct Pieces(VecDeque<Piece>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.0.front().cloned() {
            None => Poll::Ready(None),
            Some(Piece::Silence) => Poll::Pending,
            Some(Piece::Error) => {
                self.0.clear();
                Poll::Ready(Some(Err("reset".into())))
            }
            Some(Piece::Text(text)) => {
                self.0.pop_front();
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
        }
    }
}

/// A body that arrives in pieces of at most so many bytes.
fn body(text: &str, most: usize, random: &mut Random) -> Body {
    let mut pieces = VecDeque::new();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + random.below(most)).min(rest.len()));
        pieces.push_back(Piece::Text(Bytes::copy_from_slice(piece)));
        rest = behind;
    }
    Body::stream(Pieces(pieces))
}

/// The merged answer of these bodies. `None` if one of them cannot be merged.
async fn merged_of(
    bodies: Vec<Body>,
    most: usize,
    change: impl FnOnce(&mut Merging),
) -> Option<Result<String, BoxError>> {
    let mut answers = Vec::new();
    for (at, body) in bodies.into_iter().enumerate() {
        let reader = Reader::open(body, most).await.ok()?;
        answers.push((Arc::from(format!("r{at}")), reader));
    }
    let mut merging = Merging {
        answers,
        warnings: Vec::new(),
        most,
        wait: Duration::from_secs(1),
        limit: None,
        gaps: Gaps::Steps,
    };
    change(&mut merging);
    let body = merging.into_body().collect().await;
    Some(body.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

/// The merged answer of whole texts.
async fn merged(answers: &[&str]) -> String {
    let mut random = Random(3);
    let bodies = answers.iter().map(|text| body(text, 20, &mut random));
    let merged = merged_of(bodies.collect(), 1 << 20, |_| {}).await;
    merged.unwrap().unwrap()
}

fn matrix(series: &str) -> String {
    format!(
        "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{series}]}}}}"
    )
}

fn vector(series: &str) -> String {
    matrix(series).replace("matrix", "vector")
}

fn list(items: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":[{items}]}}")
}

fn values(points: &str) -> String {
    matrix(&format!(
        "{{\"metric\":{{\"a\":\"b\"}},\"values\":[{points}]}}"
    ))
}

#[tokio::test]
async fn gaps_are_filled_and_points_are_kept_zeros_among_them() {
    let best = values("[1,\"0\"],[2,\"0\"],[5,\"7\"],[6,\"8\"],[7,\"9\"]");
    let other = values("[1,\"1\"],[2,\"2\"],[3,\"3\"],[4,\"4\"]");
    let expected = values("[1,\"0\"],[2,\"0\"],[3,\"3\"],[4,\"4\"],[5,\"7\"],[6,\"8\"],[7,\"9\"]");
    assert_eq!(merged(&[&best, &other]).await, expected);
    // The longer one is the base.
    assert_eq!(merged(&[&other, &best]).await, expected);
    assert_eq!(merged(&[&best]).await, best);
    assert_eq!(merged(&[&best, &best]).await, best);
}

#[tokio::test]
async fn a_gap_is_filled_from_one_replica_and_what_that_lacks_from_another() {
    let best = values("[1,\"1\"],[2,\"2\"],[7,\"7\"],[8,\"8\"],[9,\"9\"]");
    let second = values("[3,\"30\"],[5,\"50\"]");
    let third = values("[4,\"400\"],[5,\"500\"],[6,\"600\"],[10,\"1000\"]");
    let expected = values(
        "[1,\"1\"],[2,\"2\"],[3,\"30\"],[4,\"400\"],[5,\"500\"],[6,\"600\"],[7,\"7\"],[8,\"8\"],[9,\"9\"],[10,\"1000\"]",
    );
    assert_eq!(merged(&[&best, &second, &third]).await, expected);
}

#[tokio::test]
async fn samples_of_two_replicas_are_mixed_only_where_one_has_none() {
    let of = |times: &[i64]| {
        let points: Vec<String> = times.iter().map(|it| format!("[{it},\"{it}\"]")).collect();
        values(&points.join(","))
    };
    for (best, others, expected) in [
        // Both have scraped every 10 s, at times of their own.
        (
            &[0, 10, 20, 30, 40][..],
            vec![&[4, 14, 24, 34][..]],
            &[0, 10, 20, 30, 40][..],
        ),
        (
            &[0, 10, 20, 30, 40],
            vec![&[10, 20, 30, 40]],
            &[0, 10, 20, 30, 40],
        ),
        // A late scrape is no gap; one that is missing is, once.
        (&[0, 10, 24, 30, 40], vec![&[17, 27]], &[0, 10, 24, 30, 40]),
        (
            &[0, 10, 30, 40, 50],
            vec![&[4, 14, 24, 34]],
            &[0, 10, 24, 30, 40, 50],
        ),
        (
            &[0, 10, 30, 40, 50],
            vec![&[11, 21, 31]],
            &[0, 10, 21, 30, 40, 50],
        ),
        // At both ends, from one replica; what that lacks from another.
        (
            &[50, 60, 70, 80, 90, 100, 110],
            vec![&[4, 14, 24, 34, 44, 54], &[9, 19, 29, 119, 129]],
            &[4, 14, 24, 34, 50, 60, 70, 80, 90, 100, 110, 129],
        ),
        // Without an interval, nothing is known to be missing.
        (&[50], vec![&[4]], &[50]),
    ] {
        let mut random = Random(2);
        let texts = [best].into_iter().chain(others).map(of);
        let bodies = texts.map(|text| body(&text, 30, &mut random)).collect();
        let merged = merged_of(bodies, 1 << 20, |it| it.gaps = Gaps::Samples).await;
        assert_eq!(merged.unwrap().unwrap(), of(expected));
    }
}

#[test]
fn what_is_missing_in_a_list_is_counted_and_what_went_out_is_not() {
    let mut join = Join::new(&Shape::List, 2, 1);
    join.many = 2;
    let item = |name: &str| Item {
        key: Arc::new(Key::Name(name.to_owned())),
        text: name.into(),
    };
    for name in ["d", "c", "b"] {
        assert_eq!(join.deliver(0, item(name)).len(), 1, "{name}");
    }
    for name in ["c", "d", "b"] {
        assert!(join.deliver(1, item(name)).is_empty(), "{name}");
    }
    // Nobody knows any more whether that was in the answer.
    assert_eq!([join.late(0), join.late(1)], [0, 1]);
}

#[tokio::test]
async fn histograms_are_points_like_any_other_and_are_not_read() {
    let histogram =
        |time: u64| format!("[{time},{{\"count\":\"1\",\"buckets\":[[0,\"1\",\"2\",\"3\"]]}}]");
    let of = |times: &[u64]| {
        let points: Vec<String> = times.iter().map(|time| histogram(*time)).collect();
        matrix(&format!(
            "{{\"metric\":{{}},\"histograms\":[{}]}}",
            points.join(",")
        ))
    };
    assert_eq!(
        merged(&[&of(&[1, 2, 5]), &of(&[3, 4])]).await,
        of(&[1, 2, 3, 4, 5])
    );
}

#[tokio::test]
async fn series_that_one_replica_alone_has_are_added() {
    let a = "{\"metric\":{\"n\":\"a\"},\"value\":[1,\"0\"]}";
    let a_again = "{\"metric\":{\"n\":\"a\"},\"value\":[1,\"5\"]}";
    let b = "{\"metric\":{\"n\":\"b\"},\"histogram\":[1,{}]}";
    // The order of the best replica stays: it may be that of `sort`.
    let both = merged(&[
        &vector(&format!("{b},{a}")),
        &vector(&format!("{a_again},{b}")),
    ])
    .await;
    assert_eq!(both, vector(&format!("{b},{a}")));
    let both = merged(&[&vector(a), &vector(&format!("{a_again},{b}"))]).await;
    assert_eq!(both, vector(&format!("{a},{b}")));
    let range = |name: &str| format!("{{\"metric\":{{\"n\":\"{name}\"}},\"values\":[[1,\"1\"]]}}");
    let (a, b, c) = (range("a"), range("b"), range("c"));
    let both = merged(&[&matrix(&format!("{a},{c}")), &matrix(&format!("{b},{c}"))]).await;
    assert_eq!(both, matrix(&format!("{a},{b},{c}")));
}

#[tokio::test]
async fn lists_are_united_and_warnings_told_once() {
    assert_eq!(
        merged(&[&list("\"b\",\"c\""), &list("\"a\",\"b\"")]).await,
        list("\"a\",\"b\",\"c\"")
    );
    let sets = merged(&[&list("{\"x\":\"1\"}"), &list("{\"w\":\"0\"},{\"x\":\"1\"}")]).await;
    assert_eq!(sets, list("{\"w\":\"0\"},{\"x\":\"1\"}"));
    let warned = "{\"status\":\"success\",\"data\":[],\"warnings\":[\"w\"],\"infos\":[\"i\"]}";
    assert_eq!(merged(&[warned, warned]).await, warned);
    // Go writes an empty list like this.
    let none = "{\"status\":\"success\",\"data\":null}";
    assert_eq!(merged(&[none, &list("\"a\"")]).await, list("\"a\""));
    let none = "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":null}}";
    assert_eq!(merged(&[none, none]).await, vector(""));
}

#[tokio::test]
async fn a_scalar_is_the_best_replica_s_and_what_stands_beside_the_series_is_not_kept() {
    let scalar = |time: &str| {
        format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"scalar\",\"result\":[{time},\"1\"]}}}}"
        )
    };
    assert_eq!(merged(&[&scalar("1"), &scalar("2")]).await, scalar("1"));
    let spaced = "\n{ \"status\" : \"success\" , \"isPartial\" : false, \"data\" : { \"resultType\" : \"matrix\", \
        \"result\" : [ { \"metric\" : {}, \"values\" : [ [ 1 , \"]}\\\"\" ] ] } ] , \"stats\" : { \"a\" : [ 1 ] } } , \"x\": 1 }\n ";
    assert_eq!(
        merged(&[spaced, spaced]).await,
        matrix("{ \"metric\" : {}, \"values\" : [ [ 1 , \"]}\\\"\" ] ] }")
    );
}

#[tokio::test]
async fn no_more_than_the_query_s_limit_is_answered() {
    let (one, two) = (list("\"a\",\"c\""), list("\"b\",\"d\""));
    let mut random = Random(1);
    for (limit, expected) in [
        (
            3,
            "{\"status\":\"success\",\"data\":[\"a\",\"b\",\"c\"],\"warnings\":[\"results truncated due to limit\"]}".to_owned(),
        ),
        (4, list("\"a\",\"b\",\"c\",\"d\"")),
    ] {
        let bodies = [&one, &two].map(|text| body(text, 5, &mut random));
        let limited = merged_of(bodies.into(), 1 << 20, |it| it.limit = Some(limit)).await;
        assert_eq!(limited.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn what_is_no_answer_is_not_read() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "{\"status\":\"error\"}",
        "{\"status\":\"error\",\"data\":[]}",
        "{\"data\":[]}",
        "{\"status\":\"success\",\"data\":5}",
        "{\"status\":\"success\",\"data\":{}}",
        "{\"status\":\"success\",\"data\":{\"result\":[],\"resultType\":\"matrix\"}}",
        "{\"status\":\"success\",,}",
    ] {
        for most in [1, 100] {
            let body = body(text, most, &mut Random(5));
            assert!(Reader::open(body, 1000).await.is_err(), "{text}");
        }
    }
}

/// Reads an answer as the items of its data with their texts, in order; points by kind.
fn items(text: &str) -> (Vec<(String, Value)>, Vec<Value>) {
    let answer: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"));
    let data = &answer["data"];
    let items = data.as_array().or(data["result"].as_array()).unwrap();
    let key = |item: &Value| item.get("metric").unwrap_or(item).to_string();
    let warnings = answer["warnings"].as_array().cloned();
    (
        items.iter().map(|item| (key(item), item.clone())).collect(),
        warnings.unwrap_or_default(),
    )
}

/// A label set; sets are prefixes of one another, which is where orders differ between stores.
fn labels(random: &mut Random) -> BTreeMap<String, String> {
    let names = ["Z", "__name__", "a", "a b", "\u{e9}\"\\"];
    let mut labels = BTreeMap::new();
    for name in names {
        if random.below(2) == 0 {
            let value = ["", "x", "x!", "xy", "\"}]\\", "\u{1F600}"][random.below(6)];
            labels.insert(name.to_owned(), value.to_owned());
        }
    }
    labels
}

/// Answers of several replicas, each of which lacks some of what there is.
fn answers(shape: &Shape, random: &mut Random) -> Vec<Vec<String>> {
    let mut sets: BTreeMap<BTreeMap<String, String>, ()> = BTreeMap::new();
    for _ in 0..random.below(40) {
        sets.insert(labels(random), ());
    }
    let replicas = 1 + random.below(4);
    let has = 1 + random.below(4);
    let mut answers = vec![Vec::new(); replicas];
    for (set, ()) in sets {
        let metric = serde_json::to_string(&set).unwrap();
        for (replica, answer) in answers.iter_mut().enumerate() {
            if random.below(has) > 0 {
                continue;
            }
            answer.push(match shape {
                Shape::List => metric.clone(),
                Shape::Vector => format!("{{\"metric\":{metric},\"value\":[1,\"{replica}\"]}}"),
                _ => {
                    let mut up = true;
                    let points = (0..random.below(30)).filter_map(|time| {
                        up ^= random.below(4) == 0;
                        up.then(|| format!("[{time}.5,\"{replica}\"]"))
                    });
                    let points: Vec<String> = points.collect();
                    if points.is_empty() {
                        continue;
                    }
                    let kind = ["values", "histograms"][random.below(2)];
                    format!("{{\"metric\":{metric},\"{kind}\":[{}]}}", points.join(","))
                }
            });
        }
    }
    answers
}

fn written(shape: &Shape, items: &[String]) -> String {
    let items = items.join(",");
    match shape {
        Shape::List => list(&items),
        Shape::Vector => vector(&items),
        _ => matrix(&items),
    }
}

#[tokio::test]
async fn what_arrives_in_pieces_is_merged_like_whole_answers() {
    for seed in 0..600 {
        let mut random = Random(seed);
        let shape = [Shape::List, Shape::Matrix, Shape::Vector][random.below(3)].clone();
        let mut answers = answers(&shape, &mut random);
        if shape == Shape::Vector {
            answers.iter_mut().for_each(|it| random.shuffle(it));
        }
        let texts: Vec<String> = answers.iter().map(|it| written(&shape, it)).collect();
        let bodies = texts.iter().map(|text| body(text, 200, &mut random));
        let merged = merged_of(bodies.collect(), 1 << 20, |_| {}).await;
        let merged = merged.unwrap().unwrap();
        let whole: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let expected = oracle::merge(&whole, &[]).unwrap();
        let (merged, mut expected) = (items(&merged), items(&String::from_utf8(expected).unwrap()));
        if shape == Shape::Matrix {
            // Sorted as every replica's answer was, not by who had a series first.
            let key = |text: &str| serde_json::from_str::<BTreeMap<String, String>>(text).unwrap();
            expected.0.sort_by_key(|(metric, _)| key(metric));
        }
        assert_eq!(merged, expected, "seed {seed}: {texts:#?}");
    }
}

#[tokio::test]
async fn series_in_an_order_of_their_own_are_merged_without_loss_if_all_share_it() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut one = answers(&Shape::Matrix, &mut random).swap_remove(0);
        random.shuffle(&mut one);
        // The same series in the same order, with other values and other gaps.
        let thin = |random: &mut Random, replica: usize| -> Vec<String> {
            let thinner = one.iter().map(|text| {
                let mut series: Value = serde_json::from_str(text).unwrap();
                for kind in ["values", "histograms"] {
                    let Some(points) = series.get_mut(kind).and_then(Value::as_array_mut) else {
                        continue;
                    };
                    let first = points[0].clone();
                    points.retain(|point| *point == first || random.below(2) == 0);
                    points
                        .iter_mut()
                        .for_each(|point| point[1] = replica.to_string().into());
                }
                series.to_string()
            });
            thinner.collect()
        };
        let texts: Vec<String> = (0..3)
            .map(|replica| matrix(&thin(&mut random, replica).join(",")))
            .collect();
        let bodies = texts.iter().map(|text| body(text, 200, &mut random));
        let merged = merged_of(bodies.collect(), 1 << 20, |_| {}).await;
        let whole: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let expected = String::from_utf8(oracle::merge(&whole, &[]).unwrap()).unwrap();
        assert_eq!(items(&merged.unwrap().unwrap()), items(&expected), "{seed}");
    }
}

#[tokio::test]
async fn series_in_no_common_order_are_there_once_each_and_what_is_lost_is_told() {
    let mut told = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut answers = answers(&Shape::Matrix, &mut random);
        answers.iter_mut().for_each(|it| random.shuffle(it));
        let texts: Vec<String> = answers.iter().map(|it| matrix(&it.join(","))).collect();
        // Now and then, little may be held.
        let most = [1 << 20, 3000][random.below(2)];
        let bodies = texts.iter().map(|text| body(text, 200, &mut random));
        let merged = merged_of(bodies.collect(), most, |_| {}).await;
        let (merged, warnings) = items(&merged.unwrap().unwrap());
        let whole: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let expected = oracle::merge(&whole, &[]).unwrap();
        let (expected, _) = items(&String::from_utf8(expected).unwrap());
        let sorted = |mut items: Vec<(String, Value)>| {
            items.sort_by(|a, b| a.0.cmp(&b.0));
            items
        };
        let (merged, expected) = (sorted(merged), sorted(expected));
        let names = |items: &[(String, Value)]| -> Vec<String> {
            items.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&merged), names(&expected), "seed {seed}: {texts:#?}");
        if warnings.is_empty() {
            assert_eq!(merged, expected, "seed {seed}: {texts:#?}");
        }
        told += usize::from(!warnings.is_empty());
    }
    assert!(told > 0);
}

/// The most series that are held at once while these answers are joined.
fn held(answers: &[Vec<String>], most: usize) -> usize {
    let mut join = Join::new(&Shape::Matrix, answers.len(), most);
    let mut left: Vec<_> = answers.iter().map(|it| it.iter()).collect();
    let (mut delivered, mut complete, mut held) = (0, 0, 0);
    while let Some(at) = join.next() {
        let ready = match left[at].next() {
            Some(name) => {
                delivered += 1;
                let labels = BTreeMap::from([("n".to_owned(), name.clone())]);
                join.deliver(
                    at,
                    Item {
                        key: Arc::new(Key::Labels(labels)),
                        text: name.as_str().into(),
                    },
                )
            }
            None => join.over(at),
        };
        complete += ready.iter().map(Vec::len).sum::<usize>();
        held = held
            .max(delivered - complete - (0..answers.len()).map(|it| join.late(it)).sum::<usize>());
    }
    held
}

#[test]
fn of_sorted_answers_one_series_of_each_is_held_whatever_they_lack() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let replicas = 2 + random.below(3);
        let mut answers = vec![Vec::new(); replicas];
        for series in 0..500 {
            // Long stretches that a replica does not have at all.
            for (replica, answer) in answers.iter_mut().enumerate() {
                if random.below(3) > 0 && (series / 100 + replica) % 3 > 0 {
                    answer.push(format!("{series:04}"));
                }
            }
        }
        assert!(held(&answers, usize::MAX) <= replicas, "seed {seed}");
    }
}

#[test]
fn of_unsorted_answers_no_more_is_held_than_is_allowed() {
    let forth: Vec<String> = (0..5000).map(|it| format!("{it:04}")).collect();
    let mut back = forth.clone();
    back.reverse();
    // Neither sorts, as is seen at once.
    let unsorted = ["y".to_owned(), "x".to_owned()];
    let [forth, back] = [forth, back].map(|it| [&unsorted[..], &it].concat());
    assert!(held(&[forth.clone(), back.clone()], usize::MAX) > 4000);
    assert!(held(&[forth, back], 100 << 10) < 1000);
}

#[tokio::test]
async fn a_replica_that_breaks_off_is_told_of_unless_all_do() {
    let series = |name: &str, point: &str| {
        format!("{{\"metric\":{{\"n\":\"{name}\"}},\"values\":[{point}]}}")
    };
    let whole = matrix(&format!(
        "{},{}",
        series("a", "[1,\"1\"]"),
        series("b", "[1,\"1\"]")
    ));
    let broken = || {
        let full = matrix(&format!(
            "{},{}",
            series("a", "[2,\"2\"]"),
            series("b", "[2,\"2\"]")
        ));
        // In the middle of the second series.
        let cut = full.len() - 12;
        Body::stream(Pieces(
            [Piece::Text(full[..cut].to_owned().into()), Piece::Error].into(),
        ))
    };
    for bodies in [
        vec![broken(), Body::from(whole.clone())],
        vec![Body::from(whole.clone()), broken()],
    ] {
        let merged = merged_of(bodies, 1 << 20, |_| {}).await.unwrap().unwrap();
        let (items, warnings) = items(&merged);
        let points = |at: usize| items[at].1["values"].as_array().unwrap().len();
        assert_eq!((items.len(), points(0), points(1)), (2, 2, 1), "{merged}");
        assert!(warnings[0].to_string().contains("broke off"), "{merged}");
    }
    let merged = merged_of(vec![broken(), broken()], 1 << 20, |_| {}).await;
    assert!(merged.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_falls_silent_is_given_up_if_another_goes_on() {
    for shape in [Shape::Matrix, Shape::Vector] {
        let series = |name: &str| format!("{{\"metric\":{{\"n\":\"{name}\"}},\"values\":[]}}");
        let whole = written(&shape, &[series("a"), series("b")]);
        let silent = || {
            let cut = whole.find(",{").unwrap();
            Body::stream(Pieces(
                [Piece::Text(whole[..cut].to_owned().into()), Piece::Silence].into(),
            ))
        };
        for bodies in [
            vec![silent(), Body::from(whole.clone())],
            vec![Body::from(whole.clone()), silent()],
        ] {
            let merged = merged_of(bodies, 1 << 20, |_| {}).await.unwrap().unwrap();
            let (items, warnings) = items(&merged);
            assert_eq!(items.len(), 2, "{merged}");
            assert!(warnings[0].to_string().contains("paused"), "{merged}");
        }
        // Nobody goes on: the caller's deadline decides.
        let waits = merged_of(vec![silent(), silent()], 1 << 20, |_| {});
        let waits = tokio::time::timeout(Duration::from_secs(60), waits);
        assert!(waits.await.is_err());
    }
}

#[tokio::test]
async fn a_series_that_is_too_large_is_left_out_with_its_replica() {
    let series = |name: &str, points: usize| {
        let points = vec!["[1,\"1\"]"; points].join(",");
        format!("{{\"metric\":{{\"n\":\"{name}\"}},\"values\":[{points}]}}")
    };
    let small = matrix(&format!("{},{}", series("a", 1), series("b", 1)));
    let large = matrix(&format!("{},{}", series("a", 1), series("b", 500)));
    let mut random = Random(1);
    let mut of = |text: &str| body(text, 100, &mut random);
    let bodies = vec![of(&large), of(&small)];
    let merged = merged_of(bodies, 1000, |_| {}).await.unwrap().unwrap();
    let (items, warnings) = items(&merged);
    assert_eq!(items.len(), 2);
    assert!(
        warnings[0].to_string().contains("merge.max_bytes"),
        "{merged}"
    );
}
