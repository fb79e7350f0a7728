//! Sends remote write to Thanos Receive.
//!
//! Delivery: as the `remote_write` sink, with the particulars of Receive: the tenant is sent in
//! `THANOS-TENANT`; 409 means that the valid samples of the batch were stored, and is not retried;
//! every batch is decoded so that labels are valid and sorted, since Receive would refuse series
//! otherwise. Limits: those of the `remote_write` sink.
//!
//! Source: <https://thanos.io/tip/components/receive.md/>.

use metrifold_base::keys;
use metrifold_delivery::{DeliveryConfig, Flavour, delivery_sink};

keys! {
    /// Configuration of the `thanos` sink.
    #[derive(Clone, Debug)]
    pub struct ThanosConfig {
        delivery: DeliveryConfig = include,
        /// Name of the header that carries the tenant of a batch. A batch without a tenant is sent without it, and belongs to Receive's default tenant.
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
    "Sends remote write to Thanos Receive, and handles its tenant header and responses."
}
