//! Elections that the process keeps for itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_model::Tenant;

use crate::elections::{Elected, Elections, Vote};

/// How often it is looked which clusters have gone.
const TIDY: Duration = Duration::from_secs(60);

/// How elections are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For how long an elected replica may be silent before another one takes its place.
    pub failover: Duration,
    /// For how long a cluster may be silent before it is forgotten.
    pub forget: Duration,
    /// The most clusters of a tenant.
    pub clusters: usize,
    /// The most clusters of all tenants together.
    pub total: usize,
}

/// Elections by these bounds. A successor goes on with the state.
#[derive(Debug)]
pub struct Local {
    bounds: Bounds,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tenants: HashMap<Tenant, HashMap<Arc<str>, Seat>>,
    /// The clusters of all tenants together.
    clusters: usize,
    tidied: Option<Instant>,
}

/// The elected replica of a cluster.
#[derive(Debug)]
struct Seat {
    replica: Arc<str>,
    /// When something of it last arrived.
    heard: Instant,
    /// When something of any replica of the cluster last arrived.
    alive: Instant,
    failovers: u64,
}

/// Elections of this process, by name: a successor goes on with those that had it before.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<Arc<str>, Weak<Mutex<State>>>>);

impl Registry {
    /// Elections under this name.
    pub fn make(&self, name: &Arc<str>, bounds: Bounds) -> Local {
        let mut names = locked(&self.0);
        names.retain(|_, state| state.strong_count() > 0);
        let known = names.get(name).and_then(Weak::upgrade);
        let state = known.unwrap_or_default();
        names.insert(Arc::clone(name), Arc::downgrade(&state));
        Local { bounds, state }
    }

    /// The elected replicas of a tenant, by the names of elections.
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
    /// Elections that nobody else goes on with.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: Arc::default(),
        }
    }

    /// How many clusters are known.
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
        // A known cluster never waits for this.
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

    /// Forgets clusters of which nothing has come for so long.
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
