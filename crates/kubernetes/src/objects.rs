//! Kubernetes objects, limited to the fields that are used.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use serde::{Deserialize, Deserializer};

use crate::kind::Kind;

/// An object of any kind that is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    EndpointSlice(Box<EndpointSlice>),
    Endpoints(Box<Endpoints>),
    Pod(Box<Pod>),
    Service(Box<Service>),
    Node(Box<Node>),
    Ingress(Box<Ingress>),
    Namespace(Box<Namespace>),
    ReplicaSet(Box<ReplicaSet>),
    Job(Box<Job>),
}

/// Implements a kind of object with its names in the API.
macro_rules! resource {
    ($name:ident, $scope:ty, $group:literal, $version:literal, $plural:literal {
        $($(#[$meta:meta])* $field:ident: $type:ty),* $(,)?
    }) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(crate) struct $name {
            pub(crate) metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            $(
                $(#[$meta])*
                #[serde(default, deserialize_with = "crate::objects::or_default")]
                pub(crate) $field: $type,
            )*
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> std::borrow::Cow<'_, str> {
                stringify!($name).into()
            }

            fn group((): &()) -> std::borrow::Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> std::borrow::Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> std::borrow::Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(crate) use resource;

/// Defines a kind of object that has targets or is joined with them.
macro_rules! object {
    ($name:ident $($rest:tt)*) => {
        resource!($name $($rest)*);

        impl From<$name> for Object {
            fn from(mut object: $name) -> Self {
                // Managed fields change with every write, and are not used.
                object.metadata.managed_fields = None;
                object.metadata.resource_version = None;
                object.metadata.generation = None;
                Self::$name(Box::new(object))
            }
        }
    };
}

/// Defines a part of an object: a field that is absent, or null (as Go writes an empty list), has
/// its default.
macro_rules! part {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Default, PartialEq, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(crate) struct $name {
            $($(#[$meta])* #[serde(default, deserialize_with = "or_default")] pub(crate) $field: $type,)*
        }
    };
}

pub(crate) fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

object!(EndpointSlice, NamespaceResourceScope, "discovery.k8s.io", "v1", "endpointslices" {
    address_type: String,
    endpoints: Vec<SliceEndpoint>,
    ports: Vec<SlicePort>,
});
object!(Endpoints, NamespaceResourceScope, "", "v1", "endpoints" { subsets: Vec<Subset>, });
object!(Pod, NamespaceResourceScope, "", "v1", "pods" { spec: PodSpec, status: PodStatus, });
object!(Service, NamespaceResourceScope, "", "v1", "services" { spec: ServiceSpec, status: ServiceStatus, });
object!(Node, ClusterResourceScope, "", "v1", "nodes" { spec: NodeSpec, status: NodeStatus, });
object!(Ingress, NamespaceResourceScope, "networking.k8s.io", "v1", "ingresses" { spec: IngressSpec, });
object!(Namespace, ClusterResourceScope, "", "v1", "namespaces" {});
object!(ReplicaSet, NamespaceResourceScope, "apps", "v1", "replicasets" {});
object!(Job, NamespaceResourceScope, "batch", "v1", "jobs" {});

part!(SliceEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    hostname: Option<String>,
    target_ref: Option<ObjectReference>,
    node_name: Option<String>,
    zone: Option<String>,
    deprecated_topology: BTreeMap<String, String>,
});
part!(Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
});
part!(SlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
    app_protocol: Option<String>,
});
part!(ObjectReference {
    kind: String,
    namespace: String,
    name: String,
});
part!(Subset {
    addresses: Vec<EndpointAddress>,
    not_ready_addresses: Vec<EndpointAddress>,
    ports: Vec<EndpointPort>,
});
part!(EndpointAddress {
    ip: String,
    hostname: String,
    node_name: Option<String>,
    target_ref: Option<ObjectReference>,
});
part!(EndpointPort {
    name: String,
    port: u16,
    protocol: String,
});
part!(PodSpec {
    node_name: String,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
});
part!(Container { name: String, image: String, ports: Vec<ContainerPort>, });
part!(ContainerPort {
    name: String,
    container_port: u16,
    protocol: String,
});
part!(PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
});
part!(Condition {
    r#type: String,
    status: String,
});
part!(ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
});
part!(ServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    external_name: String,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: String,
    ip_family_policy: Option<String>,
    ip_families: Vec<String>,
    ports: Vec<ServicePort>,
});
part!(ServicePort {
    name: String,
    port: u16,
    protocol: String,
});
part!(ServiceStatus {
    load_balancer: LoadBalancer,
});
part!(LoadBalancer { ingress: Vec<LoadBalancerIngress>, });
part!(LoadBalancerIngress { ip: String });
part!(NodeSpec {
    #[serde(rename = "providerID")]
    provider_id: String,
});
part!(NodeStatus {
    addresses: Vec<NodeAddress>,
    conditions: Vec<Condition>,
    daemon_endpoints: DaemonEndpoints,
});
part!(NodeAddress {
    r#type: String,
    address: String,
});
part!(DaemonEndpoints {
    kubelet_endpoint: KubeletEndpoint,
});
part!(KubeletEndpoint {
    // The API spells this field with a capital letter.
    #[serde(rename = "Port")]
    port: u16,
});
part!(IngressSpec {
    ingress_class_name: Option<String>,
    tls: Vec<IngressTls>,
    rules: Vec<IngressRule>,
});
part!(IngressTls { hosts: Vec<String>, });
part!(IngressRule { host: String, http: Option<IngressHttp>, });
part!(IngressHttp { paths: Vec<IngressPath>, });
part!(IngressPath { path: String });

impl Object {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Node(_) => Kind::Node,
            Self::Ingress(_) => Kind::Ingress,
            Self::Namespace(_) => Kind::Namespace,
            Self::ReplicaSet(_) => Kind::ReplicaSet,
            Self::Job(_) => Kind::Job,
        }
    }

    pub(crate) fn meta(&self) -> &ObjectMeta {
        match self {
            Self::EndpointSlice(it) => &it.metadata,
            Self::Endpoints(it) => &it.metadata,
            Self::Pod(it) => &it.metadata,
            Self::Service(it) => &it.metadata,
            Self::Node(it) => &it.metadata,
            Self::Ingress(it) => &it.metadata,
            Self::Namespace(it) => &it.metadata,
            Self::ReplicaSet(it) => &it.metadata,
            Self::Job(it) => &it.metadata,
        }
    }

    /// Key of the object within its kind.
    pub(crate) fn key(&self) -> Arc<str> {
        let meta = self.meta();
        key(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

/// Key of an object within its kind: `NAMESPACE/NAME`, or the name alone.
pub(crate) fn key(namespace: &str, name: &str) -> Arc<str> {
    match namespace {
        "" => name.into(),
        namespace => format!("{namespace}/{name}").into(),
    }
}

/// Kind and name of the controlling owner.
pub(crate) fn controller(meta: &ObjectMeta) -> Option<(&str, &str)> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|it| it.controller == Some(true))?;
    Some((&controller.kind, &controller.name))
}
