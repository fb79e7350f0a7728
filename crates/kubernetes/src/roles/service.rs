//! Role `service`: each port of each service, by its name in the cluster's DNS.

use metrifold_discovery::Labels;

use crate::labels::{Set, host_port};
use crate::lookup::Lookup;
use crate::objects::Service;
use crate::roles::{Maker, name, namespace};

pub(super) fn make(maker: &Maker, service: &Service, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    let meta = &service.metadata;
    let own = namespace(meta);
    let mut shared = Set::default();
    shared.meta("namespace", own);
    shared.object("service", meta);
    maker.namespace(&mut shared, own, lookup);
    let spec = &service.spec;
    shared.meta("service_type", &spec.r#type);
    match spec.r#type.as_str() {
        "ExternalName" => shared.meta("service_external_name", &spec.external_name),
        _ => shared.meta("service_cluster_ip", &spec.cluster_ip),
    }
    if spec.r#type == "LoadBalancer" {
        shared.meta("service_loadbalancer_ip", load_balancer(service));
    }
    let ports = maker.ports(&spec.ports, |port| {
        (&port.name, Some(port.port), &port.protocol)
    });
    let targets = ports.into_iter().map(|port| {
        let mut set = shared.clone();
        set.address(host_port(&format!("{}.{own}.svc", name(meta)), port.port));
        set.meta("service_port_name", &port.name);
        set.meta("service_port_number", port.port.to_string());
        set.meta("service_port_protocol", &port.protocol);
        set.build()
    });
    targets.collect()
}

/// Assigned load-balancer addresses, or else the requested one.
fn load_balancer(service: &Service) -> String {
    let given = service.status.load_balancer.ingress.iter();
    let given: Vec<&str> = given
        .map(|it| it.ip.as_str())
        .filter(|ip| !ip.is_empty())
        .collect();
    match given.is_empty() {
        true => service.spec.load_balancer_ip.clone(),
        false => given.join(","),
    }
}
