//! Keys for the Lease that elects one of several instances.

use std::path::Path;

use metrifold_base::{Period, Problems, keys};

use crate::keys::{ConnectKeys, check_namespace};

keys! {
    /// Kubernetes Lease that elects one of several instances.
    #[derive(Clone, Debug)]
    pub struct LeaseKeys {
        /// Name of the Lease; created if it does not exist.
        pub name: String = required("metrifold-aiven"),
        /// Namespace of the Lease. By default, the namespace of the pod or of the kubeconfig's context.
        pub namespace: Option<String> = unset("monitoring"),
        /// Time without a renewal after which other instances take over. The Lease is renewed seven times as often, and its holder relies on it for two thirds of this time.
        pub duration: Period = default("15s"),
        pub(crate) connect: ConnectKeys = include,
    }
}

impl LeaseKeys {
    /// Files that are read on connecting.
    pub fn files(&self) -> Vec<&Path> {
        self.connect.files()
    }

    /// Reports invalid keys.
    pub fn validate(&self, problems: &mut Problems) {
        self.connect.validate(problems);
        let valid = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
        };
        let name = &self.name;
        if name.is_empty() || name.len() > 253 || !name.bytes().all(valid) || name.starts_with('.')
        {
            problems.at("name", "is not the name of a Lease");
        }
        if let Some(namespace) = &self.namespace {
            check_namespace(namespace, "namespace", problems);
        } else if self.connect.api_server.is_some() {
            let what = "is required with api_server";
            problems.at("namespace", what).help("set it");
        }
        if self.duration < Period::millis(1000) {
            problems.at("duration", "must be at least 1s");
        }
    }
}

#[cfg(feature = "client")]
impl LeaseKeys {
    /// Creates the lease for a holder, whose name must be unique among instances. Needs a runtime.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read, and outside of a cluster when no key names an API server.
    pub fn lease(&self, holder: &str) -> Result<crate::Lease, metrifold_base::BuildError> {
        let cluster = self.connect.cluster()?;
        let namespace = self.namespace.as_deref().or(cluster.namespace());
        let namespace = namespace.ok_or_else(|| {
            let reason = "is required, since neither the pod nor the kubeconfig names a namespace";
            metrifold_base::BuildError::new("namespace", reason)
        })?;
        let duration = self.duration.0;
        let options = crate::LeaseOptions {
            duration,
            deadline: duration * 2 / 3,
            retry: duration / 7,
            ..crate::LeaseOptions::new(namespace, &self.name, holder)
        };
        Ok(crate::Lease::new(&cluster, options))
    }
}
