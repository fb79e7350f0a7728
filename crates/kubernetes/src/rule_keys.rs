//! Keys that say which PrometheusRule objects are read, and whose rules they are.

use std::path::Path;

use metrifold_base::{Period, Problems, keys, words};

use crate::keys::{ConnectKeys, check_namespace, check_watch};

keys! {
    /// Which PrometheusRule objects are read, and whose rules they are.
    #[derive(Clone, Debug)]
    pub struct RuleObjectKeys {
        pub(crate) connect: ConnectKeys = include,
        /// Namespaces that are watched; all of them unless given.
        pub(crate) namespaces: Vec<String> = unset(["monitoring"]),
        /// Whether the namespace of the pod that this runs in is watched. For connections from within a cluster.
        pub(crate) own_namespace: bool = default(false),
        /// Label selector of the objects, as Prometheus' operator has it under `ruleSelector`.
        pub label_selector: Option<String> = unset("role=alert-rules"),
        /// What names the tenant whose rules an object has: its `namespace`, a `label` or an `annotation` of it, or `nobody`.
        pub(crate) tenant_from: TenantFrom = default("namespace"),
        /// Name of that label or annotation. An object without it is left out.
        pub(crate) tenant_key: Option<String> = unset("example.org/tenant"),
        /// How long a watch lasts before it is asked for anew. One that stays open for 10 s longer is taken for broken.
        pub(crate) watch_timeout: Period = default("4m"),
        /// Most objects; with more, what was known before stays.
        pub(crate) max_objects: usize = default(10000),
    }
}

words! {
    /// What names the tenant whose rules an object has.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum TenantFrom {
        /// Its namespace.
        Namespace = "namespace",
        /// A label.
        Label = "label",
        /// An annotation.
        Annotation = "annotation",
        /// Nothing: they are nobody's.
        Nobody = "nobody",
    }
}

impl RuleObjectKeys {
    /// The files that are read when it connects.
    pub fn files(&self) -> Vec<&Path> {
        self.connect.files()
    }

    /// Reports what is wrong with them, at their keys.
    pub fn validate(&self, problems: &mut Problems) {
        self.connect.validate(problems);
        self.connect
            .check_own_namespace(self.own_namespace, problems);
        for (at, name) in self.namespaces.iter().enumerate() {
            check_namespace(name, &format!("namespaces[{at}]"), problems);
        }
        let named = matches!(self.tenant_from, TenantFrom::Label | TenantFrom::Annotation);
        if named != self.tenant_key.as_ref().is_some_and(|key| !key.is_empty()) {
            let what = "goes with tenant_from = \"label\" or \"annotation\"";
            problems.at("tenant_key", what);
        }
        check_watch(self.watch_timeout, problems);
        if self.max_objects == 0 {
            problems.at("max_objects", "must be at least 1");
        }
    }
}
