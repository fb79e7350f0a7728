//! PrometheusRule objects, watched.

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

/// Changes that wait to be taken in: more have the watches wait.
const WAITING: usize = 256;

resource!(PrometheusRule, NamespaceResourceScope, "monitoring.coreos.com", "v1", "prometheusrules" {
    spec: Value,
});

/// An object with rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleObject {
    /// Where it is.
    pub namespace: String,
    /// What it is called there.
    pub name: String,
    /// Whose rules it has, empty for nobody's; or why that is not known.
    pub tenant: Result<String, String>,
    /// A rule file, in JSON.
    pub file: String,
}

/// Follows the objects of a cluster.
pub struct RuleObjects {
    keys: RuleObjectKeys,
    cluster: Cluster,
    max_bytes: usize,
    running: Option<Running>,
    places: Vec<Place>,
    known: BTreeMap<Arc<str>, Arc<RuleObject>>,
}

/// The watches, which end with it.
struct Running {
    changes: mpsc::Receiver<(usize, Change<PrometheusRule>)>,
    _watches: JoinSet<()>,
}

/// One watch: of a namespace or of all.
struct Place {
    namespace: Option<String>,
    listed: bool,
    failure: Option<String>,
}

impl RuleObjects {
    /// What follows them; connects nowhere yet. An answer may be of so many bytes.
    ///
    /// # Errors
    ///
    /// Fails when nothing says where the cluster is, or a file cannot be read.
    pub fn build(keys: &RuleObjectKeys, max_bytes: usize) -> Result<Self, BuildError> {
        let cluster = keys.connect.cluster()?;
        let namespaces = cluster.namespaces(&keys.namespaces, keys.own_namespace)?;
        let place = |namespace: Option<String>| Place {
            namespace,
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

    /// All objects that are known; none before all namespaces have been listed once.
    pub fn known(&self) -> Option<&BTreeMap<Arc<str>, Arc<RuleObject>>> {
        let all = self.places.iter().all(|place| place.listed);
        all.then_some(&self.known)
    }

    /// Why something is not heard at the moment.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.places
            .iter()
            .filter_map(|place| place.failure.as_deref())
    }

    /// Waits until something has changed. What comes together is taken together.
    pub async fn changed(&mut self) {
        let running = match self.running.take() {
            Some(running) => running,
            None => self.start(),
        };
        let mut some = Vec::new();
        let running = self.running.insert(running);
        if running.changes.recv_many(&mut some, WAITING).await == 0 {
            // The watches end with the process alone.
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
            let health = Health::default();
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
                    .map(|object| self.read(object))
                    .collect();
                let is_here = |object: &RuleObject| {
                    namespace.as_ref().is_none_or(|it| *it == object.namespace)
                };
                self.known.retain(|key, known| {
                    // One that is the same stays the same in memory.
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
                let (key, object) = self.read(object);
                let known = self.known.get(&key);
                if known.is_none() && self.known.len() >= self.keys.max_objects {
                    let most = self.keys.max_objects;
                    let text = format!("there are more than {most} objects: see max_objects");
                    self.places[at].failure = Some(text);
                } else if known.is_none_or(|known| **known != object) {
                    self.known.insert(key, Arc::new(object));
                }
            }
            Change::Deleted(object) => {
                let (key, _) = self.read(object);
                self.known.remove(&key);
            }
        }
    }

    fn read(&self, object: PrometheusRule) -> (Arc<str>, RuleObject) {
        let meta = object.metadata;
        let namespace = meta.namespace.unwrap_or_default();
        let name = meta.name.unwrap_or_default();
        let wanted = self.keys.tenant_key.as_deref().unwrap_or_default();
        let named = |what: &str, pairs: Option<BTreeMap<String, String>>| {
            let found = pairs.and_then(|mut pairs| pairs.remove(wanted));
            let found = found.filter(|tenant| !tenant.is_empty());
            found.ok_or_else(|| format!("it has no {what} {wanted:?} that names its tenant"))
        };
        let tenant = match self.keys.tenant_from {
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
}
