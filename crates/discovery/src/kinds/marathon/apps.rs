//! Answers of a master, and the targets made from them. Their labels are Prometheus' own.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::exchange::{join, label_part};
use crate::labels::{ADDRESS, Labels, LabelsBuilder};

/// All applications.
#[derive(Debug, Deserialize)]
pub(super) struct AppList {
    pub(super) apps: Vec<App>,
}

/// An application that was asked for by name.
#[derive(Debug, Deserialize)]
pub(super) struct OneApp {
    pub(super) app: App,
}

/// An application with its tasks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct App {
    pub(super) id: String,
    #[serde(default)]
    tasks: Option<Vec<Task>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    container: Option<Container>,
    #[serde(default)]
    port_definitions: Option<Vec<Port>>,
    #[serde(default)]
    networks: Option<Vec<Network>>,
    #[serde(default)]
    require_ports: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    id: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    ports: Option<Vec<u32>>,
    #[serde(default)]
    ip_addresses: Option<Vec<IpAddress>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IpAddress {
    ip_address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    docker: Option<Docker>,
    #[serde(default)]
    port_mappings: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Docker {
    #[serde(default)]
    image: String,
    #[serde(default)]
    port_mappings: Option<Vec<Port>>,
}

/// A port mapping or a port definition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    container_port: u32,
    #[serde(default)]
    host_port: u32,
    #[serde(default)]
    port: u32,
}

#[derive(Debug, Deserialize)]
struct Network {
    #[serde(default)]
    mode: String,
}

/// Ports of every task: the number, or 0 where each task has its own, and the port's labels.
type Known<'a> = Vec<(u32, Option<&'a BTreeMap<String, String>>)>;

impl App {
    fn in_container_network(&self) -> bool {
        let first = self.networks.as_ref().and_then(|networks| networks.first());
        first.is_some_and(|network| network.mode == "container")
    }

    /// The ports that the application declares, and the prefix for the names of their labels.
    fn ports(&self) -> (Known<'_>, &'static str) {
        let some = |ports: &'_ Option<Vec<Port>>| ports.as_ref().is_some_and(|it| !it.is_empty());
        let container = self.container.as_ref();
        let docker = container.and_then(|it| it.docker.as_ref());
        let mappings = container
            .map(|it| &it.port_mappings)
            .filter(|ports| some(ports))
            .or_else(|| {
                docker
                    .map(|it| &it.port_mappings)
                    .filter(|ports| some(ports))
            });
        if let Some(Some(mappings)) = mappings {
            let inside = self.in_container_network();
            let known = mappings.iter().map(|port| {
                let number = match inside {
                    true => port.container_port,
                    false => port.host_port,
                };
                (number, port.labels.as_ref())
            });
            return (known.collect(), "port_mapping_label");
        }
        let definitions = self.port_definitions.iter().flatten();
        let known = definitions.map(|port| {
            // Otherwise the number is the service's port, and the task has its own.
            let number = match self.require_ports {
                true => port.port,
                false => 0,
            };
            (number, port.labels.as_ref())
        });
        (known.collect(), "port_definition_label")
    }

    /// The targets: one per port of each task, or only the port with the index `only`.
    pub(super) fn targets(&self, only: Option<usize>) -> Vec<Labels> {
        let (declared, prefix) = self.ports();
        let inside = self.in_container_network();
        let mut common = LabelsBuilder::default();
        let docker = self.container.as_ref().and_then(|it| it.docker.as_ref());
        common.push("__meta_marathon_app", self.id.as_str()).push(
            "__meta_marathon_image",
            docker.map_or("", |it| it.image.as_str()),
        );
        for (name, value) in self.labels.iter().flatten() {
            let name = label_part(name);
            common.push(format!("__meta_marathon_app_label_{name}"), value);
        }
        let mut targets = Vec::new();
        for task in self.tasks.iter().flatten() {
            let own = task.ports.as_deref().unwrap_or_default();
            // Without declared ports, the ports of the task count.
            let ports: Known<'_> = match declared.is_empty() {
                true => own.iter().map(|port| (*port, None)).collect(),
                false => declared.clone(),
            };
            for (at, (port, labels)) in ports.iter().enumerate() {
                if only.is_some_and(|only| only != at) {
                    continue;
                }
                let port = match *port {
                    0 if own.len() == ports.len() => own[at],
                    port => port,
                };
                let address = task.ip_addresses.as_ref().and_then(|all| all.first());
                let host = match address.filter(|_| inside) {
                    Some(address) => &address.ip_address,
                    None => &task.host,
                };
                let mut target = common.clone();
                target
                    .push(ADDRESS, join(host, port))
                    .push("__meta_marathon_task", task.id.as_str())
                    .push("__meta_marathon_port_index", at.to_string());
                for (name, value) in labels.iter().copied().flatten() {
                    let name = label_part(name);
                    target.push(format!("__meta_marathon_{prefix}_{name}"), value);
                }
                targets.push(target.build());
            }
        }
        targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(app: &str, only: Option<usize>) -> Vec<String> {
        let app: App = serde_json::from_str(app).unwrap();
        let targets = app.targets(only);
        targets.iter().map(|it| it.address().to_owned()).collect()
    }

    #[test]
    fn ports_are_those_of_the_task_unless_the_application_says_otherwise() {
        let tasks = r#""tasks":[{"id":"a","host":"h1","ports":[31001,31002],"ipAddresses":[{"ipAddress":"172.17.0.3"}]},
                                {"id":"b","host":"h2","ports":[31003,31004]}]"#;
        let of = |keys: &str| addresses(&format!(r#"{{"id":"/a",{tasks}{keys}}}"#), None);
        let own = ["h1:31001", "h1:31002", "h2:31003", "h2:31004"];
        assert_eq!(of(""), own);
        assert_eq!(of(r#","portDefinitions":[{"port":1},{"port":2}]"#), own);
        assert_eq!(
            of(r#","portDefinitions":[{"port":1}],"requirePorts":true"#),
            ["h1:1", "h2:1"]
        );
        let mapped = r#","container":{"docker":{"image":"i","portMappings":[{"containerPort":80,"hostPort":0},{"containerPort":81,"hostPort":9}]}}"#;
        assert_eq!(of(mapped), ["h1:31001", "h1:9", "h2:31003", "h2:9"]);
        let inside = format!(r#"{mapped},"networks":[{{"mode":"container"}}]"#);
        assert_eq!(
            of(&inside),
            ["172.17.0.3:80", "172.17.0.3:81", "h2:80", "h2:81"]
        );
        let first = addresses(&format!(r#"{{"id":"/a",{tasks}}}"#), Some(0));
        assert_eq!(first, ["h1:31001", "h2:31003"]);
    }

    #[test]
    fn a_task_without_ports_or_of_the_wrong_number_is_no_fault() {
        assert!(addresses(r#"{"id":"/a","tasks":[{"id":"t","host":"h"}]}"#, None).is_empty());
        assert!(addresses(r#"{"id":"/a"}"#, None).is_empty());
        let port = r#"{"id":"/a","tasks":[{"id":"t","host":"h","ports":[]}],"portDefinitions":[{"port":1}]}"#;
        assert_eq!(addresses(port, None), ["h:0"]);
    }
}
