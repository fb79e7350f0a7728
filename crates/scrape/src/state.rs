//! State of a target between scrapes.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::series::Known;

/// Health of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The target has not been scraped yet.
    #[default]
    Unknown,
    /// The last scrape succeeded.
    Up,
    /// The last scrape failed.
    Down,
}

/// Result of the last scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last {
    pub(crate) health: Health,
    pub(crate) error: String,
    pub(crate) at: Option<i64>,
    pub(crate) duration: Duration,
    pub(crate) samples: usize,
}

/// State of a target between scrapes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) known: Known,
    /// Hash of the families' metadata that was last sent, and when.
    pub(crate) families: Option<(u64, Instant)>,
    /// Whether any series was sent that needs a staleness marker when the target goes.
    pub(crate) reported: bool,
    /// Names of the reporting series at the last scrape that not every scrape has.
    pub(crate) reports: Vec<&'static str>,
    /// Time until which its series may have samples, in milliseconds. `None` if nothing was sent.
    pub(crate) sampled_until: Option<i64>,
    /// Time of the newest exemplar of a native histogram that all sinks have, in milliseconds.
    pub(crate) exemplars_until: Option<i64>,
    /// Time at which a scrape was due that was cancelled, to be repeated at once.
    pub(crate) unfinished: Option<i64>,
    /// Time for the staleness markers of a target that has gone, the next at which it would have
    /// been scraped.
    pub(crate) ends_at: Option<i64>,
    /// Number of scrapers that have panicked over this state, one after another.
    pub(crate) panics: u32,
    pub(crate) last: Last,
}
