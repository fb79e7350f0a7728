//! Finds the objects that a target is made of, such as the pod behind an endpoint, and notes which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kind::Kind;
use crate::objects::{Object, key};

/// An object, by kind and by name within it.
pub(crate) type Name = (Kind, Arc<str>);

/// All objects that are known.
pub(crate) type Objects = BTreeMap<Kind, BTreeMap<Arc<str>, Object>>;

/// Looks up objects, and notes which.
pub(crate) struct Lookup<'a> {
    objects: &'a Objects,
    names: BTreeSet<Name>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(objects: &'a Objects) -> Self {
        Self {
            objects,
            names: BTreeSet::new(),
        }
    }

    /// The object of this name, if there is one.
    pub(crate) fn find(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        let key = key(namespace, name);
        let found = self.objects.get(&kind).and_then(|known| known.get(&key));
        self.names.insert((kind, key));
        found
    }

    /// What was looked up.
    pub(crate) fn into_names(self) -> BTreeSet<Name> {
        self.names
    }
}
