//! Observes the projects: reads them, finds the nodes of services that have the integration, and
//! reports to the feed. A project that cannot be read keeps its targets, and so does a service
//! whose name does not resolve.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use metrifold_base::{RunError, Secret};
use metrifold_discovery::{Answer, Failure, Feed, Labels, LeftOut, OnEmpty, Reason, Target};

use crate::accounts::{Access, Account, User};
use crate::api::Api;
use crate::config::AivenConfig;
use crate::meters::AivenMeters;
use crate::plan::Project;
use crate::resolve::Resolver;
use crate::resources::{Endpoint, Service};
use crate::targets::{HOST, Place, labels, places};

/// Names resolved concurrently.
const LOOKUPS: usize = 64;

/// State of the projects that could be read.
#[derive(Debug)]
pub(crate) struct Observation {
    /// Start of the observation.
    pub(crate) at: SystemTime,
    pub(crate) projects: Vec<Arc<Project>>,
    /// Errors of the projects that could not be read, or whose answers are not believed.
    pub(crate) failed: Vec<String>,
}

pub(crate) struct Observer {
    pub(crate) config: Arc<AivenConfig>,
    pub(crate) api: Arc<Api>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) account: Arc<Account>,
    pub(crate) meters: Arc<AivenMeters>,
    pub(crate) seldom: HashMap<Arc<str>, Seldom>,
    pub(crate) access: Access,
}

/// Rarely changing data of a project.
pub(crate) struct Seldom {
    read: Instant,
    eligible: BTreeSet<String>,
}

/// Result of the search for a service's targets.
enum Found {
    Places(Vec<Place>),
    /// No targets, for this reason.
    Nothing(String),
}

impl Observer {
    pub(crate) async fn observe(&mut self, feed: &Feed) -> Result<Observation, RunError> {
        let at = SystemTime::now();
        let mut projects = Vec::new();
        let mut answers: Vec<Answer> = Vec::new();
        let mut failed = Vec::new();
        for name in self.config.projects.clone() {
            let name: Arc<str> = name.into();
            self.meters.fetches.increment(1);
            match self.read(&name, &mut answers).await {
                Ok(project) => projects.push(Arc::new(project)),
                Err(failure) => {
                    self.meters.fetch_failures.increment(1);
                    failed.push(format!("project {name}: {failure}"));
                    answers.push((name, Err(failure)));
                }
            }
        }
        self.access.complete |= failed.is_empty();
        self.account.set_access(self.access.clone());
        let whole = failed.is_empty();
        let mut left = Vec::new();
        let mut gone = Vec::new();
        let mut believed = Vec::new();
        for project in projects {
            let known = known_of(feed, &project);
            match self.guard(&project, &known) {
                Some(failure) => {
                    // Keeps the targets of its services, and has no changes planned: without the
                    // list of endpoints, a plan would begin with another endpoint.
                    failed.push(failure.text.clone());
                    let stay = known.into_keys();
                    answers.extend(stay.map(|source| (source, Err(failure.clone()))));
                    answers.push((project.name.clone(), Err(failure)));
                }
                None => {
                    let found = self.find(&project, &known, &mut left).await?;
                    let there: HashSet<&Arc<str>> = found.iter().map(|(it, _)| it).collect();
                    let went = known.into_keys();
                    gone.extend(went.filter(|source| !there.contains(source)));
                    answers.extend(found);
                    believed.push(project);
                }
            }
        }
        let feed = feed.clone();
        // Comparing many targets takes a while.
        let told = tokio::task::spawn_blocking(move || {
            feed.leave_out(left);
            match whole {
                true => feed.all(answers),
                false => {
                    if !gone.is_empty() {
                        feed.without(gone);
                    }
                    feed.some(answers);
                }
            }
        });
        told.await.map_err(|error| RunError(error.to_string()))?;
        Ok(Observation {
            at,
            projects: believed,
            failed,
        })
    }

