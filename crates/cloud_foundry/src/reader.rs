//! Reads the current state of a foundation in few requests: applications with spaces and
//! organizations, routes with domains, processes with instances.

mod credentials;
mod lists;
mod processes;
mod scope;
mod usage;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_discovery::{Failure, exchange::escape};

use crate::api::{Api, ApiError};
use crate::facts::{Bindings, Facts};
use crate::foundation::Foundation;
use crate::metadata::Metadata;
use crate::resources::{Binding, Page, Route};
use crate::route_services::RouteServices;
use crate::select::{Selector, judge};
use crate::usage::Usages;

use processes::Heard;
use scope::{Scope, outdated};

/// Number of GUIDs that fit into a URL.
const GUIDS: usize = 100;
/// Time after which a feature that the platform lacked is tried again.
const RETRY: Duration = Duration::from_secs(3600);

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
        self.api.log_in().await?;
        self.knows_limits = self.knows_limits || self.api.read_limits().await;
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
        metadata.add_verdicts(judge(&self.selectors, &metadata));
        let scope = Scope::of(&metadata, organizations);
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
}

/// Whether a feature counts as lacking.
fn still(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() < RETRY)
}
