//! The routes with a route service, as they are known over several readings.

use std::collections::HashSet;

/// GUIDs of the routes with a route service.
#[derive(Debug, Default)]
pub(crate) struct RouteServices {
    known: HashSet<String>,
    /// Whether the last list was empty after one that was not.
    doubtful: bool,
}

impl RouteServices {
    /// Takes a list, and returns the routes that count. An empty list after one that was not may be a
    /// fault, after which requests for one instance would reach another one: it counts from the second
    /// time on.
    pub(crate) fn found(&mut self, found: HashSet<String>) -> HashSet<String> {
        self.doubtful = found.is_empty() && !self.known.is_empty() && !self.doubtful;
        if !self.doubtful {
            self.known = found;
        }
        self.known.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_after_a_full_one_counts_from_the_second_time_on() {
        let mut services = RouteServices::default();
        let set = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        for (found, counts) in [
            (&[][..], &[][..]),
            (&["a", "b"], &["a", "b"]),
            (&[], &["a", "b"]),
            (&["a"], &["a"]),
            (&[], &["a"]),
            (&[], &[]),
            (&[], &[]),
        ] {
            let expected: HashSet<String> = set(counts);
            assert_eq!(services.found(set(found)), expected);
        }
    }
}
