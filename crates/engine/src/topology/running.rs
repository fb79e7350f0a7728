//! The running graph: starts what was built, changes to another configuration, and stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use metrifold_access::Gate;
use metrifold_base::{BuildError, ShutdownTrigger};
use metrifold_discovery::Directory;
use metrifold_http::Listeners;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_telemetry::Telemetry;

use crate::config::Config;
use crate::dead_letters::Stores;
use crate::memory::Budget;
use crate::planes::metrics::Metrics;
use crate::planes::queries::Queries;
use crate::planes::rules::{Reports, Rules};

use super::Changes;
use super::build::{Next, Present, Workshop};
use super::discovery::Discovery;
use super::drain::Retired;
use super::part::{Dropped, Part};

/// A topology of which everything is built and nothing runs. Dropping it undoes the build.
pub struct Built {
    workshop: Workshop,
    next: Next,
}

/// A topology that runs.
pub struct Running {
    workshop: Workshop,
    config: Arc<Config>,
    discovery: Discovery,
    metrics: Part<Metrics>,
    queries: Part<Queries>,
    rules: Part<Rules>,
    /// Nobody sends through the present stages once it is closed.
    in_use: watch::Sender<()>,
    /// What earlier reloads have replaced or removed.
    draining: JoinSet<Vec<Leftover>>,
    /// Ends that at once.
    hurry: ShutdownTrigger,
    /// Held while components are built, even if nobody waits for that any more: what one build has
    /// claimed is in the way of the next.
    building: Arc<Mutex<()>>,
}

/// The most reloads whose replaced and removed components drain at the same time. With one more,
/// they have to end at once.
const DRAINING_MAX: usize = 100;

/// How long storing what memory has may take, before anything else is waited for and after that.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// What a sink has not delivered in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The sink's name.
    pub sink: Arc<str>,
    /// What was left when its time was up, what was being sent included.
    pub queued: Tally,
    /// What was dropped while it drained, by reason: refused, or its senders were told to send it
    /// again.
    pub dropped: BTreeMap<Reason, Tally>,
}

impl Built {
    /// Builds all components. Reports every one that cannot be built.
    ///
    /// # Errors
    ///
    /// Fails when one or more components cannot be built; what was built is undone.
    pub fn build(
        config: Arc<Config>,
        telemetry: Telemetry,
        listeners: Listeners,
        dead_letters: Stores,
        directory: Directory,
        access: Gate,
    ) -> Result<Self, Vec<(Arc<str>, BuildError)>> {
        let workshop = Workshop {
            memory: Budget::new(&telemetry),
            telemetry,
            listeners,
            dead_letters,
            directory,
            reports: Reports::default(),
            access,
        };
        let next = workshop.build(config, Present::default())?;
        Ok(Self { workshop, next })
    }

    /// Starts everything, sinks first. Cannot fail. Must be called inside of a tokio runtime.
    pub fn start(self) -> Running {
        let mut running = Running {
            workshop: self.workshop,
            config: self.next.config.clone(),
            discovery: Discovery::default(),
            metrics: Part::default(),
            queries: Part::default(),
            rules: Part::default(),
            in_use: watch::Sender::new(()),
            draining: JoinSet::new(),
            hurry: ShutdownTrigger::new().0,
            building: Arc::default(),
        };
        running.commit(self.next);
        // The watch ends with the last handle to the budget.
        tokio::spawn(running.workshop.memory.watch());
        running
    }
}

impl Running {
    /// What runs.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Its meters.
    pub fn telemetry(&self) -> &Telemetry {
        &self.workshop.telemetry
    }

    /// Changes to another configuration, whole or not at all. What is the same in both goes on
    /// untouched. What is replaced or removed finishes what it has under way, in the background
    /// and within `limit`; what a replaced sink has not delivered goes to its successor. Dropping
    /// the future before it is done leaves everything as it was.
    ///
    /// # Errors
    ///
    /// Fails when one or more components cannot be built; everything then goes on as before.
    pub async fn reload(
        &mut self,
        config: Arc<Config>,
        limit: Duration,
    ) -> Result<Changes, Vec<(Arc<str>, BuildError)>> {
        self.reap();
        let present = Present {
            config: Some(self.config.clone()),
            discovery: self.discovery.present(),
            metrics: self.metrics.present(),
            queries: self.queries.present(),
            rules: self.rules.present(),
        };
        // Certificates are read and expressions compiled, which would hold up a worker.
        let workshop = self.workshop.clone();
        let building = self.building.clone().lock_owned().await;
        let build = move || (workshop.build(config, present), building);
        let (next, _building) = tokio::task::spawn_blocking(build).await.map_err(|error| {
            let error = BuildError::new("reload", format!("the build was cut short: {error}"));
            vec![("reload".into(), error)]
        })?;
        let next = next?;
        let changes = next.changes.clone();
        if changes.is_empty() {
            self.show_ledgers(&next.config);
            // Files that are named in other files may have changed.
            self.workshop.access.set(next.access);
            self.config = next.config;
            return Ok(changes);
        }
        let retired = self.commit(next);
        if self.draining.len() >= DRAINING_MAX {
            warn!("too many reloads in a row: what earlier ones have replaced ends now");
            self.hurry = ShutdownTrigger::new().0;
        }
        let hurry = self.hurry.listener();
        self.draining
            .spawn(retired.drain(Instant::now() + limit, hurry));
        Ok(changes)
    }

