//! What a foundation has, and how it behaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Everything.
pub struct State {
    pub(super) controller_url: String,
    pub(super) uaa_url: String,
    pub organizations: Vec<Named>,
    pub spaces: Vec<Space>,
    pub apps: Vec<App>,
    pub processes: Vec<Process>,
    pub routes: Vec<Route>,
    pub domains: Vec<Domain>,
    /// Names of service instances and the GUIDs of applications that are bound to them.
    pub bindings: Vec<(String, String)>,
    pub manner: Manner,
    pub(super) tokens: Tokens,
    pub(super) counted: u64,
    pub(super) window: Option<Instant>,
    numbers: u64,
}

/// How it behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The Cloud Controller closes every connection without a word.
    pub down: bool,
    /// Lists are empty, as for a user who has lost its roles.
    pub blind: bool,
    /// `embed=process_instances` is known.
    pub embeds: bool,
    /// `include` is known.
    pub includes: bool,
    /// Most objects on a page, whatever is asked for.
    pub page: usize,
    /// This page of the list at this path fails with 500.
    pub broken_page: Option<(&'static str, usize)>,
    /// Requests that are left until all tokens are revoked once.
    pub revoked_in: Option<u64>,
    /// Requests per window, which begins with the first.
    pub rate_limit: Option<u64>,
    pub window: Duration,
    /// What is said about the rate limit in `/v3/info`: requests and minutes.
    pub published_limit: Option<(u64, u64)>,
    /// Seconds for which an access token is good.
    pub token_life: f64,
    /// A refresh token is good once.
    pub single_use: bool,
    /// The router knows `X-CF-PROCESS-INSTANCE`.
    pub process_header: bool,
    /// The root of the API lists no links, as before API 3.
    pub without_links: bool,
}

/// A GUID and a name.
#[derive(Clone, Debug)]
pub struct Named {
    pub guid: String,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Space {
    pub guid: String,
    pub name: String,
    pub organization: String,
}

#[derive(Clone, Debug)]
pub struct App {
    pub guid: String,
    pub name: String,
    pub space: String,
    pub state: &'static str,
    pub labels: BTreeMap<String, Option<String>>,
    pub annotations: BTreeMap<String, Option<String>>,
}

#[derive(Clone, Debug)]
pub struct Process {
    pub guid: String,
    pub app: String,
    pub process_type: String,
    /// When it was made, as a number of seconds.
    pub created: u64,
    pub revision: String,
    /// How many instances are desired.
    pub desired: u32,
    pub instances: Vec<Instance>,
}

#[derive(Clone, Debug)]
pub struct Instance {
    pub index: u32,
    pub state: &'static str,
}

#[derive(Clone, Debug)]
pub struct Route {
    pub guid: String,
    /// Host, domain and path.
    pub url: String,
    pub domain: String,
    pub space: String,
    /// Applications with the type of a process and a port.
    pub destinations: Vec<(String, String, u16)>,
    /// Whether requests go through a route service, on whose way the header of an instance is lost.
    pub service: bool,
}

#[derive(Clone, Debug)]
pub struct Domain {
    pub guid: String,
    pub name: String,
    pub is_internal: bool,
}

/// What UAA has given out, and to whom it gives.
pub(super) struct Tokens {
    pub(super) access: BTreeMap<String, Instant>,
    pub(super) refresh: BTreeSet<String>,
    pub(super) passcodes: BTreeSet<String>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            controller_url: String::new(),
            uaa_url: String::new(),
            organizations: Vec::new(),
            spaces: Vec::new(),
            apps: Vec::new(),
            processes: Vec::new(),
            routes: Vec::new(),
            domains: Vec::new(),
            bindings: Vec::new(),
            manner: Manner {
                down: false,
                blind: false,
                embeds: true,
                includes: true,
                page: 5000,
                broken_page: None,
                revoked_in: None,
                rate_limit: None,
                window: Duration::from_secs(1800),
                published_limit: Some((20_000_000, 30)),
                token_life: 1199.0,
                single_use: true,
                process_header: true,
                without_links: false,
            },
            tokens: Tokens {
                access: BTreeMap::new(),
                refresh: BTreeSet::new(),
                passcodes: BTreeSet::new(),
            },
            counted: 0,
            window: None,
            numbers: 0,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn guid(&mut self) -> String {
        let number = self.number();
        format!("{:08x}-5ca1-4ab1-8e55-{number:012x}", number * 0x9e37)
    }

    /// Starts a web process with routes in `organization/space/name`, both made if need be. Returns
    /// the application's GUID, which is that of its first web process.
    pub fn push(&mut self, place: &str, routes: &[&str], instances: u32) -> String {
        let mut parts = place.splitn(3, '/');
        let mut part = || parts.next().expect("organization/space/name").to_owned();
        let (organization, space, name) = (part(), part(), part());
        let organization = match self.organizations.iter().find(|it| it.name == organization) {
            Some(known) => known.guid.clone(),
            None => {
                let guid = self.guid();
                self.organizations.push(Named {
                    guid: guid.clone(),
                    name: organization,
                });
                guid
            }
        };
        let of_space = |it: &&Space| it.name == space && it.organization == organization;
        let space = match self.spaces.iter().find(of_space) {
            Some(known) => known.guid.clone(),
            None => {
                let guid = self.guid();
                self.spaces.push(Space {
                    guid: guid.clone(),
                    name: space,
                    organization,
                });
                guid
            }
        };
        let guid = self.guid();
        self.apps.push(App {
            guid: guid.clone(),
            name,
            space,
            state: "STARTED",
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        });
        self.add_process(&guid, guid.clone(), "web", instances);
        for route in routes {
            self.map(&guid, route, "web");
        }
        guid
    }

