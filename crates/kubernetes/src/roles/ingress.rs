//! Role `ingress`: each path of each rule of each ingress, for blackbox probes.

use metrifold_discovery::Labels;

use crate::labels::Set;
use crate::lookup::Lookup;
use crate::objects::Ingress;
use crate::roles::{Maker, namespace};

pub(super) fn make(maker: &Maker, ingress: &Ingress, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    let meta = &ingress.metadata;
    let own = namespace(meta);
    let spec = &ingress.spec;
    let mut shared = Set::default();
    shared.meta("namespace", own);
    shared.meta_if("ingress_class_name", spec.ingress_class_name.as_deref());
    shared.object("ingress", meta);
    maker.namespace(&mut shared, own, lookup);
    let mut targets = Vec::new();
    for rule in &spec.rules {
        let mut hosts = spec.tls.iter().flat_map(|tls| &tls.hosts);
        let scheme = match hosts.any(|pattern| matches(pattern, &rule.host)) {
            true => "https",
            false => "http",
        };
        let paths: Vec<&str> = match &rule.http {
            None => vec!["/"],
            Some(http) => http.paths.iter().map(|it| it.path.as_str()).collect(),
        };
        for path in paths {
            let path = if path.is_empty() { "/" } else { path };
            let mut set = shared.clone();
            set.address(&rule.host);
            set.meta("ingress_scheme", scheme);
            set.meta("ingress_host", &rule.host);
            set.meta("ingress_path", path);
            targets.push(set.build());
        }
    }
    targets
}

/// Whether a certificate's host covers this host; its first label may be a `*`.
fn matches(pattern: &str, host: &str) -> bool {
    if pattern == host || (pattern == "*" && !host.contains('.')) {
        return true;
    }
    let (Some(wanted), Some((_, rest))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    wanted == rest
}
