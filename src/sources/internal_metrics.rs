//! Metrifold's own metrics, as a batch at an interval.
//!
//! Delivery: nobody waits for an acknowledgement; a batch that cannot be delivered is counted
//! and followed by a newer one. Limits: one batch per interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use metrifold_base::{BoxFuture, BuildError, Key, Period, Problems, RunError, Shutdown};
use metrifold_codec::remote_write::Limits;
use metrifold_codec::{ArenaBuilder, Batch, text};
use metrifold_engine::component::{BuildContext, ComponentInfo, SourceConfig};
use metrifold_engine::planes::metrics::{Needs, Output, Source};
use metrifold_model::{Kind, Origin};
use metrifold_telemetry::{ComponentMetrics, Telemetry};

/// Configuration of the `internal_metrics` source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalMetricsConfig {
    /// How often a batch is made, at least 100ms.
    #[serde(default = "default_interval")]
    interval: Period,
    /// Labels of every series.
    #[serde(default = "default_labels")]
    labels: BTreeMap<String, String>,
}

const fn default_interval() -> Period {
    Period::secs(15)
}

fn default_labels() -> BTreeMap<String, String> {
    let label = |name: &str, value: &str| (name.to_string(), value.to_string());
    [label("job", "metrifold"), label("instance", "localhost")].into()
}

const KEYS: &[Key] = &[
    Key::value(
        "interval",
        "\"15s\"",
        "How often a batch is made, at least 100ms.",
    ),
    Key::value(
        "labels",
        "{ job = \"metrifold\", instance = \"localhost\" }",
        "Labels of every series. A metric's own label of the same name wins.",
    ),
];

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "internal_metrics",
        summary: "Metrifold's own metrics, as a batch at an interval.",
        keys: &[KEYS],
    }
}

#[typetag::deserialize(name = "internal_metrics")]
impl SourceConfig for InternalMetricsConfig {
    fn validate(&self, problems: &mut Problems) {
        if self.interval < Period::millis(100) {
            problems.at("interval", "must be at least 100ms");
        }
        for name in self.labels.keys() {
            if name.is_empty() || name.starts_with("__") {
                problems.at(
                    format!("labels.{name}"),
                    "is not a label name: it must not be empty or start with two underscores",
                );
            }
        }
    }

    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, BuildError> {
        Ok(Box::new(InternalMetrics {
            config: self.clone(),
            origin: Arc::new(Origin::internal(cx.id.clone())),
            telemetry: cx.telemetry.clone(),
            metrics: cx.metrics.clone(),
        }))
    }
}

struct InternalMetrics {
    config: InternalMetricsConfig,
    origin: Arc<Origin>,
    telemetry: Telemetry,
    metrics: ComponentMetrics,
}

impl Source for InternalMetrics {
    fn run(
        self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let mut ticks = interval(self.config.interval.0);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = shutdown.wait() => return Ok(()),
                }
                // Looked into, it tells how many samples it holds.
                if let Err(error) = out.send(self.batch(), Needs::Check).await {
                    self.metrics.error("rejected", &error);
                }
            }
        })
    }
}

impl InternalMetrics {
    fn batch(&self) -> Batch {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = since.map_or(0, |since| since.as_millis() as i64);
        let mut batch = ArenaBuilder::new(Limits::default());
        text::read(
            &self.telemetry.render(),
            now,
            &self.config.labels,
            &mut batch,
        );
        Batch::from_arena(batch.finish(), self.origin.clone())
    }
}
