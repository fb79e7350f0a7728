//! Merges the answers of several replicas to one query: gaps of the best one are filled from the
//! others, and nothing else is touched.
//!
//! Values are never looked at, only whether there are any: a zero is a value, a histogram is a value,
//! and a point that the best replica has is never replaced. What fills a gap comes from one replica
//! alone, so that values of two are not mixed point by point, which would make counters go back and
//! forth.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// An answer of Prometheus' API.
#[derive(Deserialize)]
struct Answer<'a> {
    status: &'a str,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    warnings: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    infos: Vec<&'a RawValue>,
}

/// The data of an answer to a query.
#[derive(Deserialize)]
struct QueryData<'a> {
    #[serde(rename = "resultType")]
    result_type: &'a str,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// A series of a range, or of an instant.
#[derive(Deserialize)]
struct Series<'a> {
    #[serde(borrow)]
    metric: &'a RawValue,
    #[serde(borrow, default)]
    values: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    histograms: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
    #[serde(borrow, default)]
    histogram: Option<&'a RawValue>,
}

/// Labels, in their order, by which series of several replicas are the same.
type Labels = BTreeMap<String, String>;

/// A series of all replicas.
#[derive(Default)]
struct Merging<'a> {
    metric: Option<&'a RawValue>,
    /// Of each replica that has it: its place, and the points by time.
    parts: Vec<(usize, Points<'a>)>,
    /// The instant's value, of the first replica that has one, with its name.
    instant: Option<(&'static str, &'a RawValue)>,
}

/// Points by time, in milliseconds, and whether each is a histogram.
type Points<'a> = BTreeMap<i64, (bool, &'a RawValue)>;

/// Merges answers, the best first; `missing` says which replicas gave none. None if they are not
/// what can be merged: then the best one's is as good as any.
pub(crate) fn merge(answers: &[&[u8]], missing: &[String]) -> Option<Vec<u8>> {
    let read = answers
        .iter()
        .map(|text| serde_json::from_slice::<Answer<'_>>(text).ok());
    let read: Vec<Answer<'_>> = read.collect::<Option<_>>()?;
    if read.iter().any(|answer| answer.status != "success") {
        return None;
    }
    let data: Vec<&RawValue> = read
        .iter()
        .map(|answer| answer.data)
        .collect::<Option<_>>()?;
    let merged = match data.first()?.get().as_bytes().first()? {
        b'[' => lists(&data)?,
        _ => results(&data)?,
    };
    let mut text = String::with_capacity(merged.len() + 64);
    text.push_str("{\"status\":\"success\",\"data\":");
    text.push_str(&merged);
    let warning = |name: &String| {
        let told = format!("replica {name} did not answer: what it alone has is missing");
        serde_json::Value::String(told).to_string()
    };
    let warnings = read
        .iter()
        .flat_map(|it| &it.warnings)
        .map(|it| it.get().to_owned());
    append(
        &mut text,
        "warnings",
        warnings.chain(missing.iter().map(warning)),
    );
    append(
        &mut text,
        "infos",
        read.iter()
            .flat_map(|it| &it.infos)
            .map(|it| it.get().to_owned()),
    );
    text.push('}');
    Some(text.into_bytes())
}

/// Appends a list of what was said, each once.
fn append(text: &mut String, name: &str, said: impl Iterator<Item = String>) {
    let mut all: Vec<String> = Vec::new();
    for one in said {
        if !all.contains(&one) {
            all.push(one);
        }
    }
    if !all.is_empty() {
        text.push_str(&format!(",\"{name}\":[{}]", all.join(",")));
    }
}

/// The union of lists of names or of label sets, sorted as Prometheus sorts them.
fn lists(data: &[&RawValue]) -> Option<String> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut sets: BTreeMap<Labels, String> = BTreeMap::new();
    for list in data {
        let items: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        for item in items {
            let text = item.get();
            match text.as_bytes().first()? {
                b'"' => {
                    names.insert(serde_json::from_str(text).ok()?, text.to_owned());
                }
                _ => {
                    sets.insert(serde_json::from_str(text).ok()?, text.to_owned());
                }
            }
        }
    }
    let all: Vec<String> = names.into_values().chain(sets.into_values()).collect();
    Some(format!("[{}]", all.join(",")))
}