    /// Reads everything about a project.
    async fn read(
        &mut self,
        name: &Arc<str>,
        answers: &mut Vec<Answer>,
    ) -> Result<Project, Failure> {
        let services = self.api.services(name).await.map_err(|it| it.failure)?;
        let endpoints = self.api.endpoints(name).await.map_err(|it| it.failure)?;
        let eligible = self.seldom(name, answers).await?;
        let project = Project {
            name: name.clone(),
            services,
            eligible,
            endpoints,
        };
        if let Some(endpoint) = project.endpoint(&self.config) {
            self.user(name, endpoint, answers).await;
        }
        Ok(project)
    }

    /// Reads rarely changing data at their own interval; on failure the previous data stay.
    async fn seldom(
        &mut self,
        name: &Arc<str>,
        answers: &mut Vec<Answer>,
    ) -> Result<BTreeSet<String>, Failure> {
        let known = self.seldom.get(name);
        let fresh = self.config.metadata_interval.0;
        let is_fresh = known.is_some_and(|known| known.read.elapsed() < fresh);
        let known = known.map(|known| known.eligible.clone());
        if let Some(eligible) = known.clone().filter(|_| is_fresh) {
            return Ok(eligible);
        }
        let read = async {
            let eligible = self.api.eligible(name).await?;
            let authority = self.api.authority(name).await?;
            Ok::<_, crate::api::ApiError>((eligible, authority))
        };
        match (read.await, known) {
            (Ok((eligible, authority)), _) => {
                let eligible: BTreeSet<String> = eligible.into_iter().collect();
                let seldom = Seldom {
                    read: Instant::now(),
                    eligible: eligible.clone(),
                };
                self.seldom.insert(name.clone(), seldom);
                self.access.authorities.insert(name.to_string(), authority);
                Ok(eligible)
            }
            (Err(error), Some(known)) => {
                answers.push((format!("{name} metadata").into(), Err(error.failure)));
                Ok(known)
            }
            (Err(error), None) => Err(error.failure),
        }
    }

    /// Reads the credentials that nodes require. On failure targets are found all the same.
    async fn user(&mut self, name: &Arc<str>, endpoint: &Endpoint, answers: &mut Vec<Answer>) {
        let id = &endpoint.endpoint_id;
        match self.api.endpoint(name, id).await {
            Ok(read) => {
                let config = read.user_config.unwrap_or_default();
                let user = config.basic_auth_username.zip(config.basic_auth_password);
                match user {
                    Some((name, password)) => {
                        let password = Secret::new(password);
                        let user = User { name, password };
                        self.access.users.insert(id.clone(), user);
                    }
                    // Nodes require no credentials.
                    None => {
                        self.access.users.remove(id);
                    }
                }
            }
            Err(error) => {
                answers.push((format!("{name} credentials").into(), Err(error.failure)));
            }
        }
    }

    /// Treats an empty list as a failure if there were targets: the API shows empty lists to a user
    /// who lost a permission.
    fn guard(&self, project: &Project, known: &Known) -> Option<Failure> {
        let count: usize = known.values().map(|targets| targets.len()).sum();
        let nothing = match (project.services.is_empty(), project.endpoints.is_empty()) {
            (true, _) => "services",
            (false, true) => "endpoints",
            (false, false) => return None,
        };
        if count == 0 || self.config.limits.on_empty == OnEmpty::Take {
            return None;
        }
        let name = &project.name;
        let text = format!(
            "project {name} has no {nothing} any more, or the token's user may not see them: its {count} targets are kept, and nothing is changed, unless on_empty = \"take\""
        );
        Some(Failure::new(Reason::Empty, text))
    }

