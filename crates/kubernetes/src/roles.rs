//! Builds the targets of an object: one file per role, with the labels of Prometheus' role of the
//! same name.

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

/// Options for building targets.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    pub(crate) role: Role,
    attach: AttachKeys,
    port: Option<Port>,
    only_ready: bool,
}

/// Choice of ports.
#[derive(Clone, Debug)]
enum Port {
    /// The first TCP port.
    FirstTcp,
    /// The port with this name or number.
    Called(String),
}

/// Value of `port` that selects the first TCP port. No port has this name, since port names have no
/// underscore.
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

    /// Filters ports by the configured choice.
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

    /// Adds labels and annotations of a namespace, if configured.
    fn namespace(&self, set: &mut Set, namespace: &str, lookup: &mut Lookup<'_>) {
        if self.attach.namespace
            && let Some(found) = lookup.find(Kind::Namespace, "", namespace)
        {
            set.describe("namespace", found.meta());
        }
    }

    /// Adds the labels of the target's node, if `attach_metadata` asks for them.
    fn node(&self, set: &mut Set, name: Option<&str>, lookup: &mut Lookup<'_>) {
        if self.attach.node
            && let Some(name) = name
            && let Some(found) = lookup.find(Kind::Node, "", name)
        {
            set.object("node", found.meta());
        }
    }

    /// The service with this name, whose labels are added.
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

/// The pod that an address belongs to, if any.
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

/// Builds the targets of an object.
pub(crate) fn make(maker: &Maker, object: &Object, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    match object {
        Object::EndpointSlice(it) => endpointslice::make(maker, it, lookup),
        Object::Endpoints(it) => endpoints::make(maker, it, lookup),
        Object::Pod(it) => pod::make(maker, it, lookup),
        Object::Service(it) => service::make(maker, it, lookup),
        Object::Node(it) => node::make(it).into_iter().collect(),
        Object::Ingress(it) => ingress::make(maker, it, lookup),
        // These kinds are only joined with others.
        Object::Namespace(_) | Object::ReplicaSet(_) | Object::Job(_) => Vec::new(),
    }
}
