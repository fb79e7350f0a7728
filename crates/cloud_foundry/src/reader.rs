//! A foundation as it is now, in few requests: applications with spaces and organizations, routes with
//! domains, processes with instances.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use metrifold_discovery::{Failure, exchange::escape};

use crate::api::{Api, ApiError, List};
use crate::metadata::Metadata;
use crate::resources::{
    App, Binding, Domain, Instance, Measured, Organization, Process, Route, RouteBinding, Space,
    Stats,
};
use crate::select::{Selector, Verdict};
use crate::usage::Usages;

/// Up to so many applications, what belongs to them is asked for by their GUIDs.
const FEW_APPS: usize = 200;
/// So many GUIDs fit into a URL.
const GUIDS: usize = 100;
/// How long the platform is not asked again for what it did not know.
const RETRY: Duration = Duration::from_secs(3600);

/// What a foundation runs.
pub(crate) struct Foundation {
    pub(crate) metadata: Arc<Metadata>,
    /// By application.
    processes: HashMap<String, Vec<Running>>,
}

/// A process and its instances.
pub(crate) struct Running {
    app: String,
    pub(crate) guid: String,
    pub(crate) process_type: String,
    pub(crate) created_at: String,
    pub(crate) revision: Option<String>,
    /// Each with its state, which is empty where it is not known.
    pub(crate) instances: Vec<Instance>,
}

/// Reads a foundation again and again.
pub(crate) struct Reader {
    api: Arc<Api>,
    selectors: Arc<[Selector]>,
    metadata_interval: Duration,
    max_stats: usize,
    metadata: Option<(Instant, Arc<Metadata>, Scope)>,
    /// Until when the platform is taken not to know these.
    no_include: Option<Instant>,
    no_embed: Option<Instant>,
    /// What was heard of processes one by one.
    heard: HashMap<String, Heard>,
    refreshes: u64,
    knows_limits: bool,
    /// How often what instances use is measured, if it is.
    stats_interval: Option<Duration>,
    usages: Option<Arc<Usages>>,
}

/// The instances of a process as they were when they were asked for.
struct Heard {
    refresh: u64,
    desired: u32,
    instances: Vec<Instance>,
}

/// What requests for routes and processes are narrowed by.
#[derive(Clone)]
enum Scope {
    /// Nothing that could have targets.
    Nothing,
    Apps(Vec<String>),
    Organizations(Vec<String>),
    All,
}

impl Reader {
    pub(crate) fn new(
        api: Arc<Api>,
        selectors: Arc<[Selector]>,
        metadata_interval: Duration,
        max_stats: usize,
        stats_interval: Option<Duration>,
    ) -> Self {
        Self {
            api,
            selectors,
            metadata_interval,
            max_stats,
            metadata: None,
            no_include: None,
            no_embed: None,
            heard: HashMap::new(),
            refreshes: 0,
            knows_limits: false,
            stats_interval,
            usages: stats_interval.map(|interval| Arc::new(Usages::new(interval))),
        }
    }

    /// What instances use, if it is measured.
    pub(crate) fn usages(&self) -> Option<Arc<Usages>> {
        self.usages.clone()
    }

