//! Answers of Aiven's API, limited to the fields that are used. Other fields, some of them secret,
//! are not kept.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Type of the integrations and the endpoints in question.
pub(crate) const PROMETHEUS: &str = "prometheus";

#[derive(Debug, Deserialize)]
pub(crate) struct Services {
    pub(crate) services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) service_name: String,
    pub(crate) service_type: String,
    #[serde(default)]
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) plan: String,
    #[serde(default)]
    pub(crate) cloud_name: String,
    #[serde(default)]
    pub(crate) node_count: Option<u32>,
    #[serde(default)]
    pub(crate) service_uri_params: Option<UriParams>,
    #[serde(default)]
    pub(crate) tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) components: Option<Vec<Component>>,
    #[serde(default)]
    pub(crate) service_integrations: Option<Vec<Integration>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct UriParams {
    #[serde(default)]
    pub(crate) host: Option<String>,
}

/// Address of one component of a service.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Component {
    pub(crate) component: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) route: String,
    #[serde(default)]
    pub(crate) usage: String,
    #[serde(default)]
    pub(crate) path: Option<String>,
    #[serde(default)]
    pub(crate) ssl: Option<bool>,
}

/// An integration of a service with an endpoint.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Integration {
    pub(crate) service_integration_id: String,
    pub(crate) integration_type: String,
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) dest_endpoint_id: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
pub(crate) struct OneIntegration {
    pub(crate) service_integration: Integration,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) service_integration_endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct OneEndpoint {
    pub(crate) service_integration_endpoint: Endpoint,
}

/// An integration endpoint.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) endpoint_id: String,
    pub(crate) endpoint_name: String,
    pub(crate) endpoint_type: String,
    #[serde(default)]
    pub(crate) user_config: Option<UserConfig>,
}

/// User and password that nodes require.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct UserConfig {
    #[serde(default)]
    pub(crate) basic_auth_username: Option<String>,
    #[serde(default)]
    pub(crate) basic_auth_password: Option<String>,
}

impl std::fmt::Debug for UserConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserConfig").finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct EndpointTypes {
    pub(crate) endpoint_types: Vec<EndpointType>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EndpointType {
    pub(crate) endpoint_type: String,
    #[serde(default)]
    pub(crate) service_types: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Authority {
    pub(crate) certificate: String,
}

/// Body of an error. Only `message` may be shown.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Errors {
    #[serde(default)]
    pub(crate) message: String,
}

impl Service {
    /// Tags of the service.
    pub(crate) fn tags(&self) -> &BTreeMap<String, String> {
        const NONE: &BTreeMap<String, String> = &BTreeMap::new();
        self.tags.as_ref().unwrap_or(NONE)
    }

    /// Integrations with Prometheus endpoints.
    pub(crate) fn integrations(&self) -> impl Iterator<Item = &Integration> {
        let all = self.service_integrations.iter().flatten();
        all.filter(|it| it.integration_type == PROMETHEUS)
    }

    /// The integration with this endpoint; enabled ones have precedence.
    pub(crate) fn integrated_with(&self, endpoint: &str) -> Option<&Integration> {
        let with = |it: &&Integration| it.dest_endpoint_id.as_deref() == Some(endpoint);
        self.integrations().filter(with).max_by_key(|it| it.enabled)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.state == "POWEROFF"
    }
}
