//! Aiven's API on loopback, with the parts that integrating services and finding their nodes needs,
//! and faults on demand; and a name server for the nodes.

mod names;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::endpoint::{Does, Endpoint, Reply, Seen};

pub use names::NameServer;

/// An account. Its token is `geheim`, the password of its endpoints `endpunkt-geheim`.
pub struct Aiven {
    state: Arc<Mutex<State>>,
    pub api: Endpoint,
    pub names: NameServer,
}

/// Content of the account, and behaviour of the API.
pub struct State {
    pub projects: BTreeMap<String, Project>,
    /// Types of services that support the Prometheus integration.
    pub eligible: Vec<String>,
    /// Scripted reactions to coming requests.
    pub script: VecDeque<Once>,
    /// Number of lists of services before a new integration shows in one.
    pub lag: usize,
    /// If set, every request is answered with this status.
    pub fails: Option<u16>,
    next: usize,
}

#[derive(Default)]
pub struct Project {
    pub services: Vec<Value>,
    pub endpoints: Vec<Value>,
    pub integrations: Vec<Integration>,
    pub authority: String,
}

pub struct Integration {
    pub id: String,
    pub service: String,
    pub endpoint: String,
    pub enabled: bool,
    /// Number of further lists that do not show it.
    pub hidden: usize,
}

/// The reaction to one request.
pub struct Once {
    /// Method and path of the request, without its query.
    pub request: String,
    /// Whether the request takes effect all the same.
    pub happens: bool,
    pub does: Does,
}

/// A service as the API lists it.
pub fn service(project: &str, name: &str, kind: &str, nodes: u32) -> Value {
    let host = format!("{name}-{project}.aivencloud.test");
    json!({
        "service_name": name, "service_type": kind, "state": "RUNNING", "plan": "business-4",
        "cloud_name": "aws-eu-west-1", "node_count": nodes, "node_cpu_count": 2, "node_memory_mb": 4096,
        "service_uri": format!("https://avnadmin:dienst-geheim@{host}:12691"),
        "service_uri_params": { "host": host, "port": "12691", "user": "avnadmin", "password": "dienst-geheim" },
        "users": [{ "username": "avnadmin", "password": "dienst-geheim", "type": "primary" }],
        "tags": { "organization_id": format!("org-of-{name}"), "deploy_env": "prod" },
        "user_config": { "public_access": { "prometheus": true } },
        "node_states": [{ "name": format!("{name}-1"), "state": "running" }],
        "components": [{ "component": kind, "host": host, "port": 12691, "route": "dynamic", "usage": "primary" }]
    })
}

/// An endpoint as the API keeps it.
pub fn endpoint(id: &str, name: &str) -> Value {
    json!({ "endpoint_id": id, "endpoint_name": name, "endpoint_type": "prometheus", "endpoint_config": {},
            "user_config": { "basic_auth_username": "prom", "basic_auth_password": "endpunkt-geheim" } })
}