    fn add_process(&mut self, app: &str, guid: String, process_type: &str, instances: u32) {
        let created = self.number();
        let revision = self.guid();
        self.processes.push(Process {
            guid,
            app: app.to_owned(),
            process_type: process_type.to_owned(),
            created,
            revision,
            desired: 0,
            instances: Vec::new(),
        });
        let last = self.processes.len() - 1;
        self.processes[last].scale(instances);
    }

    /// Adds a process of another type, or a further web process, as a rolling deployment does.
    pub fn deploy(&mut self, app: &str, process_type: &str, instances: u32) -> String {
        let guid = self.guid();
        self.add_process(app, guid.clone(), process_type, instances);
        guid
    }

    /// Leads a route to a type of process. The domain is what follows the first dot; one that ends
    /// with `.inside` is internal. A route that there is leads there, too.
    pub fn map(&mut self, app: &str, url: &str, process_type: &str) {
        let to = (app.to_owned(), process_type.to_owned(), 8080);
        if let Some(route) = self.routes.iter_mut().find(|it| it.url == url) {
            return route.destinations.push(to);
        }
        let host = url.split('/').next().unwrap_or_default();
        let name = host.split_once('.').map_or(host, |(_, domain)| domain);
        let domain = match self.domains.iter().find(|it| it.name == name) {
            Some(known) => known.guid.clone(),
            None => {
                let guid = self.guid();
                self.domains.push(Domain {
                    guid: guid.clone(),
                    name: name.to_owned(),
                    is_internal: name.ends_with(".inside"),
                });
                guid
            }
        };
        let space = self.app(app).space.clone();
        let guid = self.guid();
        self.routes.push(Route {
            guid,
            url: url.to_owned(),
            domain,
            space,
            destinations: vec![to],
            service: false,
        });
    }

    pub fn app(&mut self, guid: &str) -> &mut App {
        let mut apps = self.apps.iter_mut();
        apps.find(|it| it.guid == guid).expect("an application")
    }

    pub fn process(&mut self, guid: &str) -> &mut Process {
        let mut processes = self.processes.iter_mut();
        processes.find(|it| it.guid == guid).expect("a process")
    }

    pub fn route(&mut self, url: &str) -> &mut Route {
        let mut routes = self.routes.iter_mut();
        routes.find(|it| it.url == url).expect("a route")
    }

    /// Ends a process, as a deployment does with the one before.
    pub fn retire(&mut self, process: &str) {
        self.processes.retain(|it| it.guid != process);
    }

    /// Deletes an application with all that belongs to it.
    pub fn delete(&mut self, app: &str) {
        self.apps.retain(|it| it.guid != app);
        self.processes.retain(|it| it.app != app);
        for route in &mut self.routes {
            route.destinations.retain(|(to, ..)| to != app);
        }
    }

    /// Has no access token be good any more.
    pub fn revoke_tokens(&mut self) {
        self.tokens.access.clear();
    }

    /// Has no refresh token be good any more.
    pub fn revoke_refresh_tokens(&mut self) {
        self.tokens.refresh.clear();
    }

    /// Shows a passcode to a user who has signed in.
    pub fn passcode(&mut self) -> String {
        let passcode = format!("pass-{}", self.number());
        self.tokens.passcodes.insert(passcode.clone());
        passcode
    }

    /// A refresh token, as a user gets it on another machine.
    pub fn refresh_token(&mut self) -> String {
        let token = format!("refresh-{}", self.number());
        self.tokens.refresh.insert(token.clone());
        token
    }

    pub(super) fn space(&self, guid: &str) -> &Space {
        let mut spaces = self.spaces.iter();
        spaces.find(|it| it.guid == guid).expect("a space")
    }
}

impl App {
    pub fn annotate(&mut self, key: &str, value: &str) -> &mut Self {
        self.annotations.insert(key.into(), Some(value.into()));
        self
    }

    pub fn label(&mut self, key: &str, value: &str) -> &mut Self {
        self.labels.insert(key.into(), Some(value.into()));
        self
    }
}

impl Process {
    /// Has so many instances, all running.
    pub fn scale(&mut self, instances: u32) {
        self.desired = instances;
        self.instances.truncate(instances as usize);
        for index in self.instances.len() as u32..instances {
            self.instances.push(Instance {
                index,
                state: "RUNNING",
            });
        }
    }

    pub fn set(&mut self, index: usize, state: &'static str) {
        self.instances[index].state = state;
    }
}
