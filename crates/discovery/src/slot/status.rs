//! The state of a provider on the status page.

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
    /// Time of the failed attempt.
    #[serde(serialize_with = "epoch")]
    pub time: SystemTime,
    /// The kind of the failure.
    pub reason: Reason,
    /// The source that failed: a file, a URL, a name.
    pub source: Arc<str>,
    /// Description of the failure.
    pub text: String,
}

/// State of a provider.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The provider's `type`.
    pub r#type: Arc<str>,
    /// Whether the provider runs.
    pub state: State,
    /// Number of targets.
    pub targets: usize,
    /// Number of sources that have answered.
    pub sources: usize,
    /// Completeness of the targets.
    pub standing: Standing,
    /// Whether some targets are older than the last attempt.
    pub stale: bool,
    /// Whether the targets come from an earlier run of the process, or from the provider's
    /// configuration before a reload.
    pub inherited: bool,
    /// Seconds since all sources have answered.
    pub age_seconds: Option<f64>,
    /// Time of the last attempt in which all sources answered.
    #[serde(serialize_with = "maybe_epoch")]
    pub last_success: Option<SystemTime>,
    /// Time of the last attempt.
    #[serde(serialize_with = "maybe_epoch")]
    pub last_attempt: Option<SystemTime>,
    /// Sources whose last attempt failed, at most ten.
    pub failing: Vec<Trouble>,
    /// The last failure, which stays after a success.
    pub last_error: Option<Trouble>,
    /// Number of things found that are not targets, such as instances that do not run.
    pub left_out_count: usize,
    /// The first things left out, with the reason for each.
    pub left_out: Vec<LeftOut>,
}

/// Something that a provider has found and that is not a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Description of the thing, such as an instance of an application.
    pub what: String,
    /// Reason why it is not a target.
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
