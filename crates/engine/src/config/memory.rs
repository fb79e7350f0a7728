//! Checks that the memory bounds of the configuration are consistent.

use metrifold_base::Size;

use crate::memory::{Bounds, Reservation, Sizes};

use super::components::{AnyConfig, Node};
use super::diagnostic::Diagnostic;
use super::source::Place;
use super::tables::RootKeys;

/// Places of the keys that set the bounds of the process.
pub(super) struct Places {
    pub(super) limit: Option<Place>,
    pub(super) in_flight: Option<Place>,
}

/// Checks the bounds of the process against those of its components. Skipped if a component has
/// errors, since its needs are unknown.
pub(super) fn check(
    nodes: &[Node],
    root: &RootKeys,
    places: &Places,
    found: &mut Vec<Diagnostic>,
) -> Bounds {
    let mut bounds = Bounds {
        in_flight: root.max_in_flight_bytes.map(|size| size.0),
        limit: root.memory_limit.map(|size| size.0),
        requests: None,
    };
    if nodes.iter().any(|node| node.config.is_none()) {
        return bounds;
    }
    let sources: Vec<(&Node, Sizes)> = nodes.iter().filter_map(largest_request).collect();
    if let (Some(size), Some(place)) = (root.max_in_flight_bytes, &places.in_flight)
        && let Some((node, largest)) = sources.iter().max_by_key(|(_, it)| it.in_flight())
        && size.0 < largest.in_flight()
    {
        let id = &node.id;
        let text = format!(
            "`max_in_flight_bytes` must be at least {}, which is max_decoded_bytes and max_body_bytes of sources.{id} together",
            Size(largest.in_flight())
        );
        let help = "otherwise a request of the allowed size could never be accepted";
        found.push(Diagnostic::error(text).at(place.clone()).with_help(help));
    }
    let (Some(limit), Some(place)) = (root.memory_limit, &places.limit) else {
        return bounds;
    };
    let queues = nodes.iter().filter_map(queue);
    let requests = sources.iter().map(|(_, sizes)| *sizes);
    let reservation = Reservation::new(queues, requests);
    bounds.requests = reservation.left(limit);
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

/// Memory of a sink's queue, and whether the queue is on disk.
fn queue(node: &Node) -> Option<(Size, bool)> {
    match &node.config {
        Some(AnyConfig::Sink(sink)) => {
            let queue = sink.metrics()?.queue();
            Some((queue.memory_bytes(), queue.is_disk()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds of a configuration with these keys at its top, or the first error and its help.
    fn load(top: &str) -> Result<Bounds, String> {
        let text = format!(
            "{top}\n\
             [sources.a]\ntype = \"test_source\"\naddress = \"127.0.0.1:0\"\n\
             largest = [\"1MiB\", \"4MiB\"]\n\
             [sinks.z]\ntype = \"test_sink\"\nendpoint = \"http://x\"\ninputs = [\"a\"]\n"
        );
        let loaded = crate::config::parse_str("test.toml", &text, &|_: &str| None);
        loaded.map(|loaded| loaded.config.memory).map_err(|found| {
            let error = &found[0];
            format!("{}; {}", error.message, error.help.as_deref().unwrap_or(""))
        })
    }

    #[test]
    fn a_limit_that_is_too_little_says_what_needs_how_much_and_what_to_lower() {
        let error = load("memory_limit = \"64MiB\"").unwrap_err();
        assert_eq!(
            error,
            "`memory_limit` must be at least 130MiB: the program takes 48MiB, the queues of sinks \
             64MiB, and the largest request 18MiB; lower queue.max_bytes of sinks \
             (queue.memory_bytes of those on disk), or max_decoded_bytes and max_body_bytes of \
             sources, or raise the limit"
        );
        let bounds = load("memory_limit = \"150MiB\"").unwrap();
        assert_eq!(bounds.limit, Some(150 << 20));
        assert_eq!(bounds.requests, Some(38 << 20));
    }

    #[test]
    fn a_bound_below_the_largest_request_is_an_error() {
        let error = load("max_in_flight_bytes = \"4MiB\"").unwrap_err();
        assert!(error.contains("must be at least 5MiB"), "{error}");
        assert!(error.contains("sources.a"), "{error}");
        let bounds = load("max_in_flight_bytes = \"5MiB\"").unwrap();
        assert_eq!(bounds.in_flight, Some(5 << 20));
        assert_eq!(load("").unwrap(), Bounds::default());
    }

    #[test]
    fn what_is_no_size_is_refused_at_its_key() {
        for (value, reason) in [
            ("512", "must be a size in quotes"),
            ("\"much\"", "is not a size"),
            ("\"0B\"", "must be at least 1B"),
        ] {
            for key in ["memory_limit", "max_in_flight_bytes"] {
                let error = load(&format!("{key} = {value}")).unwrap_err();
                assert!(error.contains(key), "{error}");
                assert!(error.contains(reason), "{error}");
            }
        }
        let error = load("memory_limits = \"1GiB\"").unwrap_err();
        assert!(error.contains("memory_limit"), "{error}");
    }
}
