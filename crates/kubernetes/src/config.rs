//! `[discovery.NAME] type = "kubernetes"`: cluster, credentials, and selection of objects.

use std::collections::HashSet;
use std::path::Path;

use metrifold_base::{Period, Problems, keys, words};
use metrifold_discovery::LimitKeys;

use crate::keys::{ConnectKeys, check_namespace, check_watch};
use crate::kind::Kind;

/// Most namespaces that are watched one by one.
const MAX_NAMESPACES: usize = 1000;

keys! {
    /// `[discovery.NAME] type = "kubernetes"`.
    #[derive(Clone, Debug)]
    pub struct KubernetesConfig {
        /// Kind of targets: ports of `endpointslice`, `endpoints`, `pod` or `service`, a `node`, or paths of `ingress`.
        pub(crate) role: Role = required("endpointslice"),
        pub(crate) connect: ConnectKeys = include,
        /// Namespaces to watch. By default, all.
        pub(crate) namespaces: Vec<String> = unset(["monitoring"]),
        /// Whether to watch the namespace of the pod that Metrifold runs in. Only for connections from within a cluster.
        pub(crate) own_namespace: bool = default(false),
        /// Label and field selectors with which the API server filters objects: those of the role itself, or those joined with its targets.
        pub(crate) selectors: Vec<SelectorKeys> = unset([{ role = "pod", label = "app=shop" }]),
        /// Objects to read in addition and join with each target.
        pub(crate) attach_metadata: AttachKeys = table,
        /// Name or number of the only port to use; `first_tcp` is the first TCP port of a set of endpoints or of a pod. By default all ports are used, including ports of pods that no service refers to.
        pub(crate) port: Option<String> = unset("web"),
        /// Whether to leave out endpoints and pods that are not ready or that terminate. An endpoint whose readiness is unknown counts as ready.
        pub(crate) only_ready: bool = default(false),
        /// Duration of a watch, after which it is requested again. A watch that stays open 10 s longer counts as broken.
        pub(crate) watch_timeout: Period = default("4m"),
        /// Maximum number of objects of one kind. Above it, the previous targets are kept.
        pub(crate) max_objects: usize = default(250000),
        pub(crate) limits: LimitKeys = include,
    }
}

keys! {
    /// Selectors for objects of one kind.
    #[derive(Clone, Debug)]
    pub struct SelectorKeys {
        /// Kind of the objects to filter: the role itself; for `endpointslice` and `endpoints` also `pod` and `service`, for `pod` also `node`.
        pub(crate) role: Role = required("pod"),
        /// Kubernetes label selector.
        pub(crate) label: Option<String> = unset("app in (shop, cart),!legacy"),
        /// Kubernetes field selector.
        pub(crate) field: Option<String> = unset("spec.nodeName=node-1"),
    }
}

keys! {
    /// Objects that are read and joined with targets. Each requires permission to list and watch
    /// its kind.
    #[derive(Clone, Debug)]
    pub struct AttachKeys {
        /// Name, labels and annotations of the node.
        pub(crate) node: bool = default(false),
        /// Labels and annotations of the namespace.
        pub(crate) namespace: bool = default(false),
        /// Name of the deployment that a pod belongs to, found by its replica set.
        pub(crate) deployment: bool = default(false),
        /// Name of the job that a pod belongs to.
        pub(crate) job: bool = default(false),
        /// Name of the cron job that a pod belongs to, found by its job.
        pub(crate) cronjob: bool = default(false),
    }
}

words! {
    /// Kinds of targets, with Prometheus' names of the roles.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Role {
        /// Endpoints of services, by their slices.
        Endpointslice = "endpointslice",
        /// Endpoints of services, by the older kind of object.
        Endpoints = "endpoints",
        /// Ports of containers of pods.
        Pod = "pod",
        /// Ports of services.
        Service = "service",
        /// Nodes, at the kubelet's port.
        Node = "node",
        /// Paths of ingresses.
        Ingress = "ingress",
    }
}

