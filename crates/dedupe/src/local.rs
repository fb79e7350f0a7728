//! Elections in the memory of the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_model::Tenant;

use crate::elections::{Elected, Elections, Vote};

/// Interval at which silent clusters are removed.
const TIDY: Duration = Duration::from_secs(60);

/// Timeouts and bounds of elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Time that an elected replica may be silent before another one is elected.
    pub failover: Duration,
    /// Time that a cluster may be silent before it is removed.
    pub forget: Duration,
    /// Most clusters per tenant.
    pub clusters: usize,
    /// Most clusters of all tenants together.
    pub total: usize,
}

/// Elections within these bounds. A successor after a reload shares the state.
#[derive(Debug)]
pub struct Local {
    bounds: Bounds,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Tenant, HashMap<Arc<str>, Seat>>,
    /// Number of clusters of all tenants together.
    clusters: usize,
    tidied: Option<Instant>,
}

/// The elected replica of a cluster.
#[derive(Debug)]
struct Seat {
    replica: Arc<str>,
    /// Arrival of the last batch of the elected replica.
    heard: Instant,
    /// Arrival of the last batch of any replica of the cluster.
    alive: Instant,
    failovers: u64,
}

/// Elections of the process by name, for reloads: a successor continues with the state of its
/// predecessor.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<Arc<str>, Weak<Mutex<State>>>>);

impl Registry {
    /// Elections under `name`, with the state of the live ones under that name, if any.
    pub fn make(&self, name: &Arc<str>, bounds: Bounds) -> Local {
        let mut names = locked(&self.0);
        names.retain(|_, state| state.strong_count() > 0);
        let known = names.get(name).and_then(Weak::upgrade);
        let state = known.unwrap_or_default();
        names.insert(Arc::clone(name), Arc::downgrade(&state));
        Local { bounds, state }
    }

    /// The elected replicas of a tenant, grouped by the name of the elections.
    pub fn show(&self, tenant: &str, now: Instant) -> serde_json::Map<String, serde_json::Value> {
        let names = locked(&self.0);
        let all = names.iter().filter_map(|(name, state)| {
            let state = state.upgrade()?;
            let elected = locked(&state).elected(tenant);
            let shown = elected.into_iter().map(|it| {
                let silent = now.saturating_duration_since(it.heard).as_secs();
                serde_json::json!({
                    "cluster": *it.cluster,
                    "replica": *it.replica,
                    "heard_seconds_ago": silent,
                    "failovers": it.failovers,
                })
            });
            let shown: Vec<_> = shown.collect();
            (!shown.is_empty()).then(|| (name.to_string(), shown.into()))
        });
        all.collect()
    }
}

impl Local {
    /// Elections without a name, whose state has no successor.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: Arc::default(),
        }
    }

    /// Number of known clusters.
    pub fn clusters(&self) -> usize {
        locked(&self.state).clusters
    }
}

impl Elections for Local {
    fn vote(&self, tenant: &Tenant, cluster: &str, replica: &str, at: Instant) -> Vote {
        let mut state = locked(&self.state);
        let known = state.tenants.get_mut(tenant);
        if let Some(seat) = known.and_then(|clusters| clusters.get_mut(cluster)) {
            return seat.vote(replica, at, self.bounds.failover);
        }
        // A vote in a known cluster does not pay for this.
        state.tidy(at, self.bounds.forget);
        let own = state.tenants.get(tenant).map_or(0, HashMap::len);
        if own >= self.bounds.clusters || state.clusters >= self.bounds.total {
            return Vote::TooManyClusters;
        }
        let seat = Seat {
            replica: replica.into(),
            heard: at,
            alive: at,
            failovers: 0,
        };
        let clusters = state.tenants.entry(Arc::clone(tenant)).or_default();
        clusters.insert(cluster.into(), seat);
        state.clusters += 1;
        Vote::Elected
    }

    fn elected(&self, tenant: &str) -> Vec<Elected> {
        locked(&self.state).elected(tenant)
    }
}

impl Seat {
    fn vote(&mut self, replica: &str, at: Instant, failover: Duration) -> Vote {
        self.alive = self.alive.max(at);
        if *self.replica == *replica {
            self.heard = self.heard.max(at);
            return Vote::Elected;
        }
        if at.saturating_duration_since(self.heard) <= failover {
            return Vote::Duplicate;
        }
        self.replica = replica.into();
        self.heard = at;
        self.failovers += 1;
        Vote::Elected
    }
}

impl State {
    fn elected(&self, tenant: &str) -> Vec<Elected> {
        let clusters = self.tenants.get(tenant).into_iter().flatten();
        let elected = clusters.map(|(cluster, seat)| Elected {
            cluster: Arc::clone(cluster),
            replica: Arc::clone(&seat.replica),
            heard: seat.heard,
            failovers: seat.failovers,
        });
        let mut elected: Vec<_> = elected.collect();
        elected.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        elected
    }

    /// Removes clusters that have been silent for `forget`.
    fn tidy(&mut self, at: Instant, forget: Duration) {
        let due = |tidied: Instant| at.saturating_duration_since(tidied) >= TIDY;
        if !self.tidied.is_none_or(due) {
            return;
        }
        self.tidied = Some(at);
        let mut left = 0;
        self.tenants.retain(|_, clusters| {
            clusters.retain(|_, seat| at.saturating_duration_since(seat.alive) <= forget);
            left += clusters.len();
            !clusters.is_empty()
        });
        self.clusters = left;
    }
}

#[cfg(test)]
mod tests;
