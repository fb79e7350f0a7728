//! Cycles of the graph, each reported once and in full.

use std::collections::HashSet;

use super::Graph;
use crate::config::diagnostic::Diagnostic;

/// Progress of the search with a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// The node is on the path to the current node.
    Open,
    Done,
}

/// Reports every cycle that a depth-first search closes. The search keeps its own stack, since a
/// chain of transforms may be longer than a thread's stack is deep.
pub(super) fn check(graph: &Graph<'_>, found: &mut Vec<Diagnostic>) {
    let mut leaving: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
    for (at, edge) in graph.edges.iter().enumerate() {
        leaving[edge.from].push(at);
    }
    let mut state = vec![State::New; graph.nodes.len()];
    let mut told = HashSet::new();
    for start in 0..graph.nodes.len() {
        if state[start] != State::New {
            continue;
        }
        state[start] = State::Open;
        let mut path = vec![(start, 0)];
        while let Some((node, next)) = path.last_mut() {
            let Some(&edge) = leaving[*node].get(*next) else {
                state[*node] = State::Done;
                path.pop();
                continue;
            };
            *next += 1;
            let to = graph.edges[edge].to;
            match state[to] {
                State::New => {
                    state[to] = State::Open;
                    path.push((to, 0));
                }
                State::Open => {
                    let members = path
                        .iter()
                        .map(|(node, _)| *node)
                        .skip_while(|node| *node != to);
                    let chain = chain(graph, members.collect());
                    if told.insert(chain.clone()) {
                        found.push(report(graph, edge, &chain));
                    }
                }
                State::Done => {}
            }
        }
    }
}

/// The members of the cycle in order, starting with the alphabetically first.
fn chain(graph: &Graph<'_>, mut members: Vec<usize>) -> Vec<usize> {
    let first = (0..members.len()).min_by_key(|at| &graph.nodes[members[*at]].id);
    members.rotate_left(first.unwrap_or_default());
    members
}

fn report(graph: &Graph<'_>, edge: usize, chain: &[usize]) -> Diagnostic {
    let mut names: Vec<&str> = chain.iter().map(|at| &*graph.nodes[*at].id).collect();
    names.extend(names.first().copied());
    if names.len() > 20 {
        names.splice(10..names.len() - 10, ["..."]);
    }
    let edge = &graph.edges[edge];
    Diagnostic::error(format!("inputs form a cycle: {}", names.join(" -> ")))
        .at(graph.nodes[edge.to].inputs[edge.entry].place.clone())
        .with_help("remove one of these inputs")
}
