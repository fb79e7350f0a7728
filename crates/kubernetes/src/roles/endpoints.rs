//! Role `endpoints`: each port of each address of each Endpoints object, and the remaining ports of
//! the pods behind them.

use metrifold_discovery::Labels;

use crate::labels::{Set, host_port};
use crate::lookup::Lookup;
use crate::objects::{EndpointAddress, EndpointPort, Endpoints, Pod};
use crate::roles::endpointslice::match_port;
use crate::roles::{Maker, name, namespace, pod, pod_of};

pub(super) fn make(maker: &Maker, endpoints: &Endpoints, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    let meta = &endpoints.metadata;
    let own = namespace(meta);
    let mut shared = Set::default();
    shared.meta("namespace", own);
    Maker::service(&mut shared, own, name(meta), lookup);
    shared.object("endpoints", meta);
    maker.namespace(&mut shared, own, lookup);
    let mut targets = Vec::new();
    let mut seen: Vec<(&Pod, Set, Vec<u16>)> = Vec::new();
    for subset in &endpoints.subsets {
        let ports = maker.ports(&subset.ports, |port| {
            (&port.name, Some(port.port), &port.protocol)
        });
        let not_ready: &[EndpointAddress] = match maker.only_ready {
            true => &[],
            false => &subset.not_ready_addresses,
        };
        let ready = subset.addresses.iter().map(|it| (it, true));
        let addresses: Vec<_> = ready
            .chain(not_ready.iter().map(|it| (it, false)))
            .collect();
        for port in ports {
            for (address, ready) in &addresses {
                let mut set = shared.clone();
                describe(&mut set, address, port, *ready);
                let node = match (&address.node_name, &address.target_ref) {
                    (Some(node), _) => Some(node.as_str()),
                    (None, Some(it)) if it.kind == "Node" => Some(it.name.as_str()),
                    _ => None,
                };
                maker.node(&mut set, node, lookup);
                if let Some(pod) = pod_of(address.target_ref.as_ref(), lookup) {
                    let known = seen
                        .iter()
                        .position(|(known, ..)| std::ptr::eq(*known, pod));
                    let place = known.unwrap_or_else(|| {
                        seen.push((pod, pod::labels(maker, pod, lookup), Vec::new()));
                        seen.len() - 1
                    });
                    let (_, labels, told) = &mut seen[place];
                    set.merge(labels);
                    match_port(&mut set, pod, port.port);
                    // As in Prometheus, the endpoint's own, though a container may have one number
                    // for several protocols.
                    if set.has("pod_container_port_protocol") {
                        set.meta("pod_container_port_protocol", &port.protocol);
                    }
                    told.push(port.port);
                }
                targets.push(set.build());
            }
        }
    }
    if maker.port.is_none() {
        for (pod, labels, told) in &seen {
            pod::further(pod, told, &shared, labels, &mut targets);
        }
    }
    targets
}

fn describe(set: &mut Set, address: &EndpointAddress, port: &EndpointPort, ready: bool) {
    set.address(host_port(&address.ip, port.port));
    set.meta("endpoint_port_name", &port.name);
    set.meta("endpoint_port_protocol", &port.protocol);
    set.meta("endpoint_ready", ready.to_string());
    if let Some(reference) = &address.target_ref {
        set.meta("endpoint_address_target_kind", &reference.kind);
        set.meta("endpoint_address_target_name", &reference.name);
    }
    set.meta_if("endpoint_node_name", address.node_name.as_deref());
    set.meta("endpoint_hostname", &address.hostname);
}
