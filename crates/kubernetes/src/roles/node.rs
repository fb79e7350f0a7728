//! Role `node`: each node, at its kubelet's port.

use metrifold_discovery::Labels;

use crate::labels::{Set, host_port, sanitized};
use crate::objects::Node;
use crate::roles::name;

/// Types of node addresses in order of preference.
const ADDRESSES: [&str; 6] = [
    "InternalIP",
    "InternalDNS",
    "ExternalIP",
    "ExternalDNS",
    "LegacyHostIP",
    "Hostname",
];

pub(super) fn make(node: &Node) -> Option<Labels> {
    let addresses = &node.status.addresses;
    let of_type = |wanted: &str| addresses.iter().find(|it| it.r#type == wanted);
    let address = ADDRESSES.iter().find_map(|wanted| of_type(wanted))?;
    let port = node.status.daemon_endpoints.kubelet_endpoint.port;
    let mut set = Set::default();
    set.meta("node_provider_id", &node.spec.provider_id);
    for condition in &node.status.conditions {
        let name = sanitized(&condition.r#type.to_lowercase());
        set.meta(
            &format!("node_condition_{name}"),
            condition.status.to_lowercase(),
        );
    }
    set.object("node", &node.metadata);
    set.address(host_port(&address.address, port));
    set.plain("instance", name(&node.metadata));
    // The first of several addresses of one type applies.
    for address in addresses.iter().rev() {
        let name = sanitized(&address.r#type);
        set.meta(&format!("node_address_{name}"), &address.address);
    }
    Some(set.build())
}
