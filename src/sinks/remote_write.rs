//! Sends remote write 1.0 or 2.0 to any endpoint that takes it.
//!
//! Delivery: at least once. A batch is tried again after a network error, 5xx and 429 until it
//! reaches `retry.max_age`. What is refused for its content is split until the offenders are alone:
//! they become dead letters, the rest is delivered, and the sender is told. Any other 4xx drops it.
//! A series of one sender never overtakes itself. Limits: the queue's bytes, the number of connections,
//! the time of a request.

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
    /// Configuration of the `remote_write` sink.
    #[derive(Clone, Debug)]
    pub struct RemoteWriteConfig {
        delivery: DeliveryConfig = include,
        /// Header that carries the batch's tenant. Without it, no tenant is sent.
        tenant_header: Option<String> = unset("X-Scope-OrgID"),
    }
}

const FLAVOUR: Flavour = Flavour {
    conflict_is_partial: false,
    sorts_labels: false,
};

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "remote_write",
        summary: "Sends Prometheus remote write 1.0 or 2.0.",
        keys: RemoteWriteConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "remote_write")]
impl SinkConfig for RemoteWriteConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Metrics(self)
    }

    fn files(&self) -> Vec<&Path> {
        self.delivery.files()
    }

    fn validate(&self, problems: &mut Problems) {
        self.delivery
            .validate(self.tenant_header.as_deref(), problems);
    }
}

impl MetricsSink for RemoteWriteConfig {
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

impl BuildSink<Metrics> for RemoteWriteConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Metrics>>, BuildError> {
        self.delivery
            .build(FLAVOUR, self.tenant_header.as_deref(), cx)
    }
}
