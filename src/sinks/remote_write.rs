//! Sends remote write 1.0 or 2.0 to any endpoint of the protocol.
//!
//! Delivery: at least once. A batch that is refused for its content (400, 409, 413, 422) is split
//! until the offending series are alone: they become dead letters, the rest is delivered, and the
//! sender is informed. After any other failure the batch is kept and sent again until it reaches
//! `retry.max_age`. The samples of a series stay in their sender's order. Limits: the bytes of the
//! queue, the number of connections, the time of a request.

use metrifold_base::keys;
use metrifold_delivery::{DeliveryConfig, Flavour, delivery_sink};

keys! {
    /// Configuration of the `remote_write` sink.
    #[derive(Clone, Debug)]
    pub struct RemoteWriteConfig {
        delivery: DeliveryConfig = include,
        /// Name of the header that carries the tenant of a batch. Unset, no tenant is sent.
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
