//! Builds the components of a configuration that do not run yet. Starts nothing; dropping the result
//! undoes the build.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::watch;

use metrifold_access::{Gate, Tenants};
use metrifold_base::BuildError;
use metrifold_discovery::Handles;
use metrifold_http::Listeners;
use metrifold_model::Kind;
use metrifold_targets::Directory;
use metrifold_telemetry::{ComponentMetrics, Telemetry};

use crate::component::{BuildContext, Buildable, SinkConfig};
use crate::config::{Component, Config, queues};
use crate::dead_letters::Stores;
use crate::memory::Budget;
use crate::planes::metrics::Metrics;
use crate::planes::queries::Queries;
use crate::planes::rules::{Reports, Rules};
use crate::planes::{Plane, Sink, Source, SourceContext};

use super::Changes;
use super::discovery::{NextDiscovery, PresentDiscovery};
use super::plan::{Planner, Transformer};

/// Reasons why components cannot be built, each with the component's name.
pub(super) type BuildErrors = Vec<(Arc<str>, BuildError)>;

/// A built source and its metrics.
pub(super) type BuiltSource<P> = (Box<dyn Source<P>>, ComponentMetrics);

/// A built sink and the edge in front of it.
pub(super) type BuiltSink<P> = (Box<dyn Sink<P>>, Arc<<P as Plane>::Edge>);

/// Services that all components share.
#[derive(Clone)]
pub(super) struct Workshop {
    pub(super) telemetry: Telemetry,
    pub(super) listeners: Listeners,
    pub(super) dead_letters: Stores,
    pub(super) memory: Budget,
    pub(super) directory: Directory,
    pub(super) reports: Reports,
    pub(super) access: Gate,
}

/// The running components that new ones are built beside: they are kept, or are predecessors.
#[derive(Default)]
pub(super) struct Present {
    /// None before the first start.
    pub(super) config: Option<Arc<Config>>,
    pub(super) discovery: PresentDiscovery,
    pub(super) metrics: PresentPart<Metrics>,
    pub(super) queries: PresentPart<Queries>,
    pub(super) rules: PresentPart<Rules>,
}

/// The running transforms and edges of a plane.
pub(super) struct PresentPart<P: Plane> {
    pub(super) transforms: BTreeMap<Arc<str>, Transformer<P>>,
    pub(super) edges: BTreeMap<Arc<str>, Arc<P::Edge>>,
}

impl<P: Plane> Default for PresentPart<P> {
    fn default() -> Self {
        Self {
            transforms: BTreeMap::new(),
            edges: BTreeMap::new(),
        }
    }
}

/// A configuration whose missing components are all built.
pub(super) struct Next {
    pub(super) config: Arc<Config>,
    pub(super) changes: Changes,
    pub(super) discovery: NextDiscovery,
    pub(super) access: Arc<Tenants>,
    pub(super) metrics: NextPart<Metrics>,
    pub(super) queries: NextPart<Queries>,
    pub(super) rules: NextPart<Rules>,
    /// Closes the new stages' `in_use` once nobody sends through them.
    pub(super) in_use: watch::Sender<()>,
}

