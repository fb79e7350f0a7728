//! A tenant's usage of its limits: at the admin address, and for its own callers at the addresses of
//! all sources to which tenants come.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use metrifold_access::AccessConfig;
use metrifold_base::BoxFuture;
use metrifold_engine::component::Resource;
use metrifold_engine::config::Config;
use metrifold_http::access::{Admission, Head};
use metrifold_http::{Access, Handler, Listen, Methods, Permission, Request, Response, rejection};
use metrifold_model::{Caller, Membership, Rejection, RejectionKind};
use {metrifold_dedupe as dedupe, metrifold_limits as limits};

use super::{Status, json};

/// Path at the admin address.
pub(super) const PATH: &str = "/api/v1/tenants/{tenant}/usage";

/// Where tenants see their usage.
#[derive(PartialEq, Eq)]
pub(super) struct Places {
    /// Parameter of the path that names the tenant.
    pub(super) parameter: Arc<str>,
    pub(super) listens: Vec<Listen>,
}

/// The addresses at which tenants see their usage: those of the sources to which they come; `None` if there
/// are no such ones.
pub(super) fn places(config: &Config) -> Option<Places> {
    let access = config.tables.get::<AccessConfig>();
    let access = access.cloned().unwrap_or_default();
    let path = PATH.replace("tenant}", &format!("{}}}", access.path_parameter));
    let sources = config.sources.values().map(|node| &node.config);
    let routes = sources.clone().flat_map(|source| source.resources());
    let taken: Vec<Listen> = routes.filter_map(route).collect();
    let by_tenants = sources.filter(|source| source.callers_are_tenants());
    let theirs = by_tenants.flat_map(|source| source.resources());
    let mut listens = BTreeMap::<SocketAddr, Listen>::new();
    for route in theirs.filter_map(route) {
        let listen = Listen {
            path: path.clone(),
            methods: Methods::GET,
            free_text: &[],
            ..route
        };
        // A source that has the path itself keeps it.
        if !taken.iter().any(|it| it.collides(&listen)) {
            listens.insert(listen.address, listen);
        }
    }
    (!listens.is_empty()).then(|| Places {
        parameter: access.path_parameter.into(),
        listens: listens.into_values().collect(),
    })
}

fn route(resource: Resource) -> Option<Listen> {
    match resource {
        Resource::Route(listen) => Some(listen),
        Resource::Address(_) | Resource::Folder(_) | Resource::File(_) => None,
    }
}

/// Access and handler of the path where tenants come.
pub(super) fn serve(
    status: &Arc<Status>,
    parameter: &Arc<str>,
) -> (Arc<dyn Access>, Arc<dyn Handler>) {
    let door = Door(status.gate.access(|_| Permission::Read));
    let own = Own {
        status: Arc::clone(status),
        parameter: Arc::clone(parameter),
    };
    (Arc::new(door), Arc::new(own))
}

/// Admits callers of tenants that may read, without their limits: a tenant that exceeds one needs the answer
/// most.
struct Door(Arc<dyn Access>);

impl Access for Door {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        self.0.admit(head)
    }
}

struct Own {
    status: Arc<Status>,
    parameter: Arc<str>,
}

impl Handler for Own {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        let answer = show(
            &self.status,
            &request.caller,
            request.param(&self.parameter),
        );
        Box::pin(async move { answer })
    }
}

/// The usage of the tenant of this name or id, for a caller that has access to it.
pub(super) fn show(status: &Status, caller: &Caller, name: Option<&str>) -> Response {
    let name = name.unwrap_or_default();
    let own = caller.tenants();
    let is_own = |one: &Membership| *one.name == *name || *one.tenant == *name;
    if !own.is_empty() && !own.iter().any(is_own) {
        let reason = "the caller has no access to this tenant";
        return rejection::json(&Rejection::new(RejectionKind::Forbidden, reason));
    }
    // Components know a tenant by its id.
    let tenants = status.gate.tenants();
    let id = tenants.id(name).map_or(name, |id| &**id);
    let (shared, now) = (status.directory.shared(), Instant::now());
    let mut shown = match tenants.usage(name) {
        Some(serde_json::Value::Object(usage)) => usage,
        _ => serde_json::Map::new(),
    };
    for (key, components) in [
        ("limit", shared.get::<limits::Registry>().show(id, now)),
        ("dedupe", shared.get::<dedupe::Registry>().show(id, now)),
    ] {
        if !components.is_empty() {
            shown.insert(key.to_owned(), components.into());
        }
    }
    if shown.is_empty() {
        let reason = format!("there is no tenant {name:?}");
        return rejection::json(&Rejection::new(RejectionKind::NotFound, reason));
    }
    json(&shown)
}
