//! The interface to elections, which a map in the process or a store shared by several processes
//! implements.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::time::Instant;

use metrifold_model::Tenant;

/// What to do with the series of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// The replica is elected: keep its series.
    Elected,
    /// Another replica is elected: leave the series out and count them as stored.
    Duplicate,
    /// The tenant has reached its bound of clusters: refuse the series.
    TooManyClusters,
}

/// Holds the elected replica of every cluster of a tenant.
///
/// `vote` is called once per replica in a batch, by the task that sends the batch, and must not
/// block: a store shared by several processes answers from a snapshot that a task of its own
/// maintains.
pub trait Elections: Debug + Send + Sync {
    /// Decides about the series of a replica in a batch that arrived at `at`, and records that the
    /// replica is alive.
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
    /// Arrival of the last batch with its series.
    pub heard: Instant,
    /// Number of times that another replica was elected.
    pub failovers: u64,
}
