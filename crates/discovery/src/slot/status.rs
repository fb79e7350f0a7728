//! What there is to tell of a provider.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use metrifold_telemetry::State;

use crate::answer::Reason;
use crate::meters::seconds;
use crate::snapshot::Standing;

/// The last failure of a provider.
#[derive(Clone, Debug, Serialize)]
pub struct Trouble {
    /// When it was.
    #[serde(serialize_with = "epoch")]
    pub time: SystemTime,
    /// What kind it was.
    pub reason: Reason,
    /// What failed: a file, a URL, a name.
    pub source: Arc<str>,
    /// What happened.
    pub text: String,
}

/// What there is to tell of a provider.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its `type`.
    pub r#type: Arc<str>,
    /// Whether it runs.
    pub state: State,
    /// How many targets it has.
    pub targets: usize,
    /// How many sources have answered.
    pub sources: usize,
    /// How much is known of them.
    pub standing: Standing,
    /// Whether some targets are those of an answer before the last attempt.
    pub stale: bool,
    /// Whether what is known comes from a run of the process before this one, or from what the
    /// provider was before a reload.
    pub inherited: bool,
    /// Seconds since all sources have answered.
    pub age_seconds: Option<f64>,
    /// When all sources have last answered.
    #[serde(serialize_with = "maybe_epoch")]
    pub last_success: Option<SystemTime>,
    /// When it last tried.
    #[serde(serialize_with = "maybe_epoch")]
    pub last_attempt: Option<SystemTime>,
    /// What last failed, if it has not succeeded since.
    pub failing: Vec<Trouble>,
    /// What last failed.
    pub last_error: Option<Trouble>,
    /// How much was found that is no target, such as instances that do not run.
    pub left_out_count: usize,
    /// The first of that, and why.
    pub left_out: Vec<LeftOut>,
}

/// Something that a provider has found and that is no target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What it is, such as an instance of an application.
    pub what: String,
    /// Why it is no target.
    pub why: String,
}

fn epoch<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(seconds(*time))
}

fn maybe_epoch<S: serde::Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(seconds).serialize(serializer)
}
