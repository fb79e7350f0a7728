//! Labels of targets under the names that Prometheus gives them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use metrifold_discovery::Labels;

/// The beginning of all names.
const PREFIX: &str = "__meta_kubernetes_";

/// The address to connect to.
const ADDRESS: &str = "__address__";

/// Labels that several targets have in common, and what they are made of. Of a name that is set twice,
/// the last value holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Set(Vec<(String, String)>);

impl Set {
    /// A label below Prometheus' prefix.
    pub(crate) fn meta(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((format!("{PREFIX}{name}"), value.into()));
    }

    /// The same, if there is a value.
    pub(crate) fn meta_if(&mut self, name: &str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.meta(name, value);
        }
    }

    /// A label as it is called.
    pub(crate) fn plain(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Where the target is.
    pub(crate) fn address(&mut self, address: impl Into<String>) {
        self.plain(ADDRESS, address);
    }

    /// Name, labels and annotations of an object.
    pub(crate) fn object(&mut self, kind: &str, meta: &ObjectMeta) {
        self.meta(
            &format!("{kind}_name"),
            meta.name.as_deref().unwrap_or_default(),
        );
        self.describe(kind, meta);
    }

    /// Labels and annotations of an object.
    pub(crate) fn describe(&mut self, kind: &str, meta: &ObjectMeta) {
        for (what, pairs) in [("label", &meta.labels), ("annotation", &meta.annotations)] {
            for (name, value) in pairs.iter().flatten() {
                let name = sanitized(name);
                self.meta(&format!("{kind}_{what}_{name}"), value);
                self.meta(&format!("{kind}_{what}present_{name}"), "true");
            }
        }
    }

    /// All of another's, which win over those here.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    pub(crate) fn build(self) -> Labels {
        self.0.into_iter().collect()
    }
}

/// A name with an underscore for everything that is neither a letter nor a digit.
pub(crate) fn sanitized(name: &str) -> String {
    let replaced = name.chars().map(|char| match char {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => char,
        _ => '_',
    });
    replaced.collect()
}

/// A host, in brackets if it is an address of IPv6, and a port.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}
