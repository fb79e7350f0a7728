//! A Consul agent on loopback: its catalog and the health of its instances, with blocking queries
//! as Consul has them.
//!
//! A query with an index waits until there is a larger one, or until its time is up; then it gets
//! the current state. Every service has an index of its own, and an unknown service has that of the
//! catalog. A restore answers all waiting queries, though indexes are smaller from then on.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::endpoint::{Does, Endpoint, Reply, Seen};

/// An agent, whose state a test changes.
pub struct Consul {
    shared: Arc<(Mutex<State>, Condvar)>,
    pub endpoint: Endpoint,
}

/// Content and behaviour of the agent.
pub struct State {
    index: u64,
    catalog_index: u64,
    services: BTreeMap<String, Service>,
    /// Number of restores.
    restores: usize,
    /// Token that requests must carry, if any.
    pub token: Option<String>,
    /// If set, every query fails with this status.
    pub fails: Option<u16>,
    /// Lists are empty, as for a token that may read nothing.
    pub blind: bool,
    ended: bool,
}

struct Service {
    index: u64,
    instances: Vec<Value>,
}

/// An instance in the format of the health API, on a node of its own, with one check.
pub fn instance(service: &str, id: &str, host: &str, port: u16, tags: &[&str]) -> Value {
    json!({
        "Node": {
            "ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": format!("node-{id}"), "Address": host,
            "Datacenter": "dc1", "TaggedAddresses": { "lan": host, "wan-ipv4": "198.51.100.7" },
            "Meta": { "rack-no": "r 1" }, "CreateIndex": 1, "ModifyIndex": 2
        },
        "Service": {
            "ID": id, "Service": service, "Tags": tags, "Address": "", "Meta": { "team": "a \"b\"" },
            "Port": port, "Weights": { "Passing": 1, "Warning": 1 }, "EnableTagOverride": false
        },
        "Checks": [{ "Node": format!("node-{id}"), "CheckID": "serfHealth", "Status": "passing" }]
    })
}

