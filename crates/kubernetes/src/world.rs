//! All known objects of a cluster, and the targets to rebuild when one of them changes.
//!
//! Building a target looks up other objects, such as the pod behind an endpoint. Each look-up is
//! recorded, so that the cost of a change depends only on the targets built from the changed
//! object.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::sync::Arc;

use foldhash::fast::RandomState;
use metrifold_discovery::Labels;

use crate::kind::Kind;
use crate::lookup::{Lookup, Name, Objects};
use crate::objects::Object;
use crate::roles::{Maker, make};

type Map<K, V> = HashMap<K, V, RandomState>;

/// All known objects.
pub(crate) struct World {
    maker: Maker,
    objects: Objects,
    /// Objects that were looked up to build the targets of an object.
    looked_up: Map<Arc<str>, Vec<Name>>,
    /// The reverse: objects whose targets depend on an object.
    dependents: Map<Name, BTreeSet<Arc<str>>>,
    /// Objects whose targets have to be rebuilt.
    dirty: BTreeSet<Arc<str>>,
    /// Number of targets of each object, and in total.
    made: Map<Arc<str>, usize>,
    targets: usize,
}

/// The targets of an object; None if the object is gone.
pub(crate) type Made = (Arc<str>, Option<Vec<Labels>>);

impl World {
    pub(crate) fn new(maker: Maker) -> Self {
        Self {
            maker,
            objects: BTreeMap::new(),
            looked_up: Map::default(),
            dependents: Map::default(),
            dirty: BTreeSet::new(),
            made: Map::default(),
            targets: 0,
        }
    }

    /// Number of objects of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.objects.get(&kind).map_or(0, BTreeMap::len)
    }

    /// Whether an object with this key is known, in any state.
    pub(crate) fn has(&self, object: &Object) -> bool {
        let objects = self.objects.get(&object.kind());
        objects.is_some_and(|objects| objects.contains_key(&object.key()))
    }

    /// Whether an object of the role's kind is known.
    pub(crate) fn knows(&self, key: &str) -> bool {
        let objects = self.objects.get(&self.maker.role.kind());
        objects.is_some_and(|objects| objects.contains_key(key))
    }

    /// Adds or replaces an object.
    pub(crate) fn apply(&mut self, object: Object) {
        let (kind, key) = (object.kind(), object.key());
        let objects = self.objects.entry(kind).or_default();
        if objects.get(&key) == Some(&object) {
            return;
        }
        objects.insert(key.clone(), object);
        self.touch(kind, key);
    }

    /// Removes an object.
    pub(crate) fn delete(&mut self, kind: Kind, key: &Arc<str>) {
        let known = self.objects.get_mut(&kind);
        if known.and_then(|objects| objects.remove(key)).is_some() {
            self.touch(kind, key.clone());
        }
    }

    /// Replaces all objects of a kind, in one namespace or in all.
    pub(crate) fn list(&mut self, kind: Kind, namespace: Option<&str>, objects: Vec<Object>) {
        let mut gone: BTreeSet<Arc<str>> = match self.objects.get(&kind) {
            None => BTreeSet::new(),
            Some(known) => {
                let keys = known.keys();
                keys.filter(|key| is_in(key, namespace)).cloned().collect()
            }
        };
        for object in objects {
            gone.remove(&object.key());
            self.apply(object);
        }
        for key in gone {
            self.delete(kind, &key);
        }
    }

    fn touch(&mut self, kind: Kind, key: Arc<str>) {
        let name = (kind, key);
        if let Some(dependents) = self.dependents.get(&name) {
            self.dirty.extend(dependents.iter().cloned());
        }
        if kind == self.maker.role.kind() {
            self.dirty.insert(name.1);
        }
    }

    /// Number of objects whose targets have to be rebuilt.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Number of targets.
    pub(crate) fn targets(&self) -> usize {
        self.targets
    }

    /// Marks objects whose targets could not be reported, to be rebuilt.
    pub(crate) fn put_off(&mut self, made: Vec<Made>) {
        self.dirty.extend(made.into_iter().map(|(key, _)| key));
    }

    /// Rebuilds the targets that changed, in namespaces that are ready.
    pub(crate) fn make(&mut self, ready: impl Fn(&str) -> bool) -> Vec<Made> {
        let dirty = mem::take(&mut self.dirty);
        let (now, later) = dirty.into_iter().partition(|key| ready(key));
        self.dirty = later;
        let now: BTreeSet<Arc<str>> = now;
        now.into_iter().map(|key| self.make_one(key)).collect()
    }

    fn make_one(&mut self, key: Arc<str>) -> Made {
        let mut lookup = Lookup::new(&self.objects);
        let own = self.objects.get(&self.maker.role.kind());
        let made = own
            .and_then(|objects| objects.get(&key))
            .map(|object| make(&self.maker, object, &mut lookup));
        let names: Vec<Name> = lookup.into_names().into_iter().collect();
        let before = match names.is_empty() {
            true => self.looked_up.remove(&key),
            false => self.looked_up.insert(key.clone(), names.clone()),
        };
        for name in before.into_iter().flatten() {
            if let Some(dependents) = self.dependents.get_mut(&name) {
                dependents.remove(&key);
                if dependents.is_empty() && !names.contains(&name) {
                    self.dependents.remove(&name);
                }
            }
        }
        for name in names {
            self.dependents.entry(name).or_default().insert(key.clone());
        }
        let count = made.as_ref().map_or(0, Vec::len);
        let before = match made.is_some() {
            true => self.made.insert(key.clone(), count),
            false => self.made.remove(&key),
        };
        self.targets = self.targets + count - before.unwrap_or(0);
        (key, made)
    }
}

/// Whether a key belongs to a namespace; always true for None.
pub(crate) fn is_in(key: &str, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else {
        return true;
    };
    key.strip_prefix(namespace)
        .is_some_and(|rest| rest.starts_with('/'))
}
