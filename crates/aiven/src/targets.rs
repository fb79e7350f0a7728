//! Converts a service to targets: addresses of its nodes' metrics, and its properties as labels.

use std::net::IpAddr;

use metrifold_discovery::exchange::{join, label_part};
use metrifold_discovery::{Labels, LabelsBuilder};

use crate::config::{AivenConfig, Route};
use crate::resources::{Component, Integration, PROMETHEUS, Service};

/// Service types whose name resolves to the primary only.
const PRIMARY_ONLY: [&str; 6] = ["pg", "mysql", "redis", "valkey", "dragonfly", "alloydbomni"];
/// Prefix of the name that resolves to the standbys.
const STANDBY: &str = "replica-";
/// Prefix of the public names of services in a private network.
const PUBLIC: &str = "public-";

/// Label with the name that has resolved to a node.
pub(crate) const HOST: &str = "__meta_aiven_host";

/// A name that resolves to nodes, and how their metrics are scraped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) scheme: &'static str,
    pub(crate) usage: String,
    /// Whether the API confirms that the name exists.
    pub(crate) certain: bool,
}

impl Route {
    fn as_word(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Public => "public",
            Self::Private => "private",
        }
    }
}

/// Names and ports of a service's metrics; an error says why there are none.
pub(crate) fn places(config: &AivenConfig, service: &Service) -> Result<Vec<Place>, String> {
    let all = || {
        service
            .components
            .iter()
            .flatten()
            .filter(|it| it.component == PROMETHEUS)
    };
    let route = config.route.as_word();
    let on_route = all().filter(|it| it.route == route || it.route.is_empty());
    let mut places: Vec<Place> = on_route.map(place).collect();
    if places.is_empty() {
        if all().next().is_some() {
            return Err(format!(
                "the service has no address for metrics on route {route}"
            ));
        }
        let host = service
            .service_uri_params
            .as_ref()
            .and_then(|it| it.host.clone());
        let host = host.filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| "the service has no address yet".to_owned())?;
        let host = match config.route {
            Route::Public => format!("{PUBLIC}{host}"),
            Route::Dynamic | Route::Private => host,
        };
        places.push(Place {
            host,
            port: config.port,
            path: "/metrics".to_owned(),
            scheme: "https",
            usage: "primary".to_owned(),
            certain: true,
        });
    }
    let several = service.node_count.is_none_or(|count| count > 1);
    let has_standbys = places.iter().any(|it| it.usage != "primary");
    let names_primary = PRIMARY_ONLY.contains(&&*service.service_type);
    if !config.standbys {
        places.retain(|it| it.usage == "primary");
    } else if names_primary && several && !has_standbys {
        let standbys: Vec<Place> = places.iter().map(standby).collect();
        places.extend(standbys);
    }
    places.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    places.dedup_by(|a, b| a.host == b.host && a.port == b.port);
    Ok(places)
}

fn place(component: &Component) -> Place {
    let usage = match component.usage.as_str() {
        "" => "primary",
        usage => usage,
    };
    Place {
        host: component.host.clone(),
        port: component.port,
        path: component
            .path
            .clone()
            .filter(|it| !it.is_empty())
            .unwrap_or("/metrics".to_owned()),
        scheme: match component.ssl {
            Some(false) => "http",
            _ => "https",
        },
        usage: usage.to_owned(),
        certain: true,
    }
}

/// The name of a primary's standbys.
fn standby(primary: &Place) -> Place {
    let host = match primary.host.strip_prefix(PUBLIC) {
        Some(host) => format!("{PUBLIC}{STANDBY}{host}"),
        None => format!("{STANDBY}{}", primary.host),
    };
    Place {
        host,
        usage: "replica".to_owned(),
        certain: false,
        ..primary.clone()
    }
}

