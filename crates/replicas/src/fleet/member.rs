//! One of the replicas, and what is known of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::health::{Health, HealthOptions};
use crate::replica::Replica;
use crate::signals::{Signals, Span, missing, without};
use crate::strategy::Candidate;

/// The most outages of a replica that are remembered.
const MOST_OUTAGES: usize = 100;

/// The most probes that are remembered.
pub(super) const MOST_PROBES: usize = 60;

/// A replica, and what is known of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) replica: Arc<Replica>,
    pub(super) health: Health,
    pub(super) signals: Option<Signals>,
    pub(super) counts: Counts,
    /// The last probes, the newest last.
    pub(super) probes: VecDeque<Probed>,
    /// When it could not be reached, and so cannot have taken samples.
    pub(super) outages: VecDeque<Span>,
    pub(super) down_since: Option<i64>,
    pub(super) came_back: bool,
}

/// What a probe found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probed {
    /// Milliseconds since the epoch.
    pub(crate) time: i64,
    pub(crate) milliseconds: u64,
    pub(crate) error: Option<String>,
}

/// What has been sent to a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests that were sent.
    pub requests: u64,
    /// Those that are under way.
    pub in_flight: u64,
    /// Those that failed by its fault.
    pub failures: u64,
    /// Queries that were sent to another since it failed.
    pub retries: u64,
    /// Queries that were sent to another besides since it was slow.
    pub hedges: u64,
    /// Time until the heads of its answers, in total.
    pub milliseconds: u64,
    /// Bytes of its answers.
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

    /// Notes what a probe found; says so in words if that is news.
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
        // What could not be learnt this time stays as it was.
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

    /// Where it has data, as far as it is known: what it says, without when it was away.
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
        // What has come since the probe is as fresh as it was then.
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
