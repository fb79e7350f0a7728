//! Cache of answers to range queries: the next query of the same kind asks only for the steps that
//! are missing.
//!
//! An entry holds one contiguous range of steps of one expression: the points of every series in
//! it, as text. Steps newer than `recent` are not kept, since samples may still arrive.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use metrifold_base::{Period, Problems, Size, keys, locked};
use metrifold_promql::{AggregateOp, At, Duration, Expr, NodeKind, Offset, Options, parse};

keys! {
    /// In-memory cache of answers to range queries.
    #[derive(Clone, Debug)]
    pub struct CacheKeys {
        /// Maximum memory for the cache.
        pub max_bytes: Size = default("64MiB"),
        /// Minimum age of a step to be cached. Samples can still arrive for more recent steps.
        pub recent: Period = default("10m"),
        /// Maximum size of an answer that is cached or assembled in memory. A larger one is passed through.
        pub max_answer_bytes: Size = default("16MiB"),
        /// Interval, at least `1m`, at whose multiples since 1970 (UTC) range queries are split into parts that run in parallel. Unset, queries are not split.
        pub split: Option<Period> = unset("24h"),
        /// Maximum number of parts of one query that run in parallel, from 1 to 100.
        pub max_parallel: usize = default(4),
    }
}

/// Shortest interval at which queries may be split.
const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

impl CacheKeys {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if self.split.is_some_and(|split| split.0 < MINUTE) {
            problems.at("cache.split", "must be at least 1m");
        }
        if !(1..=100).contains(&self.max_parallel) {
            problems.at("cache.max_parallel", "must be from 1 to 100");
        }
    }
}

/// The steps of a range query: from `start` to `last`, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) start: i64,
    pub(crate) last: i64,
    pub(crate) step: i64,
}

impl Steps {
    /// The steps of a query from `start` to `end`. `None` if the range is empty or the step is not
    /// positive.
    pub(crate) fn new(start: i64, end: i64, step: i64) -> Option<Self> {
        if step <= 0 || end < start {
            return None;
        }
        let last = start + (end - start) / step * step;
        Some(Self { start, last, step })
    }

    /// The steps up to a time. `None` if there are none.
    fn until(self, time: i64) -> Option<Self> {
        Self::new(self.start, self.last.min(time), self.step)
    }

    /// Number of steps.
    pub(crate) fn count(self) -> i64 {
        (self.last - self.start) / self.step + 1
    }

    /// Splits the steps at multiples of `interval` milliseconds since the epoch; without an
    /// interval, all of them form one part.
    pub(crate) fn split(self, interval: Option<i64>) -> impl Iterator<Item = Self> {
        let Self { last, step, .. } = self;
        let mut start = self.start;
        std::iter::from_fn(move || {
            let end = interval.map_or(last, |interval| {
                (start.div_euclid(interval) + 1).saturating_mul(interval) - 1
            });
            let part = Self::new(start, end.min(last), step).filter(|_| start <= last)?;
            start = part.last + step;
            Some(part)
        })
    }

    /// The steps that `known`, which has the same step and phase, does not cover: those before it,
    /// and those behind it.
    pub(crate) fn missing(self, known: Option<Self>) -> Vec<Self> {
        let overlaps = |it: &Self| it.start <= self.last && it.last >= self.start;
        let Some(known) = known.filter(overlaps) else {
            return vec![self];
        };
        let before = Self::new(self.start, known.start - self.step, self.step);
        let behind = Self::new(known.last + self.step, self.last, self.step);
        before.into_iter().chain(behind).collect()
    }
}

/// Labels, in the order in which Prometheus sorts series.
pub(crate) type Labels = BTreeMap<String, String>;

/// Points of a series by time: whether the point is a histogram, and its text in JSON.
pub(crate) type Points = BTreeMap<i64, (bool, Arc<str>)>;

/// Series of a range with their points.
pub(crate) type Matrix = BTreeMap<Labels, Points>;

/// Kept answers to one expression.
#[derive(Debug)]
struct Entry {
    steps: Steps,
    matrix: Arc<Matrix>,
    bytes: usize,
    used: u64,
}

/// The cache of a router.
#[derive(Debug)]
pub(crate) struct Cache {
    max_bytes: usize,
    /// Least age of a step that is kept, in milliseconds.
    recent: i64,
    /// Largest answer that is read to be cached, in bytes.
    pub(crate) max_answer: usize,
    /// Interval at whose multiples queries are split, in milliseconds.
    pub(crate) split: Option<i64>,
    /// Most parts of one query in flight.
    pub(crate) max_parallel: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    bytes: usize,
    clock: u64,
    counts: CacheView,
}

