//! Reads the current state of a foundation in few requests: applications with spaces and
//! organizations, routes with domains, processes with instances.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use metrifold_discovery::{Failure, Reason, exchange::escape};
use metrifold_http::Credentials;

use crate::api::{Api, ApiError, List};
use crate::bound::Bound;
use crate::facts::{Bindings, Facts};
use crate::metadata::Metadata;
use crate::resources::{
    App, Binding, BindingDetails, Domain, Instance, Measured, Organization, Page, Process, Route,
    RouteBinding, Space, Stats,
};
use crate::route_services::RouteServices;
use crate::select::{Selector, Verdict};
use crate::usage::Usages;

/// Up to this number of applications, requests for routes and processes name their GUIDs.
const FEW_APPS: usize = 200;
/// Number of GUIDs that fit into a URL.
const GUIDS: usize = 100;
/// Time after which a feature that the platform lacked is tried again.
const RETRY: Duration = Duration::from_secs(3600);

/// Current state of a foundation.
pub(crate) struct Foundation {
    pub(crate) metadata: Arc<Metadata>,
    /// Processes by application.
    processes: HashMap<String, Vec<Running>>,
}

/// A process and its instances.
pub(crate) struct Running {
    app: String,
    pub(crate) guid: String,
    pub(crate) process_type: String,
    pub(crate) created_at: String,
    pub(crate) revision: Option<String>,
    /// The instances. The state of an instance is empty while unknown.
    pub(crate) instances: Vec<Instance>,
}

/// Reads a foundation repeatedly.
pub(crate) struct Reader {
    api: Arc<Api>,
    selectors: Arc<[Selector]>,
    interval: Duration,
    metadata_interval: Duration,
    max_stats: usize,
    /// Requests for stats that the last refresh took to find out what runs.
    asked_for_stats: usize,
    /// Number of answered requests before the last refresh.
    requests_before: u64,
    /// Why the states of some processes could not be read in the last refresh.
    states_failed: Option<Failure>,
    metadata: Option<(Instant, Arc<Metadata>, Scope)>,
    /// Times since which the platform is known to lack these features.
    no_include: Option<Instant>,
    no_embed: Option<Instant>,
    /// Instances of processes that were requested one by one, by process.
    heard: HashMap<String, Heard>,
    refreshes: u64,
    knows_limits: bool,
    /// Interval of measuring the usage of instances. `None` to not measure it.
    stats_interval: Option<Duration>,
    usages: Option<Arc<Usages>>,
    /// Times at which measuring a process has failed.
    unmeasured: HashMap<String, Instant>,
    route_services: RouteServices,
    bindings: Arc<Bindings>,
    /// For each selector, the bindings whose credentials it last needed.
    needed: Vec<HashSet<String>>,
    /// Whether the last request for credentials failed, which has been logged.
    credentials_failed: bool,
}

/// The instances of a process as they are known since the refresh in which they were requested.
struct Heard {
    refresh: u64,
    desired: u32,
    instances: Vec<Instance>,
}

/// Filter of the requests for routes and processes.
#[derive(Clone)]
enum Scope {
    /// No application can have targets.
    Nothing,
    Apps(Vec<String>),
    Organizations(Vec<String>),
    All,
}

impl Reader {
    pub(crate) fn new(
        api: Arc<Api>,
        selectors: Arc<[Selector]>,
        interval: Duration,
        metadata_interval: Duration,
        max_stats: usize,
        stats_interval: Option<Duration>,
    ) -> Self {
        Self {
            api,
            needed: vec![HashSet::new(); selectors.len()],
            selectors,
            interval,
            metadata_interval,
            max_stats,
            asked_for_stats: 0,
            requests_before: 0,
            states_failed: None,
            metadata: None,
            no_include: None,
            no_embed: None,
            heard: HashMap::new(),
            refreshes: 0,
            knows_limits: false,
            stats_interval,
            usages: stats_interval.map(|interval| Arc::new(Usages::new(interval))),
            unmeasured: HashMap::new(),
            route_services: RouteServices::default(),
            bindings: Arc::default(),
            credentials_failed: false,
        }
    }

