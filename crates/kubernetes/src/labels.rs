//! Labels of targets, with Prometheus' names.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metrifold_discovery::Labels;

/// Prefix of all metadata labels.
const PREFIX: &str = "__meta_kubernetes_";

/// Label with the address to connect to.
const ADDRESS: &str = "__address__";

/// Labels shared by several targets, and the builder of those. If a name is set twice, the last
/// value applies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Set(Vec<(String, String)>);

impl Set {
    /// Sets a label below Prometheus' prefix.
    pub(crate) fn meta(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((format!("{PREFIX}{name}"), value.into()));
    }

    /// The same if there is a value.
    pub(crate) fn meta_if(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.meta(name, value);
        }
    }

    /// Whether a label below Prometheus' prefix is set.
    pub(crate) fn has(&self, name: &str) -> bool {
        let mut names = self
            .0
            .iter()
            .filter_map(|(name, _)| name.strip_prefix(PREFIX));
        names.any(|known| known == name)
    }

    /// Sets a label without the prefix.
    pub(crate) fn plain(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Sets the target's address.
    pub(crate) fn address(&mut self, address: impl Into<String>) {
        self.plain(ADDRESS, address);
    }

    /// Sets name, labels and annotations of an object.
    pub(crate) fn object(&mut self, kind: &str, meta: &ObjectMeta) {
        self.meta(
            &format!("{kind}_name"),
            meta.name.as_deref().unwrap_or_default(),
        );
        self.describe(kind, meta);
    }

    /// Sets labels and annotations of an object.
    pub(crate) fn describe(&mut self, kind: &str, meta: &ObjectMeta) {
        for (what, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
            for (name, value) in pairs.iter().flatten() {
                let name = sanitized(name);
                self.meta(&format!("{kind}_{what}_{name}"), value);
                self.meta(&format!("{kind}_{what}present_{name}"), "true");
            }
        }
    }

    /// Copies all labels of `other`, which take precedence.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    pub(crate) fn build(self) -> Labels {
        self.0.into_iter().collect()
    }
}

/// Replaces every character that is neither a letter nor a digit by an underscore.
pub(crate) fn sanitized(name: &str) -> String {
    let replaced = name.chars().map(|char| match char {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => char,
        _ => '_',
    });
    replaced.collect()
}

/// Joins host and port, with brackets around an IPv6 address.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
