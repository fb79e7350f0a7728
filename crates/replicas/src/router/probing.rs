//! Probes all replicas at an interval, concurrently.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use metrifold_base::locked;

use crate::replica::Replica;
use crate::signals::Signals;
use crate::time::epoch_ms;

use super::Router;

/// Longest pause before a contradicting probe is repeated.
const DOUBT: Duration = Duration::from_secs(1);

type Found = (Arc<str>, Result<Option<Signals>, String>, Duration);

impl Router {
    /// Probes the replicas until the future is dropped.
    pub async fn probe(&self) {
        let interval = self.keys.probe.interval.0;
        if interval.is_zero() {
            return std::future::pending().await;
        }
        let mut probes: JoinSet<Found> = JoinSet::new();
        let mut under_way: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut round = Instant::now();
        // Time of the next probe of replicas in doubt, if before the next round.
        let mut doubt: Option<Instant> = None;
        loop {
            let due = doubt.map_or(round, |doubt| doubt.min(round));
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.replaced.notified() => round = Instant::now(),
                Some(found) = probes.join_next(), if !probes.is_empty() => {
                    // A probe does not panic; if one did, its replica is probed in the next round.
                    match found {
                        Ok(found) => {
                            under_way.remove(&found.0);
                            self.found(found);
                        }
                        Err(_) if probes.is_empty() => under_way.clear(),
                        Err(_) => {}
                    }
                    if doubt.is_none() && locked(&self.fleet).in_doubt().next().is_some() {
                        doubt = Some(Instant::now() + DOUBT.min(interval));
                    }
                    continue;
                }
            }
            let now = Instant::now();
            let all = now >= round;
            let replicas: Vec<Arc<Replica>> = match all {
                true => locked(&self.fleet).replicas().cloned().collect(),
                false => locked(&self.fleet).in_doubt().cloned().collect(),
            };
            if all {
                round = now + interval;
            }
            doubt = None;
            for replica in replicas {
                // A replica with a probe in flight is skipped.
                if !under_way.insert(replica.name.clone()) {
                    continue;
                }
                let plan = self.plan.clone();
                probes.spawn(async move {
                    let started = Instant::now();
                    let result = plan.probe(&replica).await;
                    (replica.name.clone(), result, started.elapsed())
                });
            }
        }
    }

    fn found(&self, (name, result, took): Found) {
        self.look(|fleet, now| fleet.probed(&name, result, took, epoch_ms(), now));
    }
}