fn results(data: &[&RawValue]) -> Option<String> {
    let results = data
        .iter()
        .map(|it| serde_json::from_str::<QueryData<'_>>(it.get()).ok());
    let results: Vec<QueryData<'_>> = results.collect::<Option<_>>()?;
    let kind = results.first()?.result_type;
    if results.iter().any(|it| it.result_type != kind) {
        return None;
    }
    if !matches!(kind, "matrix" | "vector") {
        // A scalar and a string are the same everywhere.
        return Some(data.first()?.get().to_owned());
    }
    // In the order of the best replica, and behind them those that it has not.
    let mut order: Vec<Merging<'_>> = Vec::new();
    let mut places: BTreeMap<Labels, usize> = BTreeMap::new();
    for (replica, result) in results.iter().enumerate() {
        let series: Vec<Series<'_>> = serde_json::from_str(result.result.get()).ok()?;
        for one in series {
            let labels: Labels = serde_json::from_str(one.metric.get()).ok()?;
            let place = *places.entry(labels).or_insert(order.len());
            if place == order.len() {
                order.push(Merging::default());
            }
            let merging = &mut order[place];
            merging.metric.get_or_insert(one.metric);
            let instant = one.value.map(|it| ("value", it));
            let instant = instant.or(one.histogram.map(|it| ("histogram", it)));
            if let Some(instant) = instant {
                merging.instant.get_or_insert(instant);
            }
            let floats = one.values.into_iter().map(|point| (false, point));
            let points = floats.chain(one.histograms.into_iter().map(|point| (true, point)));
            let points = points.map(|(histogram, point)| Some((time(point)?, (histogram, point))));
            let points: Points<'_> = points.collect::<Option<_>>()?;
            if !points.is_empty() {
                merging.parts.push((replica, points));
            }
        }
    }
    let mut text = format!("{{\"resultType\":\"{kind}\",\"result\":[");
    for (at, merging) in order.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        merging.write(&mut text)?;
    }
    text.push_str("]}");
    Some(text)
}

/// The time of a point, `[1435781430.781, …]`.
pub(crate) fn time(point: &RawValue) -> Option<i64> {
    let text = point.get().strip_prefix('[')?;
    let (time, _) = text.split_once(',')?;
    let secs: f64 = time.trim().parse().ok()?;
    Some((secs * 1000.0).round() as i64)
}

impl<'a> Merging<'a> {
    fn write(self, text: &mut String) -> Option<()> {
        text.push_str("{\"metric\":");
        text.push_str(self.metric?.get());
        if let Some((name, value)) = self.instant {
            text.push_str(&format!(",\"{name}\":{}", value.get()));
        }
        let points = fill(self.parts);
        for (name, histogram) in [("values", false), ("histograms", true)] {
            let those = points.values().filter(|(it, _)| *it == histogram);
            let those: Vec<&str> = those.map(|(_, point)| point.get()).collect();
            if !those.is_empty() {
                text.push_str(&format!(",\"{name}\":[{}]", those.join(",")));
            }
        }
        text.push('}');
        Some(())
    }
}

