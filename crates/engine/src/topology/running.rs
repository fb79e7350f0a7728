//! The running graph: starts built components, switches to another configuration, and stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use metrifold_access::Gate;
use metrifold_base::{BuildError, ShutdownTrigger};
use metrifold_http::Listeners;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_targets::Directory;
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

/// A topology whose components are all built and not started. Dropping it undoes the build.
pub struct Built {
    workshop: Workshop,
    next: Next,
}

/// A running topology.
pub struct Running {
    workshop: Workshop,
    config: Arc<Config>,
    discovery: Discovery,
    metrics: Part<Metrics>,
    queries: Part<Queries>,
    rules: Part<Rules>,
    /// Closes once nobody sends through the present stages.
    in_use: watch::Sender<()>,
    /// Components that earlier reloads have replaced or removed, while they drain.
    draining: JoinSet<Vec<Leftover>>,
    /// Ends that drain at once.
    hurry: ShutdownTrigger,
    /// Held while components are built, even if the reload was cancelled: addresses and paths that
    /// one build has claimed would make the next one fail.
    building: Arc<Mutex<()>>,
}

/// The most reloads whose replaced and removed components drain at the same time. One more ends all
/// of them at once.
const DRAINING_MAX: usize = 100;

/// Limit on writing the content of memory to disk: at the beginning of a stop, and again before the
/// sinks end.
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// Items that a sink has not delivered in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The sink's name.
    pub sink: Arc<str>,
    /// Items left when the time was up, those in flight and those with which the sink died included.
    pub queued: Tally,
    /// Items dropped during the drain, by reason: refused, or answered so that their senders send
    /// them again.
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

    /// Starts all components, sinks first. Cannot fail. Must be called within a tokio runtime.
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
        // The task ends with the last handle to the budget.
        tokio::spawn(running.workshop.memory.watch());
        running
    }
}

impl Running {
    /// The running configuration.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// The metrics of the process.
    pub fn telemetry(&self) -> &Telemetry {
        &self.workshop.telemetry
    }

    /// Switches to another configuration, whole or not at all. Components that are the same in both
    /// go on untouched. Replaced and removed ones finish their requests and deliveries in the
    /// background, within `limit`; batches that a replaced sink has not delivered go to its
    /// successor. Dropping the future before it is done leaves everything as it was.
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
        // On a blocking thread: certificates are read and expressions compiled, which would hold up
        // a worker.
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
            warn!("too many reloads in a row: stopping the components that earlier ones replaced");
            self.hurry = ShutdownTrigger::new().0;
        }
        let hurry = self.hurry.listener();
        self.draining
            .spawn(retired.drain(Instant::now() + limit, hurry));
        Ok(changes)
    }

    /// Removes drains that have ended; they have logged the items that they gave up.
    fn reap(&mut self) {
        while self.draining.try_join_next().is_some() {}
    }

    fn show_ledgers(&self, config: &Config) {
        let tenants = config.ledger().tenants.0;
        self.workshop.telemetry.set_ledger_tenants(tenants);
    }

    /// Switches to the built components. Cannot fail.
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
        // First, since rebuilt components look up their providers there.
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

    /// Stops the sources, lets the sinks drain, and gives up after `limit`. Returns the items that
    /// were neither delivered nor stored on disk.
    pub async fn stop(mut self, limit: Duration) -> Vec<Leftover> {
        let deadline = Instant::now() + limit;
        self.reap();
        let dropped = self.metrics.dropped();
        self.workshop.directory.shared().end();
        // Metrics stay on their page until everything has ended.
        let _meters = [
            self.metrics.source_meters(),
            self.queries.source_meters(),
            self.rules.source_meters(),
        ];
        self.metrics.stop_sources();
        self.queries.stop_sources();
        self.rules.stop_sources();
        // First of all, what can be stored is stored, so that it outlives the process.
        self.metrics
            .store_sinks(deadline.min(Instant::now() + STORE_LIMIT))
            .await;
        self.metrics.warn_of_losses(limit);
        // Sinks go on meanwhile: requests in flight wait for their acknowledgement.
        self.metrics.sources_ended(deadline).await;
        self.queries.sources_ended(deadline).await;
        self.rules.sources_ended(deadline).await;
        // Waits for requests to replaced sources as well.
        let _ = timeout_at(deadline, self.in_use.closed()).await;
        self.metrics.close_sinks();
        self.queries.close_sinks();
        self.rules.close_sinks();
        // Gets time even if the sources have used up all of it.
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