impl Aiven {
    /// An account with one empty project, `proj`.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let types = ["elasticsearch", "opensearch", "influxdb", "pg", "kafka"];
        let state = Arc::new(Mutex::new(State {
            projects: BTreeMap::from([("proj".to_owned(), Project::default())]),
            eligible: types.map(str::to_owned).into(),
            script: VecDeque::new(),
            lag: 0,
            fails: None,
            next: 1,
        }));
        let answering = state.clone();
        Self {
            api: Endpoint::new(move |seen| answering.lock().unwrap().answer(seen)),
            names: NameServer::new(),
            state,
        }
    }

    /// The URL of the API.
    pub fn url(&self) -> String {
        self.api.url_of("/v1")
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a service to `proj`, whose host name resolves to these addresses.
    pub fn add(&self, name: &str, kind: &str, addresses: &[&str]) {
        let nodes = u32::try_from(addresses.len()).unwrap();
        self.state()
            .project()
            .services
            .push(service("proj", name, kind, nodes));
        self.names
            .set(&format!("{name}-proj.aivencloud.test"), addresses);
    }

    /// Integrates a service of `proj`, as a user does by hand.
    pub fn integrate(&self, name: &str, endpoint: &str) {
        let mut state = self.state();
        let id = state.id();
        state.project().integrations.push(Integration {
            id,
            service: name.to_owned(),
            endpoint: endpoint.to_owned(),
            enabled: true,
            hidden: 0,
        });
    }

    /// The services named in the requests for an integration.
    pub fn posts(&self) -> Vec<String> {
        let seen = self.api.seen().into_iter();
        let posts = seen.filter(|it| it.method == "POST" && it.path.ends_with("/integration"));
        posts
            .map(|it| {
                let body: Value = serde_json::from_slice(&it.body).unwrap();
                body["source_service"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// The integrated services of `proj`, sorted, once per integration.
    pub fn integrated(&self) -> Vec<String> {
        let mut state = self.state();
        let integrations = state.project().integrations.iter();
        let mut services: Vec<String> = integrations.map(|it| it.service.clone()).collect();
        services.sort();
        services
    }

    /// Scripts the reaction to the next request with this method and path.
    pub fn once(&self, request: &str, happens: bool, does: impl Into<Does>) {
        self.state().script.push_back(Once {
            request: request.to_owned(),
            happens,
            does: does.into(),
        });
    }
}

/// An error in the API's format.
pub fn error(status: u16, message: &str) -> Reply {
    let body = json!({ "message": message, "errors": [{ "message": message, "status": status }] });
    reply(status, &body)
}

fn reply(status: u16, body: &Value) -> Reply {
    let reply = Reply::new(status).header("content-type", "application/json");
    reply.body(body.to_string())
}

impl State {
    /// The project `proj`.
    pub fn project(&mut self) -> &mut Project {
        self.projects.get_mut("proj").unwrap()
    }

    /// A service of `proj`.
    pub fn service(&mut self, name: &str) -> &mut Value {
        let mut services = self.project().services.iter_mut();
        services.find(|it| it["service_name"] == name).unwrap()
    }

    fn id(&mut self) -> String {
        self.next += 1;
        format!("i{}", self.next)
    }

    fn answer(&mut self, seen: &Seen) -> Does {
        if seen.header("authorization") != Some("aivenv1 geheim") {
            return error(401, "Authentication failed").into();
        }
        if let Some(status) = self.fails {
            return error(status, "Internal error").into();
        }
        let path = seen.path.split('?').next().unwrap();
        let request = format!("{} {path}", seen.method);
        let at = self.script.iter().position(|once| once.request == request);
        let once = at.and_then(|at| self.script.remove(at));
        if let Some(Once { happens, does, .. }) = once {
            if happens {
                self.handle(seen);
            }
            return does;
        }
        self.handle(seen).into()
    }

    fn handle(&mut self, seen: &Seen) -> Reply {
        let path = seen.path.split('?').next().unwrap().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let ["v1", "project", project, rest @ ..] = &parts[..] else {
            return error(404, "Not found");
        };
        let secrets = seen.path.contains("include_secrets=true");
        let id = self.id();
        let (lag, eligible) = (self.lag, self.eligible.clone());
        let Some(project) = self.projects.get_mut(*project) else {
            return error(404, "Project does not exist");
        };
        let body = || -> Value { serde_json::from_slice(&seen.body).unwrap() };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match (&*seen.method, rest) {
            ("GET", ["service"]) => project.list(),
            ("GET", ["integration_endpoint"]) => {
                let hidden = project.endpoints.iter().cloned().map(without_secrets);
                let all: Vec<Value> = hidden.collect();
                reply(200, &json!({ "service_integration_endpoints": all }))
            }
            ("GET", ["integration_endpoint", id]) => {
                match project
                    .endpoints
                    .iter()
                    .find(|it| it["endpoint_id"] == **id)
                {
                    Some(it) if secrets => {
                        reply(200, &json!({ "service_integration_endpoint": it }))
                    }
                    Some(it) => {
                        let it = without_secrets(it.clone());
                        reply(200, &json!({ "service_integration_endpoint": it }))
                    }
                    None => error(404, "Endpoint does not exist"),
                }
            }
            ("POST", ["integration_endpoint"]) => {
                let mut made = body();
                if project
                    .endpoints
                    .iter()
                    .any(|it| it["endpoint_name"] == made["endpoint_name"])
                {
                    return error(409, "Endpoint already exists");
                }
                made["endpoint_id"] = format!("e-{id}").into();
                project.endpoints.push(made.clone());
                reply(200, &json!({ "service_integration_endpoint": made }))
            }
            ("POST", ["integration"]) => {
                let body = body();
                let (service, endpoint) = (
                    text(&body["source_service"]),
                    text(&body["dest_endpoint_id"]),
                );
                if !project
                    .services
                    .iter()
                    .any(|it| it["service_name"] == *service)
                {
                    return error(404, &format!("Service {service} does not exist"));
                }
                if !project
                    .endpoints
                    .iter()
                    .any(|it| it["endpoint_id"] == *endpoint)
                {
                    return error(404, "Endpoint does not exist");
                }
                let same = |it: &Integration| it.service == service && it.endpoint == endpoint;
                if project.integrations.iter().any(same) {
                    return error(409, "Service integration already exists");
                }
                let made = Integration {
                    id,
                    service,
                    endpoint,
                    enabled: true,
                    hidden: lag,
                };
                let shown = made.shown();
                project.integrations.push(made);
                reply(200, &json!({ "service_integration": shown }))
            }
            ("DELETE", ["integration", id]) => {
                let before = project.integrations.len();
                project.integrations.retain(|it| it.id != **id);
                match project.integrations.len() < before {
                    true => reply(200, &json!({ "message": "deleted" })),
                    false => error(404, "Integration does not exist"),
                }
            }
            ("GET", ["integration_endpoint_types"]) => reply(
                200,
                &json!({ "endpoint_types": [
                    { "endpoint_type": "datadog", "service_types": ["pg", "m3db"] },
                    { "endpoint_type": "prometheus", "service_types": eligible }
                ] }),
            ),
            ("GET", ["kms", "ca"]) => reply(200, &json!({ "certificate": project.authority })),
            _ => error(404, "Not found"),
        }
    }
}

impl Project {
    fn list(&mut self) -> Reply {
        let mut shown: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for integration in self.integrations.iter().filter(|it| it.hidden == 0) {
            let of = shown.entry(&integration.service).or_default();
            of.push(integration.shown());
        }
        let services = self.services.iter().cloned().map(|mut service| {
            let name = service["service_name"].as_str().unwrap();
            let shown = shown.remove(name).unwrap_or_default();
            service["service_integrations"] = shown.into();
            service
        });
        let services: Vec<Value> = services.collect();
        for integration in &mut self.integrations {
            integration.hidden = integration.hidden.saturating_sub(1);
        }
        reply(200, &json!({ "services": services }))
    }
}

impl Integration {
    fn shown(&self) -> Value {
        json!({
            "service_integration_id": self.id, "integration_type": "prometheus", "active": true,
            "enabled": self.enabled, "source_project": "proj", "source_service": self.service,
            "dest_endpoint_id": self.endpoint, "dest_project": "proj", "dest_service": null,
            "integration_status": { "status_user_desc": "", "state": { "status": "running", "errors": [], "nodes": {} } }
        })
    }
}

fn without_secrets(mut endpoint: Value) -> Value {
    if let Some(config) = endpoint["user_config"].as_object_mut() {
        config.remove("basic_auth_password");
    }
    endpoint
}