/// The built components of a plane.
pub(super) struct NextPart<P: Plane> {
    /// New and changed sources.
    pub(super) sources: BTreeMap<Arc<str>, BuiltSource<P>>,
    /// All transforms, kept ones included.
    pub(super) transforms: BTreeMap<Arc<str>, Transformer<P>>,
    /// New and changed sinks.
    pub(super) sinks: BTreeMap<Arc<str>, BuiltSink<P>>,
    /// The stages of all sources.
    pub(super) stages: BTreeMap<Arc<str>, Arc<P::Stage>>,
    /// The sources that lead to each sink.
    pub(super) reached: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

/// The components that are reachable from the plane's sources: these, and the transforms behind them.
fn reached<P: Buildable>(config: &Config) -> BTreeSet<Arc<str>> {
    let sources = config.sources.iter();
    let sources = sources.filter(|(_, node)| P::source(node.config.port()).is_some());
    let mut reached: BTreeSet<Arc<str>> = sources.map(|(id, _)| id.clone()).collect();
    loop {
        let before = reached.len();
        for (id, node) in &config.transforms {
            if node.inputs.iter().any(|it| reached.contains(&it.component)) {
                reached.insert(id.clone());
            }
        }
        if reached.len() == before {
            return reached;
        }
    }
}

/// The built components of a plane, before their wiring is planned.
struct Parts<P: Plane> {
    next: NextPart<P>,
    /// The edges of all sinks, kept ones included.
    edges: BTreeMap<Arc<str>, Arc<P::Edge>>,
}

impl Workshop {
    /// The services with which a component is built; it counts in these metrics.
    pub(super) fn context(
        &self,
        id: &Arc<str>,
        discovery: &Handles,
        metrics: ComponentMetrics,
    ) -> BuildContext {
        BuildContext {
            id: id.clone(),
            discovery: discovery.clone(),
            access: self.access.clone(),
            listeners: self.listeners.clone(),
            dead_letters: self.dead_letters.clone(),
            memory: self.memory.clone(),
            shared: self.directory.shared().clone(),
            reports: self.reports.clone(),
            metrics,
            telemetry: self.telemetry.clone(),
        }
    }

    fn new_context(
        &self,
        id: &Arc<str>,
        kind: Kind,
        type_name: &str,
        discovery: &Handles,
    ) -> BuildContext {
        let metrics = self.telemetry.component(id, kind, type_name);
        self.context(id, discovery, metrics)
    }

