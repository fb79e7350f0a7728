//! Objects of a cluster, with their history.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::selector::Selection;

/// Known resources: name, path, kind, whether they are namespaced.
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

/// How a watch reports that its history has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Answers with status 410.
    Status,
    /// Sends an error event.
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

/// Content and behaviour of the server.
pub struct State {
    /// The version of the last change.
    pub(super) version: u64,
    objects: BTreeMap<&'static str, Objects>,
    pub(super) changes: Vec<Change>,
    /// The last version whose changes are no longer available.
    pub(super) forgotten: u64,
    /// Token that requests must carry, if any.
    pub token: Option<String>,
    /// Resources to which access is forbidden.
    pub forbidden: BTreeSet<String>,
    /// Whether connections are closed without an answer, those of watches included.
    pub down: bool,
    /// How watches report an expired history.
    pub expiry: Expiry,
    /// Number of coming requests for a further page of a list that are answered 410.
    pub expiring_pages: usize,
    /// Number of bookmarks so far; every watch that supports them gets each.
    pub(super) bookmarks: u64,
    /// Number of times that all watches were broken off.
    pub(super) breaks: u64,
    pub(super) asked: Vec<String>,
    pub(super) watches: usize,
    pub(super) stopped: bool,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            // Not zero, as in a cluster with a past.
            version: 1000,
            objects: BTreeMap::new(),
            changes: Vec::new(),
            forgotten: 0,
            token: None,
            forbidden: BTreeSet::new(),
            down: false,
            expiry: Expiry::Status,
            expiring_pages: 0,
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

    /// The current object.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let (resource, ..) = find(resource)?;
        self.get(resource, &(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    pub(super) fn get(&self, resource: &'static str, key: &Key) -> Option<&Value> {
        self.objects.get(resource)?.get(key)
    }

    /// Discards the history so far, as etcd does every few minutes.
    pub fn compact(&mut self) {
        self.forgotten = self.version;
        self.changes.clear();
    }

    /// Breaks off all watches.
    pub fn break_watches(&mut self) {
        self.breaks += 1;
    }

    /// Sends a bookmark to each watch that supports them.
    pub fn bookmark(&mut self) {
        self.bookmarks += 1;
    }

    /// Objects of a resource at a version whose history is available.
    pub(super) fn at(&self, resource: &'static str, version: u64) -> BTreeMap<&Key, &Value> {
        let mut objects: BTreeMap<&Key, &Value> =
            self.objects.get(resource).into_iter().flatten().collect();
        let after = self.changes.iter().rev();
        let after = after.take_while(|change| change.version > version);
        for change in after.filter(|change| change.resource == resource) {
            match &change.before {
                Some(before) => objects.insert(&change.key, before),
                None => objects.remove(&change.key),
            };
        }
        objects
    }

    /// Changes of a resource after a version, as events for a watch with a selection.
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
                    // The last state of the object, with the version of its deletion.
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
