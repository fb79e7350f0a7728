//! What changes seldom of a foundation: applications with their spaces and organizations, and routes.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::resources::{self, Destination};

/// An application and where it belongs.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) guid: String,
    pub(crate) name: String,
    /// Whether it is to run.
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

/// A route and what it leads to.
pub(crate) struct Route {
    pub(crate) guid: String,
    pub(crate) url: String,
    pub(crate) is_internal: bool,
    /// Whether requests go through a route service. It gets them first, and what it sends on has lost
    /// the header that names an instance.
    pub(crate) has_service: bool,
    pub(crate) destinations: Vec<Destination>,
}

/// What changes seldom.
#[derive(Default)]
pub(crate) struct Metadata {
    /// In the order in which the platform lists them.
    pub(crate) apps: Vec<App>,
    /// The places of routes by application.
    routes_of: HashMap<String, Vec<usize>>,
    routes: Vec<Route>,
    /// Applications by the service instances that they are bound to, of those that were asked for.
    bound: HashMap<String, HashSet<String>>,
}

impl Metadata {
    /// Applications with names for their spaces and organizations. One whose space or organization
    /// may not be seen has none.
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

    /// Adds routes. Those of protocols other than HTTP lead to no instance that could be chosen.
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

    /// Adds which applications are bound to a service instance.
    pub(crate) fn add_bindings(&mut self, service: &str, bindings: Vec<resources::Binding>) {
        let apps = bindings.iter();
        let apps = apps.filter_map(|it| it.relationships.app.as_ref());
        let apps = apps.map(|app| app.guid().to_owned()).collect();
        self.bound.insert(service.to_owned(), apps);
    }

    /// The routes of an application, in the order in which the platform lists them.
    pub(crate) fn routes(&self, app: &str) -> impl Iterator<Item = &Route> {
        let places = self.routes_of.get(app).into_iter().flatten();
        places.map(|place| &self.routes[*place])
    }

    /// Whether an application is bound to a service instance of this name.
    pub(crate) fn is_bound(&self, app: &str, service: &str) -> bool {
        self.bound.get(service).is_some_and(|it| it.contains(app))
    }
}
