//! From the graph to one stage per source.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use metrifold_telemetry::ComponentMetrics;

use crate::config::Config;
use crate::planes::metrics::{Edge, Node, Stage, Target, Transform};

/// A transform, built, and its meters.
#[derive(Clone)]
pub(super) struct Transformer {
    pub(super) transform: Arc<dyn Transform>,
    pub(super) metrics: ComponentMetrics,
}

/// Turns the graph into one stage per source.
pub(super) struct Planner<'a> {
    config: &'a Config,
    transforms: &'a BTreeMap<Arc<str>, Transformer>,
    edges: &'a BTreeMap<Arc<str>, Arc<Edge>>,
    consumers: HashMap<Port<'a>, Consumers<'a>>,
    in_use: watch::Receiver<()>,
}

/// An output: a component's name and the output's, if it has one.
type Port<'a> = (&'a str, Option<&'a str>);

/// Who reads an output, by name.
#[derive(Default)]
struct Consumers<'a> {
    transforms: Vec<&'a Arc<str>>,
    sinks: Vec<&'a Arc<str>>,
}

/// Where components stand in a stage: a transform may have the name of no sink, so one map will do.
type Places<'a> = HashMap<&'a str, Target>;

impl<'a> Planner<'a> {
    /// A planner of stages that hold on to `in_use`. All transforms and sinks of the configuration
    /// must be there.
    pub(super) fn new(
        config: &'a Config,
        transforms: &'a BTreeMap<Arc<str>, Transformer>,
        edges: &'a BTreeMap<Arc<str>, Arc<Edge>>,
        in_use: watch::Receiver<()>,
    ) -> Self {
        let mut consumers: HashMap<Port<'a>, Consumers<'a>> = HashMap::new();
        for (id, node) in &config.transforms {
            for input in &node.inputs {
                let port = (&*input.component, input.output.as_deref());
                consumers.entry(port).or_default().transforms.push(id);
            }
        }
        for (id, node) in &config.sinks {
            for input in &node.inputs {
                let port = (&*input.component, input.output.as_deref());
                consumers.entry(port).or_default().sinks.push(id);
            }
        }
        Self {
            config,
            transforms,
            edges,
            consumers,
            in_use,
        }
    }

    /// All that lies behind a source.
    pub(super) fn stage(&self, source: &str) -> Stage {
        let mut stage = Stage {
            _in_use: Some(self.in_use.clone()),
            ..Stage::default()
        };
        stage.entry = self.targets((source, None), &mut stage, &mut Places::new());
        stage
    }

    /// The targets of an output, planned with all that lies behind them. The graph has no
    /// cycles, which validation has made sure of.
    fn targets(&self, port: Port<'_>, stage: &mut Stage, places: &mut Places<'a>) -> Vec<Target> {
        let Some(consumers) = self.consumers.get(&port) else {
            return Vec::new();
        };
        let mut targets = Vec::with_capacity(consumers.transforms.len() + consumers.sinks.len());
        for &id in &consumers.transforms {
            if let Some(&known) = places.get(&**id) {
                targets.push(known);
                continue;
            }
            let Transformer { transform, metrics } = &self.transforms[id];
            let index = stage.nodes.len();
            let target = Target::Node(index);
            places.insert(id, target);
            stage.nodes.push(Node {
                transform: transform.clone(),
                metrics: metrics.clone(),
                outputs: Vec::new(),
            });
            let names = self.config.transforms[id].config.outputs();
            let outputs = if names.is_empty() {
                vec![self.targets((id, None), stage, places)]
            } else {
                let output = |name: &String| self.targets((id, Some(name)), stage, places);
                names.iter().map(output).collect()
            };
            stage.nodes[index].outputs = outputs;
            targets.push(target);
        }
        for &id in &consumers.sinks {
            let target = *places.entry(id).or_insert_with(|| {
                stage.edges.push(self.edges[id].clone());
                Target::Edge(stage.edges.len() - 1)
            });
            targets.push(target);
        }
        targets
    }
}
