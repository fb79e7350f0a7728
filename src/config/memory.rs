//! Whether what the configuration asks of memory fits together.

use super::components::{AnyConfig, Node};
use super::diagnostic::Diagnostic;
use super::source::Place;
use super::values::Size;
use crate::memory::{Bounds, Reservation, Sizes};

/// Checks the bounds of the process against those of its components. What a component with errors
/// needs is not known, so nothing is said then.
pub(super) fn check(
    nodes: &[Node],
    limit: Option<&(Size, Place)>,
    in_flight: Option<&(Size, Place)>,
    found: &mut Vec<Diagnostic>,
) -> Bounds {
    let mut bounds = Bounds {
        in_flight: in_flight.map(|(size, _)| size.0),
        limit: limit.map(|(size, _)| size.0),
        requests: None,
    };
    if nodes.iter().any(|node| node.config.is_none()) {
        return bounds;
    }
    let sources: Vec<(&Node, Sizes)> = nodes.iter().filter_map(largest_request).collect();
    if let Some((size, place)) = in_flight
        && let Some((node, largest)) = sources.iter().max_by_key(|(_, it)| it.in_flight())
        && size.0 < largest.in_flight()
    {
        let id = &node.id;
        let text = format!(
            "`max_in_flight_bytes` must be at least {}, which is max_decoded_bytes and max_body_bytes of sources.{id} together",
            Size(largest.in_flight())
        );
        let help = "otherwise a request that is allowed could never be taken";
        found.push(Diagnostic::error(text).at(place.clone()).with_help(help));
    }
    let Some((limit, place)) = limit else {
        return bounds;
    };
    let queues = nodes.iter().filter_map(queue);
    let requests = sources.iter().map(|(_, sizes)| *sizes);
    let reservation = Reservation::new(queues, requests);
    bounds.requests = reservation.left(*limit);
    if bounds.requests.is_none() {
        let least = reservation.least();
        let parts = reservation.describe();
        let text = format!("`memory_limit` must be at least {least}: {parts}");
        let help = "lower queue.max_bytes of sinks (queue.memory_bytes of those on disk), or max_decoded_bytes and max_body_bytes of sources, or raise the limit";
        found.push(Diagnostic::error(text).at(place.clone()).with_help(help));
    }
    bounds
}

fn largest_request(node: &Node) -> Option<(&Node, Sizes)> {
    match &node.config {
        Some(AnyConfig::Source(source)) => Some((node, source.largest_request()?)),
        _ => None,
    }
}

/// What a sink's queue keeps in memory, and whether it is on disk.
fn queue(node: &Node) -> Option<(Size, bool)> {
    match &node.config {
        Some(AnyConfig::Sink(sink)) => {
            let queue = sink.queue();
            Some((queue.memory_bytes(), queue.is_disk()))
        }
        _ => None,
    }
}
