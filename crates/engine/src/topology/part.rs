//! The running components of one plane: started, changed and stopped the same way in each plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use metrifold_base::{BuildError, Shutdown, ShutdownTrigger};
use metrifold_model::Kind;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_telemetry::{ComponentMetrics, State};

use crate::component::{Buildable, InputOf, SinkConfig, SourceConfig};
use crate::config::Config;
use crate::planes::{Drain, Edge, Ending, Plane, Sink, Source};

use super::Leftover;
use super::build::{NextPart, PresentPart, Workshop};
use super::drain::Retired;
use super::plan::Transformer;
use super::supervise::{self, Rebuild, Run, Supervised, Task};

/// Batches and samples that sinks have dropped, by sink and reason.
pub(super) type Dropped = BTreeMap<Arc<str>, BTreeMap<Reason, Tally>>;

/// The running components of a plane.
pub(super) struct Part<P: Plane> {
    sources: BTreeMap<Arc<str>, RunningSource<P>>,
    transforms: BTreeMap<Arc<str>, Transformer<P>>,
    sinks: BTreeMap<Arc<str>, RunningSink<P>>,
}

struct RunningSource<P: Plane> {
    task: Task<()>,
    stop: ShutdownTrigger,
    output: P::Output,
    metrics: ComponentMetrics,
}

struct RunningSink<P: Plane> {
    task: Task<()>,
    stop: ShutdownTrigger,
    edge: Arc<P::Edge>,
}

impl<P: Plane> RunningSource<P> {
    /// Tells the source to stop. Its stage lives on until its last request has ended.
    fn retire(self, id: Arc<str>) -> (Arc<str>, Task<()>) {
        self.stop.fire();
        (id, self.task)
    }
}

impl<P: Plane> Default for Part<P> {
    fn default() -> Self {
        Self {
            sources: BTreeMap::new(),
            transforms: BTreeMap::new(),
            sinks: BTreeMap::new(),
        }
    }
}

impl<P: Buildable> Part<P> {
    /// A snapshot of the running part for the next build.
    pub(super) fn present(&self) -> PresentPart<P> {
        let edge = |(id, sink): (&Arc<str>, &RunningSink<P>)| (id.clone(), sink.edge.clone());
        PresentPart {
            transforms: self.transforms.clone(),
            edges: self.sinks.iter().map(edge).collect(),
        }
    }

    /// Switches to the built components. Cannot fail.
    pub(super) fn commit(
        &mut self,
        next: NextPart<P>,
        config: &Config,
        workshop: &Workshop,
        retired: &mut Retired,
    ) {
        let NextPart {
            sources,
            transforms,
            sinks,
            mut stages,
            reached,
        } = next;
        for (id, transformer) in &transforms {
            let known = self.transforms.get(id);
            if known.is_none_or(|known| !Arc::ptr_eq(&known.transform, &transformer.transform)) {
                transformer.metrics.reporter().set(State::Running);
            }
        }
        self.transforms = transforms;
        // Edges learn their sources before anything is sent the new way, so that a sink knows which
        // sources it still waits for. Sinks that the configuration does not have are left out: told
        // that they have no sources, they would act on it.
        let kept = self.sinks.iter().filter(|(id, _)| !sinks.contains_key(*id));
        let kept = kept.map(|(id, sink)| (id, &sink.edge));
        let built = sinks.iter().map(|(id, (_, edge))| (id, edge));
        for (id, edge) in kept.chain(built) {
            if let Some(sources) = reached.get(id) {
                edge.wired(sources);
            }
        }
        // From here on, the sources that stay send through the new stages.
        for (id, source) in &self.sources {
            if let Some(stage) = stages.get(id) {
                P::redirect(&source.output, stage.clone());
            }
        }
        for (id, (sink, edge)) in sinks {
            let config = config.sinks[&id].config.clone();
            let old = self.sinks.remove(&id);
            if let Some(old) = &old {
                // Set before the input closes, so that the supervisor takes the task's end for
                // intended.
                old.stop.fire();
            }
            edge.take_over(old.as_ref().map(|old| &*old.edge));
            let started = start_sink(workshop, &id, sink, edge, config);
            self.sinks.insert(id.clone(), started);
            retired.replaced.extend(old.map(|old| (id, old.task)));
        }
        for (id, (source, metrics)) in sources {
            let config = config.sources[&id].config.clone();
            let old = self.sources.remove(&id);
            let output = match (&old, stages.remove(&id)) {
                // Requests in flight at the old source send through the new stage.
                (Some(old), _) => P::succeed(&old.output, metrics.clone()),
                (None, Some(stage)) => P::output(&id, stage, metrics.clone()),
                (None, None) => continue, // every source has a stage
            };
            // Takes over the paths that the old source serves until now.
            let started = start_source(workshop, &id, source, output, metrics, config);
            self.sources.insert(id.clone(), started);
            retired.sources.extend(old.map(|old| old.retire(id)));
        }
    }

