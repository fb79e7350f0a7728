//! The endpoints of the admin address, all in one table.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_http::{Handler, Methods, Request, Response, answer, rejection};
use metrifold_model::{Membership, Rejection, RejectionKind};
use {metrifold_dedupe as dedupe, metrifold_limits as limits};

use super::access::Guard;
use super::events::{self, EVENTS};
use super::topology::topology;
use super::{
    PAGE, RELOAD, Status, aiven, dead_letters, discovery, json, ledger, replicas, targets, typed,
};

/// An endpoint: path, methods, access, and handler.
pub(super) struct Endpoint {
    pub(super) path: &'static str,
    pub(super) methods: Methods,
    pub(super) guard: Guard,
    answer: fn(Arc<Status>, Request) -> BoxFuture<Response>,
}

/// The handler of one endpoint.
pub(super) struct Endpoints {
    pub(super) endpoint: &'static Endpoint,
    pub(super) status: Arc<Status>,
}

const fn get(
    path: &'static str,
    guard: Guard,
    answer: fn(Arc<Status>, Request) -> BoxFuture<Response>,
) -> Endpoint {
    Endpoint {
        path,
        methods: Methods::GET,
        guard,
        answer,
    }
}

const fn change(
    path: &'static str,
    answer: fn(Arc<Status>, Request) -> BoxFuture<Response>,
) -> Endpoint {
    Endpoint {
        path,
        methods: Methods::POST,
        guard: Guard::Change,
        answer,
    }
}

/// Path of a tenant's usage and limits.
const USAGE: &str = "/api/v1/tenants/{tenant}/usage";

fn usage(status: &Status, request: &Request) -> Response {
    let name = request.param("tenant").unwrap_or_default();
    let own = request.caller.tenants();
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

/// Every endpoint.
pub(super) static TABLE: &[Endpoint] = &[
    get("/", Guard::Read, |_, _| {
        Box::pin(async { typed("text/html; charset=utf-8", PAGE.into()) })
    }),
    get("/metrics", Guard::Probe, |status, _| {
        Box::pin(async move {
            typed(
                "text/plain; version=0.0.4; charset=utf-8",
                status.telemetry.render(),
            )
        })
    }),
    get("/-/healthy", Guard::Probe, |_, _| {
        Box::pin(async { answer::text(StatusCode::OK, "healthy") })
    }),
    get("/-/ready", Guard::Probe, |status, _| {
        Box::pin(async move { status.ready() })
    }),
    change(RELOAD, |status, _| {
        Box::pin(async move { status.reload().await })
    }),
    get("/api/v1/topology", Guard::Read, |status, _| {
        Box::pin(async move { json(&topology(&status)) })
    }),
    get(discovery::DISCOVERY, Guard::Read, |status, request| {
        Box::pin(async move { discovery::discovery(&status.directory, request.uri.query()).await })
    }),
    get(aiven::PLANS, Guard::Read, |status, _| {
        Box::pin(async move { aiven::plans(status.directory.shared()) })
    }),
    get(targets::TARGETS, Guard::Read, |status, request| {
        Box::pin(async move { targets::targets(&status.directory, request.uri.query()).await })
    }),
    get("/targets", Guard::Read, |_, _| {
        Box::pin(async { typed("text/html; charset=utf-8", targets::PAGE.into()) })
    }),
    get(replicas::REPLICAS, Guard::Read, |status, _| {
        Box::pin(async move { json(&replicas::replicas(&status)) })
    }),
    get(USAGE, Guard::Tenant, |status, request| {
        Box::pin(async move { usage(&status, &request) })
    }),
    get(EVENTS, Guard::Read, |status, _| {
        Box::pin(async move { events::listen(&status) })
    }),
    get(ledger::LEDGER, Guard::Read, |status, request| {
        Box::pin(async move { ledger::ledger(&status.telemetry, request.uri.query()).await })
    }),
    get(dead_letters::LIST, Guard::Read, |status, request| {
        Box::pin(async move { dead_letters::list(&status.dead_letters, request.uri.query()).await })
    }),
    change(dead_letters::RESEND, |status, request| {
        Box::pin(async move { dead_letters::resend(&status.dead_letters, request).await })
    }),
    change(dead_letters::DISCARD, |status, request| {
        Box::pin(async move { dead_letters::discard(&status.dead_letters, request).await })
    }),
];

impl Handler for Endpoints {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        (self.endpoint.answer)(Arc::clone(&self.status), request)
    }

    fn answers_half_closed(&self) -> bool {
        // A listener of events sends nothing after its request.
        self.endpoint.path != EVENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_documented() {
        let page = include_str!("../../docs/operations.md");
        for endpoint in TABLE {
            let path = endpoint.path.replace("{tenant}", "NAME");
            assert!(page.contains(&format!("`{path}`")), "{path}");
        }
    }

    #[test]
    fn what_takes_another_method_than_get_is_guarded_as_a_change() {
        for endpoint in TABLE {
            let reads = endpoint.methods == Methods::GET;
            assert_eq!(reads, endpoint.guard != Guard::Change, "{}", endpoint.path);
        }
    }
}
