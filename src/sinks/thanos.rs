//! Sends remote write to Thanos Receive.
//!
//! Delivery: as the `remote_write` sink, with Receive's ways: the tenant travels in
//! `THANOS-TENANT`, 409 means that the valid samples of the batch were stored and is not tried
//! again, and every batch is decoded so that labels are valid and sorted, for which Receive would
//! otherwise refuse series. Limits: those of the `remote_write` sink.
//!
//! Source: <https://thanos.io/tip/components/receive.md/>.

use serde::Deserialize;

use metrifold_base::Key;
use metrifold_delivery::{DeliveryConfig, Flavour, delivery_sink};

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

delivery_sink! {
    ThanosConfig = "thanos": FLAVOUR, OWN_KEYS,
    "Sends remote write to Thanos Receive, with its tenant header and its answers."
}
