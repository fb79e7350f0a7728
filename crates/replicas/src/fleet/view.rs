//! State of the replicas, for the status page and the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::cache::CacheView;
use crate::signals::{Signals, Span};

use super::member::{Counts, Probed};
use super::{Fleet, Kind};

/// State of a fleet.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Word of the strategy.
    pub strategy: &'static str,
    /// Names of the selected replicas; of the last selection if `stale`.
    pub selected: Vec<Arc<str>>,
    /// Whether no replica is eligible now.
    pub stale: bool,
    /// Reason why the strategy had to settle for less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<&'static str>,
    /// Number of times the selection was computed.
    pub selections: u64,
    /// The replicas in their order.
    pub replicas: Vec<ViewOf>,
    /// Contents and counts of the cache. `None` without a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheView>,
    /// Recent events, oldest first.
    pub events: Vec<EventView>,
}

/// An event.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// Seconds since the event.
    pub seconds_ago: u64,
    /// Description of the event.
    pub text: String,
}

/// State of a replica.
#[derive(Clone, Debug, Serialize)]
pub struct ViewOf {
    /// The replica's URL.
    pub url: Arc<str>,
    /// Weight relative to the other replicas.
    pub weight: u32,
    /// Configured or discovered labels.
    pub labels: BTreeMap<String, String>,
    /// Whether requests may go to it.
    pub available: bool,
    /// Whether it belongs to the selection.
    pub selected: bool,
    /// Reason why it is not available or not selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Value that the strategy compares, in words.
    pub compared: String,
    /// Signals read at its last successful probe.
    pub signals: Option<Signals>,
    /// Times for which it has data, as far as known.
    pub coverage: Vec<Span>,
    /// Counts of the requests to it.
    pub counts: Counts,
    pub(crate) probes: Vec<Probed>,
}

impl Fleet {
    /// Numbers of available and of selected replicas.
    pub(crate) fn standing(&self, now: Instant) -> (usize, usize) {
        let available = self.members.iter().filter(|it| it.health.available(now));
        let selected = if self.stale { 0 } else { self.selection.len() };
        (available.count(), selected)
    }

    /// Names of the available replicas.
    pub(crate) fn available(&self, now: Instant) -> Vec<Arc<str>> {
        let available = self.members.iter().filter(|it| it.health.available(now));
        available.map(|it| it.replica.name.clone()).collect()
    }

    /// Names of the selected replicas; empty if no replica is eligible.
    pub(crate) fn selection(&self) -> &[Arc<str>] {
        match self.stale {
            true => &[],
            false => &self.selection,
        }
    }

    /// The state for the status page. `wall` is in milliseconds since the epoch.
    pub fn view(&self, wall: i64, now: Instant) -> View {
        let kind = self.options.strategy.kind;
        let replicas = self.members.iter().map(|it| {
            let selected = self.selection().contains(&it.replica.name);
            let signals = it.signals.clone();
            let why_not = it.health.why_not(now);
            ViewOf {
                url: it.replica.name.clone(),
                weight: it.replica.weight,
                labels: it.replica.labels.clone(),
                available: why_not.is_none(),
                selected,
                reason: why_not.or_else(|| (!selected).then(|| not_selected(kind).to_owned())),
                compared: compared(kind, signals.as_ref(), it.counts, wall),
                coverage: it.spans(wall),
                signals,
                counts: it.counts,
                probes: it.probes.iter().cloned().collect(),
            }
        });
        View {
            strategy: kind.as_str(),
            selected: self.selection.clone(),
            stale: self.stale,
            remark: self.remark,
            selections: self.selections,
            replicas: replicas.collect(),
            cache: None,
            events: self
                .events
                .iter()
                .map(|event| EventView {
                    seconds_ago: now.saturating_duration_since(event.at).as_secs(),
                    text: event.text.clone(),
                })
                .collect(),
        }
    }
}

/// Reason why an available replica is not selected.
fn not_selected(kind: Kind) -> &'static str {
    match kind {
        Kind::First => "another replica comes before it in the list",
        Kind::MinimumHistory => "its data does not go back far enough",
        Kind::MostData => "another replica has more data",
        Kind::Random | Kind::LeastLoaded | Kind::Covering | Kind::Merge => {
            "its newest sample is too old"
        }
    }
}

/// Value of a replica that a strategy compares, in words.
fn compared(kind: Kind, signals: Option<&Signals>, counts: Counts, wall: i64) -> String {
    let oldest = signals.and_then(|it| it.oldest);
    let history = || match oldest {
        Some(oldest) => format!("{} of history", ago(wall.saturating_sub(oldest))),
        None => "no history".to_owned(),
    };
    match kind {
        Kind::First => "its place in the list".to_owned(),
        Kind::LeastLoaded => format!("{} under way", counts.in_flight),
        Kind::MostData => match signals.and_then(|it| it.samples) {
            Some(samples) => format!("{samples:.0} samples"),
            None => history(),
        },
        Kind::Random | Kind::MinimumHistory | Kind::Covering | Kind::Merge => history(),
    }
}

/// A duration in its two largest units.
pub(crate) fn ago(millis: i64) -> String {
    let secs = millis.max(0) / 1000;
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", secs % 60),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}
