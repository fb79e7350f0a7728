//! The endpoints of the admin address, all in one table.

use std::sync::Arc;

use http::StatusCode;

use metrifold_base::BoxFuture;
use metrifold_http::{Handler, Methods, Request, Response, answer};

use super::access::Guard;
use super::events::{self, EVENTS};
use super::topology::topology;
use super::{
    PAGE, RELOAD, Status, aiven, dead_letters, discovery, json, ledger, replicas, targets, typed,
    usage,
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

const READY: &str = "/-/ready";

/// Every endpoint, in the order in which they begin to be served.
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
    get(usage::PATH, Guard::Tenant, |status, request| {
        Box::pin(async move { usage::show(&status, &request.caller, request.param("tenant")) })
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
    // The last: whoever waits for it finds all others served.
    get(READY, Guard::Probe, |status, _| {
        Box::pin(async move { status.ready() })
    }),
];

impl Handler for Endpoints {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        let answer = (self.endpoint.answer)(Arc::clone(&self.status), request);
        // Those of the other paths are for probes and people.
        let in_json = self.endpoint.path.starts_with("/api/");
        Box::pin(async move {
            match in_json {
                true => answer::in_json(answer.await),
                false => answer.await,
            }
        })
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
    fn readiness_is_the_last_to_be_served() {
        assert_eq!(TABLE.last().map(|it| it.path), Some(READY));
    }

    #[test]
    fn what_takes_another_method_than_get_is_guarded_as_a_change() {
        for endpoint in TABLE {
            let reads = endpoint.methods == Methods::GET;
            assert_eq!(reads, endpoint.guard != Guard::Change, "{}", endpoint.path);
        }
    }
}