impl Consul {
    /// An agent of `dc1` that, like every agent, has registered itself.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let state = State {
            index: 10,
            catalog_index: 10,
            services: BTreeMap::new(),
            restores: 0,
            token: None,
            fails: None,
            blind: false,
            ended: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let answering = shared.clone();
        let endpoint = Endpoint::new(move |seen| answer(&answering, seen));
        Self { shared, endpoint }
    }

    /// URL of the agent.
    pub fn url(&self) -> String {
        self.endpoint.url_of("")
    }

    /// Changes content or behaviour, and wakes waiting queries.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.1.notify_all();
    }

    /// Replaces the instances of a service.
    pub fn register(&self, service: &str, instances: Vec<Value>) {
        self.change(|state| {
            state.index += 1;
            let index = state.index;
            if !state.services.contains_key(service) {
                state.catalog_index = index;
            }
            let known = Service { index, instances };
            state.services.insert(service.to_owned(), known);
        });
    }

    /// Removes a service.
    pub fn deregister(&self, service: &str) {
        self.change(|state| {
            state.index += 1;
            state.catalog_index = state.index;
            state.services.remove(service);
        });
    }

    /// Resets all indexes, as a restore does.
    pub fn restore(&self) {
        self.change(|state| {
            state.restores += 1;
            state.index = 1;
            state.catalog_index = 1;
            for service in state.services.values_mut() {
                service.index = 1;
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.change(|state| state.ended = true);
    }
}

impl State {
    fn index_of(&self, service: Option<&str>) -> u64 {
        let service = service.and_then(|name| self.services.get(name));
        service.map_or(self.catalog_index, |service| service.index)
    }

    fn catalog(&self, query: &[(String, String)]) -> Value {
        let mut services = serde_json::Map::new();
        if !self.blind {
            services.insert("consul".to_owned(), json!([]));
            for (name, service) in &self.services {
                let instances = service.instances.iter();
                let instances: Vec<_> = instances.filter(|it| is_on_node(it, query)).collect();
                // A service without instances is in the catalog of no node.
                let any = !instances.is_empty() || query.iter().all(|(key, _)| key != "node-meta");
                if !any {
                    continue;
                }
                let tags = instances.into_iter().flat_map(|it| {
                    let tags = it["Service"]["Tags"].as_array().cloned();
                    tags.unwrap_or_default()
                });
                let mut tags: Vec<Value> = tags.collect();
                tags.sort_by_key(Value::to_string);
                tags.dedup();
                services.insert(name.clone(), tags.into());
            }
        }
        services.into()
    }

    fn health(&self, name: &str, query: &[(String, String)]) -> Value {
        let Some(service) = self.services.get(name).filter(|_| !self.blind) else {
            return json!([]);
        };
        let has = |instance: &&Value| {
            query.iter().all(|(key, value)| match &**key {
                "tag" => {
                    let tags = instance["Service"]["Tags"].as_array();
                    tags.is_some_and(|tags| tags.iter().any(|tag| tag == value))
                }
                _ => true,
            })
        };
        let instances = service.instances.iter().filter(has);
        let instances = instances.filter(|it| is_on_node(it, query));
        instances.cloned().collect()
    }
}

/// Whether the node of an instance has the metadata that a query asks for.
fn is_on_node(instance: &Value, query: &[(String, String)]) -> bool {
    let mut wanted = query.iter().filter(|(key, _)| key == "node-meta");
    wanted.all(|(_, pair)| {
        let (key, value) = pair.split_once(':').unwrap();
        instance["Node"]["Meta"][key] == value
    })
}

fn answer(shared: &(Mutex<State>, Condvar), seen: &Seen) -> Does {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let query: Vec<(String, String)> = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect();
    let find = |key: &str| {
        query
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, it)| &**it)
    };
    let (state, changed) = shared;
    let mut state = state.lock().unwrap();
    if let Some(status) = state.fails {
        return Reply::new(status).body("No cluster leader").into();
    }
    if let Some(token) = &state.token
        && seen.header("x-consul-token") != Some(token)
    {
        return Reply::new(403).body("ACL not found").into();
    }
    if path == "/v1/agent/self" {
        let itself = json!({ "Config": { "Datacenter": "dc1", "NodeName": "agent" } });
        return json_reply(&itself).into();
    }
    let service = path.strip_prefix("/v1/health/service/").map(decode);
    if service.is_none() && path != "/v1/catalog/services" {
        return Reply::new(404).into();
    }
    let wait = find("wait").and_then(|wait| wait.strip_suffix("ms")?.parse().ok());
    let wait = Duration::from_millis(wait.unwrap_or(300_000));
    let asked: u64 = find("index")
        .and_then(|index| index.parse().ok())
        .unwrap_or(0);
    let until = Instant::now() + wait + wait / 16;
    let restores = state.restores;
    while asked > 0 && state.index_of(service.as_deref()) <= asked {
        if state.ended || state.restores > restores {
            break;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || state.fails.is_some() {
            break;
        }
        state = changed.wait_timeout(state, left).unwrap().0;
    }
    if let Some(status) = state.fails {
        return Reply::new(status)
            .body("rpc error: No cluster leader")
            .into();
    }
    let body = match &service {
        Some(name) => state.health(name, &query),
        None => state.catalog(&query),
    };
    json_reply(&body)
        .header("X-Consul-Index", state.index_of(service.as_deref()))
        .header("X-Consul-KnownLeader", "true")
        .into()
}

fn json_reply(body: &Value) -> Reply {
    let reply = Reply::new(200).header("content-type", "application/json");
    reply.body(body.to_string())
}

/// Decodes percent-encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let pair = [rest.next(), rest.next()].map(Option::unwrap);
                let pair = String::from_utf8(pair.into()).unwrap();
                bytes.push(u8::from_str_radix(&pair, 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}