    /// Retires the components that the configuration does not have.
    pub(super) fn retire(&mut self, config: &Config, retired: &mut Retired) {
        let source = |id: &Arc<str>| config.sources.get(id);
        let gone =
            |id: &Arc<str>| source(id).is_none_or(|it| P::source(it.config.port()).is_none());
        for (id, old) in self.sources.extract_if(.., |id, _| gone(id)) {
            retired.sources.push(old.retire(id));
        }
        let sink = |id: &Arc<str>| config.sinks.get(id);
        let gone = |id: &Arc<str>| sink(id).is_none_or(|it| P::sink(it.config.port()).is_none());
        for (id, old) in self.sinks.extract_if(.., |id, _| gone(id)) {
            old.stop.fire();
            retired.removed.push((id, old.task, old.edge));
        }
    }

    /// Tells all sources to stop.
    pub(super) fn stop_sources(&self) {
        for source in self.sources.values() {
            source.stop.fire();
        }
    }

    /// The metrics of the sources, which stay on the metrics page as long as the handles are held.
    pub(super) fn source_meters(&self) -> Vec<ComponentMetrics> {
        let meters = self.sources.values().map(|source| source.metrics.clone());
        meters.collect()
    }

    /// Waits until all sources have ended, or cuts them off at the deadline.
    pub(super) async fn sources_ended(&mut self, deadline: Instant) {
        for (id, mut source) in std::mem::take(&mut self.sources) {
            if timeout_at(deadline, source.task.ended()).await.is_err() {
                warn!(source = %id, "source did not stop in time");
            }
        }
    }

    /// Tells all sinks to finish the items that they have.
    pub(super) fn close_sinks(&self) {
        for sink in self.sinks.values() {
            // Set before the input closes, so that the supervisor takes the task's end for intended.
            sink.stop.fire();
            sink.edge.close(Ending::Shutdown);
        }
    }

    /// Writes the edges' content to disk, while more may arrive.
    pub(super) async fn store_sinks(&self, deadline: Instant) {
        for sink in self.sinks.values() {
            sink.edge.clone().store(deadline).await;
        }
    }

    /// Writes the edges' content to disk once nothing more arrives.
    pub(super) async fn secure_sinks(&self, deadline: Instant) {
        for sink in self.sinks.values() {
            sink.edge.clone().secure(deadline).await;
        }
    }

    /// Warns of batches that are held in memory alone, for endpoints that fail.
    pub(super) fn warn_of_losses(&self, limit: Duration) {
        for (id, sink) in &self.sinks {
            let Some(failing) = sink.edge.metrics().failing_for() else {
                continue;
            };
            let Tally {
                batches, samples, ..
            } = sink.edge.left();
            if batches > 0 {
                let failing_seconds = failing.as_secs();
                warn!(
                    sink = %id, failing_seconds, batches, samples, ?limit,
                    "endpoint is failing: batches in memory are dropped unless it is back within the limit"
                );
            }
        }
    }

    /// Items that the sinks have dropped so far.
    pub(super) fn dropped(&self) -> Dropped {
        let sinks = self.sinks.iter();
        sinks
            .map(|(id, sink)| (id.clone(), sink.edge.dropped()))
            .collect()
    }