    /// Measures what instances use, of the processes first for which that was done longest ago. What
    /// fails is tried again after the next refresh.
    pub(crate) async fn measure(&self, foundation: &Foundation) {
        let (Some(usages), Some(interval)) = (&self.usages, self.stats_interval) else {
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
        let measured = usages.retain(&processes);
        let mut due: Vec<(Option<Instant>, &str)> = processes
            .into_iter()
            .map(|process| (measured.get(process).copied(), process))
            .filter(|(at, _)| at.is_none_or(|at| at.elapsed() >= interval))
            .collect();
        due.sort_unstable();
        for (_, process) in due.into_iter().take(self.max_stats) {
            let path = format!("/v3/processes/{process}/stats");
            match self.api.one::<Stats>(&path).await {
                Ok(stats) => usages.put(process, stats.resources),
                // It has gone since the list was read.
                Err(error) if error.status == Some(404) => {}
                Err(error) => {
                    debug!(%error, "what instances use cannot be measured");
                    return;
                }
            }
        }
    }

    /// Has everything be read the next time.
    pub(crate) fn forget(&mut self) {
        self.metadata = None;
    }

    /// The foundation as it is now.
    pub(crate) async fn read(&mut self) -> Result<Foundation, Failure> {
        let read = self.read_all().await;
        if read.is_err() {
            self.metadata = None;
        }
        read.map_err(|error| error.failure)
    }

    async fn read_all(&mut self) -> Result<Foundation, ApiError> {
        self.refreshes += 1;
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
            return Ok(Foundation::new(metadata, processes));
        }
        let (metadata, scope) = self.read_metadata().await?;
        let processes = self.read_processes(&scope).await?;
        Ok(Foundation::new(metadata, processes))
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
        let services = self.selectors.iter().flat_map(|it| &it.bound_service);
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
            false => self.route_services().await?,
        };
        metadata.add_routes(routes, domains, &services);
        let metadata = Arc::new(metadata);
        self.metadata = Some((asked, metadata.clone(), scope.clone()));
        Ok((metadata, scope))
    }

    /// The organizations that selectors name, if each names some: no others are asked for.
    async fn organizations(&self) -> Result<Option<Vec<String>>, ApiError> {
        let filters = || self.selectors.iter().map(|it| &it.organization);
        let narrow = |names: &BTreeSet<&String>, guids: &BTreeSet<&String>| {
            // The API separates names by commas, and offers no way to write one in a name.
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
        if still(self.no_include) {
            return self.read_apps_apart(query).await;
        }
        let with = format!("&include=space.organization{query}");
        match self.api.list::<App>("/v3/apps", &with).await {
            Ok(list) => {
                let List {
                    resources,
                    included,
                } = list;
                Ok(Metadata::new(
                    resources,
                    included.spaces,
                    included.organizations,
                ))
            }
            Err(error) if error.status == Some(400) => {
                let metadata = self.read_apps_apart(query).await?;
                debug!(%error, "platform does not include spaces in its list of applications");
                self.no_include = Some(Instant::now());
                Ok(metadata)
            }
            Err(error) => Err(error),
        }
    }

    async fn read_apps_apart(&self, query: &str) -> Result<Metadata, ApiError> {
        let apps = self.api.list::<App>("/v3/apps", query).await?;
        let spaces = self.api.list::<Space>("/v3/spaces", "").await?;
        let organizations = self.api.list::<Organization>("/v3/organizations", "");
        let organizations = organizations.await?;
        Ok(Metadata::new(
            apps.resources,
            spaces.resources,
            organizations.resources,
        ))
    }

    async fn read_routes(&mut self, query: &str) -> Result<(Vec<Route>, Vec<Domain>), ApiError> {
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

    /// The routes that are bound to a service.
    async fn route_services(&self) -> Result<HashSet<String>, ApiError> {
        let path = "/v3/service_route_bindings";
        match self.api.list::<RouteBinding>(path, "").await {
            Ok(list) => {
                let bindings = list.resources.into_iter();
                Ok(bindings
                    .map(|it| it.relationships.route.guid().to_owned())
                    .collect())
            }
            // Platforms before version 3.88 of the API do not list them.
            Err(error) if error.status == Some(404) => Ok(HashSet::new()),
            Err(error) => Err(error),
        }
    }

    /// What routes and processes are asked for.
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
        } else {
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

    /// Learns of instances where the platform does not list them with processes: at most so many
    /// requests per refresh, for what is new or changed first, and then for what was heard longest
    /// ago. Of the others, what was heard last holds, and of those never heard of, what is desired.
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
        for at in order.iter().take(self.max_stats) {
            let process = &processes[*at];
            let path = format!("/v3/processes/{}/stats", process.guid);
            let instances = match self.api.one::<Stats>(&path).await {
                Ok(stats) => {
                    let states = stats.resources.iter().map(Instance::of);
                    let states = states.collect();
                    if let Some(usages) = &self.usages {
                        usages.put(&process.guid, stats.resources);
                    }
                    states
                }
                // It has gone since the list was read.
                Err(error) if error.status == Some(404) => Vec::new(),
                Err(error) => return Err(error),
            };
            let heard = Heard {
                refresh: self.refreshes,
                desired: process.instances,
                instances,
            };
            self.heard.insert(process.guid.clone(), heard);
        }
        for at in order {
            let process = &mut processes[at];
            let heard = self.heard.get(&process.guid);
            let heard = heard.filter(|it| it.desired == process.instances);
            process.process_instances = heard.map(|it| it.instances.clone());
        }
        Ok(())
    }
}

/// Whether the platform is still taken not to know something.
fn still(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() < RETRY)
}

/// Whether processes show that applications have come or were started since the others were read.
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
    /// What narrows each of the requests that are needed.
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
    /// An instance of which more is known.
    fn of(measured: &Measured) -> Self {
        Self {
            index: measured.index,
            state: measured.state.clone(),
        }
    }

    /// Whether it takes requests, as far as is known.
    pub(crate) fn runs(&self) -> bool {
        self.state == "RUNNING" || self.state.is_empty()
    }
}

impl Running {
    fn new(process: Process) -> Self {
        let desired = process.instances;
        let unknown = || {
            let each = (0..desired).map(|index| Instance {
                index,
                state: String::new(),
            });
            each.collect()
        };
        let relationships = process.relationships;
        let revision = relationships.revision.as_ref();
        Self {
            app: relationships.app.guid().to_owned(),
            revision: revision.map(|it| it.guid().to_owned()),
            guid: process.guid,
            process_type: process.r#type,
            created_at: process.created_at,
            instances: process.process_instances.unwrap_or_else(unknown),
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

    /// The processes of a type, the oldest first: more than one while a deployment is under way.
    pub(crate) fn processes(&self, app: &str, process_type: &str) -> Vec<&Running> {
        let of_app = self.processes.get(app).into_iter().flatten();
        of_app
            .filter(|it| it.process_type == process_type)
            .collect()
    }
}
