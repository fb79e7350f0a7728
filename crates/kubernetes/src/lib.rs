//! Watches Kubernetes: endpoints, pods, services, nodes and ingresses as targets; PrometheusRule
//! objects; leases.
//!
//! The watchers are kube's, over this crate's connections (`transport.rs`). `watch.rs` follows one
//! kind of object; `world.rs` keeps the known objects and decides which targets to rebuild;
//! `roles.rs` builds them. Without the feature `client` there are only the configuration keys.
#![warn(unreachable_pub)]
// Tests may do all of this.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

#[cfg(feature = "client")]
mod config;
#[cfg(feature = "client")]
mod connect;
mod keys;
#[cfg(feature = "client")]
mod kind;
#[cfg(feature = "client")]
mod kubeconfig;
#[cfg(feature = "client")]
mod labels;
#[cfg(feature = "client")]
mod lease;
mod lease_keys;
#[cfg(feature = "client")]
mod lookup;
#[cfg(feature = "client")]
mod objects;
#[cfg(feature = "client")]
mod provider;
#[cfg(feature = "client")]
mod roles;
mod rule_keys;
#[cfg(feature = "client")]
mod rule_objects;
#[cfg(feature = "client")]
mod transport;
#[cfg(feature = "client")]
mod watch;
#[cfg(feature = "client")]
mod world;

#[cfg(feature = "client")]
pub use config::KubernetesConfig;
#[cfg(feature = "client")]
pub use connect::Cluster;
pub use keys::ConnectKeys;
#[cfg(feature = "client")]
pub use lease::{Leadership, Lease, LeaseOptions};
pub use lease_keys::LeaseKeys;
pub use rule_keys::{RuleObjectKeys, TenantFrom};
#[cfg(feature = "client")]
pub use rule_objects::{RuleObject, RuleObjects};
