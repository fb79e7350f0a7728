//! What is remembered of a target from scrape to scrape.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::series::Known;

/// How it goes with a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It has not been scraped yet.
    #[default]
    Unknown,
    /// Its last scrape was good.
    Up,
    /// Its last scrape has failed.
    Down,
}

/// What came of the last scrape.
#[derive(Clone, Debug, Default)]
pub(crate) struct Last {
    pub(crate) health: Health,
    pub(crate) error: String,
    pub(crate) at: Option<i64>,
    pub(crate) duration: Duration,
    pub(crate) samples: usize,
}

/// What is remembered of a target from scrape to scrape.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) known: Known,
    /// What was last sent of its families, and when.
    pub(crate) families: Option<(u64, Instant)>,
    /// Whether something was sent that has to be ended when the target goes.
    pub(crate) reported: bool,
    pub(crate) last: Last,
}