/// Contents and counts of a cache, for the status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheView {
    /// Queries answered entirely from the cache.
    pub hits: u64,
    /// Queries of which some steps were in the cache.
    pub partial: u64,
    /// Queries without any step in the cache.
    pub misses: u64,
    /// Bytes of the cached answers.
    pub bytes: usize,
    /// Expressions with cached steps.
    pub entries: usize,
}

/// One entry may take at most this fraction of the cache: an eighth.
const SHARE: usize = 8;

/// Estimated bytes of a point, a label or a series besides its text.
const OVERHEAD: usize = 64;

impl Cache {
    pub(crate) fn new(keys: &CacheKeys) -> Self {
        let millis = |period: Period| i64::try_from(period.0.as_millis()).unwrap_or(i64::MAX);
        Self {
            max_bytes: keys.max_bytes.bytes(),
            max_answer: keys.max_answer_bytes.bytes(),
            recent: millis(keys.recent),
            split: keys.split.map(millis),
            max_parallel: keys.max_parallel,
            state: Mutex::default(),
        }
    }

    /// The entry under a key, whatever its steps. Counts a hit or a miss for `steps`.
    pub(crate) fn get(&self, key: &str, steps: Steps) -> Option<(Steps, Arc<Matrix>)> {
        let mut state = locked(&self.state);
        state.clock += 1;
        let clock = state.clock;
        let found = state.entries.get_mut(key).map(|entry| {
            entry.used = clock;
            (entry.steps, entry.matrix.clone())
        });
        let missing = steps.missing(found.as_ref().map(|(steps, _)| *steps));
        match &missing[..] {
            [] => state.counts.hits += 1,
            [all] if *all == steps => state.counts.misses += 1,
            _ => state.counts.partial += 1,
        }
        found.filter(|_| missing != [steps])
    }

    /// Keeps an answer, as far as its steps are old enough and it fits into an entry.
    pub(crate) fn put(&self, key: &str, steps: Steps, matrix: &Matrix, lookahead: i64, now: i64) {
        let limit = now.saturating_sub(self.recent).saturating_sub(lookahead);
        let Some(steps) = steps.until(limit) else {
            return;
        };
        let kept = within(matrix, steps);
        let bytes = key.len() + size(&kept);
        if bytes > self.max_bytes / SHARE {
            return;
        }
        let mut state = locked(&self.state);
        state.clock += 1;
        let entry = Entry {
            steps,
            matrix: Arc::new(kept),
            bytes,
            used: state.clock,
        };
        state.bytes += bytes;
        if let Some(old) = state.entries.insert(key.to_owned(), entry) {
            state.bytes -= old.bytes;
        }
        while state.bytes > self.max_bytes {
            let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some(old) = state.entries.remove(&oldest) {
                state.bytes -= old.bytes;
            }
        }
    }

    /// The steps kept under a key.
    pub(crate) fn steps(&self, key: &str) -> Option<Steps> {
        locked(&self.state)
            .entries
            .get(key)
            .map(|entry| entry.steps)
    }

    pub(crate) fn view(&self) -> CacheView {
        let state = locked(&self.state);
        CacheView {
            bytes: state.bytes,
            entries: state.entries.len(),
            ..state.counts
        }
    }
}

/// The points within some steps.
pub(crate) fn within(matrix: &Matrix, steps: Steps) -> Matrix {
    let series = matrix.iter().filter_map(|(labels, points)| {
        let points = points.range(steps.start..=steps.last);
        let points: Points = points.map(|(time, point)| (*time, point.clone())).collect();
        (!points.is_empty()).then(|| (labels.clone(), points))
    });
    series.collect()
}

fn size(matrix: &Matrix) -> usize {
    let series = matrix.iter().map(|(labels, points)| {
        let labels = labels
            .iter()
            .map(|(name, value)| name.len() + value.len() + OVERHEAD);
        let points = points.values().map(|(_, text)| text.len() + OVERHEAD);
        labels.sum::<usize>() + points.sum::<usize>() + OVERHEAD
    });
    series.sum()
}

