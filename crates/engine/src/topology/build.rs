//! Builds what a configuration has and the running one has not. Starts nothing; dropping what was
//! built undoes it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use metrifold_base::BuildError;
use metrifold_http::Listeners;
use metrifold_model::Kind;
use metrifold_telemetry::{ComponentMetrics, Telemetry};

use crate::component::BuildContext;
use crate::config::{Config, SinkNode};
use crate::dead_letters::Stores;
use crate::memory::Budget;
use crate::planes::metrics::{Edge, Sink, Source, Stage};

use super::Changes;
use super::plan::{Planner, Transformer};

/// Why components cannot be built, by name.
pub(super) type BuildErrors = Vec<(Arc<str>, BuildError)>;

/// A sink and the edge that leads to it.
type BuiltSink = (Box<dyn Sink>, Arc<Edge>);

/// What components share.
#[derive(Clone)]
pub(super) struct Workshop {
    pub(super) telemetry: Telemetry,
    pub(super) listeners: Listeners,
    pub(super) dead_letters: Stores,
    pub(super) memory: Budget,
}

/// What runs, as far as it matters to what is built beside it.
#[derive(Default)]
pub(super) struct Present {
    /// None before the first start.
    pub(super) config: Option<Arc<Config>>,
    pub(super) transforms: BTreeMap<Arc<str>, Transformer>,
    pub(super) edges: BTreeMap<Arc<str>, Arc<Edge>>,
}

/// A configuration of which everything is built that does not run yet.
pub(super) struct Next {
    pub(super) config: Arc<Config>,
    pub(super) changes: Changes,
    /// New and changed ones.
    pub(super) sources: BTreeMap<Arc<str>, (Box<dyn Source>, ComponentMetrics)>,
    /// All of them.
    pub(super) transforms: BTreeMap<Arc<str>, Transformer>,
    /// New and changed ones.
    pub(super) sinks: BTreeMap<Arc<str>, BuiltSink>,
    /// Of all sources.
    pub(super) stages: BTreeMap<Arc<str>, Arc<Stage>>,
    /// Nobody sends through these stages once it is closed.
    pub(super) in_use: watch::Sender<()>,
}

impl Workshop {
    /// What a component with these meters may use to build itself.
    pub(super) fn context(&self, id: &Arc<str>, metrics: ComponentMetrics) -> BuildContext {
        BuildContext {
            id: id.clone(),
            listeners: self.listeners.clone(),
            dead_letters: self.dead_letters.clone(),
            memory: self.memory.clone(),
            metrics,
            telemetry: self.telemetry.clone(),
        }
    }

    fn new_context(&self, id: &Arc<str>, kind: Kind, type_name: &str) -> BuildContext {
        self.context(id, self.telemetry.component(id, kind, type_name))
    }

    /// Builds what is new or changed, and plans how all of it is wired. Reports everything that
    /// cannot be built.
    pub(super) fn build(&self, config: Arc<Config>, present: Present) -> Result<Next, BuildErrors> {
        let changes = match &present.config {
            Some(old) => Changes::between(old, &config),
            None => Changes::default(),
        };
        let old = present.config.as_deref();
        let mut errors = Vec::new();

        let mut edges = present.edges;
        edges.retain(|id, _| config.sinks.contains_key(id));
        for (id, edge) in &edges {
            let folder = folder(&config, id);
            if edge
                .folder()
                .is_some_and(|now| folder.as_deref() != Some(now))
            {
                let reason =
                    "a queue on disk cannot move while it is in use: restart for another data_dir";
                errors.push((id.clone(), BuildError::new("data_dir", reason)));
            }
        }
        let mut sinks = BTreeMap::new();
        for (id, node) in &config.sinks {
            let before = old.and_then(|old| old.sinks.get(id));
            if before.is_some_and(|before| before.same_as(node)) {
                continue;
            }
            let folder = folder(&config, id);
            match guarded(|| self.sink(id, node, edges.get(id), folder.as_deref())) {
                Ok((sink, edge)) => {
                    edges.insert(id.clone(), edge.clone());
                    sinks.insert(id.clone(), (sink, edge));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        let mut transforms = present.transforms;
        transforms.retain(|id, _| config.transforms.contains_key(id));
        for (id, node) in &config.transforms {
            let before = old.and_then(|old| old.transforms.get(id));
            if before.is_some_and(|before| before.same_as(node)) {
                continue;
            }
            let cx = self.new_context(id, Kind::Transform, &node.type_name);
            match guarded(|| node.config.build(&cx)) {
                Ok(transform) => {
                    let metrics = cx.metrics;
                    transforms.insert(id.clone(), Transformer { transform, metrics });
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        let mut sources = BTreeMap::new();
        for (id, node) in &config.sources {
            let before = old.and_then(|old| old.sources.get(id));
            if before.is_some_and(|before| before.same_as(node)) {
                continue;
            }
            let cx = self.new_context(id, Kind::Source, &node.type_name);
            match guarded(|| node.config.build(&cx)) {
                Ok(source) => {
                    sources.insert(id.clone(), (source, cx.metrics));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        if !errors.is_empty() {
            return Err(errors);
        }
        let (in_use, user) = watch::channel(());
        let planner = Planner::new(&config, &transforms, &edges, user);
        let stage = |id: &Arc<str>| {
            let memory = self.memory.clone();
            let stage = planner.stage(id);
            (id.clone(), Arc::new(Stage { memory, ..stage }))
        };
        let stages = config.sources.keys().map(stage).collect();
        Ok(Next {
            config,
            changes,
            sources,
            transforms,
            sinks,
            stages,
            in_use,
        })
    }

    fn sink(
        &self,
        id: &Arc<str>,
        node: &SinkNode,
        predecessor: Option<&Arc<Edge>>,
        folder: Option<&Path>,
    ) -> Result<BuiltSink, BuildError> {
        let cx = self.new_context(id, Kind::Sink, &node.type_name);
        let before = node.config.before(&cx)?;
        let sink = node.config.build(&cx)?;
        let predecessor = predecessor.map(|edge| &**edge);
        let config = &*node.config;
        let edge = Edge::new(id.clone(), config, before, cx.metrics, predecessor, folder)?;
        Ok((sink, edge))
    }
}

/// Where the queue of a sink is if it is on disk.
fn folder(config: &Config, id: &str) -> Option<PathBuf> {
    Some(config.data_dir.as_ref()?.join("queues").join(id))
}

/// Builds a component, whose panic costs nothing but the build.
fn guarded<T>(build: impl FnOnce() -> Result<T, BuildError>) -> Result<T, BuildError> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| {
        let reason = "it panicked while it was built, which is Metrifold's fault";
        Err(BuildError::new("component", reason))
    })
}
