//! Answers of an agent, and the targets made from them. Their labels are Prometheus' own.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::exchange::{join, label_part};
use crate::labels::{ADDRESS, Labels, LabelsBuilder};

/// Answer of an agent about itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Itself {
    pub(super) config: ItsConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ItsConfig {
    pub(super) datacenter: String,
}

/// An instance of a service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Instance {
    node: Node,
    service: Service,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default, rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: u32,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    partition: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default, rename = "CheckID")]
    check_id: String,
    #[serde(default)]
    status: String,
}

/// The worst state among an instance's checks, as Consul's own client computes it.
fn health(checks: &[Check]) -> &'static str {
    let (mut worst, mut maintenance) = (0, false);
    const STATES: [&str; 3] = ["passing", "warning", "critical"];
    for check in checks {
        let id = &check.check_id;
        if id == "_node_maintenance" || id.starts_with("_service_maintenance:") {
            maintenance = true;
            continue;
        }
        match STATES.iter().position(|state| *state == check.status) {
            Some(state) => worst = worst.max(state),
            None => return "",
        }
    }
    match maintenance {
        true => "maintenance",
        false => STATES[worst],
    }
}

/// The targets of a service.
pub(super) fn targets(
    service: &str,
    datacenter: &str,
    separator: &str,
    instances: Vec<Instance>,
) -> Vec<Labels> {
    let target = |instance: Instance| {
        let Instance {
            node,
            service: it,
            checks,
        } = instance;
        let tags = it.tags.unwrap_or_default().join(separator);
        let host = match it.address.is_empty() {
            true => &node.address,
            false => &it.address,
        };
        let mut labels = LabelsBuilder::default();
        labels
            .push(ADDRESS, join(host, it.port))
            .push("__meta_consul_address", node.address.as_str())
            .push("__meta_consul_node", node.node)
            .push("__meta_consul_namespace", it.namespace)
            .push("__meta_consul_partition", it.partition)
            .push(
                "__meta_consul_tags",
                format!("{separator}{tags}{separator}"),
            )
            .push("__meta_consul_service_address", it.address.as_str())
            .push("__meta_consul_service_port", it.port.to_string())
            .push("__meta_consul_service_id", it.id)
            .push("__meta_consul_health", health(&checks.unwrap_or_default()))
            .push("__meta_consul_service", service)
            .push("__meta_consul_dc", datacenter);
        for (prefix, pairs) in [
            ("metadata", node.meta),
            ("service_metadata", it.meta),
            ("tagged_address", node.tagged_addresses),
        ] {
            for (name, value) in pairs.unwrap_or_default() {
                let name = label_part(&name);
                labels.push(format!("__meta_consul_{prefix}_{name}"), value);
            }
        }
        labels.build()
    };
    instances.into_iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_that_of_the_worst_check() {
        let of = |pairs: &[(&str, &str)]| {
            let check = |(id, status): &(&str, &str)| Check {
                check_id: (*id).to_owned(),
                status: (*status).to_owned(),
            };
            health(&pairs.iter().map(check).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), "passing");
        assert_eq!(
            of(&[("a", "passing"), ("b", "critical"), ("c", "warning")]),
            "critical"
        );
        assert_eq!(
            of(&[("_service_maintenance:x", "critical"), ("a", "critical")]),
            "maintenance"
        );
        assert_eq!(of(&[("a", "unheard")]), "");
    }

    #[test]
    fn nulls_are_nothing_and_a_service_without_an_address_is_at_its_node_s() {
        let text = r#"[{"Node":{"Node":"n","Address":"fd00::1","Meta":null,"TaggedAddresses":null},
            "Service":{"ID":"w1","Service":"web","Tags":null,"Address":"","Port":80,"Meta":{"a-b":"c"}},"Checks":null}]"#;
        let found = targets("web", "dc1", ",", serde_json::from_str(text).unwrap());
        assert_eq!(found[0].address(), "[fd00::1]:80");
        assert_eq!(found[0].get("__meta_consul_tags"), Some(",,"));
        assert_eq!(
            found[0].get("__meta_consul_service_metadata_a_b"),
            Some("c")
        );
        assert_eq!(found[0].get("__meta_consul_service_address"), None);
    }
}