/// How far ahead of a step the expression reads, in milliseconds. `None` if its value at a step
/// depends on the query's range, or it cannot be parsed: then it is not cached.
pub(crate) fn lookahead(query: &str) -> Option<i64> {
    let expr: Expr = parse(query, &Options::default()).ok()?;
    let mut ahead = 0;
    for (_, node) in expr.nodes() {
        let (at, offset) = match &node.kind {
            // Extended selectors depend on the sample that comes next.
            NodeKind::Selector(selector) if selector.extension.is_some() => return None,
            NodeKind::Selector(selector) => (selector.at.as_ref(), selector.offset),
            NodeKind::Subquery(subquery) => {
                let durations = [Some(subquery.range), subquery.step];
                // A computed duration may depend on the step and the range.
                if durations.into_iter().flatten().any(is_computed) {
                    return None;
                }
                (subquery.at.as_ref(), subquery.offset)
            }
            NodeKind::Range(range) if is_computed(range.range) => return None,
            // Which series it chooses depends on the order in which the server finds those of the range.
            NodeKind::Aggregate(it) if it.op == AggregateOp::Limitk => return None,
            // It warns about a range, and does not about a part of one step.
            NodeKind::Call(call) if call.function.name.starts_with("sort") => return None,
            _ => continue,
        };
        // A fixed time may be newer than any step.
        if matches!(at, Some(At::Start | At::End | At::Timestamp(_))) {
            return None;
        }
        match offset {
            Offset::None => {}
            Offset::Fixed(nanos) => ahead += (-nanos / 1_000_000).max(0),
            Offset::Computed(_) => return None,
        }
    }
    Some(ahead)
}

fn is_computed(duration: Duration) -> bool {
    matches!(duration, Duration::Computed(_))
}

#[derive(Deserialize)]
struct Answer<'a> {
    status: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
    #[serde(borrow, default)]
    warnings: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    infos: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "resultType")]
    result_type: &'a str,
    #[serde(borrow)]
    result: Vec<Series<'a>>,
}

#[derive(Deserialize)]
struct Series<'a> {
    metric: Labels,
    #[serde(borrow, default)]
    values: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    histograms: Vec<&'a RawValue>,
}

/// Reads an answer to a range query. `None` if it cannot be parsed, or has a warning or an info,
/// since then something may be missing.
pub(crate) fn read(body: &[u8]) -> Option<Matrix> {
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let whole = answer.warnings.is_empty() && answer.infos.is_empty();
    if answer.status != "success" || answer.data.result_type != "matrix" || !whole {
        return None;
    }
    let mut matrix = Matrix::new();
    for series in answer.data.result {
        let floats = series.values.into_iter().map(|point| (false, point));
        let points = floats.chain(series.histograms.into_iter().map(|point| (true, point)));
        let points = points.map(|(histogram, point)| {
            let time = crate::merge::time(point)?;
            Some((time, (histogram, Arc::from(point.get()))))
        });
        matrix.insert(series.metric, points.collect::<Option<Points>>()?);
    }
    Some(matrix)
}

/// Adds the points of another answer.
pub(crate) fn add(matrix: &mut Matrix, other: Matrix) {
    for (labels, points) in other {
        matrix.entry(labels).or_default().extend(points);
    }
}

