//! The plan: changes needed so that every selected service has the integration, with reasons. A
//! pure function of the observation, the configuration, and earlier requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::config::AivenConfig;
use crate::resources::{Endpoint, Service};

/// Key of a service: its project and its name.
pub(crate) type Key = (Arc<str>, Arc<str>);

/// Observed state of a project.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) name: Arc<str>,
    pub(crate) services: Vec<Service>,
    /// Service types that support the integration.
    pub(crate) eligible: BTreeSet<String>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Earlier requests and their results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Ids of integrations that this account's leaders created.
    pub(crate) made: BTreeSet<String>,
    /// Services with a pending request, and until when its effect may be invisible in the API.
    pub(crate) settling: BTreeMap<Key, SystemTime>,
    /// The same for the endpoints of projects.
    pub(crate) endpoints: BTreeMap<Arc<str>, SystemTime>,
}

/// A planned change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Step {
    /// Creates an endpoint in a project.
    CreateEndpoint {
        /// Name of the project.
        project: Arc<str>,
        /// Name of the endpoint.
        endpoint: String,
        /// Reason for the change.
        why: String,
    },
    /// Integrates a service with the project's endpoint.
    Integrate {
        /// Name of the project.
        project: Arc<str>,
        /// Name of the service.
        service: Arc<str>,
        /// Id of the endpoint; None if it has to be created first.
        endpoint: Option<String>,
        /// Reason for the change.
        why: String,
    },
    /// Removes an integration that was created here.
    Remove {
        /// Name of the project.
        project: Arc<str>,
        /// Name of the service.
        service: Arc<str>,
        /// Id of the integration.
        integration: String,
        /// Reason for the change.
        why: String,
    },
}

/// A service without a usable integration that the plan does not change, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Project and service.
    pub what: String,
    /// Reason for skipping the service.
    pub why: String,
}

/// Planned changes and skipped services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Changes, in the order of execution.
    pub steps: Vec<Step>,
    /// Skipped services.
    pub left: Vec<Left>,
    /// Number of services that have the integration.
    pub integrated: usize,
}

impl Step {
    /// Project and service that the change concerns.
    pub fn what(&self) -> String {
        match self {
            Self::CreateEndpoint { project, .. } => project.to_string(),
            Self::Integrate {
                project, service, ..
            }
            | Self::Remove {
                project, service, ..
            } => {
                format!("{project}/{service}")
            }
        }
    }

    /// Reason for the change.
    pub fn why(&self) -> &str {
        match self {
            Self::CreateEndpoint { why, .. }
            | Self::Integrate { why, .. }
            | Self::Remove { why, .. } => why,
        }
    }

    /// Kind of the change, in one word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::CreateEndpoint { .. } => "create_endpoint",
            Self::Integrate { .. } => "integrate",
            Self::Remove { .. } => "remove",
        }
    }
}

impl Project {
    /// Endpoint to integrate services with.
    pub(crate) fn endpoint(&self, config: &AivenConfig) -> Option<&Endpoint> {
        let by_id = &config.endpoint_id.0;
        let wanted = self.endpoints.iter().filter(|it| match by_id.is_empty() {
            true => it.endpoint_name == config.endpoint_name,
            false => by_id.contains(&it.endpoint_id),
        });
        // Of several with the same name, all replicas choose the same.
        wanted.min_by(|a, b| a.endpoint_id.cmp(&b.endpoint_id))
    }
}

/// Makes the plan. `at` is the start of the observation, which cannot show later requests.
pub(crate) fn plan(
    config: &AivenConfig,
    projects: &[Arc<Project>],
    memory: &Memory,
    at: SystemTime,
) -> Plan {
    let mut plan = Plan::default();
    for project in projects {
        let endpoint = project.endpoint(config);
        let mut wanting = Vec::new();
        for service in &project.services {
            match judge(config, project, endpoint, service, memory, at) {
                Verdict::Integrated => plan.integrated += 1,
                Verdict::Left(why) => plan.left.push(Left {
                    what: format!("{}/{}", project.name, service.service_name),
                    why,
                }),
                Verdict::Step(step) => wanting.push(step),
            }
        }
        let needs = wanting
            .iter()
            .any(|step| matches!(step, Step::Integrate { .. }));
        if endpoint.is_none() && needs {
            let settling = memory.endpoints.get(&project.name);
            if !config.endpoint_id.0.is_empty() {
                let why = "the project has no endpoint with an id of endpoint_id".to_owned();
                plan.left.push(Left {
                    what: project.name.to_string(),
                    why,
                });
                wanting.retain(|step| !matches!(step, Step::Integrate { .. }));
            } else if settling.is_some_and(|until| at < *until) {
                let why = "the endpoint was created, and the API does not list it yet".to_owned();
                plan.left.push(Left {
                    what: project.name.to_string(),
                    why,
                });
                wanting.retain(|step| !matches!(step, Step::Integrate { .. }));
            } else {
                plan.steps.push(Step::CreateEndpoint {
                    project: project.name.clone(),
                    endpoint: config.endpoint_name.clone(),
                    why: format!(
                        "the project has no Prometheus endpoint named {}",
                        config.endpoint_name
                    ),
                });
            }
        }
        plan.steps.append(&mut wanting);
    }
    plan
}

enum Verdict {
    Integrated,
    Left(String),
    Step(Step),
}

fn judge(
    config: &AivenConfig,
    project: &Project,
    endpoint: Option<&Endpoint>,
    service: &Service,
    memory: &Memory,
    at: SystemTime,
) -> Verdict {
    let name: Arc<str> = service.service_name.as_str().into();
    let ours = endpoint.and_then(|it| service.integrated_with(&it.endpoint_id));
    let key = (project.name.clone(), name.clone());
    let settling = memory.settling.get(&key).is_some_and(|until| at < *until);
    if let Err(why) = config.takes(&service.service_type, service.tags()) {
        let made = ours.filter(|it| memory.made.contains(&it.service_integration_id));
        return match made {
            Some(integration) if config.cleanup && !settling => Verdict::Step(Step::Remove {
                project: project.name.clone(),
                service: name,
                integration: integration.service_integration_id.clone(),
                why: format!("{why}, and Metrifold created the integration"),
            }),
            _ => Verdict::Left(why),
        };
    }
    if !project.eligible.contains(&service.service_type) {
        let what = &service.service_type;
        return Verdict::Left(format!(
            "services of type {what} cannot be integrated with Prometheus"
        ));
    }
    match ours {
        Some(it) if it.enabled => return Verdict::Integrated,
        Some(it) => {
            let id = &it.service_integration_id;
            return Verdict::Left(format!("integration {id} is disabled"));
        }
        None => {}
    }
    if service.is_off() {
        return Verdict::Left("the service is powered off".to_owned());
    }
    if settling {
        return Verdict::Left(
            "the integration was requested, and the API does not list it yet".to_owned(),
        );
    }
    let others: Vec<&str> = service
        .integrations()
        .filter_map(|it| it.dest_endpoint_id.as_deref())
        .collect();
    let why = match others.as_slice() {
        [] => "the service has no integration with Prometheus".to_owned(),
        others => format!(
            "the service is integrated only with other endpoints: {}",
            others.join(", ")
        ),
    };
    Verdict::Step(Step::Integrate {
        project: project.name.clone(),
        service: name,
        endpoint: endpoint.map(|it| it.endpoint_id.clone()),
        why,
    })
}
