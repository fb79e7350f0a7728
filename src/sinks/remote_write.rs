//! Sends remote write 1.0 or 2.0 to any endpoint that takes it.
//!
//! Delivery: at least once. A batch is tried again after a network error, 5xx and 429 until it
//! reaches `retry.max_age`. What is refused for its content is split until the offenders are alone:
//! they become dead letters, the rest is delivered, and the sender is told. Any other 4xx drops it.
//! A series of one sender never overtakes itself. Limits: the queue's bytes, the number of connections,
//! the time of a request.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use metrifold_base::{BuildError, Key, Problems};
use metrifold_delivery::{DEAD_LETTER_KEYS, DeliveryConfig, Flavour, KEYS, RETRY_KEYS};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, MetricsSink, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Form, Metrics, Transform};
use metrifold_model::Kind;
use metrifold_queue::QueueConfig;

/// Configuration of the `remote_write` sink.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct RemoteWriteConfig(DeliveryConfig);

const FLAVOUR: Flavour = Flavour {
    tenant_header: None,
    conflict_is_partial: false,
    sorts_labels: false,
};

const OWN_KEYS: &[Key] = &[Key::unset(
    "tenant_header",
    "\"X-Scope-OrgID\"",
    "Header that carries the batch's tenant. Without it, no tenant is sent.",
)];

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "remote_write",
        summary: "Sends Prometheus remote write 1.0 or 2.0.",
        keys: &[KEYS, OWN_KEYS, RETRY_KEYS, DEAD_LETTER_KEYS],
    }
}

#[typetag::deserialize(name = "remote_write")]
impl SinkConfig for RemoteWriteConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn files(&self) -> Vec<&Path> {
        self.0.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.0.validate(FLAVOUR, problems);
    }
}

impl MetricsSink for RemoteWriteConfig {
    fn required(&self) -> bool {
        self.0.required
    }

    fn queue(&self) -> QueueConfig {
        self.0.queue
    }

    fn form(&self) -> Form {
        self.0.form()
    }

    fn checks_series(&self) -> bool {
        FLAVOUR.sorts_labels
    }

    fn before(&self, _cx: &BuildContext) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        self.0.before()
    }
}

impl BuildSink<Metrics> for RemoteWriteConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        self.0.build(FLAVOUR, cx)
    }
}