/// Writes the series as an answer of Prometheus' API.
pub(crate) fn write(matrix: &Matrix) -> String {
    let mut text =
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[".to_owned();
    for (at, (labels, points)) in matrix.iter().enumerate() {
        let separator = if at == 0 { "" } else { "," };
        let labels = serde_json::to_string(labels).unwrap_or_default();
        text.push_str(&format!("{separator}{{\"metric\":{labels}"));
        for (name, histogram) in [("values", false), ("histograms", true)] {
            let mut those = points
                .values()
                .filter(|(it, _)| *it == histogram)
                .peekable();
            if those.peek().is_none() {
                continue;
            }
            text.push_str(&format!(",\"{name}\":["));
            for (at, (_, point)) in those.enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(point);
            }
            text.push(']');
        }
        text.push('}');
    }
    text.push_str("]}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(start: i64, last: i64) -> Steps {
        Steps::new(start, last, 10).unwrap()
    }

    /// A matrix of one series, with a point at each step.
    fn matrix(steps: Steps) -> Matrix {
        let times = (steps.start..=steps.last).step_by(steps.step as usize);
        let points = times.map(|time| (time, (false, Arc::from(format!("[{time},\"1\"]")))));
        [(Labels::new(), points.collect())].into()
    }

    #[test]
    fn steps_that_are_missing_are_in_front_and_behind() {
        let all = steps(100, 200);
        for (known, expected) in [
            (None, vec![all]),
            (Some(steps(100, 200)), vec![]),
            (Some(steps(0, 300)), vec![]),
            (
                Some(steps(120, 150)),
                vec![steps(100, 110), steps(160, 200)],
            ),
            (Some(steps(50, 150)), vec![steps(160, 200)]),
            (Some(steps(150, 300)), vec![steps(100, 140)]),
            (Some(steps(0, 90)), vec![all]),
            (Some(steps(210, 300)), vec![all]),
        ] {
            assert_eq!(all.missing(known), expected, "{known:?}");
        }
        assert_eq!(Steps::new(0, 25, 10), Some(steps(0, 20)));
        assert_eq!(Steps::new(10, 0, 10), None);
        assert_eq!(Steps::new(0, 10, 0), None);
    }

    #[test]
    fn parts_meet_at_multiples_and_have_every_step_once() {
        for (start, last, interval) in [
            (-25, 95, 30),
            (0, 90, 30),
            (5, 5, 30),
            (29, 1029, 30),
            (3, 300, 7),
            (i64::MIN / 4, i64::MIN / 4 + 100, 40),
        ] {
            let all = steps(start, last);
            let parts: Vec<_> = all.split(Some(interval)).collect();
            let times = |it: &Steps| (it.start..=it.last).step_by(10).collect::<Vec<_>>();
            let met: Vec<_> = parts.iter().flat_map(times).collect();
            assert_eq!(met, times(&all), "{parts:?}");
            for part in &parts {
                assert_eq!(
                    part.start.div_euclid(interval),
                    part.last.div_euclid(interval)
                );
            }
            assert!(all.split(None).eq([all]));
        }
    }

    /// A cache of this size, with this value of `recent`.
    fn cache(max_bytes: usize, recent: &str) -> Cache {
        let keys = format!("max_bytes = \"{max_bytes}B\"\nrecent = \"{recent}\"");
        Cache::new(&toml::from_str(&keys).unwrap())
    }

    #[test]
    fn what_is_recent_is_not_kept() {
        let cache = cache(1 << 20, "50ms");
        let all = steps(100, 200);
        cache.put("k", all, &matrix(all), 0, 205);
        let (known, found) = cache.get("k", all).unwrap();
        assert_eq!(known, steps(100, 150));
        assert_eq!(*found, matrix(steps(100, 150)));
        cache.put("k", all, &matrix(all), 30, 205);
        assert_eq!(cache.get("k", all).unwrap().0, steps(100, 120));
        cache.put("other", all, &matrix(all), 0, 140);
        assert!(cache.get("other", all).is_none());
        let view = cache.view();
        assert_eq!(
            (view.hits, view.partial, view.misses, view.entries),
            (0, 2, 1, 1)
        );
    }

    #[test]
    fn memory_is_bounded_and_the_least_used_goes_first() {
        let all = steps(0, 90);
        let one = size(&matrix(all)) + 2;
        let cache = cache(one * 10, "0s");
        for n in 10..30 {
            cache.put(&n.to_string(), all, &matrix(all), 0, 1000);
            assert!(cache.get("10", all).is_some(), "it is used all the time");
            assert!(cache.view().bytes <= one * 10);
        }
        assert_eq!(cache.view().entries, 10);
        assert!(cache.get("20", all).is_none());
        let large = steps(0, 1000);
        cache.put("large", large, &matrix(large), 0, 10_000);
        assert!(cache.get("large", large).is_none());
    }

    #[test]
    fn an_expression_is_kept_if_a_step_says_the_same_in_every_range() {
        for (query, expected) in [
            ("sum(rate(x[5m]))", Some(0)),
            ("x offset 1h", Some(0)),
            ("x offset -1h", Some(3_600_000)),
            ("x offset -1h + y offset -30m", Some(5_400_000)),
            ("max_over_time(x[1h:5m])", Some(0)),
            ("x @ 5", None),
            ("x @ end()", None),
            ("x @ start()", None),
            ("x[step()]", None),
            ("rate(x[range()])", None),
            ("x offset step()", None),
            ("topk(2, x)", Some(0)),
            ("1 + limitk(2, x)", None),
            ("sort_desc(x)", None),
            ("wrong(", None),
        ] {
            assert_eq!(lookahead(query), expected, "{query}");
        }
    }

    #[test]
    fn answers_are_read_and_written_as_they_were() {
        let text = "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[\
            {\"metric\":{\"a\":\"\\\"\"},\"values\":[[1,\"0\"],[2.5,\"NaN\"]],\"histograms\":[[3,{\"count\":\"1\"}]]},\
            {\"metric\":{\"b\":\"1\"},\"histograms\":[[3,{}]]}]}}";
        let matrix = read(text.as_bytes()).unwrap();
        assert_eq!(write(&matrix), text);
        let (mut left, right) = (
            within(&matrix, steps(0, 2500)),
            within(&matrix, steps(2501, 9999)),
        );
        add(&mut left, right);
        assert_eq!(write(&left), text);
        for other in [
            "",
            "{\"status\":\"error\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}",
            "{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[]}}",
            "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]},\"warnings\":[\"x\"]}",
        ] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