impl Role {
    /// Kind of the objects that targets are made of.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Endpointslice => Kind::EndpointSlice,
            Self::Endpoints => Kind::Endpoints,
            Self::Pod => Kind::Pod,
            Self::Service => Kind::Service,
            Self::Node => Kind::Node,
            Self::Ingress => Kind::Ingress,
        }
    }

    /// Roles that selectors may name for this role.
    fn selects(self) -> &'static [Self] {
        match self {
            Self::Endpointslice => &[Self::Endpointslice, Self::Pod, Self::Service],
            Self::Endpoints => &[Self::Endpoints, Self::Pod, Self::Service],
            Self::Pod => &[Self::Pod, Self::Node],
            Self::Service => &[Self::Service],
            Self::Node => &[Self::Node],
            Self::Ingress => &[Self::Ingress],
        }
    }

    fn as_str(self) -> &'static str {
        self.kind().role()
    }
}

/// Label and field selectors in the API server's syntax.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    pub(crate) label: Option<String>,
    pub(crate) field: Option<String>,
}

impl KubernetesConfig {
    /// Kinds of objects that are read in addition to the role's.
    pub(crate) fn joined(&self) -> Vec<Kind> {
        let attach = &self.attach_metadata;
        let endpoints = matches!(self.role, Role::Endpointslice | Role::Endpoints);
        let pods = endpoints || self.role == Role::Pod;
        let joined = [
            (endpoints, Kind::Service),
            (endpoints, Kind::Pod),
            (pods && attach.node, Kind::Node),
            (self.role != Role::Node && attach.namespace, Kind::Namespace),
            (pods && attach.deployment, Kind::ReplicaSet),
            (pods && attach.cronjob, Kind::Job),
        ];
        let joined = joined.into_iter();
        joined.filter(|(is, _)| *is).map(|(_, kind)| kind).collect()
    }

    /// Selectors for a kind; empty if none are configured.
    pub(crate) fn selectors(&self, kind: Kind) -> Selectors {
        let of_kind = |it: &&SelectorKeys| it.role.kind() == kind;
        let given = self.selectors.iter().find(of_kind);
        given.map_or_else(Selectors::default, |given| Selectors {
            label: given.label.clone(),
            field: given.field.clone(),
        })
    }

    /// Text that identifies the query, so that targets stored for another query are recognised.
    pub(crate) fn asks(&self) -> String {
        format!(
            "{} {} {:?} {} {:?} {:?} {:?} {}",
            self.connect.place(),
            self.role.as_str(),
            self.namespaces,
            self.own_namespace,
            self.selectors,
            self.attach_metadata,
            self.port,
            self.only_ready
        )
    }

    pub(crate) fn files(&self) -> Vec<&Path> {
        self.connect.files()
    }

    pub(crate) fn check(&self, problems: &mut Problems) {
        self.connect.validate(problems);
        self.connect
            .check_own_namespace(self.own_namespace, problems);
        if self.namespaces.len() > MAX_NAMESPACES {
            problems.at("namespaces", format!("must be at most {MAX_NAMESPACES}"));
        }
        for (at, name) in self.namespaces.iter().enumerate() {
            check_namespace(name, &format!("namespaces[{at}]"), problems);
        }
        if self.role == Role::Node && (!self.namespaces.is_empty() || self.own_namespace) {
            problems.at("namespaces", "nodes belong to no namespace");
        }
        let mut seen = HashSet::new();
        for (at, selector) in self.selectors.iter().enumerate() {
            let key = format!("selectors[{at}].role");
            if !self.role.selects().contains(&selector.role) {
                let roles: Vec<_> = self.role.selects().iter().map(|it| it.as_str()).collect();
                let what = format!("does not apply to role {}", self.role.as_str());
                let help = format!("select objects of: {}", roles.join(", "));
                problems.at(key, what).help(help);
            } else if !seen.insert(selector.role) {
                problems.at(key, "has a selector already: write both as one");
            }
        }
        if self.port.as_deref().is_some_and(str::is_empty) {
            let problem = problems.at("port", "must not be empty");
            problem.help("write a name, a number or \"first_tcp\"");
        }
        if self.port.is_some() && matches!(self.role, Role::Node | Role::Ingress) {
            problems.at("port", "applies to endpoints, pods and services only");
        }
        if self.only_ready
            && !matches!(self.role, Role::Endpointslice | Role::Endpoints | Role::Pod)
        {
            problems.at("only_ready", "applies to endpoints and pods only");
        }
        check_watch(self.watch_timeout, problems);
        if self.max_objects == 0 {
            problems.at("max_objects", "must be at least 1");
        }
        self.limits.validate(problems);
    }
}