    /// Builds new and changed components, and plans the wiring of all. Reports every component that
    /// cannot be built.
    pub(super) fn build(&self, config: Arc<Config>, present: Present) -> Result<Next, BuildErrors> {
        let changes = match &present.config {
            Some(old) => Changes::between(old, &config),
            None => Changes::default(),
        };
        let old = present.config.as_deref();
        let mut errors = Vec::new();
        for (id, edge) in &present.metrics.edges {
            let folder = queues::folder(&config, id);
            if edge
                .folder()
                .is_some_and(|now| folder.as_deref() != Some(now))
                && config.sinks.contains_key(id)
            {
                let reason =
                    "a queue on disk cannot move while it is in use: restart for another data_dir";
                errors.push((id.clone(), BuildError::new("data_dir", reason)));
            }
        }
        let present_tenants = self.access.tenants();
        let access = Tenants::build(&config.access(), Some(&present_tenants));
        let access = access.map_err(|wrong| {
            let named = wrong.into_iter();
            errors.extend(named.map(|(table, error)| (table.into(), error)));
        });
        let discovery = self.discovery(&config, old, present.discovery, &mut errors);
        let providers = &discovery.handles;
        let metrics = self.parts(&config, old, present.metrics, providers, &mut errors);
        let queries = self.parts(&config, old, present.queries, providers, &mut errors);
        let rules = self.parts(&config, old, present.rules, providers, &mut errors);
        let Ok(access) = access.map(Arc::new) else {
            return Err(errors);
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let (in_use, user) = watch::channel(());
        Ok(Next {
            metrics: self.plan(&config, metrics, &user),
            queries: self.plan(&config, queries, &user),
            rules: self.plan(&config, rules, &user),
            config,
            changes,
            discovery,
            access,
            in_use,
        })
    }

    /// Builds the new and changed components of a plane.
    fn parts<P: Buildable>(
        &self,
        config: &Config,
        old: Option<&Config>,
        present: PresentPart<P>,
        discovery: &Handles,
        errors: &mut BuildErrors,
    ) -> Parts<P> {
        let PresentPart {
            mut transforms,
            mut edges,
        } = present;
        edges.retain(|id, _| config.sinks.contains_key(id));
        let mut sinks = BTreeMap::new();
        for (id, node) in &config.sinks {
            let Some(build) = P::sink(node.config.port()) else {
                edges.remove(id);
                continue;
            };
            let before = old.and_then(|old| old.sinks.get(id));
            if before.is_some_and(|before| before.same_as(node)) {
                continue;
            }
            let cx = self.new_context(id, Kind::Sink, &node.type_name, discovery);
            let predecessor = edges.get(id).map(|edge| &**edge);
            let built = guarded(|| {
                let sink = build.build(&cx)?;
                Ok((sink, self.edge::<P>(config, node, &cx, predecessor)?))
            });
            match built {
                Ok((sink, edge)) => {
                    edges.insert(id.clone(), edge.clone());
                    sinks.insert(id.clone(), (sink, edge));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        // A transform that no source of the plane reaches transforms nothing here, and need not
        // support the plane.
        let reached = reached::<P>(config);
        transforms.retain(|id, _| reached.contains(id) && config.transforms.contains_key(id));
        let reached = |(id, _): &(&Arc<str>, _)| reached.contains(*id);
        for (id, node) in config.transforms.iter().filter(reached) {
            let Some(build) = P::transform(node.config.ports()) else {
                transforms.remove(id);
                continue;
            };
            let before = old.and_then(|old| old.transforms.get(id));
            if before.is_some_and(|before| before.same_as(node)) && transforms.contains_key(id) {
                continue;
            }
            let cx = self.new_context(id, Kind::Transform, &node.type_name, discovery);
            match guarded(|| build.build(&cx)) {
                Ok(transform) => {
                    let metrics = cx.metrics;
                    transforms.insert(id.clone(), Transformer { transform, metrics });
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }

        let mut sources = BTreeMap::new();
        for (id, node) in &config.sources {
            let Some(build) = P::source(node.config.port()) else {
                continue;
            };
            let before = old.and_then(|old| old.sources.get(id));
            if before.is_some_and(|before| before.same_as(node)) {
                continue;
            }
            let cx = self.new_context(id, Kind::Source, &node.type_name, discovery);
            match guarded(|| build.build(&cx)) {
                Ok(source) => {
                    sources.insert(id.clone(), (source, cx.metrics));
                }
                Err(error) => errors.push((id.clone(), error)),
            }
        }
        Parts {
            next: NextPart {
                sources,
                transforms,
                sinks,
                stages: BTreeMap::new(),
                reached: BTreeMap::new(),
            },
            edges,
        }
    }

    fn edge<P: Buildable>(
        &self,
        config: &Config,
        node: &Component<dyn SinkConfig>,
        cx: &BuildContext,
        predecessor: Option<&P::Edge>,
    ) -> Result<Arc<P::Edge>, BuildError> {
        let folder = queues::folder(config, &cx.id);
        P::edge(node.config.port(), cx, predecessor, folder.as_deref())
    }

    /// Plans the stage behind each source of a plane.
    fn plan<P: Buildable>(
        &self,
        config: &Config,
        parts: Parts<P>,
        user: &watch::Receiver<()>,
    ) -> NextPart<P> {
        let Parts { mut next, edges } = parts;
        let planner = Planner::new(config, &next.transforms, &edges, user.clone());
        let mut reached: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        let mut stages = BTreeMap::new();
        for (id, node) in &config.sources {
            if P::source(node.config.port()).is_none() {
                continue;
            }
            let wiring = planner.wiring(id);
            for (sink, edge) in &edges {
                let leads_there = wiring.edges.iter().any(|it| Arc::ptr_eq(it, edge));
                if leads_there {
                    reached.entry(sink.clone()).or_default().insert(id.clone());
                }
            }
            let source = SourceContext {
                memory: &self.memory,
                access: &self.access,
                metrics: self.telemetry.component(id, Kind::Source, &node.type_name),
            };
            stages.insert(id.clone(), Arc::new(P::stage(wiring, source)));
        }
        next.stages = stages;
        next.reached = reached;
        next
    }
}

/// Runs a builder. A panic becomes a build error.
pub(super) fn guarded<T>(build: impl FnOnce() -> Result<T, BuildError>) -> Result<T, BuildError> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| {
        let reason = "it panicked while it was built: this is a bug in metrifold";
        Err(BuildError::new("component", reason))
    })
}
