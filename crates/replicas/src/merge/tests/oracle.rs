//! The merge of whole answers in memory, simple enough to be the oracle of the one that streams.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::merge::fill::{Gaps, Points, fill};

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

/// A series in an answer to a range query or an instant query.
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

/// Labels in sorted order. Series with the same labels are merged.
type Labels = BTreeMap<String, String>;

/// A series with its points from all replicas.
#[derive(Default)]
struct Merging<'a> {
    metric: Option<&'a RawValue>,
    /// For each replica that has the series: its index, and its points.
    parts: Vec<(usize, Points<'a>)>,
    /// Value of an instant query with its key in JSON, from the first replica that has one.
    instant: Option<(&'static str, &'a RawValue)>,
}

/// Merges answers, ordered from the best; `missing` has warnings about replicas without an answer. `None` if
/// the answers cannot be merged: then the best one is used as it is.
pub(super) fn merge(answers: &[&[u8]], missing: &[String]) -> Option<Vec<u8>> {
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
    let warning = |told: &String| serde_json::Value::String(told.clone()).to_string();
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

/// Appends a list of messages without duplicates.
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
        // A scalar and a string are the same on every replica.
        return Some(data.first()?.get().to_owned());
    }
    // Series of the best replica in its order, followed by series that only others have.
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

/// Time of a point such as `[1435781430.781, …]`, in milliseconds.
fn time(point: &RawValue) -> Option<i64> {
    let text = point.get().strip_prefix('[')?;
    let (time, _) = text.split_once(',')?;
    let secs: f64 = time.trim().parse().ok()?;
    Some((secs * 1000.0).round() as i64)
}

impl<'a> Merging<'a> {
    fn write(mut self, text: &mut String) -> Option<()> {
        text.push_str("{\"metric\":");
        text.push_str(self.metric?.get());
        if let Some((name, value)) = self.instant {
            text.push_str(&format!(",\"{name}\":{}", value.get()));
        }
        // The longest part is the base.
        self.parts
            .sort_by_key(|(replica, points)| (std::cmp::Reverse(points.len()), *replica));
        let parts = self.parts.into_iter().map(|(_, points)| points);
        let points = fill(parts.collect(), Gaps::Steps);
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
