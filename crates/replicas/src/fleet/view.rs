//! What there is to tell of replicas, for people and programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::time::Instant;

use crate::cache::CacheView;
use crate::signals::{Signals, Span};

use super::member::{Counts, Probed};
use super::{Fleet, Kind};

/// What there is to tell of the replicas.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// How one is chosen.
    pub strategy: &'static str,
    /// The names of those that are worth asking, or last were.
    pub selected: Vec<Arc<str>>,
    /// Whether none is worth asking now.
    pub stale: bool,
    /// Why the selection is not what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<&'static str>,
    /// How often it was looked at.
    pub selections: u64,
    /// The replicas, in their order.
    pub replicas: Vec<ViewOf>,
    /// What is kept of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheView>,
    /// What changed of late, the newest last.
    pub events: Vec<EventView>,
}

/// Something that changed.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// Seconds ago.
    pub seconds_ago: u64,
    /// What it was.
    pub text: String,
}

/// What there is to tell of a replica.
#[derive(Clone, Debug, Serialize)]
pub struct ViewOf {
    /// Its URL.
    pub url: Arc<str>,
    /// Its share of the queries, next to those of the others.
    pub weight: u32,
    /// What else is known of it.
    pub labels: BTreeMap<String, String>,
    /// Whether it may be asked.
    pub available: bool,
    /// Whether it is worth asking.
    pub selected: bool,
    /// Why it may not be asked, or is not worth it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the strategy compares.
    pub compared: String,
    /// What it says of itself.
    pub signals: Option<Signals>,
    /// Where it has data, as far as it is known.
    pub coverage: Vec<Span>,
    /// What was sent to it.
    pub counts: Counts,
    pub(crate) probes: Vec<Probed>,
}

impl Fleet {
    /// How many are available, and how many worth asking.
    pub(crate) fn standing(&self, now: Instant) -> (usize, usize) {
        let available = self.members.iter().filter(|it| it.health.available(now));
        let selected = if self.stale { 0 } else { self.selection.len() };
        (available.count(), selected)
    }

    /// The names of those that may be asked.
    pub(crate) fn available(&self, now: Instant) -> Vec<Arc<str>> {
        let available = self.members.iter().filter(|it| it.health.available(now));
        available.map(|it| it.replica.name.clone()).collect()
    }

    /// The names of those that are worth asking now.
    pub(crate) fn selection(&self) -> &[Arc<str>] {
        match self.stale {
            true => &[],
            false => &self.selection,
        }
    }

    /// What there is to tell. `wall` is in milliseconds since the epoch.
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

/// Why a replica that may be asked is not worth it.
fn not_selected(kind: Kind) -> &'static str {
    match kind {
        Kind::First => "another stands before it",
        Kind::MinimumHistory => "its data does not go back far enough",
        Kind::MostData => "another has more data",
        Kind::Random | Kind::LeastLoaded | Kind::Covering | Kind::Merge => {
            "its newest sample is too old"
        }
    }
}

/// What a strategy compares of a replica, in words.
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

/// A time in its two largest units.
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
