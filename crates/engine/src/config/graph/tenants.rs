//! Warns of data of tenants that reaches a sink without being confined to its tenant.

use std::collections::BTreeSet;

use super::{Graph, full_name};
use crate::config::components::{AnyConfig, Node};
use crate::config::diagnostic::Diagnostic;

/// Warns at every sink that a source whose callers are tenants reaches without a transform that confines
/// what passes. Callers are authenticated then, and yet nothing keeps one from the data of another.
pub(super) fn check(graph: &Graph<'_>, found: &mut Vec<Diagnostic>) {
    for (source, node) in graph.nodes.iter().enumerate() {
        if !by_tenants(node) {
            continue;
        }
        let mut reached = BTreeSet::from([source]);
        let mut left = vec![source];
        while let Some(at) = left.pop() {
            for edge in graph.edges.iter().filter(|edge| edge.from == at) {
                let next = &graph.nodes[edge.to];
                if confines(next) || !reached.insert(edge.to) {
                    continue;
                }
                left.push(edge.to);
                if let Some(AnyConfig::Sink(_)) = next.config {
                    let message = format!(
                        "{} gets what tenants send to `{}` without a `tenant` transform in between: \
                         nothing keeps one tenant from the data of another",
                        full_name(next),
                        node.id
                    );
                    found.push(
                        Diagnostic::warning(message)
                            .at(next.inputs[edge.entry].place.clone())
                            .with_related(node.place.clone(), "its callers are tenants")
                            .with_help("add a transform of type \"tenant\" behind the source, and name it here"),
                    );
                }
            }
        }
    }
}

fn by_tenants(node: &Node) -> bool {
    matches!(&node.config, Some(AnyConfig::Source(config)) if config.callers_are_tenants())
}

fn confines(node: &Node) -> bool {
    matches!(&node.config, Some(AnyConfig::Transform(config)) if config.confines())
}