    /// Waits until the sinks have ended, and gives up what they have not delivered by the deadline.
    /// `earlier` holds the drops from before they were told to end.
    pub(super) async fn sinks_ended(
        &mut self,
        deadline: Instant,
        earlier: &Dropped,
    ) -> Vec<Leftover> {
        let mut left = Vec::new();
        for (id, mut sink) in std::mem::take(&mut self.sinks) {
            let _ = timeout_at(deadline, sink.task.ended()).await;
            // Both are read before the task is dropped, which gives up the batches in flight: those
            // are counted as queued. Batches with which the sink died earlier are among the dropped.
            let mut queued = sink.edge.left();
            let mut dropped = sink.edge.dropped();
            drop(sink.task);
            sink.edge.abandon();
            for (reason, tally) in earlier.get(&id).into_iter().flatten() {
                dropped.entry(*reason).and_modify(|now| *now -= *tally);
            }
            // With a sink that dies after its queue was closed, its batches end as if they had been left.
            queued += dropped.remove(&Reason::Shutdown).unwrap_or_default();
            dropped.retain(|_, tally| !tally.is_zero());
            sink.edge.shut().await;
            if queued.batches == 0 {
                info!(sink = %id, "sink has ended: nothing is left in memory");
            }
            if queued.batches > 0 || !dropped.is_empty() {
                left.push(Leftover {
                    sink: id,
                    queued,
                    dropped,
                });
            }
        }
        left
    }
}

fn start_sink<P: Buildable>(
    workshop: &Workshop,
    id: &Arc<str>,
    sink: Box<dyn Sink<P>>,
    edge: Arc<P::Edge>,
    config: Arc<dyn SinkConfig>,
) -> RunningSink<P> {
    let (stop, stopped) = ShutdownTrigger::new();
    let run = |sink: Box<dyn Sink<P>>, edge: &Arc<P::Edge>, stopped: &Shutdown| -> Run {
        let (input, stopped): (InputOf<P>, _) = (edge.input(), stopped.clone());
        Box::new(move || sink.run(input, stopped))
    };
    let metrics = edge.metrics().clone();
    let cx = workshop.context(id, &workshop.directory.providers(), metrics.clone());
    let first = run(sink, &edge, &stopped);
    let rebuild: Rebuild = {
        let (edge, stopped) = (edge.clone(), stopped.clone());
        Box::new(move || {
            let build = P::sink(config.port()).ok_or_else(of_another_plane)?;
            Ok(run(build.build(&cx)?, &edge, &stopped))
        })
    };
    let task = supervise::spawn(Supervised {
        id: id.clone(),
        subject: supervise::component(Kind::Sink, metrics),
        first: Some(first),
        rebuild,
        listeners: workshop.listeners.clone(),
        shutdown: stopped,
    });
    RunningSink { task, stop, edge }
}

fn start_source<P: Buildable>(
    workshop: &Workshop,
    id: &Arc<str>,
    source: Box<dyn Source<P>>,
    output: P::Output,
    metrics: ComponentMetrics,
    config: Arc<dyn SourceConfig>,
) -> RunningSource<P> {
    let (stop, stopped) = ShutdownTrigger::new();
    let run = |source: Box<dyn Source<P>>, output: &P::Output, stopped: &Shutdown| -> Run {
        let (output, stopped) = (output.clone(), stopped.clone());
        Box::new(move || source.run(output, stopped))
    };
    let cx = workshop.context(id, &workshop.directory.providers(), metrics.clone());
    let rebuild: Rebuild = {
        let (output, stopped) = (output.clone(), stopped.clone());
        Box::new(move || {
            let build = P::source(config.port()).ok_or_else(of_another_plane)?;
            Ok(run(build.build(&cx)?, &output, &stopped))
        })
    };
    let task = supervise::spawn(Supervised {
        id: id.clone(),
        subject: supervise::component(Kind::Source, metrics.clone()),
        first: Some(run(source, &output, &stopped)),
        rebuild,
        listeners: workshop.listeners.clone(),
        shutdown: stopped,
    });
    RunningSource {
        task,
        stop,
        output,
        metrics,
    }
}

/// Error for a component whose configuration names another plane at a rebuild than at its first build.
fn of_another_plane() -> BuildError {
    BuildError::new("type", "component belongs to another plane")
}