/// The points of the best part, with its gaps filled: each from the one part that has most there.
fn fill(mut parts: Vec<(usize, Points<'_>)>) -> Points<'_> {
    // The longest is the base: a replica that was restarted has a few points of everything.
    parts.sort_by_key(|(replica, points)| (std::cmp::Reverse(points.len()), *replica));
    let mut parts = parts.into_iter().map(|(_, points)| points);
    let mut merged = parts.next().unwrap_or_default();
    let others: Vec<Points<'_>> = parts.collect();
    let base: Vec<i64> = merged.keys().copied().collect();
    let mut times: Vec<i64> = others.iter().flat_map(|it| it.keys().copied()).collect();
    times.retain(|time| base.binary_search(time).is_err());
    times.sort_unstable();
    times.dedup();
    let mut times = times.into_iter().peekable();
    while let Some(first) = times.next() {
        // A gap ends with the next point of the base.
        let end = base
            .get(base.partition_point(|time| *time < first))
            .copied();
        let end = end.unwrap_or(i64::MAX);
        let mut last = first;
        while let Some(next) = times.next_if(|time| *time < end) {
            last = next;
        }
        let count = |points: &&Points<'_>| points.range(first..=last).count();
        // Of two that have as much, the first.
        let donor = others.iter().rev().max_by_key(count);
        if let Some(donor) = donor {
            merged.extend(
                donor
                    .range(first..=last)
                    .map(|(time, point)| (*time, *point)),
            );
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(answers: &[&str]) -> String {
        let answers: Vec<&[u8]> = answers.iter().map(|text| text.as_bytes()).collect();
        String::from_utf8(merge(&answers, &[]).unwrap()).unwrap()
    }

    fn matrix(series: &str) -> String {
        format!(
            "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{series}]}}}}"
        )
    }

    fn values(points: &str) -> String {
        matrix(&format!(
            "{{\"metric\":{{\"a\":\"b\"}},\"values\":[{points}]}}"
        ))
    }

    #[test]
    fn gaps_are_filled_and_points_are_kept_zeros_among_them() {
        let best = values("[1,\"0\"],[2,\"0\"],[5,\"7\"],[6,\"8\"],[7,\"9\"]");
        let other = values("[1,\"1\"],[2,\"2\"],[3,\"3\"],[4,\"4\"]");
        let expected =
            values("[1,\"0\"],[2,\"0\"],[3,\"3\"],[4,\"4\"],[5,\"7\"],[6,\"8\"],[7,\"9\"]");
        assert_eq!(merged(&[&best, &other]), expected);
        assert_eq!(
            merged(&[&other, &best]),
            expected,
            "the longer one is the base"
        );
        assert_eq!(merged(&[&best]), best);
        assert_eq!(merged(&[&best, &best]), best);
    }

    #[test]
    fn a_gap_is_filled_from_one_replica_alone() {
        let best = values("[1,\"1\"],[2,\"2\"],[7,\"7\"],[8,\"8\"],[9,\"9\"]");
        let second = values("[3,\"30\"],[5,\"50\"]");
        let third = values("[4,\"400\"],[5,\"500\"],[6,\"600\"],[10,\"1000\"]");
        let expected = values(
            "[1,\"1\"],[2,\"2\"],[4,\"400\"],[5,\"500\"],[6,\"600\"],[7,\"7\"],[8,\"8\"],[9,\"9\"],[10,\"1000\"]",
        );
        assert_eq!(merged(&[&best, &second, &third]), expected);
    }

    #[test]
    fn histograms_are_points_like_any_other_and_are_not_read() {
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
            merged(&[&of(&[1, 2, 5]), &of(&[3, 4])]),
            of(&[1, 2, 3, 4, 5])
        );
    }

    #[test]
    fn series_that_one_replica_alone_has_are_added() {
        let vector = |series: &str| {
            format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{series}]}}}}"
            )
        };
        let a = "{\"metric\":{\"n\":\"a\"},\"value\":[1,\"0\"]}";
        let a_again = "{\"metric\":{\"n\":\"a\"},\"value\":[1,\"5\"]}";
        let b = "{\"metric\":{\"n\":\"b\"},\"histogram\":[1,{}]}";
        let both = merged(&[&vector(a), &vector(&format!("{a_again},{b}"))]);
        assert_eq!(both, vector(&format!("{a},{b}")));
    }

    #[test]
    fn lists_are_united_and_warnings_told_once() {
        let list = |items: &str| format!("{{\"status\":\"success\",\"data\":[{items}]}}");
        assert_eq!(
            merged(&[&list("\"b\",\"c\""), &list("\"a\",\"b\"")]),
            list("\"a\",\"b\",\"c\"")
        );
        let sets = merged(&[&list("{\"x\":\"1\"}"), &list("{\"x\":\"1\"},{\"w\":\"0\"}")]);
        assert_eq!(sets, list("{\"w\":\"0\"},{\"x\":\"1\"}"));
        let warned = "{\"status\":\"success\",\"data\":[],\"warnings\":[\"w\"]}";
        assert_eq!(merged(&[warned, warned]), warned);
        let told = merge(
            &[b"{\"status\":\"success\",\"data\":[]}"],
            &["r".to_owned()],
        )
        .unwrap();
        assert!(
            String::from_utf8(told)
                .unwrap()
                .contains("\"warnings\":[\"replica r did not answer")
        );
    }

    #[test]
    fn what_is_no_answer_is_not_merged() {
        let good = values("[1,\"1\"]");
        for other in [
            "",
            "{}",
            "[]",
            "{\"status\":\"error\"}",
            "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}",
        ] {
            assert!(
                merge(&[good.as_bytes(), other.as_bytes()], &[]).is_none(),
                "{other}"
            );
        }
        assert!(merge(&[], &[]).is_none());
    }
}
