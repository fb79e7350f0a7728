//! Signals of a replica: how far its data goes back, how fresh it is, how many samples there are,
//! and when its process started.

mod blocks;
mod metrics_page;

use serde::Serialize;

pub(crate) use blocks::blocks;
pub(crate) use metrics_page::MetricsPage;

/// A period for which a replica has data, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// First millisecond.
    pub start: i64,
    /// End, exclusive.
    pub end: i64,
}

/// Signals of a replica, as far as it reports them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Signals {
    /// Start of its process, in seconds since the epoch.
    pub started: Option<f64>,
    /// Version of the server.
    pub version: Option<String>,
    /// Time of its oldest sample, in milliseconds since the epoch. `None` for an empty database.
    pub oldest: Option<i64>,
    /// Time of its newest sample, in milliseconds since the epoch.
    pub newest: Option<i64>,
    /// Number of its samples: those in its blocks, if it lists them, and those appended since its
    /// start.
    pub samples: Option<f64>,
    /// Periods covered by its blocks and its head.
    pub spans: Vec<Span>,
    /// Whether a query found data from as far back as `minimum_history` asks for.
    pub answers_history: Option<bool>,
}

/// The most spans of a replica that are kept.
pub(crate) const MOST_SPANS: usize = 1000;

/// Joins spans that overlap, touch, or are at most `gap` apart.
pub(crate) fn join(mut spans: Vec<Span>, gap: i64) -> Vec<Span> {
    spans.retain(|span| span.start < span.end);
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(span.end);
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// Subtracts spans without data from spans with data.
pub(crate) fn without(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let mut left: Vec<Span> = spans.to_vec();
    for hole in holes {
        left = left
            .into_iter()
            .flat_map(|span| {
                let before = Span {
                    start: span.start,
                    end: span.end.min(hole.start),
                };
                let behind = Span {
                    start: span.start.max(hole.end),
                    end: span.end,
                };
                [before, behind]
            })
            .filter(|span| span.start < span.end)
            .collect();
    }
    left
}

/// Milliseconds from `start` to `end` that no span covers.
pub(crate) fn missing(spans: &[Span], start: i64, end: i64) -> i64 {
    let covered = spans.iter().map(|span| {
        let from = span.start.max(start);
        span.end.min(end).saturating_sub(from).max(0)
    });
    end.saturating_sub(start)
        .saturating_sub(covered.sum())
        .max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(list: &[(i64, i64)]) -> Vec<Span> {
        let span = |&(start, end): &(i64, i64)| Span { start, end };
        list.iter().map(span).collect()
    }

    #[test]
    fn stretches_are_joined_cut_and_measured() {
        let joined = join(spans(&[(50, 60), (0, 10), (9, 20), (21, 30), (7, 7)]), 1);
        assert_eq!(joined, spans(&[(0, 30), (50, 60)]));
        let cut = without(&joined, &spans(&[(5, 10), (25, 55)]));
        assert_eq!(cut, spans(&[(0, 5), (10, 25), (55, 60)]));
        assert_eq!(without(&joined, &spans(&[(-10, 100)])), []);
        for (start, end, expected) in [
            (0, 30, 0),
            (0, 60, 20),
            (-10, 5, 10),
            (30, 50, 20),
            (100, 200, 100),
            (10, 10, 0),
        ] {
            assert_eq!(missing(&joined, start, end), expected, "{start} to {end}");
        }
    }
}
