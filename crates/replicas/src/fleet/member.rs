//! One replica of a fleet, and its state.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::health::{Health, HealthOptions};
use crate::replica::Replica;
use crate::signals::{Signals, Span, missing, without};
use crate::strategy::Candidate;

/// The most outages of a replica that are kept.
const MOST_OUTAGES: usize = 100;

/// The most probe results of a replica that are kept.
pub(super) const MOST_PROBES: usize = 60;

/// A replica and its state.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) replica: Arc<Replica>,
    pub(super) health: Health,
    pub(super) signals: Option<Signals>,
    pub(super) counts: Counts,
    /// Results of the last probes, oldest first.
    pub(super) probes: VecDeque<Probed>,
    /// Times in which it was unreachable, and so may have missed samples.
    pub(super) outages: VecDeque<Span>,
    pub(super) down_since: Option<i64>,
    pub(super) came_back: bool,
}

/// Result of a probe.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probed {
    /// Time of the probe, in milliseconds since the epoch.
    pub(crate) time: i64,
    pub(crate) milliseconds: u64,
    pub(crate) error: Option<String>,
}

/// Counts of the requests to a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests sent.
    pub requests: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests that failed through the replica's fault.
    pub failures: u64,
    /// Queries that went to another replica because this one failed.
    pub retries: u64,
    /// Queries that also went to another replica because this one was slow.
    pub hedges: u64,
    /// Sum of the times until the heads of its answers, in milliseconds.
    pub milliseconds: u64,
    /// Bytes of its answers' bodies.
    pub bytes: u64,
}

impl Member {
    pub(super) fn new(replica: Arc<Replica>, options: HealthOptions, now: Instant) -> Self {
        Self {
            replica,
            health: Health::new(options, now),
            signals: None,
            counts: Counts::default(),
            probes: VecDeque::new(),
            outages: VecDeque::new(),
            down_since: None,
            came_back: false,
        }
    }

    /// Records the result of a probe. Returns a text for the log of events if its state has
    /// changed.
    pub(super) fn probed(
        &mut self,
        result: Result<Option<Signals>, String>,
        took: Duration,
        wall: i64,
        now: Instant,
    ) -> Option<String> {
        if self.probes.len() == MOST_PROBES {
            self.probes.pop_front();
        }
        let error = result.as_ref().err().cloned();
        self.probes.push_back(Probed {
            time: wall,
            milliseconds: took.as_millis() as u64,
            error: error.clone(),
        });
        let changed = self
            .health
            .probed(result.as_ref().map(|_| ()).map_err(Clone::clone), now);
        let Ok(signals) = result else {
            self.down_since.get_or_insert(wall);
            return changed.then(|| format!("is down: {}", error.unwrap_or_default()));
        };
        if let Some(since) = self.down_since.take() {
            if self.outages.len() == MOST_OUTAGES {
                self.outages.pop_front();
            }
            self.outages.push_back(Span {
                start: since,
                end: wall,
            });
        }
        let before = self.signals.as_ref().and_then(|it| it.started);
        let started = signals.as_ref().and_then(|it| it.started);
        let restarted = before.is_some_and(|before| started.is_some_and(|it| it > before));
        // Signals that could not be read this time keep their last values.
        if signals.is_some() {
            self.signals = signals;
        }
        if restarted {
            self.health.restarted(now);
        }
        if changed {
            self.came_back = true;
        }
        match (changed, restarted) {
            (_, true) => Some("was restarted".to_owned()),
            (true, false) => Some("is up".to_owned()),
            (false, false) => None,
        }
    }

    /// Times for which the replica has data, as far as known: those that it reports, without its
    /// outages.
    pub(super) fn spans(&self, wall: i64) -> Vec<Span> {
        let Some(signals) = &self.signals else {
            return Vec::new();
        };
        let mut spans = signals.spans.clone();
        if spans.is_empty()
            && let Some(oldest) = signals.oldest
        {
            spans.push(Span {
                start: oldest,
                end: wall,
            });
        }
        // A replica that is up has kept ingesting since the probe.
        if let Some(last) = spans.last_mut()
            && self.health.up()
        {
            last.end = last.end.max(wall);
        }
        let outages: Vec<Span> = self.outages.iter().copied().collect();
        without(&spans, &outages)
    }

    pub(super) fn candidate(
        &self,
        index: usize,
        range: Option<(i64, i64)>,
        wall: i64,
        now: Instant,
    ) -> Candidate {
        let signals = self.signals.as_ref();
        let started = signals.and_then(|it| it.started);
        let age = started.map(|started| (wall as f64 / 1000.0 - started).max(0.0));
        Candidate {
            index,
            samples: signals.and_then(|it| it.samples).unwrap_or(0.0),
            oldest: signals.and_then(|it| it.oldest),
            newest: signals.and_then(|it| it.newest),
            answers_history: signals.and_then(|it| it.answers_history) == Some(true),
            current: false,
            up_for: now.saturating_duration_since(self.health.since()),
            came_back: self.came_back,
            age: age.map(Duration::from_secs_f64),
            missing: range.map_or(0, |(start, end)| {
                missing(&self.spans(wall), start, end.min(wall))
            }),
        }
    }
}
