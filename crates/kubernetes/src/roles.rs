//! What targets are made of an object: one file for each role, with the labels that Prometheus' role of
//! that name has.

mod endpoints;
mod endpointslice;
mod ingress;
mod node;
mod pod;
mod service;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metrifold_discovery::Labels;

use crate::config::{AttachKeys, KubernetesConfig, Role};
use crate::kind::Kind;
use crate::labels::Set;
use crate::lookup::Lookup;
use crate::objects::{Object, ObjectReference, Pod};

/// How targets are made.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) role: Role,
    attach: AttachKeys,
    port: Option<Port>,
    only_ready: bool,
}

/// Which port is taken.
#[derive(Clone, Debug)]
enum Port {
    /// The first that is TCP.
    FirstTcp,
    /// By name or by number.
    Called(String),
}

/// The value of `port` that takes the first. No port can be called so: names have no underscore.
const FIRST_TCP: &str = "first_tcp";

impl Maker {
    pub(crate) fn new(config: &KubernetesConfig) -> Self {
        let port = config.port.as_deref().map(|port| match port {
            FIRST_TCP => Port::FirstTcp,
            port => Port::Called(port.to_owned()),
        });
        Self {
            role: config.role,
            attach: config.attach_metadata.clone(),
            port,
            only_ready: config.only_ready,
        }
    }

    /// Those of some ports that are taken.
    fn ports<'a, T>(
        &self,
        ports: impl IntoIterator<Item = &'a T>,
        name: impl Fn(&T) -> (&str, Option<u16>, &str),
    ) -> Vec<&'a T> {
        let mut ports = ports.into_iter();
        match &self.port {
            None => ports.collect(),
            Some(Port::FirstTcp) => {
                let is_tcp = |port: &&T| matches!(name(port).2, "TCP" | "");
                ports.find(is_tcp).into_iter().collect()
            }
            Some(Port::Called(wanted)) => {
                let is_called = |port: &&T| {
                    let (name, number, _) = name(port);
                    name == wanted || number.is_some_and(|it| it.to_string() == *wanted)
                };
                ports.filter(is_called).collect()
            }
        }
    }

    /// Labels and annotations of a namespace, if they are wanted.
    fn namespace(&self, set: &mut Set, namespace: &str, lookup: &mut Lookup<'_>) {
        if self.attach.namespace
            && let Some(found) = lookup.find(Kind::Namespace, "", namespace)
        {
            set.describe("namespace", found.meta());
        }
    }

    /// What is known of a node, if it is wanted.
    fn node(&self, set: &mut Set, name: Option<&str>, lookup: &mut Lookup<'_>) {
        if self.attach.node
            && let Some(name) = name
            && let Some(found) = lookup.find(Kind::Node, "", name)
        {
            set.object("node", found.meta());
        }
    }

    /// What is known of the service of this name.
    fn service<'a>(
        set: &mut Set,
        namespace: &str,
        name: &str,
        lookup: &mut Lookup<'a>,
    ) -> Option<&'a crate::objects::Service> {
        let Some(Object::Service(service)) = lookup.find(Kind::Service, namespace, name) else {
            return None;
        };
        set.meta("namespace", namespace);
        set.object("service", &service.metadata);
        Some(service)
    }
}

/// The pod that an address is of, if it is one's.
fn pod_of<'a>(reference: Option<&ObjectReference>, lookup: &mut Lookup<'a>) -> Option<&'a Pod> {
    let reference = reference.filter(|it| it.kind == "Pod")?;
    match lookup.find(Kind::Pod, &reference.namespace, &reference.name) {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The targets of an object.
pub(crate) fn make(maker: &Maker, object: &Object, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    match object {
        Object::EndpointSlice(it) => endpointslice::make(maker, it, lookup),
        Object::Endpoints(it) => endpoints::make(maker, it, lookup),
        Object::Pod(it) => pod::make(maker, it, lookup),
        Object::Service(it) => service::make(maker, it, lookup),
        Object::Node(it) => node::make(it).into_iter().collect(),
        Object::Ingress(it) => ingress::make(maker, it, lookup),
        // They are looked up for others.
        Object::Namespace(_) | Object::ReplicaSet(_) | Object::Job(_) => Vec::new(),
    }
}
