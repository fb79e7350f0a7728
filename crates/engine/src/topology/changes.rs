//! Differences between two configurations.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use metrifold_model::Kind;

use crate::config::{Component, Config, Tables};

/// The most names of added, changed, rewired and removed parts that are written out, each: there may
/// be very many tenants.
const MOST_SHOWN: usize = 100;

/// The changes that a reload made: names with the kind of the component, such as `sources.ingest`,
/// and keys at the top of the file, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Components that only the new configuration has.
    pub added: Vec<String>,
    /// Components whose keys differ, so that they were built again.
    pub changed: Vec<String>,
    /// Components that were kept, with other inputs.
    pub rewired: Vec<String>,
    /// Components that only the old configuration has.
    pub removed: Vec<String>,
}

impl Changes {
    /// Compares two configurations.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut changes = Self::default();
        let (was, is) = (old.memory, new.memory);
        for (key, changed) in [
            ("max_in_flight_bytes", was.in_flight != is.in_flight),
            ("memory_limit", was.limit != is.limit),
        ] {
            if changed {
                changes.changed.push(key.to_owned());
            }
        }
        changes.compare_tables(&old.tables, &new.tables);
        changes.compare(Kind::Sink, &old.sinks, &new.sinks);
        changes.compare(Kind::Source, &old.sources, &new.sources);
        changes.compare(Kind::Transform, &old.transforms, &new.transforms);
        changes.added.sort_unstable();
        changes.changed.sort_unstable();
        changes.removed.sort_unstable();
        changes
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, names)| names.is_empty())
    }

    fn parts(&self) -> [(&'static str, &[String]); 4] {
        [
            ("added", &self.added),
            ("changed", &self.changed),
            ("rewired", &self.rewired),
            ("removed", &self.removed),
        ]
    }

    /// Adds the tables at the top of the file that differ.
    fn compare_tables(&mut self, old: &Tables, new: &Tables) {
        for (name, table) in &new.0 {
            match old.0.get(name) {
                None => self.added.push(name.to_string()),
                Some(old) if !old.same_as(table) => self.changed.push(name.to_string()),
                Some(_) => {}
            }
        }
        let gone = old.0.keys().filter(|name| !new.0.contains_key(*name));
        self.removed.extend(gone.map(ToString::to_string));
    }

    /// Adds the components of one kind that differ.
    fn compare<C: ?Sized>(
        &mut self,
        kind: Kind,
        old: &BTreeMap<Arc<str>, Component<C>>,
        new: &BTreeMap<Arc<str>, Component<C>>,
    ) {
        let name = |id: &Arc<str>| format!("{}.{id}", kind.table());
        for (id, node) in new {
            match old.get(id) {
                None => self.added.push(name(id)),
                Some(old) if !old.same_as(node) => self.changed.push(name(id)),
                Some(old) if old.inputs != node.inputs => self.rewired.push(name(id)),
                Some(_) => {}
            }
        }
        let gone = old.keys().filter(|id| !new.contains_key(*id));
        self.removed.extend(gone.map(name));
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (what, names) in self.parts() {
            if names.is_empty() {
                continue;
            }
            let separator = if first { "" } else { "; " };
            let (shown, more) = names.split_at(names.len().min(MOST_SHOWN));
            write!(f, "{separator}{what} {}", shown.join(", "))?;
            if !more.is_empty() {
                write!(f, " and {} more", more.len())?;
            }
            first = false;
        }
        if first {
            f.write_str("nothing changed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_changes_some_are_named_and_the_others_counted() {
        let changes = |count: usize| Changes {
            added: (0..count)
                .map(|number| format!("tenants.t{number}"))
                .collect(),
            removed: vec!["api".to_owned()],
            ..Changes::default()
        };
        assert_eq!(
            changes(2).to_string(),
            "added tenants.t0, tenants.t1; removed api"
        );
        let most = changes(MOST_SHOWN).to_string();
        assert!(most.ends_with("t99; removed api"), "{most}");
        let more = changes(MOST_SHOWN + 3).to_string();
        assert!(more.ends_with("t99 and 3 more; removed api"), "{more}");
    }
}
