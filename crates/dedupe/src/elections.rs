//! What a transform asks of whoever keeps elections: a map in the process, or a store that several
//! processes share.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::time::Instant;

use metrifold_model::Tenant;

/// What is to be done with the series of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// It is the elected one: they are kept.
    Elected,
    /// Another one is elected: they are left out, and count as stored.
    Duplicate,
    /// The tenant has as many clusters as it may have: they are refused.
    TooManyClusters,
}

/// Keeps for every cluster of a tenant which replica is elected.
///
/// It is asked once for each replica in a batch, by whoever sends the batch, and must not wait: a store
/// that several processes share answers out of a snapshot that a task of its own keeps.
pub trait Elections: Debug + Send + Sync {
    /// Whether a replica is listened to that sends something which arrived at `at`. That it sends is
    /// noted: a replica that sends is alive.
    fn vote(&self, tenant: &Tenant, cluster: &str, replica: &str, at: Instant) -> Vote;

    /// The elected replicas of a tenant, by cluster.
    fn elected(&self, tenant: &str) -> Vec<Elected>;
}

/// The elected replica of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elected {
    /// The cluster.
    pub cluster: Arc<str>,
    /// The replica.
    pub replica: Arc<str>,
    /// When something of it last arrived.
    pub heard: Instant,
    /// How often another replica was elected.
    pub failovers: u64,
}
