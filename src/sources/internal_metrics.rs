//! Metrifold's own metrics, as a batch per interval.
//!
//! Delivery: without acknowledgement; a batch that cannot be delivered is counted, and a newer one
//! follows. Limits: one batch per interval.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Period, Problems, RunError, Shutdown, keys};
use metrifold_codec::remote_write::Limits;
use metrifold_codec::{ArenaBuilder, Batch, text};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::metrics::{Metrics, Needs, Output};
use metrifold_model::{Kind, Origin};
use metrifold_telemetry::{ComponentMetrics, Telemetry};

keys! {
    /// Configuration of the `internal_metrics` source.
    #[derive(Clone, Debug)]
    pub struct InternalMetricsConfig {
        /// How often the metrics are sent as a batch, at least 100ms.
        interval: Period = default("15s"),
        /// Labels to add to all series. A label that a metric already has takes precedence.
        labels: BTreeMap<String, String> = default({ job = "metrifold", instance = "localhost" }),
    }
}

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "internal_metrics",
        summary: "Collects Metrifold's own metrics at an interval.",
        keys: InternalMetricsConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "internal_metrics")]
impl SourceConfig for InternalMetricsConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Metrics(self)
    }

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
}

impl BuildSource<Metrics> for InternalMetricsConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Metrics>>, BuildError> {
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

impl Source<Metrics> for InternalMetrics {
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
                // Checked, so that the number of its samples is known.
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
