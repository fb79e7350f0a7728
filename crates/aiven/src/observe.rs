//! Observing: reads the projects, finds the nodes of services that have the integration, and tells the
//! feed. A project that cannot be read keeps its targets, and a service whose name does not resolve keeps
//! its own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use metrifold_base::{RunError, Secret};
use metrifold_discovery::{Answer, Failure, Feed, Labels, LeftOut, OnEmpty, Reason};

use crate::accounts::{Access, Account, User};
use crate::api::Api;
use crate::config::AivenConfig;
use crate::meters::AivenMeters;
use crate::plan::Project;
use crate::resolve::Resolver;
use crate::resources::{Endpoint, Service};
use crate::targets::{Place, labels, places};

/// How many names are resolved at the same time.
const LOOKUPS: usize = 64;

/// What was seen of the projects that could be read.
#[derive(Debug)]
pub(crate) struct Observation {
    /// When it began.
    pub(crate) at: SystemTime,
    pub(crate) projects: Vec<Arc<Project>>,
    /// Why others could not be read.
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
    /// The addresses of standbys, as they were last heard: of those, nobody says whether there are any.
    pub(crate) standbys: HashMap<String, Vec<IpAddr>>,
}

/// What seldom changes of a project.
pub(crate) struct Seldom {
    read: Instant,
    eligible: BTreeSet<String>,
}

/// What becomes of a service.
enum Found {
    Places(Vec<Place>),
    /// It has no targets, and why.
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
        for project in &projects {
            let known = known_of(feed, project);
            match self.guard(project, &known) {
                Some(failure) => {
                    // Its services are as they were.
                    let stay = known.into_iter().map(|(source, _)| source);
                    answers.extend(stay.map(|source| (source, Err(failure.clone()))));
                    answers.push((project.name.clone(), Err(failure)));
                }
                None => {
                    let found = self.find(project, &mut left).await?;
                    let there: HashSet<&Arc<str>> = found.iter().map(|(it, _)| it).collect();
                    let went = known.into_iter().map(|(source, _)| source);
                    gone.extend(went.filter(|source| !there.contains(source)));
                    answers.extend(found);
                }
            }
        }
        let feed = feed.clone();
        // Many targets take a while to be compared.
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
            projects,
            failed,
        })
    }

    /// Reads a project, whole.
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

    /// What seldom changes is read seldom; what was read stays where that fails.
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

    /// Reads what nodes ask for. Targets can be found without it.
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
                    // Nodes ask for nothing.
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

    /// Takes an empty list for a fault where there were targets: a user who lost the right to see
    /// something is shown nothing.
    fn guard(&self, project: &Project, known: &[(Arc<str>, usize)]) -> Option<Failure> {
        let count: usize = known.iter().map(|(_, count)| count).sum();
        let nothing = match (project.services.is_empty(), project.endpoints.is_empty()) {
            (true, _) => "services",
            (false, true) => "endpoints",
            (false, false) => return None,
        };
        if count == 0 || self.config.limits.on_empty == OnEmpty::Take {
            return None;
        }
        let name = &project.name;
        let text =
            format!("project {name} has no {nothing}, and {count} targets were known: they stay");
        Some(Failure::new(Reason::Empty, text))
    }

    /// The targets of a project's services, each a source of its own.
    async fn find(
        &mut self,
        project: &Arc<Project>,
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
            let targets = self.targets(project, endpoint, &project.services[at], found);
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
            None => return Found::Nothing("it is not integrated with the endpoint".to_owned()),
            Some(it) if !it.enabled => {
                return Found::Nothing("its integration is disabled".to_owned());
            }
            Some(_) => {}
        }
        if service.is_off() {
            return Found::Nothing("it is powered off".to_owned());
        }
        match places(&self.config, service) {
            Ok(places) => Found::Places(places),
            Err(why) => Found::Nothing(why),
        }
    }

    fn targets(
        &mut self,
        project: &Project,
        endpoint: Option<&Endpoint>,
        service: &Service,
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
                Ok(addresses) => {
                    if !place.certain {
                        self.standbys.insert(place.host.clone(), addresses.clone());
                    }
                    addresses
                }
                Err(failure) => {
                    self.meters.resolve_failures.increment(1);
                    if place.certain {
                        return Err(failure);
                    }
                    self.standbys.get(&place.host).cloned().unwrap_or_default()
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

    /// Forgets standbys of services that there are no more.
    pub(crate) fn forget(&mut self, observation: &Observation) {
        if observation.failed.is_empty() && !self.standbys.is_empty() {
            let services = observation.projects.iter().flat_map(|it| &it.services);
            let hosts: HashSet<String> = services
                .filter_map(|it| places(&self.config, it).ok())
                .flatten()
                .map(|place| place.host)
                .collect();
            self.standbys.retain(|host, _| hosts.contains(host));
        }
    }
}

/// The services of a project of which targets are known, with their numbers.
fn known_of(feed: &Feed, project: &Project) -> Vec<(Arc<str>, usize)> {
    let start = format!("{}/", project.name);
    let sources = feed.sources().into_iter();
    let of = sources.filter(|source| source.starts_with(&start));
    of.map(|source| {
        let count = feed.known(&source);
        (source, count)
    })
    .collect()
}
