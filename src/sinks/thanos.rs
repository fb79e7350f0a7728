//! Sends remote write to Thanos Receive.
//!
//! Delivery: as the `remote_write` sink, with Receive's ways: the tenant travels in
//! `THANOS-TENANT`, 409 means that the valid samples of the batch were stored and is not tried
//! again, and every batch is decoded so that labels are valid and sorted, for which Receive would
//! otherwise refuse series. Limits: those of the `remote_write` sink.
//!
//! Source: <https://thanos.io/tip/components/receive.md/>.

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

/// Configuration of the `thanos` sink.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct ThanosConfig(DeliveryConfig);

const FLAVOUR: Flavour = Flavour {
    tenant_header: Some("THANOS-TENANT"),
    conflict_is_partial: true,
    sorts_labels: true,
};

const OWN_KEYS: &[Key] = &[Key::value(
    "tenant_header",
    "\"THANOS-TENANT\"",
    "Header that carries the batch's tenant. Without a tenant no header is sent, and Receive takes its default tenant.",
)];

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "thanos",
        summary: "Sends remote write to Thanos Receive, with its tenant header and its answers.",
        keys: &[KEYS, OWN_KEYS, RETRY_KEYS, DEAD_LETTER_KEYS],
    }
}

#[typetag::deserialize(name = "thanos")]
impl SinkConfig for ThanosConfig {
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

impl MetricsSink for ThanosConfig {
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

impl BuildSink<Metrics> for ThanosConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        self.0.build(FLAVOUR, cx)
    }
}
