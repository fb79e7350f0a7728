//! One request to one replica, and what its failure means.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_http::{Body, Response, TransportError, TransportKind};
use metrifold_model::{Rejection, RejectionKind};

use crate::fleet::Outcome;
use crate::replica::Replica;
use crate::strategy::Kind;

use super::Router;
use super::bodies::{Start, Tracked, start};
use super::query::Prepared;

/// Why an attempt was none.
pub(super) enum Failure {
    /// No answer came.
    Transport(TransportError),
    /// The answer broke off at its beginning.
    Broke(Arc<str>, String),
    /// The replica's probes failed while it was awaited.
    Down(Arc<str>),
    /// The answer's status says that another replica may do better.
    Status(Response),
    /// The fault of whoever asked.
    Caller(Rejection),
}

impl Failure {
    /// Whether the replica may have had work with the query.
    pub(super) fn was_sent(&self) -> bool {
        match self {
            Self::Transport(error) => !matches!(
                error.kind,
                TransportKind::Connect | TransportKind::Tls | TransportKind::Proxy
            ),
            Self::Broke(..) | Self::Down(_) | Self::Status(_) | Self::Caller(_) => true,
        }
    }

    /// Whether another attempt can do better.
    pub(super) fn is_worth_another(&self) -> bool {
        !matches!(self, Self::Caller(_))
    }

    /// What whoever asked is told, if there is no other attempt.
    pub(super) fn answer(self, id: &str) -> Result<Response, Rejection> {
        let failed =
            |kind, reason: String| Err(Rejection::new(kind, format!("sink {id}: {reason}")));
        match self {
            Self::Status(answer) => Ok(answer),
            Self::Caller(rejection) => Err(rejection),
            Self::Transport(error) if error.kind == TransportKind::Timeout => {
                failed(RejectionKind::TimedOut, error.message)
            }
            Self::Transport(error) => failed(RejectionKind::Unreachable, error.message),
            Self::Broke(name, error) => {
                let reason = format!("the answer of {name} broke off: {error}");
                failed(RejectionKind::Unreachable, reason)
            }
            Self::Down(name) => failed(
                RejectionKind::Unreachable,
                format!("{name} does not answer any more"),
            ),
        }
    }
}

/// A request that is under way. Dropping it says that it is over.
pub(super) struct Ticket {
    router: Arc<Router>,
    name: Arc<str>,
    started: Instant,
    settled: bool,
    pub(super) bytes: u64,
}

impl Ticket {
    fn new(router: &Arc<Router>, name: &Arc<str>) -> Self {
        let started = Instant::now();
        locked(&router.fleet).sent(name, started);
        Self {
            router: router.clone(),
            name: name.clone(),
            started,
            settled: false,
            bytes: 0,
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if !self.settled {
            self.settled = true;
            let took = self.started.elapsed();
            let mut fleet = locked(&self.router.fleet);
            fleet.head_after(&self.name, took, outcome, Instant::now());
            locked(&self.router.meters).done(&self.name, outcome);
        }
    }

    /// Notes that the answer broke off behind its beginning.
    pub(super) fn broke(&mut self) {
        let mut fleet = locked(&self.router.fleet);
        fleet.head_after(
            &self.name,
            self.started.elapsed(),
            Outcome::Failed,
            Instant::now(),
        );
        locked(&self.router.meters).done(&self.name, Outcome::Failed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.settle(Outcome::Cancelled);
        locked(&self.router.fleet).over(&self.name, self.bytes);
    }
}

impl Router {
    /// Sends a query to a replica. Dropping the future closes the connection.
    pub(super) async fn attempt(
        self: &Arc<Self>,
        query: &Prepared,
        replica: &Arc<Replica>,
        body: Body,
    ) -> Result<Response, Failure> {
        let mut ticket = Ticket::new(self, &replica.name);
        let started = Instant::now();
        let sending = replica.send(
            query.method.clone(),
            &query.target,
            query.headers.clone(),
            body,
            query.deadline,
        );
        // Caddy waits for a request that it has sent, whatever its checks say.
        let abandons =
            query.is_rewindable() && query.idempotent && self.keys.strategy != Kind::First;
        let sent = tokio::select! {
            biased;
            sent = sending => sent,
            () = self.down(&replica.name), if abandons => {
                ticket.settle(Outcome::Failed);
                return Err(Failure::Down(replica.name.clone()));
            }
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) if error.kind == TransportKind::Body => {
                return Err(Failure::Caller(Rejection::invalid(error.to_string())));
            }
            Err(error) => {
                ticket.settle(Outcome::Failed);
                return Err(Failure::Transport(error));
            }
        };
        if self.is_failure(&answer) {
            ticket.settle(Outcome::Failed);
            return Err(Failure::Status(
                answer.map(|body| Body::stream(Tracked { body, ticket })),
            ));
        }
        let (head, body) = answer.into_parts();
        // What is not sent again need not be held back.
        let held = abandons && !is_stream(head.headers.get(CONTENT_TYPE));
        let body = match held && query.method != Method::HEAD {
            false => body,
            true => match start(body, self.keys.retry.answer_bytes.bytes()).await {
                Ok(Start::Whole(whole)) => whole.into(),
                Ok(Start::More(body)) => body,
                Err(error) => {
                    ticket.settle(Outcome::Failed);
                    return Err(Failure::Broke(replica.name.clone(), error.to_string()));
                }
            },
        };
        ticket.settle(Outcome::Answered);
        if query.idempotent && !query.pinned {
            locked(&self.latency).note(started.elapsed());
        }
        Ok(Response::from_parts(
            head,
            Body::stream(Tracked { body, ticket }),
        ))
    }

    /// Whether another replica may answer better.
    fn is_failure(&self, answer: &Response) -> bool {
        let status = answer.status();
        let content = answer
            .headers()
            .get(CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        // Prometheus says 503 of a query that took too long, in the form of its API: it would take
        // as long elsewhere.
        let of_the_query = status == StatusCode::SERVICE_UNAVAILABLE
            && content.is_some_and(|content| content.starts_with(b"application/json"));
        self.statuses.contains(&status.as_u16()) && !of_the_query
    }

    /// Waits until a replica's probes say that it cannot be asked any more.
    async fn down(&self, name: &str) {
        let mut changed = self.changed.subscribe();
        while locked(&self.fleet).is_up(name) {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether an answer has no end that is worth waiting for.
fn is_stream(content: Option<&HeaderValue>) -> bool {
    content.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"))
}
