//! Objects in the API's format.

use serde_json::{Value, json};

/// A ready pod with one container `app`, and ports by name and number.
pub fn pod(namespace: &str, name: &str, ip: &str, node: &str, ports: &[(&str, u16)]) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "containerPort": port, "protocol": "TCP" }));
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-of-{name}"),
            "labels": { "app": "shop", "app.kubernetes.io/part-of": "sales" },
            "annotations": { "prometheus.io/scrape": "true", "empty": "" },
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsType": "FieldsV1",
                "fieldsV1": { "f:status": {} } }],
        },
        "spec": {
            "nodeName": node,
            "containers": [{ "name": "app", "image": "shop:1", "ports": ports.collect::<Vec<_>>() }],
        },
        "status": {
            "phase": "Running", "podIP": ip, "hostIP": "192.0.2.1",
            "conditions": [{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": "True" }],
            "containerStatuses": [{ "name": "app", "containerID": format!("containerd://{name}") }],
        },
    })
}

/// An EndpointSlice of a service, with one endpoint per pod, and ports by name and number.
pub fn endpointslice(
    namespace: &str,
    service: &str,
    number: usize,
    pods: &[(&str, &str)],
    ports: &[(&str, u16)],
) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }));
    let endpoints = pods.iter().map(|(pod, ip)| {
        json!({
            "addresses": [ip],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": "node-1", "zone": "a",
            "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod },
        })
    });
    json!({
        "metadata": {
            "name": format!("{service}-{number}"), "namespace": namespace,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

/// Endpoints, the predecessor of EndpointSlice, with ready and other pods.
pub fn endpoints(
    namespace: &str,
    service: &str,
    ready: &[(&str, &str)],
    not_ready: &[(&str, &str)],
    ports: &[(&str, u16)],
) -> Value {
    let address = |(pod, ip): &(&str, &str)| {
        json!({
            "ip": ip, "nodeName": "node-1",
            "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod },
        })
    };
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }));
    json!({
        "metadata": { "name": service, "namespace": namespace },
        "subsets": [{
            "addresses": ready.iter().map(address).collect::<Vec<_>>(),
            "notReadyAddresses": not_ready.iter().map(address).collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(),
        }],
    })
}

/// A service with ports by name and number.
pub fn service(namespace: &str, name: &str, ports: &[(&str, u16)]) -> Value {
    let ports = ports
        .iter()
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }));
    json!({
        "metadata": { "name": name, "namespace": namespace, "labels": { "team": "sales" } },
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.10",
            "ports": ports.collect::<Vec<_>>(),
        },
        "status": { "loadBalancer": {} },
    })
}

pub fn node(name: &str, ip: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/arch": "amd64" } },
        "spec": { "providerID": format!("kind://{name}") },
        "status": {
            "addresses": [
                { "type": "Hostname", "address": name },
                { "type": "InternalIP", "address": ip },
                { "type": "InternalIP", "address": "2001:db8::1" },
            ],
            "conditions": [
                { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" },
                { "type": "MemoryPressure", "status": "False" },
            ],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
        },
    })
}

pub fn namespace(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "tenant": "a" }, "annotations": { "owner": "ops" } },
    })
}

/// An ingress for a host, with TLS for the hosts in `tls`.
pub fn ingress(namespace: &str, name: &str, host: &str, tls: &[&str], paths: &[&str]) -> Value {
    let backend = json!({ "service": { "name": "shop", "port": { "number": 80 } } });
    let paths = paths
        .iter()
        .map(|path| json!({ "path": path, "pathType": "Prefix", "backend": backend }));
    json!({
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{ "hosts": tls }],
            "rules": [{ "host": host, "http": { "paths": paths.collect::<Vec<_>>() } }],
        },
    })
}

/// The object with a controlling owner.
pub fn owned(mut object: Value, api_version: &str, kind: &str, name: &str) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": api_version, "kind": kind, "name": name, "uid": "u", "controller": true,
    }]);
    object
}
