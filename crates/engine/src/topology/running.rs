//! The running graph: starts what was built, changes to another configuration, and stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use metrifold_base::{BuildError, Shutdown, ShutdownTrigger};
use metrifold_http::Listeners;
use metrifold_model::Kind;
use metrifold_telemetry::{ComponentMetrics, State, Telemetry};

use crate::component::{SinkConfig, SourceConfig};
use crate::config::Config;
use crate::dead_letters::Stores;
use crate::memory::Budget;
use crate::planes::metrics::{Edge, Ending, Input, Output, Sink, Source};

use super::Changes;
use super::build::{Next, Present, Workshop};
use super::drain::Retired;
use super::plan::Transformer;
use super::supervise::{self, Rebuild, Run, Supervised, Task};

/// A topology of which everything is built and nothing runs. Dropping it undoes the build.
pub struct Built {
    workshop: Workshop,
    next: Next,
}

/// A topology that runs.
pub struct Running {
    workshop: Workshop,
    config: Arc<Config>,
    sources: BTreeMap<Arc<str>, RunningSource>,
    transforms: BTreeMap<Arc<str>, Transformer>,
    sinks: BTreeMap<Arc<str>, RunningSink>,
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

struct RunningSource {
    task: Task<()>,
    stop: ShutdownTrigger,
    output: Output,
}

struct RunningSink {
    task: Task<()>,
    stop: ShutdownTrigger,
    edge: Arc<Edge>,
}

impl RunningSource {
    /// Tells it to stop. Its stage stays only as long as it has requests under way.
    fn retire(self, id: Arc<str>) -> (Arc<str>, Task<()>) {
        self.stop.fire();
        (id, self.task)
    }
}

/// What a sink had not delivered when its time was up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The sink's name.
    pub sink: Arc<str>,
    /// Batches that waited; those being sent are not among them.
    pub batches: usize,
    /// The bytes of all, those being sent included.
    pub bytes: usize,
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
    ) -> Result<Self, Vec<(Arc<str>, BuildError)>> {
        let workshop = Workshop {
            memory: Budget::new(&telemetry),
            telemetry,
            listeners,
            dead_letters,
        };
        let next = workshop.build(config, Present::default())?;
        Ok(Self { workshop, next })
    }

    /// Starts everything, sinks first. Cannot fail. Must be called inside of a tokio runtime.
    pub fn start(self) -> Running {
        let mut running = Running {
            workshop: self.workshop,
            config: self.next.config.clone(),
            sources: BTreeMap::new(),
            transforms: BTreeMap::new(),
            sinks: BTreeMap::new(),
            in_use: watch::Sender::new(()),
            draining: JoinSet::new(),
            hurry: ShutdownTrigger::new().0,
            building: Arc::default(),
        };
        running.commit(self.next);
        // It ends with the last who has the account.
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
            transforms: self.transforms.clone(),
            edges: self.edges(),
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

    fn edges(&self) -> BTreeMap<Arc<str>, Arc<Edge>> {
        let edge = |(id, sink): (&Arc<str>, &RunningSink)| (id.clone(), sink.edge.clone());
        self.sinks.iter().map(edge).collect()
    }

    fn show_ledgers(&self, config: &Config) {
        let tenants = config.ledger.tenants.0;
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
        let Next {
            config,
            mut stages,
            sources,
            transforms,
            sinks,
            ..
        } = next;
        self.workshop.memory.set(config.memory);
        for (id, transformer) in &transforms {
            let known = self.transforms.get(id);
            if known.is_none_or(|known| !Arc::ptr_eq(&known.transform, &transformer.transform)) {
                transformer.metrics.reporter().set(State::Running);
            }
        }
        self.transforms = transforms;
        // From here on, batches go where the new configuration says.
        for (id, source) in &self.sources {
            if let Some(stage) = stages.get(id) {
                source.output.stage.store(stage.clone());
            }
        }
        for (id, (sink, edge)) in sinks {
            let config = config.sinks[&id].config.clone();
            let old = self.sinks.remove(&id);
            if let Some(old) = &old {
                // Before it learns that it gets no more deliveries, so that its end is an end.
                old.stop.fire();
            }
            edge.take_over(old.as_ref().map(|old| &*old.edge));
            let started = self.start_sink(&id, sink, edge, config);
            self.sinks.insert(id.clone(), started);
            retired.replaced.extend(old.map(|old| (id, old.task)));
        }
        for (id, (source, metrics)) in sources {
            let config = config.sources[&id].config.clone();
            let old = self.sources.remove(&id);
            let stage = match (&old, stages.remove(&id)) {
                // Requests that the old one has under way go the new way.
                (Some(old), _) => old.output.stage.clone(),
                (None, Some(stage)) => Arc::new(ArcSwap::new(stage)),
                (None, None) => Arc::default(), // every source has one
            };
            // Takes over the paths that others have until now.
            let started = self.start_source(&id, source, Output { stage, metrics }, config);
            self.sources.insert(id.clone(), started);
            retired.sources.extend(old.map(|old| old.retire(id)));
        }
        self.workshop.listeners.start();
        let gone = |id: &Arc<str>| !config.sources.contains_key(id);
        for (id, old) in self.sources.extract_if(.., |id, _| gone(id)) {
            retired.sources.push(old.retire(id));
        }
        let gone = |id: &Arc<str>| !config.sinks.contains_key(id);
        for (id, old) in self.sinks.extract_if(.., |id, _| gone(id)) {
            old.stop.fire();
            retired.removed.push((id, old.task, old.edge));
        }
        self.config = config;
        retired
    }

    fn start_sink(
        &self,
        id: &Arc<str>,
        sink: Box<dyn Sink>,
        edge: Arc<Edge>,
        config: Arc<dyn SinkConfig>,
    ) -> RunningSink {
        let (stop, stopped) = ShutdownTrigger::new();
        let run = |sink: Box<dyn Sink>, edge: &Arc<Edge>, stopped: &Shutdown| -> Run {
            let (input, stopped) = (Input(edge.clone()), stopped.clone());
            Box::new(move || sink.run(input, stopped))
        };
        let cx = self.workshop.context(id, edge.metrics.clone());
        let rebuild: Rebuild = {
            let (edge, stopped) = (edge.clone(), stopped.clone());
            Box::new(move || Ok(run(config.build(&cx)?, &edge, &stopped)))
        };
        let task = supervise::spawn(Supervised {
            id: id.clone(),
            kind: Kind::Sink,
            metrics: edge.metrics.clone(),
            first: Some(run(sink, &edge, &stopped)),
            rebuild,
            shutdown: stopped,
        });
        RunningSink { task, stop, edge }
    }

    fn start_source(
        &self,
        id: &Arc<str>,
        source: Box<dyn Source>,
        output: Output,
        config: Arc<dyn SourceConfig>,
    ) -> RunningSource {
        let (stop, stopped) = ShutdownTrigger::new();
        let run = |source: Box<dyn Source>, output: &Output, stopped: &Shutdown| -> Run {
            let (output, stopped) = (output.clone(), stopped.clone());
            Box::new(move || source.run(output, stopped))
        };
        let cx = self.workshop.context(id, output.metrics.clone());
        let rebuild: Rebuild = {
            let (output, stopped) = (output.clone(), stopped.clone());
            Box::new(move || Ok(run(config.build(&cx)?, &output, &stopped)))
        };
        let task = supervise::spawn(Supervised {
            id: id.clone(),
            kind: Kind::Source,
            metrics: output.metrics.clone(),
            first: Some(run(source, &output, &stopped)),
            rebuild,
            shutdown: stopped,
        });
        RunningSource { task, stop, output }
    }

    /// Stops sources, lets the sinks drain, and gives up what is left after `limit`.
    pub async fn stop(mut self, limit: Duration) -> Vec<Leftover> {
        let deadline = Instant::now() + limit;
        self.reap();
        // Meters stay on their page until everything has ended.
        let _meters: Vec<ComponentMetrics> = self
            .sources
            .values()
            .map(|source| source.output.metrics.clone())
            .collect();
        for source in self.sources.values() {
            source.stop.fire();
        }
        // Requests under way wait for their acknowledgement, so sinks go on meanwhile.
        for (id, mut source) in self.sources {
            if timeout_at(deadline, source.task.ended()).await.is_err() {
                warn!(source = %id, "source did not stop in time");
            }
        }
        // So do requests of sources that a reload has replaced.
        let _ = timeout_at(deadline, self.in_use.closed()).await;
        for sink in self.sinks.values() {
            sink.edge.close(Ending::Shutdown);
            sink.stop.fire();
        }
        let mut left = Vec::new();
        for sink in self.sinks.values() {
            sink.edge.secure(deadline).await;
        }
        for (id, mut sink) in self.sinks {
            let _ = timeout_at(deadline, sink.task.ended()).await;
            drop(sink.task);
            let (batches, bytes) = sink.edge.abandon();
            sink.edge.shut().await;
            if bytes > 0 {
                left.push(Leftover {
                    sink: id,
                    batches,
                    bytes,
                });
            } else {
                info!(sink = %id, "sink has drained");
            }
        }
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
