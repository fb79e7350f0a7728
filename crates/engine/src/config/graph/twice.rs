//! Data that reaches a component by two ways arrives twice.

use std::collections::BTreeSet;

use metrifold_model::Kind;

use super::{Edge, Graph, Ports, full_name};
use crate::config::diagnostic::Diagnostic;

/// More components than this are not looked at: the cost grows with the square of their number.
const MAX_NODES: usize = 2_000;

/// An output: a component, and which of its named outputs.
type Output<'g> = (usize, Option<&'g str>);

/// What reaches an input.
#[derive(Clone, Default)]
struct Reach<'g> {
    /// All outputs that it comes from.
    all: BTreeSet<Output<'g>>,
    /// Those of which it is the whole, as far as is known: not those before a named output, which
    /// passes a part on.
    whole: BTreeSet<Output<'g>>,
}

/// Warns where two inputs of a component share an origin. What two named outputs of one component
/// pass on is not the same data. Expects a graph without errors, and so without cycles.
pub(super) fn check(graph: &Graph<'_>, found: &mut Vec<Diagnostic>) {
    if graph.nodes.len() > MAX_NODES {
        return;
    }
    let mut reached: Vec<Option<Reach<'_>>> = vec![None; graph.nodes.len()];
    let mut entering: Vec<Vec<&Edge>> = vec![Vec::new(); graph.nodes.len()];
    for edge in &graph.edges {
        entering[edge.to].push(edge);
    }
    // Depth first with a stack of its own, since chains may be longer than a thread's stack.
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

/// What comes through an edge.
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
        // An input that is named twice, or by a glob as well, is one input.
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
            let help = "transforms work one after the other when each names the one before it as its input: name only the last one here";
            found.push(
                Diagnostic::warning(message)
                    .at(node.inputs[edge.entry].place.clone())
                    .with_related(node.inputs[other.entry].place.clone(), "the first way")
                    .with_help(help),
            );
            break;
        }
    }
}