    /// Forgets what has ended in the background; what it had to give up has been logged.
    fn reap(&mut self) {
        while self.draining.try_join_next().is_some() {}
    }

    fn show_ledgers(&self, config: &Config) {
        let tenants = config.ledger().tenants.0;
        self.workshop.telemetry.set_ledger_tenants(tenants);
    }

    /// Puts what was built in the place of what runs. Cannot fail.
    fn commit(&mut self, next: Next) -> Retired {
        self.show_ledgers(&next.config);
        let mut retired = Retired {
            sources: Vec::new(),
            replaced: Vec::new(),
            removed: Vec::new(),
            later: next.in_use.subscribe(),
            in_use: std::mem::replace(&mut self.in_use, next.in_use),
        };
        let Next { config, .. } = next;
        self.workshop.memory.set(config.memory);
        let workshop = &self.workshop;
        workshop.access.set(next.access);
        // First, since a component that is built anew finds its provider there.
        self.discovery.commit(next.discovery, &config, workshop);
        self.metrics
            .commit(next.metrics, &config, workshop, &mut retired);
        self.queries
            .commit(next.queries, &config, workshop, &mut retired);
        self.rules
            .commit(next.rules, &config, workshop, &mut retired);
        workshop.listeners.start();
        self.metrics.retire(&config, &mut retired);
        self.queries.retire(&config, &mut retired);
        self.rules.retire(&config, &mut retired);
        self.config = config;
        retired
    }

    /// Stops sources, lets the sinks drain, and gives up what is left after `limit`. Returns what of
    /// all that was not delivered and is not on disk.
    pub async fn stop(mut self, limit: Duration) -> Vec<Leftover> {
        let deadline = Instant::now() + limit;
        self.reap();
        let dropped = self.metrics.dropped();
        self.workshop.directory.shared().end();
        // Meters stay on their page until everything has ended.
        let _meters = [
            self.metrics.source_meters(),
            self.queries.source_meters(),
            self.rules.source_meters(),
        ];
        self.metrics.stop_sources();
        self.queries.stop_sources();
        self.rules.stop_sources();
        // Before anything is waited for: what can outlive the process is put where it does.
        self.metrics
            .store_sinks(deadline.min(Instant::now() + STORE_LIMIT))
            .await;
        self.metrics.warn_of_losses(limit);
        // Requests under way wait for their acknowledgement, so sinks go on meanwhile.
        self.metrics.sources_ended(deadline).await;
        self.queries.sources_ended(deadline).await;
        self.rules.sources_ended(deadline).await;
        // Requests to sources that a reload has replaced count as well.
        let _ = timeout_at(deadline, self.in_use.closed()).await;
        self.metrics.close_sinks();
        self.queries.close_sinks();
        self.rules.close_sinks();
        // Also if sources have taken all the time.
        self.metrics
            .secure_sinks(deadline.max(Instant::now() + STORE_LIMIT))
            .await;
        let mut left = self.metrics.sinks_ended(deadline, &dropped).await;
        left.extend(self.queries.sinks_ended(deadline, &Dropped::new()).await);
        left.extend(self.rules.sinks_ended(deadline, &Dropped::new()).await);
        self.discovery.stop().await;
        loop {
            let drained = match timeout_at(deadline, self.draining.join_next()).await {
                Ok(drained) => drained,
                Err(_) => {
                    self.hurry.fire();
                    self.draining.join_next().await
                }
            };
            let Some(drained) = drained else { break };
            left.extend(drained.unwrap_or_default());
        }
        self.workshop
            .listeners
            .shutdown(deadline - Instant::now())
            .await;
        left
    }
}
