//! The topology as JSON: the running components, their traffic, and the outcome of the last
//! reloads.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use metrifold_access::Trouble;
use metrifold_engine::config::OutputRef;
use metrifold_engine::reload::{Finding, Outcome, Report, Trigger};
use metrifold_telemetry::{FlowReading, State};

use super::Status;

#[derive(Serialize)]
pub(super) struct Topology {
    config_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload: Option<LastReload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_refused_reload: Option<RefusedReload>,
    /// Issuers and tenants of which no caller is let in at the moment.
    #[serde(skip_serializing_if = "Trouble::is_none")]
    access: Trouble,
    components: Vec<Component>,
    edges: Vec<Edge>,
}

#[derive(Serialize)]
struct Component {
    id: Arc<str>,
    kind: &'static str,
    r#type: String,
    state: State,
    received: FlowReading,
    sent: FlowReading,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<QueueFill>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    /// Seconds for which the far end has been failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
}

/// Batches that are not delivered yet, in memory and on disk.
#[derive(Serialize)]
struct Waiting {
    batches: u64,
    samples: u64,
}

#[derive(Serialize)]
struct QueueFill {
    bytes: usize,
    max_bytes: usize,
    batches: usize,
}

#[derive(Serialize)]
struct LastError {
    /// Seconds since the epoch.
    time: u64,
    text: String,
    /// When the failed operation succeeded again, in seconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<u64>,
}

#[derive(Serialize)]
struct Edge {
    from: String,
    to: Arc<str>,
}

#[derive(Serialize)]
struct LastReload {
    /// Seconds since the epoch.
    time: u64,
    duration_seconds: f64,
    trigger: Trigger,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<String>,
}

#[derive(Serialize)]
struct RefusedReload {
    /// Seconds since the epoch.
    time: u64,
    trigger: Trigger,
    errors: Vec<Finding>,
}

/// The running graph.
pub(super) fn topology(status: &Status) -> Topology {
    let config = status.board.config();
    let components = status
        .components(&config)
        .map(|(id, kind, type_name, metrics)| Component {
            id: id.clone(),
            kind: kind.as_str(),
            r#type: type_name.into(),
            state: metrics.state(),
            received: metrics.received().reading(),
            sent: metrics.sent().reading(),
            required: config
                .sinks
                .get(id)
                .and_then(|node| node.config.metrics())
                .map(|sink| sink.required()),
            queue: metrics
                .queue()
                .map(|(bytes, max_bytes, batches)| QueueFill {
                    bytes,
                    max_bytes,
                    batches,
                }),
            last_error: metrics.last_error().map(|error| LastError {
                time: seconds(error.time),
                text: error.text,
                over: error.over.map(seconds),
            }),
            failing_seconds: metrics.failing_for().map(|it| it.as_secs_f64()),
            waiting: metrics.waiting().map(|waiting| Waiting {
                batches: waiting.batches,
                samples: waiting.samples,
            }),
        });
    let edges = |to: &Arc<str>, inputs: &[OutputRef]| -> Vec<Edge> {
        let edge = |input: &OutputRef| Edge {
            from: input.to_string(),
            to: to.clone(),
        };
        inputs.iter().map(edge).collect()
    };
    let transforms = config.transforms.iter();
    let sinks = config.sinks.iter();
    Topology {
        config_hash: format!("{:016x}", config.hash),
        access: status.gate.tenants().trouble(),
        components: components.collect(),
        last_reload: status.board.last().map(|report| LastReload::from(&report)),
        last_refused_reload: status
            .board
            .last_refused()
            .and_then(|report| RefusedReload::from(&report)),
        edges: transforms
            .flat_map(|(id, node)| edges(id, &node.inputs))
            .chain(sinks.flat_map(|(id, node)| edges(id, &node.inputs)))
            .collect(),
    }
}

impl LastReload {
    fn from(report: &Report) -> Self {
        Self {
            time: seconds(report.time),
            duration_seconds: report.took.as_secs_f64(),
            trigger: report.trigger,
            outcome: report.outcome.name(),
            changes: match &report.outcome {
                Outcome::Applied { changes, .. } => Some(changes.clone()),
                _ => None,
            },
        }
    }
}

impl RefusedReload {
    fn from(report: &Report) -> Option<Self> {
        let Outcome::Refused(refusal) = &report.outcome else {
            return None;
        };
        Some(Self {
            time: seconds(report.time),
            trigger: report.trigger,
            errors: refusal.errors().cloned().collect(),
        })
    }
}

/// Seconds since the epoch.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}