    /// What is known of instances besides their labels.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            usages: self.usages.clone(),
            bindings: self.bindings.clone(),
        }
    }

    /// Why the states of some processes could not be read in the last refresh.
    pub(crate) fn states_failed(&self) -> Option<Failure> {
        self.states_failed.clone()
    }

    /// Number of further requests for stats in this refresh: at most `max_stats`, and no more than
    /// the rate limit allows at the interval. One is always allowed, so that all get their turn.
    fn stats_left(&self) -> usize {
        let requests = self.api.pace.requests() - self.requests_before;
        let allowed = self.api.pace.allowance(self.interval);
        let least = u64::from(self.asked_for_stats == 0);
        let allowed = allowed.saturating_sub(requests).max(least);
        let left = self.max_stats.saturating_sub(self.asked_for_stats);
        left.min(usize::try_from(allowed).unwrap_or(usize::MAX))
    }

    /// Measures the usage of instances, processes with the oldest attempt first.
    pub(crate) async fn measure(&mut self, foundation: &Foundation) {
        let (Some(usages), Some(interval)) = (self.usages.clone(), self.stats_interval) else {
            return;
        };
        let metadata = &foundation.metadata;
        let taken = metadata.apps.iter().filter(|app| {
            let mut judged = self.selectors.iter().map(|it| it.judge(app, metadata));
            app.started && judged.any(|it| matches!(it, Verdict::Taken(_)))
        });
        let processes = taken.filter_map(|app| foundation.processes.get(&app.guid));
        let running = processes
            .flatten()
            .filter(|it| it.instances.iter().any(Instance::runs));
        let processes: HashSet<&str> = running.map(|it| it.guid.as_str()).collect();
        if processes.is_empty() {
            // The instances may be those known so far: see `tell`.
            return;
        }
        let measured = usages.retain(&processes);
        self.unmeasured
            .retain(|process, _| processes.contains(process.as_str()));
        let mut due: Vec<(Option<Instant>, &str)> = processes
            .into_iter()
            .map(|process| {
                let tried = self.unmeasured.get(process).copied();
                (measured.get(process).copied().max(tried), process)
            })
            .filter(|(at, _)| at.is_none_or(|at| at.elapsed() >= interval))
            .collect();
        due.sort_unstable();
        for (_, process) in due.into_iter().take(self.stats_left()) {
            if !self.api.pace.blocked().is_zero() {
                return;
            }
            let path = format!("/v3/processes/{process}/stats");
            match self.api.one::<Stats>(&path).await {
                Ok(stats) => {
                    self.unmeasured.remove(process);
                    usages.put(process, stats.resources);
                }
                Err(error) => {
                    self.unmeasured.insert(process.to_owned(), Instant::now());
                    debug!(%error, "cannot read the resource usage of instances");
                    if error.is_general() {
                        return;
                    }
                }
            }
        }
    }

    /// Drops the cached metadata, so that the next refresh reads everything.
    pub(crate) fn forget(&mut self) {
        self.metadata = None;
    }

    /// Reads the current state of the foundation. Metadata stay known when something else cannot be
    /// read, so that a retry does not ask an ailing platform for them as well.
    pub(crate) async fn read(&mut self) -> Result<Foundation, Failure> {
        self.read_all().await.map_err(|error| error.failure)
    }

    async fn read_all(&mut self) -> Result<Foundation, ApiError> {
        self.refreshes += 1;
        self.asked_for_stats = 0;
        self.requests_before = self.api.pace.requests();
        self.states_failed = None;
        if !std::mem::replace(&mut self.knows_limits, true) {
            self.api.read_limits().await;
        }
        let known = self.metadata.as_ref();
        let known = known.filter(|(at, ..)| at.elapsed() < self.metadata_interval);
        let (metadata, scope, fresh) = match known {
            Some((_, metadata, scope)) => (metadata.clone(), scope.clone(), false),
            None => {
                let (metadata, scope) = self.read_metadata().await?;
                (metadata, scope, true)
            }
        };
        let processes = self.read_processes(&scope).await?;
        if fresh || !outdated(&metadata, &processes, &scope) {
            self.read_credentials(&metadata).await;
            return Ok(Foundation::new(metadata, processes));
        }
        let (metadata, scope) = self.read_metadata().await?;
        let processes = self.read_processes(&scope).await?;
        self.read_credentials(&metadata).await;
        Ok(Foundation::new(metadata, processes))
    }

    /// Reads the credentials of applications, as far as they are needed and not known: at most
    /// `max_stats` per refresh. The credentials of a binding never change. After a failure, they are
    /// tried again with the next refresh; until then, their applications are not scraped.
    async fn read_credentials(&mut self, metadata: &Metadata) {
        let selectors = self.selectors.clone();
        let mut needed = HashMap::new();
        for (selector, last) in selectors.iter().zip(&mut self.needed) {
            let Some(service) = &selector.service_credentials else {
                continue;
            };
            let mut now = HashSet::new();
            for app in metadata.apps.iter().filter(|app| app.started) {
                if let Some(binding) = metadata.binding(&app.guid, service)
                    && matches!(selector.judge(app, metadata), Verdict::Taken(_))
                {
                    now.insert(binding.to_owned());
                    needed.insert(binding.to_owned(), service);
                }
            }
            // Without any, the targets may be those known so far, which need the known ones.
            if !now.is_empty() {
                *last = now;
            }
        }
        let kept = self.needed.iter().flatten().cloned().collect();
        self.bindings.retain(&kept);
        let missing = needed.into_iter();
        let missing = missing.filter(|(binding, _)| self.bindings.get(binding).is_none());
        let missing: Vec<_> = missing.take(self.max_stats).collect();
        for (binding, service) in missing {
            if !self.api.pace.blocked().is_zero() {
                return;
            }
            let path = format!("/v3/service_credential_bindings/{binding}/details");
            match self.api.one::<BindingDetails>(&path).await {
                Ok(details) => {
                    let credentials = credentials(service, &details);
                    self.bindings.put(binding, credentials);
                    self.credentials_failed = false;
                }
                // The binding has gone since the list was read, or is still being made.
                Err(error) if matches!(error.status, Some(404 | 422)) => {}
                Err(error) => {
                    if !std::mem::replace(&mut self.credentials_failed, true) {
                        warn!(%error, service, "cannot read the credentials of applications");
                    }
                    // A user who may not read these can hardly read others.
                    if error.is_general() || error.status == Some(403) {
                        return;
                    }
                }
            }
        }
    }

    async fn read_metadata(&mut self) -> Result<(Arc<Metadata>, Scope), ApiError> {
        let asked = Instant::now();
        let organizations = self.organizations().await?;
        let mut query = String::new();
        if let Some(guids) = &organizations {
            query.push_str(&format!("&organization_guids={}", guids.join(",")));
        }
        let mut label_selectors = self.selectors.iter().map(|it| it.labels.as_ref());
        let first = label_selectors.next().flatten();
        let shared = first.filter(|(text, _)| {
            label_selectors.all(|it| it.is_some_and(|(other, _)| other == text))
        });
        if let Some((text, _)) = shared {
            query.push_str(&format!("&label_selector={}", escape(text)));
        }
        let nothing = organizations.as_ref().is_some_and(Vec::is_empty);
        let mut metadata = match nothing {
            true => Metadata::default(),
            false => self.read_apps(&query).await?,
        };
        let selectors = self.selectors.iter();
        let services =
            selectors.flat_map(|it| it.bound_service.iter().chain(&it.service_credentials));
        let services: BTreeSet<&String> = services.collect();
        for service in services {
            let query = format!("&type=app&service_instance_names={}", escape(service));
            let path = "/v3/service_credential_bindings";
            let bindings = self.api.list::<Binding>(path, &query).await?;
            metadata.add_bindings(service, bindings.resources);
        }
        let scope = self.scope(&metadata, organizations);
        let mut routes = Vec::new();
        let mut domains = Vec::new();
        for query in scope.queries() {
            let (some, theirs) = self.read_routes(&query).await?;
            routes.extend(some);
            domains.extend(theirs);
        }
        // A route to two applications is listed with both.
        let mut known = HashSet::new();
        routes.retain(|route| known.insert(route.guid.clone()));
        let services = match routes.is_empty() {
            true => HashSet::new(),
            false => {
                let found = self.list_route_services().await?;
                self.route_services.found(found)
            }
        };
        metadata.sees_routes = match (&scope, routes.is_empty()) {
            (_, false) => true,
            (Scope::Nothing, true) => false,
            // These applications may have no route, or the user may see none any more.
            (_, true) => {
                let any = self.api.one::<Page<Route>>("/v3/routes?per_page=1").await?;
                any.pagination.total_results > 0
            }
        };
        metadata.add_routes(routes, domains, &services);
        let metadata = Arc::new(metadata);
        self.metadata = Some((asked, metadata.clone(), scope.clone()));
        Ok((metadata, scope))
    }

    /// The organizations that the selectors name. `None` unless every selector names some.
    async fn organizations(&self) -> Result<Option<Vec<String>>, ApiError> {
        let filters = || self.selectors.iter().map(|it| &it.organization);
        let narrow = |names: &BTreeSet<&String>, guids: &BTreeSet<&String>| {
            // The API separates names by commas and cannot escape one in a name.
            names.iter().all(|name| !name.contains(',')) && names.len() + guids.len() <= GUIDS / 2
        };
        let names: BTreeSet<&String> = filters().flat_map(|it| &it.names).collect();
        let given: BTreeSet<&String> = filters().flat_map(|it| &it.guids).collect();
        if !filters().all(|it| it.is_narrow()) || !narrow(&names, &given) {
            return Ok(None);
        }
        let mut guids: BTreeSet<String> = given.into_iter().cloned().collect();
        if !names.is_empty() {
            let names: Vec<_> = names.into_iter().map(|name| escape(name)).collect();
            let query = format!("&names={}", names.join(","));
            let list = self.api.list::<Organization>("/v3/organizations", &query);
            guids.extend(list.await?.resources.into_iter().map(|it| it.guid));
        }
        Ok(Some(guids.into_iter().collect()))
    }

    async fn read_apps(&mut self, query: &str) -> Result<Metadata, ApiError> {
        let (apps, spaces, organizations) = self.list_apps(query).await?;
        if !apps.is_empty() {
            all_there("spaces", "application", &spaces)?;
            all_there("organizations", "application", &organizations)?;
        }
        Ok(Metadata::new(apps, spaces, organizations))
    }

    async fn list_apps(&mut self, query: &str) -> Result<Apps, ApiError> {
        if still(self.no_include) {
            return self.list_apps_apart(query).await;
        }
        let with = format!("&include=space.organization{query}");
        match self.api.list::<App>("/v3/apps", &with).await {
            Ok(list) => {
                let List {
                    resources,
                    included,
                } = list;
                Ok((resources, included.spaces, included.organizations))
            }
            Err(error) if error.status == Some(400) => {
                let apps = self.list_apps_apart(query).await?;
                debug!(%error, "platform does not include spaces in its list of applications");
                self.no_include = Some(Instant::now());
                Ok(apps)
            }
            Err(error) => Err(error),
        }
    }

    async fn list_apps_apart(&self, query: &str) -> Result<Apps, ApiError> {
        let apps = self.api.list::<App>("/v3/apps", query).await?;
        let spaces = self.api.list::<Space>("/v3/spaces", "").await?;
        let organizations = self.api.list::<Organization>("/v3/organizations", "");
        let organizations = organizations.await?;
        Ok((apps.resources, spaces.resources, organizations.resources))
    }

    async fn read_routes(&mut self, query: &str) -> Result<(Vec<Route>, Vec<Domain>), ApiError> {
        let (routes, domains) = self.list_routes(query).await?;
        if !routes.is_empty() {
            all_there("domains", "route", &domains)?;
        }
        Ok((routes, domains))
    }

    async fn list_routes(&mut self, query: &str) -> Result<(Vec<Route>, Vec<Domain>), ApiError> {
        if !still(self.no_include) {
            let with = format!("&include=domain{query}");
            match self.api.list::<Route>("/v3/routes", &with).await {
                Ok(list) => return Ok((list.resources, list.included.domains)),
                Err(error) if error.status == Some(400) => {}
                Err(error) => return Err(error),
            }
        }
        let routes = self.api.list::<Route>("/v3/routes", query).await?;
        let domains = self.api.list::<Domain>("/v3/domains", "").await?;
        self.no_include.get_or_insert_with(Instant::now);
        Ok((routes.resources, domains.resources))
    }

    /// GUIDs of the routes with a route service.
    async fn list_route_services(&self) -> Result<HashSet<String>, ApiError> {
        let path = "/v3/service_route_bindings";
        match self.api.list::<RouteBinding>(path, "").await {
            Ok(list) => {
                let bindings = list.resources.into_iter();
                Ok(bindings
                    .map(|it| it.relationships.route.guid().to_owned())
                    .collect())
            }
            // Platforms before version 3.88 of the API have no such list.
            Err(error) if error.status == Some(404) => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Filter of the requests for routes and processes.
    fn scope(&self, metadata: &Metadata, organizations: Option<Vec<String>>) -> Scope {
        let taken = metadata.apps.iter().filter(|app| {
            let mut judged = self.selectors.iter().map(|it| it.judge(app, metadata));
            app.started && judged.any(|it| matches!(it, Verdict::Taken(_)))
        });
        let apps: Vec<_> = taken.map(|app| app.guid.clone()).collect();
        match (apps.len(), organizations) {
            (0, _) => Scope::Nothing,
            (1..=FEW_APPS, _) => Scope::Apps(apps),
            (_, Some(organizations)) => Scope::Organizations(organizations),
            (_, None) => Scope::All,
        }
    }

    async fn read_processes(&mut self, scope: &Scope) -> Result<Vec<Running>, ApiError> {
        let types: BTreeSet<_> = self.selectors.iter().flat_map(|it| &it.processes).collect();
        let types: Vec<_> = types.into_iter().map(|it| escape(it)).collect();
        let types = format!("&types={}", types.join(","));
        let mut processes = Vec::new();
        for query in scope.queries() {
            let query = format!("{types}{query}");
            processes.extend(self.list_processes(&query).await?);
        }
        if processes.iter().any(|it| it.process_instances.is_none()) {
            self.ask_for_stats(&mut processes).await?;
        } else if !processes.is_empty() {
            self.heard.clear();
        }
        Ok(processes.into_iter().map(Running::new).collect())
    }

    async fn list_processes(&mut self, query: &str) -> Result<Vec<Process>, ApiError> {
        let path = "/v3/processes";
        if !still(self.no_embed) {
            let with = format!("&embed=process_instances{query}");
            match self.api.list(path, &with).await {
                Ok(list) => return Ok(list.resources),
                Err(error) if error.status == Some(400) => {}
                Err(error) => return Err(error),
            }
        }
        let list = self.api.list(path, query).await?;
        self.no_embed.get_or_insert_with(Instant::now);
        Ok(list.resources)
    }

    /// Requests instances where the platform does not list them with processes: at most `max_stats`
    /// requests per refresh and within the rate limit, for new and changed processes first, and then
    /// for the oldest answers. Other processes, and those whose instances cannot be read, keep the
    /// states known so far.
    async fn ask_for_stats(&mut self, processes: &mut [Process]) -> Result<(), ApiError> {
        let live: HashSet<&str> = processes.iter().map(|it| it.guid.as_str()).collect();
        self.heard.retain(|guid, _| live.contains(guid.as_str()));
        let mut order: Vec<usize> = (0..processes.len()).collect();
        order.retain(|at| processes[*at].process_instances.is_none());
        order.sort_by_key(|at| {
            let process = &processes[*at];
            let heard = self.heard.get(&process.guid);
            let same = heard.filter(|it| it.desired == process.instances);
            same.map_or(0, |it| it.refresh)
        });
        let mut failed = None;
        let mut failures = 0;
        for at in order.iter().take(self.stats_left()) {
            if !self.api.pace.blocked().is_zero() {
                break;
            }
            self.asked_for_stats += 1;
            let process = &processes[*at];
            let path = format!("/v3/processes/{}/stats", process.guid);
            let read = self.api.one::<Stats>(&path).await;
            let (instances, error) = match read {
                Ok(stats) => {
                    let states = stats.resources.iter().map(Instance::of);
                    let states = states.collect();
                    if let Some(usages) = &self.usages {
                        usages.put(&process.guid, stats.resources);
                    }
                    (states, None)
                }
                // The process has gone since the list was read.
                Err(error) if error.status == Some(404) => (Vec::new(), None),
                Err(error) => (known(&self.heard, process), Some(error)),
            };
            // Also after a failure: the next refresh begins with another process.
            let heard = Heard {
                refresh: self.refreshes,
                desired: process.instances,
                instances,
            };
            self.heard.insert(process.guid.clone(), heard);
            match error {
                Some(error) if error.is_general() => return Err(error),
                Some(error) => {
                    failures += 1;
                    failed.get_or_insert(error.failure);
                }
                None => {}
            }
        }
        self.states_failed = failed.map(|first| {
            let text = format!(
                "cannot read the states of instances, which stay as they are known, of {failures} processes: {first}"
            );
            Failure::new(first.reason, text)
        });
        for at in order {
            let process = &mut processes[at];
            process.process_instances = Some(known(&self.heard, process));
        }
        Ok(())
    }
}

/// Applications with the spaces and organizations of all of them.
type Apps = (Vec<App>, Vec<Space>, Vec<Organization>);

/// Fails if a list is empty although each object of another one belongs to one in it.
fn all_there<T>(what: &str, owner: &str, list: &[T]) -> Result<(), ApiError> {
    if list.is_empty() {
        let text = format!("no {what} are listed, although each {owner} has one");
        return Err(Failure::new(Reason::Invalid, text).into());
    }
    Ok(())
}

/// The instances of a process as far as they are known: the desired ones, with an empty state where
/// none has been read.
fn known(heard: &HashMap<String, Heard>, process: &Process) -> Vec<Instance> {
    let heard = heard.get(&process.guid);
    if let Some(heard) = heard.filter(|it| it.desired == process.instances) {
        return heard.instances.clone();
    }
    let before = heard.map_or(&[][..], |it| it.instances.as_slice());
    let each = (0..process.instances).map(|index| {
        let before = before.iter().find(|it| it.index == index);
        let state = before.map(|it| it.state.clone()).unwrap_or_default();
        Instance { index, state }
    });
    each.collect()
}

/// Credentials for requests from the content of a binding. Those of a client are sent to the URL that
/// the binding gives, which has to be encrypted.
fn credentials(service: &str, details: &BindingDetails) -> Result<Credentials, String> {
    let bound = Bound::read(service, &details.credentials)?;
    match &bound {
        Bound::OAuth2(oauth2) if oauth2.token_url.uri().scheme_str() != Some("https") => Err(
            format!("the URL in the credentials of {service:?} is not an https URL"),
        ),
        bound => bound.build().map_err(|error| error.to_string()),
    }
}

/// Whether a feature counts as lacking.
fn still(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() < RETRY)
}

