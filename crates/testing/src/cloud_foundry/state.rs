//! Content and behaviour of a foundation.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

/// State of all parts of a foundation.
pub struct State {
    pub(super) controller_url: String,
    pub(super) uaa_url: String,
    pub organizations: Vec<Named>,
    pub spaces: Vec<Space>,
    pub apps: Vec<App>,
    pub processes: Vec<Process>,
    pub routes: Vec<Route>,
    pub domains: Vec<Domain>,
    /// Names of service instances, with the GUIDs of the applications bound to them.
    pub bindings: Vec<(String, String)>,
    /// Credentials of each binding, by its number; a binding without any has an empty object.
    pub credentials: BTreeMap<usize, Value>,
    pub manner: Manner,
    pub(super) tokens: Tokens,
    pub(super) counted: u64,
    pub(super) window: Option<Instant>,
    numbers: u64,
}

/// Behaviour of a foundation.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The Cloud Controller closes every connection without an answer.
    pub down: bool,
    /// Lists are empty, as for a user who has lost its roles.
    pub blind: bool,
    /// Lists, by their paths, that are empty.
    pub blind_lists: BTreeSet<&'static str>,
    /// Statuses with which the stats of processes fail, by the GUID of the process.
    pub broken_stats: BTreeMap<String, u16>,
    /// `embed=process_instances` is supported.
    pub embeds: bool,
    /// `include` is supported.
    pub includes: bool,
    /// `include` and `embed` have no effect, as in other implementations of the API.
    pub lax: bool,
    /// Status of `/v3/service_route_bindings` where there is no such list.
    pub no_route_bindings: Option<u16>,
    /// Most objects per page, whatever a request asks for.
    pub page: usize,
    /// Page number of a list, by its path, that fails with 500.
    pub broken_page: Option<(&'static str, usize)>,
    /// Number of requests before all tokens are revoked, once.
    pub revoked_in: Option<u64>,
    /// Requests per window; a window begins with its first request.
    pub rate_limit: Option<u64>,
    pub window: Duration,
    /// Rate limit shown in `/v3/info`: requests and minutes.
    pub published_limit: Option<(u64, u64)>,
    /// Seconds for which an access token is valid.
    pub token_life: f64,
    /// A refresh token is valid for one use.
    pub single_use: bool,
    /// UAA holds its answers back until its endpoint is released.
    pub uaa_hangs: bool,
    /// The router supports `X-CF-PROCESS-INSTANCE`.
    pub process_header: bool,
    /// The root of the API lists no links, as before API 3.
    pub without_links: bool,
    /// The user may not read credentials, as an auditor.
    pub auditor: bool,
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
    /// Creation time, in seconds.
    pub created: u64,
    pub revision: String,
    /// Number of desired instances.
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
    /// Destinations: application, type of process, port.
    pub destinations: Vec<(String, String, u16)>,
    /// Whether a route service is bound, which drops the header that names an instance.
    pub service: bool,
}

#[derive(Clone, Debug)]
pub struct Domain {
    pub guid: String,
    pub name: String,
    pub is_internal: bool,
}

/// Valid access tokens with their expiry, refresh tokens and passcodes.
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
            credentials: BTreeMap::new(),
            manner: Manner {
                down: false,
                blind: false,
                blind_lists: BTreeSet::new(),
                broken_stats: BTreeMap::new(),
                embeds: true,
                includes: true,
                lax: false,
                no_route_bindings: None,
                page: 5000,
                broken_page: None,
                revoked_in: None,
                rate_limit: None,
                window: Duration::from_secs(1800),
                published_limit: Some((20_000_000, 30)),
                token_life: 1199.0,
                single_use: true,
                uaa_hangs: false,
                process_header: true,
                without_links: false,
                auditor: false,
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

    /// Starts a web process with routes in `organization/space/name`, creating both if missing.
    /// Returns the application's GUID, which is also that of its first web process.
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

    /// Adds a process of another type, or another web process, as a rolling deployment does.
    pub fn deploy(&mut self, app: &str, process_type: &str, instances: u32) -> String {
        let guid = self.guid();
        self.add_process(app, guid.clone(), process_type, instances);
        guid
    }

    /// Maps a route to a type of process. The domain is the part after the first dot; a domain that
    /// ends with `.inside` is internal. An existing route gets a further destination.
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

    /// Makes a route lead to another port of its applications.
    pub fn lead(&mut self, url: &str, port: u16) {
        for (_, _, to) in &mut self.route(url).destinations {
            *to = port;
        }
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

    /// Removes a process, as a deployment does with its predecessor.
    pub fn retire(&mut self, process: &str) {
        self.processes.retain(|it| it.guid != process);
    }

    /// Deletes an application with its processes and routes.
    pub fn delete(&mut self, app: &str) {
        self.apps.retain(|it| it.guid != app);
        self.processes.retain(|it| it.app != app);
        for route in &mut self.routes {
            route.destinations.retain(|(to, ..)| to != app);
        }
    }

    /// Revokes all access tokens.
    pub fn revoke_tokens(&mut self) {
        self.tokens.access.clear();
    }

    /// Revokes all refresh tokens.
    pub fn revoke_refresh_tokens(&mut self) {
        self.tokens.refresh.clear();
    }

    /// Issues a passcode, as to a user who has signed in.
    pub fn passcode(&mut self) -> String {
        let passcode = format!("pass-{}", self.number());
        self.tokens.passcodes.insert(passcode.clone());
        passcode
    }

    /// Issues a refresh token, as to a user on another machine.
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
    /// Sets the number of instances, all running.
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
