//! Keys for the selection of PrometheusRule objects and their tenants.

use std::path::Path;

use metrifold_base::{Period, Problems, keys, words};

use crate::keys::{ConnectKeys, check_namespace, check_watch};

keys! {
    /// Selection of PrometheusRule objects, and their tenants.
    #[derive(Clone, Debug)]
    pub struct RuleObjectKeys {
        pub(crate) connect: ConnectKeys = include,
        /// Namespaces to watch. By default, all.
        pub(crate) namespaces: Vec<String> = unset(["monitoring"]),
        /// Whether to watch the namespace of the pod that Metrifold runs in. Only for connections from within a cluster.
        pub(crate) own_namespace: bool = default(false),
        /// Label selector for the objects, like `ruleSelector` of Prometheus Operator.
        pub label_selector: Option<String> = unset("role=alert-rules"),
        /// Source of the tenant of an object's rules: its `namespace`, a `label` or an `annotation` of it, or `nobody` for rules without a tenant.
        pub(crate) tenant_from: TenantFrom = default("namespace"),
        /// Name of the label or annotation with the tenant. Objects without it are left out.
        pub(crate) tenant_key: Option<String> = unset("example.org/tenant"),
        /// Duration of a watch, after which it is requested again. A watch that stays open 10 s longer counts as broken.
        pub(crate) watch_timeout: Period = default("4m"),
        /// Maximum number of objects. Above it, the previous rules are kept.
        pub(crate) max_objects: usize = default(10000),
    }
}

words! {
    /// Source of the tenant of an object's rules.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum TenantFrom {
        /// The object's namespace.
        Namespace = "namespace",
        /// A label of the object.
        Label = "label",
        /// An annotation of the object.
        Annotation = "annotation",
        /// No source: the rules have no tenant.
        Nobody = "nobody",
    }
}

impl RuleObjectKeys {
    /// Files that are read on connecting.
    pub fn files(&self) -> Vec<&Path> {
        self.connect.files()
    }

    /// Reports invalid keys.
    pub fn validate(&self, problems: &mut Problems) {
        self.connect.validate(problems);
        self.connect
            .check_own_namespace(self.own_namespace, problems);
        for (at, name) in self.namespaces.iter().enumerate() {
            check_namespace(name, &format!("namespaces[{at}]"), problems);
        }
        let named = matches!(self.tenant_from, TenantFrom::Label | TenantFrom::Annotation);
        if named != self.tenant_key.as_ref().is_some_and(|key| !key.is_empty()) {
            let what = "must be set with tenant_from = \"label\" or \"annotation\", and only then";
            problems.at("tenant_key", what);
        }
        check_watch(self.watch_timeout, problems);
        if self.max_objects == 0 {
            problems.at("max_objects", "must be at least 1");
        }
    }
}
