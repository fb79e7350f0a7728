//! Plans the wiring behind each source of a plane from the graph.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use metrifold_telemetry::ComponentMetrics;

use crate::config::Config;
use crate::planes::{Node, Plane, Target, Wiring};

/// A built transform and its metrics.
pub(super) struct Transformer<P: Plane> {
    pub(super) transform: Arc<P::Transform>,
    pub(super) metrics: ComponentMetrics,
}

impl<P: Plane> Clone for Transformer<P> {
    fn clone(&self) -> Self {
        Self {
            transform: self.transform.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// Plans the wirings of a plane.
pub(super) struct Planner<'a, P: Plane> {
    config: &'a Config,
    transforms: &'a BTreeMap<Arc<str>, Transformer<P>>,
    edges: &'a BTreeMap<Arc<str>, Arc<P::Edge>>,
    consumers: HashMap<Port<'a>, Consumers<'a>>,
    in_use: watch::Receiver<()>,
}

/// An output: a component's name and the output's, if it has one.
type Port<'a> = (&'a str, Option<&'a str>);

/// The components that read an output, by name.
#[derive(Default)]
struct Consumers<'a> {
    transforms: Vec<&'a Arc<str>>,
    sinks: Vec<&'a Arc<str>>,
}

/// Places of components in a stage; `None` for a transform that leads to no sink. Transforms and
/// sinks share one map, since their names differ.
type Places<'a> = HashMap<&'a str, Option<Target>>;

impl<'a, P: Plane> Planner<'a, P> {
    /// A planner whose wirings hold `in_use`. Components of other planes are in none of the maps
    /// and are passed over.
    pub(super) fn new(
        config: &'a Config,
        transforms: &'a BTreeMap<Arc<str>, Transformer<P>>,
        edges: &'a BTreeMap<Arc<str>, Arc<P::Edge>>,
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

    /// The wiring of everything behind a source.
    pub(super) fn wiring(&self, source: &str) -> Wiring<P> {
        let mut wiring = Wiring {
            entry: Vec::new(),
            nodes: Vec::new(),
            edges: Vec::new(),
            in_use: self.in_use.clone(),
        };
        wiring.entry = self.targets((source, None), &mut wiring, &mut Places::new());
        wiring
    }

    /// The targets of an output, planned with everything behind them. Transforms that lead to no
    /// sink are left out, so that no work is done for nothing. Validation has ruled out cycles.
    fn targets(
        &self,
        port: Port<'_>,
        wiring: &mut Wiring<P>,
        places: &mut Places<'a>,
    ) -> Vec<Target> {
        let Some(consumers) = self.consumers.get(&port) else {
            return Vec::new();
        };
        let mut targets = Vec::with_capacity(consumers.transforms.len() + consumers.sinks.len());
        for &id in &consumers.transforms {
            if let Some(&known) = places.get(&**id) {
                targets.extend(known);
                continue;
            }
            let Some(Transformer { transform, metrics }) = self.transforms.get(id) else {
                continue;
            };
            let index = wiring.nodes.len();
            let target = Target::Node(index);
            places.insert(id, Some(target));
            wiring.nodes.push(Node {
                transform: transform.clone(),
                metrics: metrics.clone(),
                outputs: Vec::new(),
            });
            let names = self.config.transforms[id].config.outputs();
            let outputs = if names.is_empty() {
                vec![self.targets((id, None), wiring, places)]
            } else {
                let output = |name: &String| self.targets((id, Some(name)), wiring, places);
                names.iter().map(output).collect()
            };
            if outputs.iter().all(Vec::is_empty) {
                // No transform behind this one was kept, so it is the last node.
                wiring.nodes.truncate(index);
                places.insert(id, None);
                continue;
            }
            wiring.nodes[index].outputs = outputs;
            targets.push(target);
        }
        for &id in &consumers.sinks {
            let Some(edge) = self.edges.get(id) else {
                continue;
            };
            let target = *places.entry(id).or_insert_with(|| {
                wiring.edges.push(edge.clone());
                Some(Target::Edge(wiring.edges.len() - 1))
            });
            targets.extend(target);
        }
        targets
    }
}
