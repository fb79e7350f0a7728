//! The slowly changing part of a foundation: applications with their spaces and organizations, and
//! routes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::how::{Judged, Verdict};
use crate::resources::{self, Destination};

/// An application with its space and organization.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) guid: String,
    pub(crate) name: String,
    /// Whether its desired state is started.
    pub(crate) started: bool,
    pub(crate) space: Named,
    pub(crate) organization: Named,
    pub(crate) labels: BTreeMap<String, Option<String>>,
    pub(crate) annotations: BTreeMap<String, Option<String>>,
}

/// A GUID and a name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    pub(crate) guid: String,
    pub(crate) name: String,
}

/// A route and its destinations.
pub(crate) struct Route {
    pub(crate) guid: String,
    pub(crate) url: String,
    pub(crate) is_internal: bool,
    /// Whether the route has a route service. That gets requests first, and drops the header that
    /// selects an instance.
    pub(crate) has_service: bool,
    pub(crate) destinations: Vec<Destination>,
}

/// The slowly changing part of a foundation.
#[derive(Default)]
pub(crate) struct Metadata {
    /// In the order of the platform's list.
    pub(crate) apps: Vec<App>,
    /// Indexes of routes by application.
    routes_of: HashMap<String, Vec<usize>>,
    routes: Vec<Route>,
    /// Whether the user sees any route, of these applications or of others.
    pub(crate) sees_routes: bool,
    /// For each service instance that a selector names, the applications bound to it, with the GUIDs
    /// of the bindings.
    bound: HashMap<String, HashMap<String, String>>,
    /// The verdicts of selectors on the applications.
    judged: Judged,
}

impl Metadata {
    /// Joins applications with their spaces and organizations. A space or organization that the
    /// user may not see has an empty name.
    pub(crate) fn new(
        apps: Vec<resources::App>,
        spaces: Vec<resources::Space>,
        organizations: Vec<resources::Organization>,
    ) -> Self {
        let organizations: HashMap<_, _> = organizations
            .into_iter()
            .map(|it| (it.guid, it.name))
            .collect();
        let spaces: HashMap<_, _> = spaces
            .into_iter()
            .map(|it| {
                let organization = it.relationships.organization.guid().to_owned();
                (it.guid, (it.name, organization))
            })
            .collect();
        let apps = apps.into_iter().map(|app| {
            let space = app.relationships.space.guid().to_owned();
            let (name, organization) = spaces.get(&space).cloned().unwrap_or_default();
            App {
                guid: app.guid,
                name: app.name,
                started: app.state == "STARTED",
                space: Named { guid: space, name },
                organization: Named {
                    name: organizations
                        .get(&organization)
                        .cloned()
                        .unwrap_or_default(),
                    guid: organization,
                },
                labels: app.metadata.labels,
                annotations: app.metadata.annotations,
            }
        });
        Self {
            apps: apps.collect(),
            ..Self::default()
        }
    }

    /// Adds routes. Routes of TCP are skipped, since they cannot select an instance.
    pub(crate) fn add_routes(
        &mut self,
        routes: Vec<resources::Route>,
        domains: Vec<resources::Domain>,
        services: &HashSet<String>,
    ) {
        let internal: HashSet<String> = domains
            .into_iter()
            .filter(|domain| domain.is_internal)
            .map(|domain| domain.guid)
            .collect();
        for route in routes {
            if route.protocol.as_deref().is_some_and(|it| it == "tcp") {
                continue;
            }
            let place = self.routes.len();
            let apps = route.destinations.iter();
            let apps: HashSet<_> = apps.filter_map(|it| it.app.guid.clone()).collect();
            for app in apps {
                self.routes_of.entry(app).or_default().push(place);
            }
            self.routes.push(Route {
                is_internal: internal.contains(route.relationships.domain.guid()),
                has_service: services.contains(&route.guid),
                guid: route.guid,
                url: route.url,
                destinations: route.destinations,
            });
        }
    }

    /// Adds the applications that are bound to a service instance.
    pub(crate) fn add_bindings(&mut self, service: &str, bindings: Vec<resources::Binding>) {
        let bindings = bindings.into_iter().filter_map(|it| {
            let app = it.relationships.app.as_ref()?.guid().to_owned();
            Some((app, it.guid))
        });
        // The list begins with the oldest: the newest binding of an application stays.
        self.bound.insert(service.to_owned(), bindings.collect());
    }

    /// Adds the verdicts of selectors.
    pub(crate) fn add_verdicts(&mut self, judged: Judged) {
        self.judged = judged;
    }

    /// The applications that the selector with this index matches, and its verdicts.
    pub(crate) fn judged(&self, selector: usize) -> impl Iterator<Item = (&App, &Verdict)> {
        let judged = self.judged.get(selector).into_iter().flatten();
        judged.map(|(at, verdict)| (&self.apps[*at], verdict))
    }

    /// The started applications that some selector takes.
    pub(crate) fn taken(&self) -> impl Iterator<Item = &App> {
        let judged = self.judged.iter().flatten();
        let taken = judged.filter(|(_, verdict)| verdict.is_ok());
        let taken: BTreeSet<usize> = taken.map(|(at, _)| *at).collect();
        let apps = taken.into_iter().map(|at| &self.apps[at]);
        apps.filter(|app| app.started)
    }

    /// The routes of an application, in the order of the platform's list.
    pub(crate) fn routes(&self, app: &str) -> impl Iterator<Item = &Route> {
        let places = self.routes_of.get(app).into_iter().flatten();
        places.map(|place| &self.routes[*place])
    }

    /// Whether any application is bound to a service instance with this name.
    pub(crate) fn has_bindings(&self, service: &str) -> bool {
        self.bound.get(service).is_some_and(|it| !it.is_empty())
    }

    /// Whether an application is bound to a service instance with this name.
    pub(crate) fn is_bound(&self, app: &str, service: &str) -> bool {
        self.binding(app, service).is_some()
    }

    /// GUID of the binding of an application to a service instance with this name.
    pub(crate) fn binding(&self, app: &str, service: &str) -> Option<&str> {
        let binding = self.bound.get(service)?.get(app)?;
        Some(binding)
    }
}