/// Whether the processes show applications that are new or were started since the metadata was
/// read.
fn outdated(metadata: &Metadata, processes: &[Running], scope: &Scope) -> bool {
    if matches!(scope, Scope::Nothing | Scope::Apps(_)) {
        return false;
    }
    let known: HashMap<&str, bool> = metadata
        .apps
        .iter()
        .map(|app| (app.guid.as_str(), app.started))
        .collect();
    processes.iter().any(|process| {
        let runs = process.instances.iter().any(Instance::runs);
        known
            .get(process.app.as_str())
            .is_none_or(|started| !started && runs)
    })
}

impl Scope {
    /// Query parameters of each request that the filter takes.
    fn queries(&self) -> Vec<String> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Apps(apps) => {
                let chunks = apps.chunks(GUIDS);
                chunks
                    .map(|guids| format!("&app_guids={}", guids.join(",")))
                    .collect()
            }
            Self::Organizations(guids) => {
                vec![format!("&organization_guids={}", guids.join(","))]
            }
            Self::All => vec![String::new()],
        }
    }
}

impl Instance {
    /// The instance of a measurement.
    fn of(measured: &Measured) -> Self {
        Self {
            index: measured.index,
            state: measured.state.clone(),
        }
    }

    /// Whether it takes requests; an unknown state counts as running.
    pub(crate) fn runs(&self) -> bool {
        self.state == "RUNNING" || self.state.is_empty()
    }
}

