//! Fills the gaps of a series: the replica with the most points is the base, and only its gaps
//! ([`Gaps`]) are filled from the others.
//!
//! Values are not interpreted: a zero or a histogram is a value, too, and a point of the base is
//! never replaced. A gap is filled from one replica alone: mixing points of two would make counters
//! go back and forth.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What counts as a gap of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// Every time without a point: all replicas have evaluated the query at the same times.
    Steps,
    /// A time for which samples are missing: each replica has scraped at times of its own, and the
    /// samples of two are not mixed where both have them.
    Samples,
}

/// A series in an answer to a range query.
#[derive(Deserialize)]
struct Series<'a> {
    #[serde(borrow)]
    metric: &'a RawValue,
    #[serde(borrow, default)]
    values: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    histograms: Vec<&'a RawValue>,
}

/// Points by time in milliseconds: whether the point is a histogram, and its JSON.
pub(super) type Points<'a> = BTreeMap<i64, (bool, &'a RawValue)>;

/// Merges the parts of a series, ordered from the best replica. A part that is not a series is left
/// out, unless all are.
pub(crate) fn filled(parts: &[(usize, Box<str>)], gaps: Gaps) -> Cow<'_, str> {
    let read = parts.iter().filter_map(|(_, text)| {
        let series: Series<'_> = serde_json::from_str(text).ok()?;
        let times = [&series.values, &series.histograms].map(|points| times(points));
        let [floats, histograms] = times;
        Some((text, series, floats?, histograms?))
    });
    let mut read: Vec<_> = read.collect();
    // The longest part is the base: a replica that has restarted has a few points of every series.
    read.sort_by_key(|(_, _, floats, histograms)| Reverse(floats.len() + histograms.len()));
    let mut others = read.iter();
    let Some((base, series, floats, histograms)) = others.next() else {
        return parts.first().map_or("", |(_, text)| &**text).into();
    };
    let has =
        |time: &i64| floats.binary_search(time).is_ok() || histograms.binary_search(time).is_ok();
    if others.all(|(_, _, floats, histograms)| floats.iter().chain(histograms).all(has)) {
        return (&***base).into();
    }
    let metric = series.metric;
    let points = read.into_iter().map(|(_, series, floats, histograms)| {
        let floats = floats.into_iter().zip(series.values);
        let floats = floats.map(|(time, point)| (time, (false, point)));
        let histograms = histograms.into_iter().zip(series.histograms);
        floats
            .chain(histograms.map(|(time, point)| (time, (true, point))))
            .collect()
    });
    let points = fill(points.collect(), gaps);
    let mut text = format!("{{\"metric\":{}", metric.get());
    for (name, histogram) in [("values", false), ("histograms", true)] {
        let those = points.values().filter(|(it, _)| *it == histogram);
        let those: Vec<&str> = those.map(|(_, point)| point.get()).collect();
        if !those.is_empty() {
            text.push_str(&format!(",\"{name}\":[{}]", those.join(",")));
        }
    }
    text.push('}');
    text.into()
}

fn times(points: &[&RawValue]) -> Option<Vec<i64>> {
    points.iter().map(|point| time(point)).collect()
}

/// Time of a point such as `[1435781430.781, …]`, in milliseconds.
pub(crate) fn time(point: &RawValue) -> Option<i64> {
    let text = point.get().strip_prefix('[')?;
    let (time, _) = text.split_once(',')?;
    let secs: f64 = time.trim().parse().ok()?;
    Some((secs * 1000.0).round() as i64)
}

/// The points of the first part, the longest, with each gap filled from the part that has most points
/// there, and what is missing then from the part that has most of that.
pub(super) fn fill(parts: Vec<Points<'_>>, gaps: Gaps) -> Points<'_> {
    let mut parts = parts.into_iter();
    let mut merged = parts.next().unwrap_or_default();
    let interval = match gaps {
        Gaps::Steps => 0,
        Gaps::Samples => interval(&merged),
    };
    let others: Vec<Points<'_>> = parts.collect();
    let mut missing: Vec<i64> = others.iter().flat_map(|it| it.keys().copied()).collect();
    missing.sort_unstable();
    missing.dedup();
    // A part that has filled a gap has nothing left for it, so there are at most as many rounds as parts.
    loop {
        missing.retain(|time| is_missing(&merged, *time, interval));
        let mut rest = &*missing;
        let mut filled = Points::new();
        while let Some(&first) = rest.first() {
            // A gap ends before the next merged point.
            let end = merged
                .range(first..)
                .next()
                .map_or(i64::MAX, |(time, _)| *time);
            let (gap, behind) = rest.split_at(rest.partition_point(|time| *time < end));
            rest = behind;
            let within = first..=gap.last().copied().unwrap_or(first);
            let count = |points: &&Points<'_>| points.range(within.clone()).count();
            // Reversed, so that of equal parts the first wins.
            if let Some(donor) = others.iter().rev().max_by_key(count) {
                filled.extend(
                    donor
                        .range(within.clone())
                        .map(|(time, point)| (*time, *point)),
                );
            }
        }
        if filled.is_empty() {
            return merged;
        }
        merged.extend(filled);
    }
}

/// The usual time between two points: the median. With fewer than two points, no gap can be told.
fn interval(points: &Points<'_>) -> i64 {
    let times = points.keys().zip(points.keys().skip(1));
    let mut intervals: Vec<i64> = times.map(|(time, next)| next - time).collect();
    intervals.sort_unstable();
    let median = intervals.get(intervals.len() / 2);
    median.copied().unwrap_or(i64::MAX / 4)
}

/// Whether a point at this time is in a gap of points that usually have this interval. With the interval
/// 0, every time without a point is.
fn is_missing(points: &Points<'_>, time: i64, interval: i64) -> bool {
    let before = points.range(..=time).next_back().map(|(at, _)| time - at);
    let behind = points.range(time..).next().map(|(at, _)| at - time);
    match (before, behind) {
        // As far from both as a late scrape may be.
        (Some(before), Some(behind)) => {
            2 * before.min(behind) >= interval.max(1) && 2 * (before + behind) > 3 * interval
        }
        (Some(distance), None) | (None, Some(distance)) => distance >= interval.max(1),
        (None, None) => true,
    }
}
