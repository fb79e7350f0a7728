//! From a validated configuration to running components, and down again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use crate::component::{BuildContext, BuildError, Kind, Sink, Source, Transform};
use crate::config::{Config, OutputRef};
use crate::http::Listeners;
use crate::telemetry::{ComponentMetrics, State, Telemetry};

use super::edge::{Edge, Input};
use super::stage::{Node, Output, Stage, Target};
use super::supervise::{self, Rebuild, Run, Supervised};
use super::{Shutdown, ShutdownTrigger};

/// A topology of which everything is built and nothing runs. Dropping it undoes the build.
pub struct Built {
    config: Arc<Config>,
    telemetry: Telemetry,
    listeners: Listeners,
    sources: BTreeMap<Arc<str>, (Box<dyn Source>, Output)>,
    sinks: BTreeMap<Arc<str>, BuiltSink>,
}

/// A sink and the edge that leads to it.
type BuiltSink = (Box<dyn Sink>, Arc<Edge>);

/// A topology that runs.
pub struct Running {
    config: Arc<Config>,
    telemetry: Telemetry,
    listeners: Listeners,
    stop_sources: ShutdownTrigger,
    stop_sinks: ShutdownTrigger,
    sources: BTreeMap<Arc<str>, JoinHandle<()>>,
    sinks: BTreeMap<Arc<str>, (JoinHandle<()>, Arc<Edge>)>,
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
    ) -> Result<Self, Vec<(Arc<str>, BuildError)>> {
        let mut errors = Vec::new();
        let context = |id: &Arc<str>, kind: Kind, type_name: &str| BuildContext {
            id: id.clone(),
            listeners: listeners.clone(),
            metrics: telemetry.component(id, kind, type_name),
            telemetry: telemetry.clone(),
        };

        let mut edges: HashMap<Arc<str>, Arc<Edge>> = HashMap::new();
        let mut sinks = BTreeMap::new();
        for (id, node) in &config.sinks {
            let cx = context(id, Kind::Sink, &node.type_name);
            let built = node
                .config
                .before(&cx)
                .and_then(|before| Ok((before, node.config.build(&cx)?)));
            match built {
                Ok((before, sink)) => {
                    let edge = Edge::new(id.clone(), &*node.config, before, cx.metrics);
                    edges.insert(id.clone(), edge.clone());
                    sinks.insert(id.clone(), (sink, edge));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        let mut transforms = HashMap::new();
        for (id, node) in &config.transforms {
            let cx = context(id, Kind::Transform, &node.type_name);
            match node.config.build(&cx) {
                Ok(transform) => {
                    cx.metrics.set_state(State::Running);
                    transforms.insert(id.clone(), (transform, cx.metrics));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        let mut sources = BTreeMap::new();
        for (id, node) in &config.sources {
            let cx = context(id, Kind::Source, &node.type_name);
            match node.config.build(&cx) {
                Ok(source) => {
                    sources.insert(id.clone(), (source, cx.metrics));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        if !errors.is_empty() {
            return Err(errors);
        }
        let planner = Planner {
            config: &config,
            transforms: &transforms,
            edges: &edges,
        };
        let sources = sources
            .into_iter()
            .map(|(id, (source, metrics))| {
                let stage = Arc::new(ArcSwap::from_pointee(planner.stage(&id)));
                (id, (source, Output { stage, metrics }))
            })
            .collect();
        Ok(Self {
            config,
            telemetry,
            listeners,
            sources,
            sinks,
        })
    }

    /// Starts everything, sinks first. Cannot fail.
    pub fn start(self) -> Running {
        let (stop_sources, sources_stop) = ShutdownTrigger::new();
        let (stop_sinks, sinks_stop) = ShutdownTrigger::new();
        let mut sinks = BTreeMap::new();
        for (id, (sink, edge)) in self.sinks {
            let run = |sink: Box<dyn Sink>, edge: &Arc<Edge>, stop: &Shutdown| -> Run {
                let (input, stop) = (Input(edge.clone()), stop.clone());
                Box::new(move || sink.run(input, stop))
            };
            let rebuild: Rebuild = {
                let (config, id) = (self.config.clone(), id.clone());
                let (edge, stop) = (edge.clone(), sinks_stop.clone());
                let cx = BuildContext {
                    id: id.clone(),
                    listeners: self.listeners.clone(),
                    metrics: edge.metrics.clone(),
                    telemetry: self.telemetry.clone(),
                };
                Box::new(move || {
                    let sink = config.sinks[&id].config.build(&cx)?;
                    Ok(run(sink, &edge, &stop))
                })
            };
            let task = supervise::spawn(Supervised {
                id: id.clone(),
                kind: Kind::Sink,
                metrics: edge.metrics.clone(),
                first: Some(run(sink, &edge, &sinks_stop)),
                rebuild,
                shutdown: sinks_stop.clone(),
            });
            sinks.insert(id, (task, edge));
        }
        let mut sources = BTreeMap::new();
        for (id, (source, output)) in self.sources {
            let run = |source: Box<dyn Source>, output: &Output, stop: &Shutdown| -> Run {
                let (output, stop) = (output.clone(), stop.clone());
                Box::new(move || source.run(output, stop))
            };
            let rebuild: Rebuild = {
                let (config, id) = (self.config.clone(), id.clone());
                let (output, stop) = (output.clone(), sources_stop.clone());
                let cx = BuildContext {
                    id: id.clone(),
                    listeners: self.listeners.clone(),
                    metrics: output.metrics.clone(),
                    telemetry: self.telemetry.clone(),
                };
                Box::new(move || {
                    let source = config.sources[&id].config.build(&cx)?;
                    Ok(run(source, &output, &stop))
                })
            };
            let task = supervise::spawn(Supervised {
                id: id.clone(),
                kind: Kind::Source,
                metrics: output.metrics.clone(),
                first: Some(run(source, &output, &sources_stop)),
                rebuild,
                shutdown: sources_stop.clone(),
            });
            sources.insert(id, task);
        }
        self.listeners.start();
        Running {
            config: self.config,
            telemetry: self.telemetry,
            listeners: self.listeners,
            stop_sources,
            stop_sinks,
            sources,
            sinks,
        }
    }
}

impl Running {
    /// What runs.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Its meters.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Stops sources, lets the sinks drain, and gives up what is left after `limit`.
    pub async fn stop(self, limit: Duration) -> Vec<Leftover> {
        let deadline = Instant::now() + limit;
        self.stop_sources.fire();
        // Requests under way wait for their acknowledgement, so sinks go on meanwhile.
        for (id, task) in self.sources {
            let abort = task.abort_handle();
            if timeout_at(deadline, task).await.is_err() {
                warn!(source = %id, "source did not stop in time");
                abort.abort();
            }
        }
        for (_, edge) in self.sinks.values() {
            edge.close();
        }
        self.stop_sinks.fire();
        let mut left = Vec::new();
        for (id, (task, edge)) in self.sinks {
            let abort = task.abort_handle();
            if timeout_at(deadline, task).await.is_err() {
                abort.abort();
            }
            let (batches, bytes) = edge.abandon();
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
        self.listeners.shutdown(deadline - Instant::now()).await;
        left
    }
}

/// Turns the graph into one stage per source.
struct Planner<'a> {
    config: &'a Config,
    transforms: &'a HashMap<Arc<str>, (Arc<dyn Transform>, ComponentMetrics)>,
    edges: &'a HashMap<Arc<str>, Arc<Edge>>,
}

impl Planner<'_> {
    fn stage(&self, source: &Arc<str>) -> Stage {
        let mut stage = Stage::default();
        let mut places = HashMap::new();
        stage.entry = self.consumers(source, None, &mut stage, &mut places);
        stage
    }

    /// The targets of an output, planned with all that lies behind them. The graph has no
    /// cycles, which validation has made sure of.
    fn consumers(
        &self,
        component: &Arc<str>,
        output: Option<&str>,
        stage: &mut Stage,
        places: &mut HashMap<Arc<str>, Target>,
    ) -> Vec<Target> {
        let reads = |inputs: &[OutputRef]| {
            inputs
                .iter()
                .any(|input| input.component == *component && input.output.as_deref() == output)
        };
        let mut targets = Vec::new();
        for (id, node) in &self.config.transforms {
            if !reads(&node.inputs) {
                continue;
            }
            if let Some(&known) = places.get(id) {
                targets.push(known);
                continue;
            }
            let (transform, metrics) = &self.transforms[id];
            let index = stage.nodes.len();
            let target = Target::Node(index);
            places.insert(id.clone(), target);
            stage.nodes.push(Node {
                transform: transform.clone(),
                metrics: metrics.clone(),
                outputs: Vec::new(),
            });
            let names = node.config.outputs();
            let outputs = if names.is_empty() {
                vec![self.consumers(id, None, stage, places)]
            } else {
                names
                    .iter()
                    .map(|name| self.consumers(id, Some(name), stage, places))
                    .collect()
            };
            stage.nodes[index].outputs = outputs;
            targets.push(target);
        }
        for (id, node) in &self.config.sinks {
            if !reads(&node.inputs) {
                continue;
            }
            let target = *places.entry(id.clone()).or_insert_with(|| {
                stage.edges.push(self.edges[id].clone());
                Target::Edge(stage.edges.len() - 1)
            });
            targets.push(target);
        }
        targets
    }
}
