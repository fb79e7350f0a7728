//! What is in a cluster, and what was before.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::selector::Selection;

/// The resources that there are: path, kind, whether they belong to namespaces.
const RESOURCES: [(&str, &str, &str, bool); 12] = [
    ("pods", "api/v1", "Pod", true),
    ("services", "api/v1", "Service", true),
    ("endpoints", "api/v1", "Endpoints", true),
    ("nodes", "api/v1", "Node", false),
    ("namespaces", "api/v1", "Namespace", false),
    (
        "endpointslices",
        "apis/discovery.k8s.io/v1",
        "EndpointSlice",
        true,
    ),
    ("ingresses", "apis/networking.k8s.io/v1", "Ingress", true),
    ("replicasets", "apis/apps/v1", "ReplicaSet", true),
    ("jobs", "apis/batch/v1", "Job", true),
    ("leases", "apis/coordination.k8s.io/v1", "Lease", true),
    (
        "prometheusrules",
        "apis/monitoring.coreos.com/v1",
        "PrometheusRule",
        true,
    ),
    ("configmaps", "api/v1", "ConfigMap", true),
];

/// How a watch is told that its history is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// By the status of its answer.
    Status,
    /// By an event.
    Event,
}

/// An object by namespace and name.
pub(super) type Key = (String, String);
type Objects = BTreeMap<Key, Value>;

/// One change of an object.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) resource: &'static str,
    pub(super) key: Key,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// What there is, and how the server behaves.
pub struct State {
    /// The version of the last change.
    pub(super) version: u64,
    objects: BTreeMap<&'static str, Objects>,
    pub(super) changes: Vec<Change>,
    /// Changes up to this one are forgotten.
    pub(super) forgotten: u64,
    /// The token that must be shown, if any.
    pub token: Option<String>,
    /// Resources that nobody may read.
    pub forbidden: BTreeSet<String>,
    /// Whether connections are closed without an answer, those of watches too.
    pub down: bool,
    /// How it is told that a history is over.
    pub expiry: Expiry,
    /// Bookmarks that have been asked for: every watch that takes them gets each.
    pub(super) bookmarks: u64,
    /// How often all watches were broken off.
    pub(super) breaks: u64,
    pub(super) asked: Vec<String>,
    pub(super) watches: usize,
    pub(super) stopped: bool,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            // Not from nothing, as in a cluster that has lived.
            version: 1000,
            objects: BTreeMap::new(),
            changes: Vec::new(),
            forgotten: 0,
            token: None,
            forbidden: BTreeSet::new(),
            down: false,
            expiry: Expiry::Status,
            bookmarks: 0,
            breaks: 0,
            asked: Vec::new(),
            watches: 0,
            stopped: false,
        }
    }

    /// Creates or replaces an object.
    #[track_caller]
    pub fn put(&mut self, resource: &str, mut object: Value) {
        let (resource, ..) = find(resource).expect("a resource");
        let key = key(&object);
        let before = self.get(resource, &key).cloned();
        self.version += 1;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.version.to_string());
        let uid = before.as_ref().map(|it| it["metadata"]["uid"].clone());
        if meta["uid"].is_null() {
            meta["uid"] = uid.unwrap_or_else(|| json!(format!("uid-{}", self.version)));
        }
        meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let objects = self.objects.entry(resource).or_default();
        objects.insert(key.clone(), object.clone());
        self.changes.push(Change {
            version: self.version,
            resource,
            key,
            before,
            after: Some(object),
        });
    }

    /// Deletes an object.
    #[track_caller]
    pub fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        let (resource, ..) = find(resource).expect("a resource");
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.objects.entry(resource).or_default();
        let before = known.remove(&key).expect("an object");
        self.version += 1;
        self.changes.push(Change {
            version: self.version,
            resource,
            key,
            before: Some(before),
            after: None,
        });
    }

    /// The object, as it is now.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let (resource, ..) = find(resource)?;
        self.get(resource, &(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    pub(super) fn get(&self, resource: &'static str, key: &Key) -> Option<&Value> {
        self.objects.get(resource)?.get(key)
    }

    /// Forgets all changes so far, as etcd does every few minutes.
    pub fn compact(&mut self) {
        self.forgotten = self.version;
        self.changes.clear();
    }

    /// Breaks all watches off in the middle.
    pub fn break_watches(&mut self) {
        self.breaks += 1;
    }

    /// Sends a bookmark to each watch that takes them.
    pub fn bookmark(&mut self) {
        self.bookmarks += 1;
    }

    /// The objects of a resource as they were at a version that is not forgotten.
    pub(super) fn at(&self, resource: &'static str, version: u64) -> Objects {
        let mut objects = self.objects.get(resource).cloned().unwrap_or_default();
        let after = self.changes.iter().rev();
        let after = after.take_while(|change| change.version > version);
        for change in after.filter(|change| change.resource == resource) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        objects
    }

    /// The changes of a resource after a version, as a watch with a selection sees them.
    pub(super) fn events(
        &self,
        resource: &'static str,
        after: u64,
        selection: &Selection,
    ) -> Vec<(&'static str, Value)> {
        let from = self
            .changes
            .partition_point(|change| change.version <= after);
        let changes = self.changes[from..].iter();
        let changes = changes.filter(|change| change.resource == resource);
        let event = |change: &Change| {
            let matches =
                |object: &Option<Value>| object.clone().filter(|object| selection.takes(object));
            match (matches(&change.before), matches(&change.after)) {
                (None, None) => None,
                (None, Some(after)) => Some(("ADDED", after)),
                (Some(_), Some(after)) => Some(("MODIFIED", after)),
                (Some(mut before), None) => {
                    // As it was, at the version at which it went.
                    before["metadata"]["resourceVersion"] = json!(change.version.to_string());
                    Some(("DELETED", before))
                }
            }
        };
        changes.filter_map(event).collect()
    }
}

fn key(object: &Value) -> Key {
    let text = |name: &str| {
        let text = object["metadata"][name].as_str();
        text.unwrap_or_default().to_owned()
    };
    (text("namespace"), text("name"))
}

/// A resource: its name, the path in front of it, its kind, and whether it belongs to namespaces.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static str, &'static str, bool)> {
    RESOURCES.into_iter().find(|(known, ..)| *known == name)
}
