//! Watches PrometheusRule objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::Api;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use metrifold_base::BuildError;

use crate::config::Selectors;
use crate::connect::Cluster;
use crate::objects::{key, resource};
use crate::rule_keys::{RuleObjectKeys, TenantFrom};
use crate::transport::Health;
use crate::watch::{Change, Watch};

/// Capacity of the channel of changes; when it is full, watches wait.
const WAITING: usize = 256;

resource!(PrometheusRule, NamespaceResourceScope, "monitoring.coreos.com", "v1", "prometheusrules" {
    spec: Value,
});

/// A PrometheusRule object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleObject {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// Tenant of its rules, empty for none; or why it cannot be determined.
    pub tenant: Result<String, String>,
    /// The rules as a rule file in JSON.
    pub file: String,
}

/// Follows the PrometheusRule objects of a cluster.
pub struct RuleObjects {
    keys: RuleObjectKeys,
    cluster: Cluster,
    max_bytes: usize,
    running: Option<Running>,
    places: Vec<Place>,
    known: BTreeMap<Arc<str>, Arc<RuleObject>>,
}

/// Running watches, aborted on drop.
struct Running {
    changes: mpsc::Receiver<(usize, Change<PrometheusRule>)>,
    _watches: JoinSet<()>,
}

/// One watch: of one namespace or of all.
struct Place {
    namespace: Option<String>,
    health: Health,
    listed: bool,
    failure: Option<String>,
}

impl RuleObjects {
    /// Prepares the watches without connecting. `max_bytes` bounds an answer and an event of a
    /// watch.
    ///
    /// # Errors
    ///
    /// Fails when no key names the cluster, or a file cannot be read.
    pub fn build(keys: &RuleObjectKeys, max_bytes: usize) -> Result<Self, BuildError> {
        let cluster = keys.connect.cluster()?;
        let namespaces = cluster.namespaces(&keys.namespaces, keys.own_namespace)?;
        let place = |namespace: Option<String>| Place {
            namespace,
            health: Health::default(),
            listed: false,
            failure: None,
        };
        let places = match namespaces.is_empty() {
            true => vec![place(None)],
            false => namespaces.into_iter().map(Some).map(place).collect(),
        };
        Ok(Self {
            keys: keys.clone(),
            cluster,
            max_bytes,
            running: None,
            places,
            known: BTreeMap::new(),
        })
    }

    /// All known objects; None until a namespace has been listed once.
    pub fn known(&self) -> Option<&BTreeMap<Arc<str>, Arc<RuleObject>>> {
        let any = self.places.iter().any(|place| place.listed);
        any.then_some(&self.known)
    }

    /// Whether all namespaces have been listed once.
    pub fn is_complete(&self) -> bool {
        self.places.iter().all(|place| place.listed)
    }

    /// Errors of the watches that are broken now.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.places
            .iter()
            .filter_map(|place| place.failure.as_deref())
    }

    /// Waits for a change. Simultaneous changes are taken together.
    pub async fn changed(&mut self) {
        let running = match self.running.take() {
            Some(running) => running,
            None => self.start(),
        };
        let mut some = Vec::new();
        let running = self.running.insert(running);
        if running.changes.recv_many(&mut some, WAITING).await == 0 {
            // Watches end only with the process.
            std::future::pending::<()>().await;
        }
        for (at, change) in some {
            self.take(at, change);
        }
    }

    fn start(&self) -> Running {
        let (tell, changes) = mpsc::channel(WAITING);
        let mut watches = JoinSet::new();
        for (at, place) in self.places.iter().enumerate() {
            let health = place.health.clone();
            let client = self.cluster.client(health.clone(), self.max_bytes);
            let api: Api<PrometheusRule> = match &place.namespace {
                Some(namespace) => Api::namespaced(client, namespace),
                None => Api::all(client),
            };
            let watch = Watch {
                api,
                selectors: Selectors {
                    label: self.keys.label_selector.clone(),
                    field: None,
                },
                timeout: self.keys.watch_timeout,
                max_objects: self.keys.max_objects,
                health,
            };
            watches.spawn(watch.follow(at, tell.clone()));
        }
        Running {
            changes,
            _watches: watches,
        }
    }

    fn take(&mut self, at: usize, change: Change<PrometheusRule>) {
        let Some(place) = self.places.get_mut(at) else {
            return;
        };
        match change {
            Change::Failed(failure) => {
                let of = place.namespace.as_deref();
                let of = of.map_or(String::new(), |name| format!("namespace {name}: "));
                place.failure = Some(format!("{of}{failure}"));
            }
            Change::Recovered => place.failure = None,
            Change::Listed(objects) => {
                place.listed = true;
                place.failure = None;
                let namespace = place.namespace.clone();
                let mut listed: BTreeMap<_, _> = objects
                    .into_iter()
                    .map(|object| read(&self.keys, object))
                    .collect();
                let is_here = |object: &RuleObject| {
                    namespace.as_ref().is_none_or(|it| *it == object.namespace)
                };
                self.known.retain(|key, known| {
                    // An unchanged object keeps its allocation.
                    match listed.remove(key) {
                        Some(object) => {
                            if **known != object {
                                *known = Arc::new(object);
                            }
                            true
                        }
                        None => !is_here(known),
                    }
                });
                let new = listed
                    .into_iter()
                    .map(|(key, object)| (key, Arc::new(object)));
                self.known.extend(new);
            }
            Change::Applied(object) => {
                let (key, object) = read(&self.keys, object);
                let known = self.known.get(&key);
                if known.is_none() && self.known.len() >= self.keys.max_objects {
                    let most = self.keys.max_objects;
                    let text = format!("there are more than {most} objects: see max_objects");
                    place.failure = Some(text);
                    // Lists are tried until all objects fit: then this one is not missing.
                    place.health.relist();
                } else if known.is_none_or(|known| **known != object) {
                    self.known.insert(key, Arc::new(object));
                }
            }
            Change::Deleted(object) => {
                let (key, _) = read(&self.keys, object);
                self.known.remove(&key);
            }
        }
    }
}

/// Reads an object; returns it with its key.
fn read(keys: &RuleObjectKeys, object: PrometheusRule) -> (Arc<str>, RuleObject) {
    let meta = object.metadata;
    let namespace = meta.namespace.unwrap_or_default();
    let name = meta.name.unwrap_or_default();
    let wanted = keys.tenant_key.as_deref().unwrap_or_default();
    let named = |what: &str, pairs: Option<BTreeMap<String, String>>| {
        let found = pairs.and_then(|mut pairs| pairs.remove(wanted));
        let found = found.filter(|tenant| !tenant.is_empty());
        found.ok_or_else(|| format!("the object has no {what} {wanted:?} that names its tenant"))
    };
    let tenant = match keys.tenant_from {
        TenantFrom::Namespace => Ok(namespace.clone()),
        TenantFrom::Nobody => Ok(String::new()),
        TenantFrom::Label => named("label", meta.labels),
        TenantFrom::Annotation => named("annotation", meta.annotations),
    };
    let key = key(&namespace, &name);
    let object = RuleObject {
        namespace,
        name,
        tenant,
        file: object.spec.to_string(),
    };
    (key, object)
}
