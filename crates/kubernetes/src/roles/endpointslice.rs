//! Role `endpointslice`: each port of each address of each slice, and the remaining ports of the
//! pods behind them.

use metrifold_discovery::Labels;

use crate::labels::{Set, host_port, sanitized};
use crate::lookup::Lookup;
use crate::objects::{EndpointSlice, Pod, Service, SliceEndpoint, SlicePort};
use crate::roles::{Maker, namespace, pod, pod_of};

/// Label with the name of the service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod behind some endpoints, its labels, and its ports that endpoints refer to.
type Seen<'a> = (&'a Pod, Set, Vec<u16>);

pub(super) fn make(maker: &Maker, slice: &EndpointSlice, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    let meta = &slice.metadata;
    let own = namespace(meta);
    let mut shared = Set::default();
    shared.meta("namespace", own);
    shared.meta("endpointslice_address_type", &slice.address_type);
    shared.object("endpointslice", meta);
    let service = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get(SERVICE_NAME));
    let service = service.and_then(|name| Maker::service(&mut shared, own, name, lookup));
    maker.namespace(&mut shared, own, lookup);
    if service.is_some_and(|service| is_secondary(service, &slice.address_type)) {
        return Vec::new();
    }
    let ports = maker.ports(&slice.ports, |port| {
        let (name, protocol) = (port.name.as_deref(), port.protocol.as_deref());
        (
            name.unwrap_or_default(),
            port.port,
            protocol.unwrap_or_default(),
        )
    });
    let mut targets = Vec::new();
    let mut seen: Vec<Seen<'_>> = Vec::new();
    for endpoint in slice
        .endpoints
        .iter()
        .filter(|it| !maker.only_ready || is_ready(it))
    {
        let behind = pod_of(endpoint.target_ref.as_ref(), lookup);
        let behind = behind.filter(|_| !ports.is_empty() && !endpoint.addresses.is_empty());
        let place = behind.map(|pod| {
            let known = seen
                .iter()
                .position(|(known, ..)| std::ptr::eq(*known, pod));
            known.unwrap_or_else(|| {
                seen.push((pod, pod::labels(maker, pod, lookup), Vec::new()));
                seen.len() - 1
            })
        });
        for port in &ports {
            for address in &endpoint.addresses {
                let mut set = shared.clone();
                describe(&mut set, address, endpoint, port);
                let node = match &endpoint.target_ref {
                    Some(reference) if reference.kind == "Node" => Some(reference.name.as_str()),
                    _ => endpoint.node_name.as_deref(),
                };
                maker.node(&mut set, node, lookup);
                if let Some((pod, labels, told)) = place.and_then(|place| seen.get_mut(place)) {
                    set.merge(labels);
                    if let Some(number) = port.port {
                        match_port(&mut set, pod, number);
                        told.push(number);
                    }
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

fn describe(set: &mut Set, address: &str, endpoint: &SliceEndpoint, port: &SlicePort) {
    set.address(match port.port {
        Some(number) => host_port(address, number),
        None => address.to_owned(),
    });
    set.meta_if("endpointslice_port_name", port.name.as_deref());
    set.meta_if("endpointslice_port_protocol", port.protocol.as_deref());
    set.meta_if("endpointslice_port", port.port.map(|it| it.to_string()));
    set.meta_if(
        "endpointslice_port_app_protocol",
        port.app_protocol.as_deref(),
    );
    for (name, value) in [
        ("ready", endpoint.conditions.ready),
        ("serving", endpoint.conditions.serving),
        ("terminating", endpoint.conditions.terminating),
    ] {
        let name = format!("endpointslice_endpoint_conditions_{name}");
        set.meta_if(&name, value.map(|it| it.to_string()));
    }
    set.meta_if(
        "endpointslice_endpoint_hostname",
        endpoint.hostname.as_deref(),
    );
    if let Some(reference) = &endpoint.target_ref {
        set.meta("endpointslice_address_target_kind", &reference.kind);
        set.meta("endpointslice_address_target_name", &reference.name);
    }
    set.meta_if(
        "endpointslice_endpoint_node_name",
        endpoint.node_name.as_deref(),
    );
    set.meta_if("endpointslice_endpoint_zone", endpoint.zone.as_deref());
    for (name, value) in &endpoint.deprecated_topology {
        let name = sanitized(name);
        set.meta(&format!("endpointslice_endpoint_topology_{name}"), value);
        set.meta(
            &format!("endpointslice_endpoint_topology_present_{name}"),
            "true",
        );
    }
}

/// Adds the labels of the container whose port an endpoint refers to; of several, the last.
pub(super) fn match_port(set: &mut Set, pod: &Pod, number: u16) {
    for (container, init) in pod::containers(pod) {
        let port = container
            .ports
            .iter()
            .find(|it| it.container_port == number);
        if let Some(port) = port {
            pod::container(set, container, port, init);
        }
    }
}

/// Whether an endpoint is ready and not terminating. Unknown counts as ready, as in Kubernetes, which
/// also calls the endpoints of a service with `publishNotReadyAddresses` ready until they are gone.
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    let conditions = &endpoint.conditions;
    conditions.ready != Some(false) && conditions.terminating != Some(true)
}

/// Whether a slice holds the secondary address family of a dual-stack service: its targets
/// duplicate those of the primary one.
fn is_secondary(service: &Service, address_type: &str) -> bool {
    let policy = service.spec.ip_family_policy.as_deref();
    let both = matches!(policy, Some("PreferDualStack" | "RequireDualStack"));
    let primary = service.spec.ip_families.first();
    both && primary.is_some_and(|family| family != address_type)
}
