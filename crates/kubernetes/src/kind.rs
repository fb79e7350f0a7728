//! Kinds of objects that are read.

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    EndpointSlice,
    Endpoints,
    Pod,
    Service,
    Node,
    Ingress,
    Namespace,
    ReplicaSet,
    Job,
}

impl Kind {
    /// Name of the kind in labels and messages.
    pub(crate) fn role(self) -> &'static str {
        match self {
            Self::EndpointSlice => "endpointslice",
            Self::Endpoints => "endpoints",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Node => "node",
            Self::Ingress => "ingress",
            Self::Namespace => "namespace",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
        }
    }

    /// Prefix of sources in Prometheus' spelling.
    pub(crate) fn source(self) -> &'static str {
        match self {
            Self::Service => "svc",
            other => other.role(),
        }
    }

    /// Whether objects of this kind belong to a namespace.
    pub(crate) fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node | Self::Namespace)
    }
}
