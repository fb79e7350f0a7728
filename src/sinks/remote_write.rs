//! Sends remote write 1.0 or 2.0 to any endpoint that takes it.
//!
//! Delivery: at least once. What is refused for its content (400, 409, 413, 422) is split until the
//! offenders are alone: they become dead letters, the rest is delivered, and the sender is told. All
//! else is the endpoint's trouble: the batch is kept and tried again until it reaches
//! `retry.max_age`. A series of one sender never overtakes itself. Limits: the queue's bytes, the
//! number of connections, the time of a request.

use serde::Deserialize;

use metrifold_base::Key;
use metrifold_delivery::{DeliveryConfig, Flavour, delivery_sink};

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

delivery_sink! {
    RemoteWriteConfig = "remote_write": FLAVOUR, OWN_KEYS,
    "Sends Prometheus remote write 1.0 or 2.0."
}
