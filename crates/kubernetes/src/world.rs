//! All that is known of a cluster, and which targets are to be made anew when something of it changes.
//!
//! Making a target looks up other objects, such as the pod behind an endpoint. Each look-up is noted,
//! so that a change of one object costs as much as there is made of it.

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

/// All that is known.
pub(crate) struct World {
    maker: Maker,
    objects: Objects,
    /// Which objects were looked up to make the targets of one.
    looked_up: Map<Arc<str>, Vec<Name>>,
    /// The same the other way.
    dependents: Map<Name, BTreeSet<Arc<str>>>,
    /// Whose targets are to be made anew.
    dirty: BTreeSet<Arc<str>>,
    /// How many targets were made of each object, and of all.
    made: Map<Arc<str>, usize>,
    targets: usize,
}

/// The targets of an object, or none if it is gone.
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

    /// How many objects of a kind there are.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.objects.get(&kind).map_or(0, BTreeMap::len)
    }

    /// Whether the object is known, be it different.
    pub(crate) fn has(&self, object: &Object) -> bool {
        let objects = self.objects.get(&object.kind());
        objects.is_some_and(|objects| objects.contains_key(&object.key()))
    }

    /// Whether an object of the kind that has targets is known.
    pub(crate) fn knows(&self, key: &str) -> bool {
        let objects = self.objects.get(&self.maker.role.kind());
        objects.is_some_and(|objects| objects.contains_key(key))
    }

    /// Takes an object that is new or different.
    pub(crate) fn apply(&mut self, object: Object) {
        let (kind, key) = (object.kind(), object.key());
        let objects = self.objects.entry(kind).or_default();
        if objects.get(&key) == Some(&object) {
            return;
        }
        objects.insert(key.clone(), object);
        self.touch(kind, key);
    }

    /// Forgets an object.
    pub(crate) fn delete(&mut self, kind: Kind, key: &Arc<str>) {
        let known = self.objects.get_mut(&kind);
        if known.and_then(|objects| objects.remove(key)).is_some() {
            self.touch(kind, key.clone());
        }
    }

    /// Takes all objects of a kind that there are in a namespace, or in all of them.
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

    /// How many objects have targets that are to be made anew.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// How many targets there are.
    pub(crate) fn targets(&self) -> usize {
        self.targets
    }

    /// Has targets made again that could not be told.
    pub(crate) fn put_off(&mut self, made: Vec<Made>) {
        self.dirty.extend(made.into_iter().map(|(key, _)| key));
    }

    /// Makes anew what has changed in namespaces that are ready.
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

/// Whether a key is of a namespace.
pub(crate) fn is_in(key: &str, namespace: Option<&str>) -> bool {
    let Some(namespace) = namespace else {
        return true;
    };
    key.strip_prefix(namespace)
        .is_some_and(|rest| rest.starts_with('/'))
}