impl Running {
    fn new(process: Process) -> Self {
        let relationships = process.relationships;
        let revision = relationships.revision.as_ref();
        Self {
            app: relationships.app.guid().to_owned(),
            revision: revision.map(|it| it.guid().to_owned()),
            guid: process.guid,
            process_type: process.r#type,
            created_at: process.created_at,
            instances: process.process_instances.unwrap_or_default(),
        }
    }
}

impl Foundation {
    fn new(metadata: Arc<Metadata>, all: Vec<Running>) -> Self {
        let mut processes: HashMap<String, Vec<Running>> = HashMap::new();
        for process in all {
            processes
                .entry(process.app.clone())
                .or_default()
                .push(process);
        }
        for of_app in processes.values_mut() {
            of_app.sort_by(|a, b| (&a.created_at, &a.guid).cmp(&(&b.created_at, &b.guid)));
        }
        Self {
            metadata,
            processes,
        }
    }

    /// Whether no process at all was listed.
    pub(crate) fn has_no_processes(&self) -> bool {
        self.processes.is_empty()
    }

    /// The processes of a type, oldest first. There are several during a rolling deployment.
    pub(crate) fn processes(&self, app: &str, process_type: &str) -> Vec<&Running> {
        let of_app = self.processes.get(app).into_iter().flatten();
        of_app
            .filter(|it| it.process_type == process_type)
            .collect()
    }
}
