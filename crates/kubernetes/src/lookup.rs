//! Looks up the objects that a target depends on, such as the pod behind an endpoint, and records
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kind::Kind;
use crate::objects::{Object, key};

/// Key of an object: its kind, and its name within the kind.
pub(crate) type Name = (Kind, Arc<str>);

/// All known objects.
pub(crate) type Objects = BTreeMap<Kind, BTreeMap<Arc<str>, Object>>;

/// Looks up objects, and records each look-up.
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

    /// The object with this name; None if it does not exist. Recorded in either case.
    pub(crate) fn find(&mut self, kind: Kind, namespace: &str, name: &str) -> Option<&'a Object> {
        let key = key(namespace, name);
        let found = self.objects.get(&kind).and_then(|known| known.get(&key));
        self.names.insert((kind, key));
        found
    }

    /// Keys of the looked-up objects.
    pub(crate) fn into_names(self) -> BTreeSet<Name> {
        self.names
    }
}
