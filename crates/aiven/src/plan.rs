//! The plan: what would have to be changed so that every eligible service has the integration, and why.
//! A pure function of what was observed, of what is wanted, and of what was asked for before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::config::AivenConfig;
use crate::resources::{Endpoint, Service};

/// A service: its project and its name.
pub(crate) type Key = (Arc<str>, Arc<str>);

/// What was observed of a project.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    pub(crate) name: Arc<str>,
    pub(crate) services: Vec<Service>,
    /// Types of services that can be integrated.
    pub(crate) eligible: BTreeSet<String>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What was asked for, made or refused before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// Integrations that were made here.
    pub(crate) made: BTreeSet<String>,
    /// Until when what was asked for a service may not show.
    pub(crate) settling: BTreeMap<Key, SystemTime>,
    /// The same of a project's endpoint.
    pub(crate) endpoints: BTreeMap<Arc<str>, SystemTime>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Step {
    /// The project gets an endpoint.
    CreateEndpoint {
        /// The project.
        project: Arc<str>,
        /// The endpoint's name.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The service is integrated with the project's endpoint.
    Integrate {
        /// The project.
        project: Arc<str>,
        /// The service.
        service: Arc<str>,
        /// The endpoint's id; none if it has to be created first.
        endpoint: Option<String>,
        /// Why.
        why: String,
    },
    /// An integration that was made here is removed.
    Remove {
        /// The project.
        project: Arc<str>,
        /// The service.
        service: Arc<str>,
        /// The integration's id.
        integration: String,
        /// Why.
        why: String,
    },
}

/// A service for which nothing is to be done though it has no integration that is used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// The project and the service.
    pub what: String,
    /// Why nothing is done.
    pub why: String,
}

/// What is to be done, and what is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Changes, in the order in which they are made.
    pub steps: Vec<Step>,
    /// Services that are left alone.
    pub left: Vec<Left>,
    /// How many services have the integration.
    pub integrated: usize,
}

impl Step {
    /// The project and the service that it is about.
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

    /// Why it is to be done.
    pub fn why(&self) -> &str {
        match self {
            Self::CreateEndpoint { why, .. }
            | Self::Integrate { why, .. }
            | Self::Remove { why, .. } => why,
        }
    }

    /// What it does, in one word.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::CreateEndpoint { .. } => "create_endpoint",
            Self::Integrate { .. } => "integrate",
            Self::Remove { .. } => "remove",
        }
    }
}

impl Project {
    /// The endpoint that services are to be integrated with.
    pub(crate) fn endpoint(&self, config: &AivenConfig) -> Option<&Endpoint> {
        let by_id = &config.endpoint_id.0;
        let wanted = self.endpoints.iter().filter(|it| match by_id.is_empty() {
            true => it.endpoint_name == config.endpoint_name,
            false => by_id.contains(&it.endpoint_id),
        });
        // Of several with the same name, all replicas take the same.
        wanted.min_by(|a, b| a.endpoint_id.cmp(&b.endpoint_id))
    }
}

/// Makes the plan. `at` is when the observation began: what was asked for later cannot be in it.
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
                let why = "its endpoint was created, and does not show yet".to_owned();
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
                        "it has no endpoint of Prometheus named {}",
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
                why: format!("{why}, and the integration was made here"),
            }),
            _ => Verdict::Left(why),
        };
    }
    if !project.eligible.contains(&service.service_type) {
        let what = &service.service_type;
        return Verdict::Left(format!("services of type {what} have no such integration"));
    }
    match ours {
        Some(it) if it.enabled => return Verdict::Integrated,
        Some(it) => {
            let id = &it.service_integration_id;
            return Verdict::Left(format!("its integration {id} is disabled"));
        }
        None => {}
    }
    if service.is_off() {
        return Verdict::Left("it is powered off".to_owned());
    }
    if settling {
        return Verdict::Left("its integration was asked for, and does not show yet".to_owned());
    }
    let others: Vec<&str> = service
        .integrations()
        .filter_map(|it| it.dest_endpoint_id.as_deref())
        .collect();
    let why = match others.as_slice() {
        [] => "it has no integration with Prometheus".to_owned(),
        others => format!(
            "it is integrated with other endpoints alone: {}",
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
