//! The graph: resolves the connections between components and checks them.

mod cycles;
mod inputs;
mod tenants;
mod twice;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use metrifold_base::Problems;
use metrifold_model::{Kind, Signal};

use super::components::{AnyConfig, Node};
use super::decode::Finding;
use super::diagnostic::{Diagnostic, Severity};

/// An output of a component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputRef {
    /// Name of the component.
    pub component: Arc<str>,
    /// Name of the output; `None` if the component has only one.
    pub output: Option<String>,
}

impl std::fmt::Display for OutputRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.output {
            Some(output) => write!(f, "{}.{output}", self.component),
            None => write!(f, "{}", self.component),
        }
    }
}

/// A set of signals.
type Signals = u8;

const EVERY_SIGNAL: Signals = (1 << Signal::ALL.len()) - 1;

/// The set with this signal alone.
fn bit(signal: Signal) -> Signals {
    1 << signal as u8
}

/// Outputs of a component.
#[derive(Debug)]
enum Ports {
    /// Not known, since the component has errors of its own.
    Unknown,
    None,
    One,
    Named(Vec<String>),
}

/// A connection between two components.
#[derive(Debug)]
struct Edge {
    from: usize,
    port: Option<String>,
    to: usize,
    /// Index of the element of `inputs` that creates the edge.
    entry: usize,
}

/// The components and their connections.
struct Graph<'n> {
    nodes: &'n [Node],
    index: HashMap<&'n str, usize>,
    ports: Vec<Ports>,
    edges: Vec<Edge>,
    /// Components whose inputs are not all known.
    uncertain: BTreeSet<usize>,
}

/// Checks the graph and returns the resolved inputs of every node.
pub(crate) fn check(nodes: &[Node], found: &mut Vec<Diagnostic>) -> Vec<Vec<OutputRef>> {
    for kind in [Kind::Source, Kind::Sink] {
        if !nodes.iter().any(|node| node.kind == kind) {
            let message = format!("the configuration has no {}", kind.as_str());
            let help = format!("add a table [{}.NAME]", kind.table());
            found.push(Diagnostic::error(message).with_help(help));
        }
    }
    let mut graph = Graph {
        nodes,
        index: nodes
            .iter()
            .enumerate()
            .map(|(at, node)| (&*node.id, at))
            .collect(),
        ports: nodes.iter().map(ports).collect(),
        edges: Vec::new(),
        uncertain: BTreeSet::new(),
    };
    for at in 0..nodes.len() {
        graph.resolve(at, found);
    }
    cycles::check(&graph, found);
    graph.check_signals(found);
    graph.check_transforms(found);
    if !found
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Error)
    {
        // With errors in the graph, an unconsumed output may be a consequence of them.
        graph.warn_of_loose_ends(found);
        twice::check(&graph, found);
        tenants::check(&graph, found);
    }
    graph.resolved()
}

fn ports(node: &Node) -> Ports {
    match (node.kind, &node.config) {
        (Kind::Sink, _) => Ports::None,
        (Kind::Source, _) => Ports::One,
        (Kind::Transform, None) => Ports::Unknown,
        (Kind::Transform, Some(config)) => match config.outputs() {
            names if names.is_empty() => Ports::One,
            names => Ports::Named(names),
        },
    }
}

fn accepted(node: &Node) -> Signals {
    let Some(config) = &node.config else {
        return EVERY_SIGNAL;
    };
    Signal::ALL
        .into_iter()
        .filter(|signal| config.carries(*signal))
        .fold(0, |set, signal| set | bit(signal))
}

fn names(signals: Signals) -> String {
    let names: Vec<&str> = Signal::ALL
        .into_iter()
        .filter(|signal| signals & bit(*signal) != 0)
        .map(Signal::as_str)
        .collect();
    names.join(" and ")
}

/// Name of the component's table, such as `sources.in`.
fn full_name(node: &Node) -> String {
    format!("{}.{}", node.kind.table(), node.id)
}

