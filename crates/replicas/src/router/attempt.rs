//! One request to one replica, and the meaning of its failures.

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

/// Failure of an attempt.
pub(super) enum Failure {
    /// No answer arrived.
    Transport(TransportError),
    /// The answer broke off before its first bytes were passed on.
    Broke(Arc<str>, String),
    /// The replica's probes failed during the wait.
    Down(Arc<str>),
    /// The status suggests that another replica may succeed.
    Status(Response),
    /// The caller's own fault, such as a body that broke off.
    Caller(Rejection),
}

impl Failure {
    /// Whether the replica may have worked on the query.
    pub(super) fn was_sent(&self) -> bool {
        match self {
            Self::Transport(error) => !matches!(
                error.kind,
                TransportKind::Connect | TransportKind::Tls | TransportKind::Proxy
            ),
            Self::Broke(..) | Self::Down(_) | Self::Status(_) | Self::Caller(_) => true,
        }
    }

    /// Whether another attempt may succeed.
    pub(super) fn is_worth_another(&self) -> bool {
        !matches!(self, Self::Caller(_))
    }

    /// What the replica did, for a sentence that begins with its name.
    pub(super) fn of_the_replica(&self) -> String {
        match self {
            Self::Transport(error) => format!("did not answer ({})", error.message),
            Self::Broke(_, error) => format!("broke off its answer ({error})"),
            Self::Down(_) => "does not answer any more".into(),
            Self::Status(answer) => format!("answered {}", answer.status().as_u16()),
            Self::Caller(rejection) => format!("was not asked ({})", rejection.reason),
        }
    }

    /// The answer to the caller, when there is no further attempt.
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

/// A request in flight. Dropping it records its end.
pub(super) struct Ticket {
    router: Arc<Router>,
    name: Arc<str>,
    /// Era of the replica's breaker at the start.
    era: u64,
    started: Instant,
    /// The outcome, once it is recorded.
    settled: Option<Outcome>,
    pub(super) bytes: u64,
}

impl Ticket {
    fn new(router: &Arc<Router>, name: &Arc<str>) -> Self {
        let started = Instant::now();
        let era = locked(&router.fleet).sent(name, started);
        Self {
            router: router.clone(),
            name: name.clone(),
            era,
            started,
            settled: None,
            bytes: 0,
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        if self.settled.is_none() {
            self.settled = Some(outcome);
            let took = self.started.elapsed();
            let mut fleet = locked(&self.router.fleet);
            fleet.head_after(&self.name, self.era, took, outcome, Instant::now());
            locked(&self.router.meters).done(&self.name, outcome);
        }
    }

    /// Records that the answer broke off after its beginning had been passed on.
    pub(super) fn broke(&mut self) {
        if self.settled == Some(Outcome::Answered) {
            self.settled = Some(Outcome::Failed);
            locked(&self.router.fleet).broke(&self.name, self.era, Instant::now());
        }
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
        // `first` waits for a request in flight whatever the probes find, like Caddy.
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
        // A query that cannot be retried gains nothing from holding its answer back.
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

    /// Whether the answer calls for a retry at another replica.
    fn is_failure(&self, answer: &Response) -> bool {
        let status = answer.status();
        let content = answer
            .headers()
            .get(CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        // A 503 in the form of Prometheus' API means that the query took too long: it would take as
        // long at another replica.
        let of_the_query = status == StatusCode::SERVICE_UNAVAILABLE
            && content.is_some_and(|content| content.starts_with(b"application/json"));
        self.statuses.contains(&status.as_u16()) && !of_the_query
    }

    /// Waits until a replica's probes find it down.
    async fn down(&self, name: &str) {
        let mut changed = self.changed.subscribe();
        while locked(&self.fleet).is_up(name) {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Whether an answer is an endless stream.
fn is_stream(content: Option<&HeaderValue>) -> bool {
    content.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"))
}
