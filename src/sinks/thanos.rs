//! Sends remote write to Thanos Receive.
//!
//! Delivery: as the `remote_write` sink, with Receive's ways: the tenant travels in
//! `THANOS-TENANT`, 409 means that the valid samples of the batch were stored and is not tried
//! again, and every batch is decoded so that labels are valid and sorted, for which Receive would
//! otherwise refuse series. Limits: those of the `remote_write` sink.
//!
//! Source: <https://thanos.io/tip/components/receive.md/>.

use metrifold_base::keys;
use metrifold_delivery::{DeliveryConfig, Flavour, delivery_sink};

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

delivery_sink! {
    ThanosConfig = "thanos": FLAVOUR,
    |config| Some(&config.tenant_header),
    "Sends remote write to Thanos Receive, with its tenant header and its answers."
}