    /// Finds the targets of a project's services, each of which is a source of its own.
    async fn find(
        &mut self,
        project: &Arc<Project>,
        known: &Known,
        left: &mut Vec<LeftOut>,
    ) -> Result<Vec<Answer>, RunError> {
        let endpoint = project.endpoint(&self.config);
        let mut answers = Vec::new();
        let mut lookups = JoinSet::new();
        let room = Arc::new(Semaphore::new(LOOKUPS));
        for (at, service) in project.services.iter().enumerate() {
            let source: Arc<str> = format!("{}/{}", project.name, service.service_name).into();
            let places = match self.judge(endpoint, service) {
                Found::Places(places) => places,
                Found::Nothing(why) => {
                    left.push(LeftOut {
                        what: source.to_string(),
                        why,
                    });
                    answers.push((source, Ok(Vec::new())));
                    continue;
                }
            };
            let (resolver, room) = (self.resolver.clone(), room.clone());
            lookups.spawn(async move {
                let _permit = room.acquire().await;
                let mut found = Vec::with_capacity(places.len());
                for place in places {
                    let addresses = resolver.addresses(&place.host).await;
                    found.push((place, addresses));
                }
                (at, source, found)
            });
        }
        while let Some(found) = lookups.join_next().await {
            let (at, source, found) = found.map_err(|error| RunError(error.to_string()))?;
            let service = &project.services[at];
            let known = known.get(&source).map_or(&[][..], |known| known);
            let targets = self.targets(project, endpoint, service, known, found);
            answers.push((source, targets));
        }
        Ok(answers)
    }

    fn judge(&self, endpoint: Option<&Endpoint>, service: &Service) -> Found {
        if let Err(why) = self.config.takes(&service.service_type, service.tags()) {
            return Found::Nothing(why);
        }
        let ours = endpoint.and_then(|it| service.integrated_with(&it.endpoint_id));
        match ours {
            None => {
                return Found::Nothing(
                    "the service has no integration with the endpoint".to_owned(),
                );
            }
            Some(it) if !it.enabled => {
                return Found::Nothing("the integration is disabled".to_owned());
            }
            Some(_) => {}
        }
        if service.is_off() {
            return Found::Nothing("the service is powered off".to_owned());
        }
        match places(&self.config, service) {
            Ok(places) => Found::Places(places),
            Err(why) => Found::Nothing(why),
        }
    }

    fn targets(
        &self,
        project: &Project,
        endpoint: Option<&Endpoint>,
        service: &Service,
        known: &[Target],
        found: Vec<(Place, Result<Vec<IpAddr>, Failure>)>,
    ) -> Result<Vec<Labels>, Failure> {
        let integration = endpoint.and_then(|it| service.integrated_with(&it.endpoint_id));
        let Some(integration) = integration else {
            return Ok(Vec::new());
        };
        let mut targets = Vec::new();
        for (place, addresses) in found {
            self.meters.resolves.increment(1);
            let addresses = match addresses {
                Ok(addresses) => addresses,
                Err(failure) => {
                    self.meters.resolve_failures.increment(1);
                    if place.certain {
                        return Err(failure);
                    }
                    // The API does not say whether a service has standbys, so a name that fails
                    // has those of the last good answer.
                    addresses_of(known, &place.host)
                }
            };
            targets.extend(addresses.into_iter().map(|address| {
                labels(
                    &self.config,
                    &project.name,
                    service,
                    integration,
                    &place,
                    address,
                )
            }));
        }
        Ok(targets)
    }
}

/// Sources of a project's services that have answered, with their targets.
type Known = HashMap<Arc<str>, Arc<[Target]>>;

fn known_of(feed: &Feed, project: &Project) -> Known {
    let start = format!("{}/", project.name);
    let sources = feed.sources().into_iter();
    let of = sources.filter(|source| source.starts_with(&start));
    of.map(|source| {
        let targets = feed.known(&source);
        (source, targets)
    })
    .collect()
}

/// Addresses of a service's targets that a host name has led to.
fn addresses_of(known: &[Target], host: &str) -> Vec<IpAddr> {
    let of_host = known.iter().filter(|it| it.get(HOST) == Some(host));
    let addresses = of_host.filter_map(|it| it.address().parse::<SocketAddr>().ok());
    addresses.map(|address| address.ip()).collect()
}