impl Graph<'_> {
    fn edge_name(&self, edge: &Edge) -> OutputRef {
        OutputRef {
            component: Arc::clone(&self.nodes[edge.from].id),
            output: edge.port.clone(),
        }
    }

    /// The signals that every component sends, derived from the signals that reach it. What is not
    /// known is taken for all that is possible.
    fn flows(&self) -> Vec<Signals> {
        self.flows_from(|at, node| {
            node.kind == Kind::Source || node.config.is_none() || self.uncertain.contains(&at)
        })
    }

    /// The signals that every component sends, if the components that `begins` names send all that
    /// they can.
    fn flows_from(&self, begins: impl Fn(usize, &Node) -> bool) -> Vec<Signals> {
        let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for edge in &self.edges {
            consumers[edge.from].push(edge.to);
        }
        let mut flows = vec![0; self.nodes.len()];
        let mut changed = VecDeque::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if begins(at, node) {
                flows[at] = accepted(node);
                changed.push_back(at);
            }
        }
        while let Some(from) = changed.pop_front() {
            for &to in &consumers[from] {
                let sent = flows[to] | (flows[from] & accepted(&self.nodes[to]));
                if sent != flows[to] {
                    flows[to] = sent;
                    changed.push_back(to);
                }
            }
        }
        flows
    }

    fn check_signals(&self, found: &mut Vec<Diagnostic>) {
        let flows = self.flows();
        let clean = found.is_empty();
        let mut readers: HashMap<(usize, Option<&str>), &Edge> = HashMap::new();
        for edge in &self.edges {
            let (from, to) = (&self.nodes[edge.from], &self.nodes[edge.to]);
            let (sent, taken) = (flows[edge.from], accepted(to));
            let place = to.inputs[edge.entry].place.clone();
            // An empty set is the consequence of an error further up.
            if sent != 0 && sent & taken == 0 {
                let message = format!(
                    "{} takes {}, but `{}` sends {}",
                    full_name(to),
                    names(taken),
                    self.edge_name(edge),
                    names(sent)
                );
                let kind = from.kind.as_str();
                found.push(
                    Diagnostic::error(message)
                        .at(place)
                        .with_related(from.place.clone(), format!("the {kind} is declared here")),
                );
                continue;
            }
            if !clean || sent & taken & bit(Signal::Queries) == 0 {
                continue;
            }
            let port = (edge.from, edge.port.as_deref());
            if let Some(first) = readers.get(&port) {
                let other = &self.nodes[first.to];
                let message = format!(
                    "queries of `{}` go to {} already",
                    self.edge_name(edge),
                    full_name(other)
                );
                found.push(
                    Diagnostic::error(message)
                        .at(place)
                        .with_related(other.inputs[first.entry].place.clone(), "they go here")
                        .with_help("a query has one answer: let only one component consume them"),
                );
            } else {
                readers.insert(port, edge);
            }
        }
    }

    /// Reports keys that transforms lack in the planes of the signals that reach them for certain.
    fn check_transforms(&self, found: &mut Vec<Diagnostic>) {
        let flows = self.flows_from(|_, node| node.kind == Kind::Source && node.config.is_some());
        for (node, flow) in self.nodes.iter().zip(flows) {
            let Some(AnyConfig::Transform(config)) = &node.config else {
                continue;
            };
            let ports = config.ports();
            let reach = Signal::ALL.into_iter().filter(|it| flow & bit(*it) != 0);
            // Several planes may require the same key: the problem is reported once.
            let mut lacks = reach.map(|signal| {
                let mut problems = Problems::new(false);
                ports.validate(signal, &mut problems);
                problems.into_list()
            });
            let lacks = lacks.find(|problems| !problems.is_empty());
            for problem in lacks.into_iter().flatten() {
                let finding = Finding::from(problem);
                let message = finding.describe(&full_name(node));
                let mut diagnostic = Diagnostic::error(message).at(node.place.clone());
                diagnostic.help = finding.help;
                found.push(diagnostic);
            }
        }
    }

    fn warn_of_loose_ends(&self, found: &mut Vec<Diagnostic>) {
        let flows = self.flows();
        let mut taken: HashMap<(usize, Option<&str>), Signals> = HashMap::new();
        for edge in &self.edges {
            *taken.entry((edge.from, edge.port.as_deref())).or_default() |=
                accepted(&self.nodes[edge.to]);
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let ports: Vec<Option<&str>> = match &self.ports[at] {
                Ports::One => vec![None],
                Ports::Named(names) => names.iter().map(|name| Some(&**name)).collect(),
                Ports::None | Ports::Unknown => continue,
            };
            for port in ports {
                let name = OutputRef {
                    component: Arc::clone(&node.id),
                    output: port.map(str::to_owned),
                };
                let message = match taken.get(&(at, port)) {
                    None => format!("nothing consumes `{name}`"),
                    Some(taken) if flows[at] & !taken != 0 => {
                        format!(
                            "nothing consumes the {} of `{name}`",
                            names(flows[at] & !taken)
                        )
                    }
                    Some(_) => continue,
                };
                found.push(
                    Diagnostic::warning(message)
                        .at(node.place.clone())
                        .with_help(format!(
                            "add \"{name}\" to the inputs of a sink, or remove it"
                        )),
                );
            }
        }
    }

    fn resolved(&self) -> Vec<Vec<OutputRef>> {
        let mut resolved: Vec<Vec<OutputRef>> = vec![Vec::new(); self.nodes.len()];
        for edge in &self.edges {
            resolved[edge.to].push(self.edge_name(edge));
        }
        for inputs in &mut resolved {
            inputs.sort();
            inputs.dedup();
        }
        resolved
    }
}