/// Labels of a node.
pub(crate) fn labels(
    config: &AivenConfig,
    project: &str,
    service: &Service,
    integration: &Integration,
    place: &Place,
    address: IpAddr,
) -> Labels {
    let host = service
        .service_uri_params
        .as_ref()
        .and_then(|it| it.host.as_deref());
    let endpoint = integration.dest_endpoint_id.as_deref().unwrap_or_default();
    let count = service.node_count.map(|count| count.to_string());
    let mut labels = LabelsBuilder::default();
    for (name, value) in service.tags() {
        labels.push(format!("__meta_aiven_tag_{}", label_part(name)), value);
    }
    for (label, tag) in &config.tag_labels {
        if let Some(value) = service.tags().get(tag) {
            labels.push(label, value);
        }
    }
    labels
        .push("__address__", join(&address.to_string(), place.port.into()))
        .push("__scheme__", place.scheme)
        .push("__metrics_path__", place.path.as_str())
        .push("aiven_service_name", service.service_name.as_str())
        .push("aiven_service_type", service.service_type.as_str())
        .push("aiven_hostname", host.unwrap_or(&place.host))
        .push("aiven_plan", service.plan.as_str())
        .push("aiven_cloud", service.cloud_name.as_str())
        .push("aiven_node_count", count.unwrap_or_default())
        .push("__meta_aiven_project", project)
        .push("__meta_aiven_state", service.state.as_str())
        .push(HOST, place.host.as_str())
        .push("__meta_aiven_usage", place.usage.as_str())
        .push("__meta_aiven_endpoint_id", endpoint)
        .push(
            "__meta_aiven_integration_id",
            integration.service_integration_id.as_str(),
        );
    labels.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &str) -> AivenConfig {
        toml::from_str(&format!("token = 'x'\nprojects = ['p']\n{keys}")).unwrap()
    }

    fn hosts(keys: &str, service: &str) -> Result<Vec<String>, String> {
        let service = serde_json::from_str(service).unwrap();
        let places = places(&config(keys), &service)?;
        let shown = |it: Place| {
            format!(
                "{}://{}:{}{} {}",
                it.scheme, it.host, it.port, it.path, it.usage
            )
        };
        Ok(places.into_iter().map(shown).collect())
    }

    #[test]
    fn the_api_says_where_metrics_are_and_on_which_route() {
        let service = r#"{"service_name":"s","service_type":"opensearch","node_count":3,
            "service_uri_params":{"host":"s.example"},"components":[
            {"component":"opensearch","host":"s.example","port":1,"route":"dynamic"},
            {"component":"prometheus","host":"s.example","port":9274,"route":"dynamic","usage":"primary"},
            {"component":"prometheus","host":"public-s.example","port":9275,"route":"public","usage":"primary","path":"/m","ssl":false}]}"#;
        let of = |keys: &str| hosts(keys, service);
        assert_eq!(
            of(""),
            Ok(vec!["https://s.example:9274/metrics primary".to_owned()])
        );
        let public = of("route = 'public'");
        assert_eq!(
            public,
            Ok(vec!["http://public-s.example:9275/m primary".to_owned()])
        );
        assert!(
            of("route = 'private'")
                .unwrap_err()
                .contains("route private")
        );
    }

    #[test]
    fn standbys_are_behind_a_name_of_their_own_where_the_service_s_leads_to_the_primary() {
        let service = |rest: &str| {
            format!(
                r#"{{"service_name":"s","service_type":"pg","service_uri_params":{{"host":"s.example"}}{rest}}}"#
            )
        };
        let of = |keys: &str, rest: &str| hosts(keys, &service(rest)).unwrap();
        let primary = "https://s.example:9273/metrics primary";
        let standby = "https://replica-s.example:9273/metrics replica";
        assert_eq!(of("", ""), [standby, primary]);
        assert_eq!(of("standbys = false", ""), [primary]);
        assert_eq!(of("", r#","node_count":1"#), [primary]);
        let public = of("route = 'public'", "");
        assert_eq!(
            public,
            [
                "https://public-replica-s.example:9273/metrics replica",
                "https://public-s.example:9273/metrics primary"
            ]
        );
    }
}
