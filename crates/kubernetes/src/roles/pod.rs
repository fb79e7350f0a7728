//! Role `pod`: each port of each container of each pod.

use metrifold_discovery::Labels;

use crate::kind::Kind;
use crate::labels::{Set, host_port};
use crate::lookup::Lookup;
use crate::objects::{Container, ContainerPort, ContainerStatus, Pod, controller};
use crate::roles::{Maker, namespace};

/// Labels of a pod, for its own targets and for those of endpoints.
pub(super) fn labels(maker: &Maker, pod: &Pod, lookup: &mut Lookup<'_>) -> Set {
    let mut set = Set::default();
    set.meta("pod_ip", &pod.status.pod_ip);
    set.meta("pod_ready", ready(pod));
    set.meta("pod_phase", &pod.status.phase);
    set.meta("pod_node_name", &pod.spec.node_name);
    set.meta("pod_host_ip", &pod.status.host_ip);
    set.meta("pod_uid", pod.metadata.uid.as_deref().unwrap_or_default());
    set.object("pod", &pod.metadata);
    let Some((kind, owner)) = controller(&pod.metadata) else {
        return set;
    };
    set.meta("pod_controller_kind", kind);
    set.meta("pod_controller_name", owner);
    let attach = &maker.attach;
    let namespace = namespace(&pod.metadata);
    let mut above = |of: Kind, wanted: &str| {
        let found = lookup.find(of, namespace, owner)?;
        let (kind, name) = controller(found.meta())?;
        (kind == wanted).then(|| name.to_owned())
    };
    match kind {
        "ReplicaSet" if attach.deployment => {
            set.meta_if("pod_deployment_name", above(Kind::ReplicaSet, "Deployment"));
        }
        "Job" => {
            if attach.job {
                set.meta("pod_job_name", owner);
            }
            if attach.cronjob {
                set.meta_if("pod_cronjob_name", above(Kind::Job, "CronJob"));
            }
        }
        _ => {}
    }
    set
}

/// Readiness in Prometheus' words: `unknown` without the condition.
fn ready(pod: &Pod) -> String {
    let found = pod.status.conditions.iter().find(|it| it.r#type == "Ready");
    found.map_or("unknown".to_owned(), |it| it.status.to_lowercase())
}

/// All containers of a pod, each with whether it is an init container.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, bool)> {
    let usual = pod.spec.containers.iter().map(|it| (it, false));
    usual.chain(pod.spec.init_containers.iter().map(|it| (it, true)))
}

/// Adds the labels of a container and its port.
pub(super) fn container(set: &mut Set, container: &Container, port: &ContainerPort, init: bool) {
    set.meta("pod_container_name", &container.name);
    set.meta("pod_container_image", &container.image);
    set.meta("pod_container_port_name", &port.name);
    set.meta("pod_container_port_number", port.container_port.to_string());
    set.meta("pod_container_port_protocol", &port.protocol);
    set.meta("pod_container_init", init.to_string());
}

/// Targets for the ports of a pod that no endpoint refers to.
pub(super) fn further(
    pod: &Pod,
    told: &[u16],
    shared: &Set,
    labels: &Set,
    targets: &mut Vec<Labels>,
) {
    // A pod that is starting, or was evicted, has no address.
    if pod.status.pod_ip.is_empty() {
        return;
    }
    for (of, init) in containers(pod) {
        for port in of
            .ports
            .iter()
            .filter(|port| !told.contains(&port.container_port))
        {
            let mut set = shared.clone();
            set.address(host_port(&pod.status.pod_ip, port.container_port));
            container(&mut set, of, port, init);
            set.merge(labels);
            targets.push(set.build());
        }
    }
}

pub(super) fn make(maker: &Maker, pod: &Pod, lookup: &mut Lookup<'_>) -> Vec<Labels> {
    let address = &pod.status.pod_ip;
    // A pod that terminates may stay ready until its containers have ended.
    let terminates = pod.metadata.deletion_timestamp.is_some();
    let is_left_out = maker.only_ready && (terminates || ready(pod) != "true");
    if address.is_empty() || is_left_out {
        return Vec::new();
    }
    // A selector for nodes also leaves out the pods on the other nodes.
    let node = &pod.spec.node_name;
    if maker.attach.node && lookup.find(Kind::Node, "", node).is_none() {
        return Vec::new();
    }
    let mut shared = labels(maker, pod, lookup);
    let own = namespace(&pod.metadata);
    shared.meta("namespace", own);
    maker.node(&mut shared, Some(node), lookup);
    maker.namespace(&mut shared, own, lookup);
    let mut targets = Vec::new();
    let all = containers(pod).flat_map(|(of, _)| of.ports.iter());
    let taken = maker.ports(all, |port| {
        (&port.name, Some(port.container_port), &port.protocol)
    });
    let is_taken = |port: &ContainerPort| taken.iter().any(|it| std::ptr::eq(*it, port));
    for (of, init) in containers(pod) {
        let statuses = match init {
            true => &pod.status.init_container_statuses,
            false => &pod.status.container_statuses,
        };
        let id = id(statuses, &of.name);
        if of.ports.is_empty() && maker.port.is_none() {
            // Without a port, the address is the pod's IP: relabelling has to add one.
            let mut set = shared.clone();
            set.address(address);
            set.meta("pod_container_name", &of.name);
            set.meta("pod_container_id", id);
            set.meta("pod_container_image", &of.image);
            set.meta("pod_container_init", init.to_string());
            targets.push(set.build());
            continue;
        }
        for port in of.ports.iter().filter(|port| is_taken(port)) {
            let mut set = shared.clone();
            set.address(host_port(address, port.container_port));
            set.meta("pod_container_id", id);
            container(&mut set, of, port, init);
            targets.push(set.build());
        }
    }
    targets
}

fn id<'a>(statuses: &'a [ContainerStatus], name: &str) -> &'a str {
    let status = statuses.iter().find(|status| status.name == name);
    status.map_or("", |status| &status.container_id)
}
