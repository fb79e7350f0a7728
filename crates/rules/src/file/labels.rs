//! Labels and annotations of rules.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Labels or annotations, sorted by name. Texts are shared among copies.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The labels, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        let mut labels = self.0.iter();
        labels
            .find(|(own, _)| **own == *name)
            .map(|(_, value)| value)
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy with one label added or replaced.
    #[must_use]
    pub fn with(&self, name: &Arc<str>, value: &Arc<str>) -> Self {
        let others = self.0.iter().filter(|(own, _)| own != name);
        let mut labels = Vec::with_capacity(self.0.len() + 1);
        labels.extend(others.cloned());
        let at = labels.partition_point(|(own, _)| own < name);
        labels.insert(at, (name.clone(), value.clone()));
        Self(labels.into())
    }

    /// A copy without one of the labels.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let others = self.0.iter().filter(|(own, _)| **own != *name);
        Self(others.cloned().collect())
    }
}

impl From<Vec<(Arc<str>, Arc<str>)>> for Labels {
    /// Sorts labels; of several with the same name, the last one counts.
    fn from(mut labels: Vec<(Arc<str>, Arc<str>)>) -> Self {
        let is_sorted = |pair: &[(Arc<str>, Arc<str>)]| pair[0].0 < pair[1].0;
        if labels.windows(2).all(is_sorted) {
            return Self(labels.into());
        }
        // Equal names keep their order, and the first of them stays.
        labels.reverse();
        labels.sort_by(|(one, _), (other, _)| one.cmp(other));
        labels.dedup_by(|(later, _), (earlier, _)| later == earlier);
        Self(labels.into())
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Labels {
    /// Collects labels; of several with the same name, the last one counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(labels: I) -> Self {
        let labels = labels.into_iter();
        let labels = labels.map(|(name, value)| (name.into(), value.into()));
        labels.collect::<Vec<_>>().into()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (&**name, &**value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_the_last_of_a_name_counts() {
        let labels: Labels = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        assert_eq!(format!("{labels:?}"), r#"{"a": "2", "b": "3"}"#);
        assert_eq!(labels.get("b").map(|value| &**value), Some("3"));
        let (name, value) = (Arc::from("a0"), Arc::from("4"));
        let more = labels.with(&name, &value);
        assert_eq!(
            serde_json::to_string(&more).unwrap(),
            r#"{"a":"2","a0":"4","b":"3"}"#
        );
        assert_eq!(more.with(&name, &value), more);
        assert_eq!(more.without("a0"), labels);
    }
}
