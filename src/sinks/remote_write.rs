//! Sends remote write 1.0 or 2.0 to any endpoint that takes it.
//!
//! Delivery: at least once. What is refused for its content (400, 409, 413, 422) is split until the
//! offenders are alone: they become dead letters, the rest is delivered, and the sender is told. All
//! else is the endpoint's trouble: the batch is kept and tried again until it reaches
//! `retry.max_age`. A series of one sender never overtakes itself. Limits: the queue's bytes, the
//! number of connections, the time of a request.

use metrifold_base::keys;
use metrifold_delivery::{DeliveryConfig, Flavour, delivery_sink};

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

delivery_sink! {
    RemoteWriteConfig = "remote_write": FLAVOUR,
    |config| config.tenant_header.as_deref(),
    "Sends Prometheus remote write 1.0 or 2.0."
}
