//! Answers of the Cloud Controller's API, as far as they are used.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A page of a list.
#[derive(Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) pagination: Pagination,
    pub(crate) resources: Vec<T>,
    #[serde(default)]
    pub(crate) included: Included,
}

#[derive(Deserialize)]
pub(crate) struct Pagination {
    pub(crate) total_results: usize,
    pub(crate) total_pages: usize,
}

/// Related objects that a list was asked to include.
#[derive(Default, Deserialize)]
pub(crate) struct Included {
    #[serde(default)]
    pub(crate) spaces: Vec<Space>,
    #[serde(default)]
    pub(crate) organizations: Vec<Organization>,
    #[serde(default)]
    pub(crate) domains: Vec<Domain>,
}

/// An object of a list, identified by its GUID.
pub(crate) trait Resource: serde::de::DeserializeOwned + Send + 'static {
    fn guid(&self) -> &str;
}

macro_rules! resources {
    ($($type:ty)*) => {$(
        impl Resource for $type {
            fn guid(&self) -> &str {
                &self.guid
            }
        }
    )*};
}

resources! { Organization Space App Process Route Domain Binding RouteBinding }

#[derive(Deserialize)]
pub(crate) struct Organization {
    pub(crate) guid: String,
    pub(crate) name: String,
}

#[derive(Deserialize)]
pub(crate) struct Space {
    pub(crate) guid: String,
    pub(crate) name: String,
    pub(crate) relationships: OfOrganization,
}

#[derive(Deserialize)]
pub(crate) struct App {
    pub(crate) guid: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) relationships: OfSpace,
    #[serde(default)]
    pub(crate) metadata: Metadata,
}

/// Labels and annotations, which users set.
#[derive(Default, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
pub(crate) struct Process {
    pub(crate) guid: String,
    pub(crate) r#type: String,
    #[serde(default)]
    pub(crate) created_at: String,
    /// Desired number of instances.
    pub(crate) instances: u32,
    pub(crate) relationships: OfAppAndRevision,
    /// Existing instances, on platforms that list them with processes.
    pub(crate) process_instances: Option<Vec<Instance>>,
}

/// An instance of a process.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    pub(crate) index: u32,
    pub(crate) state: String,
}

/// Measurements of a process.
#[derive(Deserialize)]
pub(crate) struct Stats {
    pub(crate) resources: Vec<Measured>,
}

/// Measurement of an instance. Some fields are hidden from users with few roles.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Measured {
    pub(crate) index: u32,
    pub(crate) state: String,
    pub(crate) uptime: Option<f64>,
    pub(crate) mem_quota: Option<f64>,
    pub(crate) disk_quota: Option<f64>,
    #[serde(default)]
    pub(crate) usage: Usage,
}

/// Resource usage of an instance.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Usage {
    /// Number of processor cores.
    pub(crate) cpu: Option<f64>,
    pub(crate) mem: Option<f64>,
    pub(crate) disk: Option<f64>,
    pub(crate) log_rate: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Route {
    pub(crate) guid: String,
    /// Host, domain and path.
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) protocol: Option<String>,
    #[serde(default)]
    pub(crate) destinations: Vec<Destination>,
    pub(crate) relationships: OfDomain,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Destination {
    pub(crate) app: DestinationApp,
    #[serde(default)]
    pub(crate) port: Option<u16>,
}

impl Destination {
    /// Type of the processes that it leads to.
    pub(crate) fn process_type(&self) -> &str {
        let process = self.app.process.as_ref();
        process.map_or("web", |process| &process.r#type)
    }
}

#[derive(Clone, Deserialize)]
pub(crate) struct DestinationApp {
    pub(crate) guid: Option<String>,
    #[serde(default)]
    pub(crate) process: Option<DestinationProcess>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct DestinationProcess {
    pub(crate) r#type: String,
}

#[derive(Deserialize)]
pub(crate) struct Domain {
    pub(crate) guid: String,
    #[serde(default, rename = "internal")]
    pub(crate) is_internal: bool,
}

/// A service instance that an application is bound to.
#[derive(Deserialize)]
pub(crate) struct Binding {
    pub(crate) guid: String,
    pub(crate) relationships: OfBinding,
}

/// Content of a binding.
#[derive(Deserialize)]
pub(crate) struct BindingDetails {
    #[serde(default)]
    pub(crate) credentials: serde_json::Value,
}

/// A service instance that a route is bound to.
#[derive(Deserialize)]
pub(crate) struct RouteBinding {
    pub(crate) guid: String,
    pub(crate) relationships: OfRoute,
}

#[derive(Deserialize)]
pub(crate) struct OfRoute {
    pub(crate) route: To,
}

#[derive(Deserialize)]
pub(crate) struct OfOrganization {
    pub(crate) organization: To,
}

#[derive(Deserialize)]
pub(crate) struct OfSpace {
    pub(crate) space: To,
}

#[derive(Deserialize)]
pub(crate) struct OfDomain {
    pub(crate) domain: To,
}

#[derive(Deserialize)]
pub(crate) struct OfBinding {
    pub(crate) app: Option<To>,
}

#[derive(Deserialize)]
pub(crate) struct OfAppAndRevision {
    pub(crate) app: To,
    #[serde(default)]
    pub(crate) revision: Option<To>,
}

/// A relationship to another object.
#[derive(Deserialize)]
pub(crate) struct To {
    pub(crate) data: Option<Guid>,
}

#[derive(Deserialize)]
pub(crate) struct Guid {
    pub(crate) guid: String,
}

impl To {
    /// The other object's GUID; empty without one.
    pub(crate) fn guid(&self) -> &str {
        self.data.as_ref().map_or("", |data| &data.guid)
    }
}

/// Information that the platform publishes about itself.
#[derive(Deserialize)]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) rate_limits: Option<RateLimits>,
}

#[derive(Deserialize)]
pub(crate) struct RateLimits {
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) general_limit: u64,
    #[serde(default)]
    pub(crate) reset_interval_in_minutes: u64,
}

/// Errors in an answer of the API.
#[derive(Default, Deserialize)]
pub(crate) struct Errors {
    #[serde(default)]
    pub(crate) errors: Vec<OneError>,
}

#[derive(Deserialize)]
pub(crate) struct OneError {
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) detail: String,
}
