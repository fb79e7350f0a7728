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

use metrifold_base::keys::Keys;
use metrifold_base::{BuildError, Problems, keys};
use metrifold_delivery::{DeliveryConfig, Flavour};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, MetricsSink, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Form, Metrics, Transform};
use metrifold_model::Kind;
use metrifold_queue::QueueConfig;

keys! {
    /// Configuration of the `thanos` sink.
    #[derive(Clone, Debug)]
    pub struct ThanosConfig {
        delivery: DeliveryConfig = include,
        /// Header that carries the batch's tenant. Without a tenant no header is sent, and Receive takes its default tenant.
        tenant_header: String = default("THANOS-TENANT"),
    }
}

const FLAVOUR: Flavour = Flavour {
    conflict_is_partial: true,
    sorts_labels: true,
};

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "thanos",
        summary: "Sends remote write to Thanos Receive, with its tenant header and its answers.",
        keys: ThanosConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "thanos")]
impl SinkConfig for ThanosConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn files(&self) -> Vec<&Path> {
        self.delivery.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.delivery.validate(Some(&self.tenant_header), problems);
    }
}

impl MetricsSink for ThanosConfig {
    fn required(&self) -> bool {
        self.delivery.required
    }

    fn queue(&self) -> QueueConfig {
        self.delivery.queue
    }

    fn form(&self) -> Form {
        self.delivery.form()
    }

    fn checks_series(&self) -> bool {
        FLAVOUR.sorts_labels
    }

    fn before(&self, _cx: &BuildContext) -> Result<Option<Arc<dyn Transform>>, BuildError> {
        self.delivery.before()
    }
}

impl BuildSink<Metrics> for ThanosConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        self.delivery.build(FLAVOUR, Some(&self.tenant_header), cx)
    }
}
