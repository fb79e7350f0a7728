//! Warns of data that reaches a component over two paths and arrives twice.

use std::collections::BTreeSet;

use metrifold_model::Kind;

use super::{Edge, Graph, Ports, full_name};
use crate::config::diagnostic::Diagnostic;

/// The most components for which the check runs: its cost grows with the square of their number.
const MAX_NODES: usize = 2_000;

/// An output: the index of a component, and the name of the output, if it has one.
type Output<'g> = (usize, Option<&'g str>);

/// The data that reaches an input.
#[derive(Clone, Default)]
struct Reach<'g> {
    /// All outputs that the data comes from.
    all: BTreeSet<Output<'g>>,
    /// Outputs whose data arrives complete, as far as is known. Outputs in front of a named output
    /// are excluded, since that passes on only a part.
    whole: BTreeSet<Output<'g>>,
}

/// Warns of two inputs of a component that share an origin. Two named outputs of one component
/// carry different data. Expects a graph without errors, and therefore without cycles.
pub(super) fn check(graph: &Graph<'_>, found: &mut Vec<Diagnostic>) {
    if graph.nodes.len() > MAX_NODES {
        return;
    }
    let mut reached: Vec<Option<Reach<'_>>> = vec![None; graph.nodes.len()];
    let mut entering: Vec<Vec<&Edge>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        entering[edge.to].push(edge);
    }
    // Depth first with an explicit stack, since chains may be longer than a thread's stack is deep.
    for start in 0..graph.nodes.len() {
        let mut stack = vec![start];
        while let Some(&at) = stack.last() {
            let waiting: Vec<usize> = entering[at]
                .iter()
                .map(|edge| edge.from)
                .filter(|from| reached[*from].is_none())
                .collect();
            if reached[at].is_none() && !waiting.is_empty() {
                stack.extend(waiting);
                continue;
            }
            stack.pop();
            if reached[at].is_none() {
                let inputs: Vec<(&Edge, Reach<'_>)> = entering[at]
                    .iter()
                    .map(|edge| (*edge, through(graph, edge, &reached)))
                    .collect();
                warn(graph, &inputs, found);
                let mut own = Reach::default();
                for (_, reach) in inputs {
                    own.all.extend(reach.all);
                    own.whole.extend(reach.whole);
                }
                reached[at] = Some(own);
            }
        }
    }
}

/// The data that passes through an edge.
fn through<'g>(graph: &'g Graph<'_>, edge: &'g Edge, reached: &[Option<Reach<'g>>]) -> Reach<'g> {
    let mut reach = reached[edge.from].clone().unwrap_or_default();
    let output = (edge.from, edge.port.as_deref());
    if matches!(graph.ports[edge.from], Ports::Named(_)) {
        reach.whole.clear();
    }
    reach.all.insert(output);
    reach.whole.insert(output);
    reach
}

fn warn(graph: &Graph<'_>, inputs: &[(&Edge, Reach<'_>)], found: &mut Vec<Diagnostic>) {
    for (at, (edge, reach)) in inputs.iter().enumerate() {
        // An input that is named twice, or also matches a glob, is one input.
        let earlier = inputs[..at]
            .iter()
            .filter(|(other, _)| (other.from, &other.port) != (edge.from, &edge.port));
        for (other, others) in earlier {
            let shared = reach
                .whole
                .intersection(&others.all)
                .chain(others.whole.intersection(&reach.all))
                .max_by_key(|(node, _)| graph.nodes[*node].kind == Kind::Transform);
            let Some((origin, _)) = shared else {
                continue;
            };
            let node = &graph.nodes[edge.to];
            let message = format!(
                "{} gets data of `{}` twice: through `{}` and through `{}`",
                full_name(node),
                graph.nodes[*origin].id,
                graph.edge_name(other),
                graph.edge_name(edge)
            );
            let help = "to chain transforms, give each the previous one as its input, and name only the last one here";
            found.push(
                Diagnostic::warning(message)
                    .at(node.inputs[edge.entry].place.clone())
                    .with_related(node.inputs[other.entry].place.clone(), "the other path")
                    .with_help(help),
            );
            // One warning for each component is enough.
            return;
        }
    }
}
