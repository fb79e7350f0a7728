//! Sends a query to several replicas and merges their answers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue,
    TRANSFER_ENCODING,
};
use http::{Method, StatusCode, response};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use metrifold_base::locked;
use metrifold_http::{Body, Response, body};
use metrifold_model::{Rejection, RejectionKind};

use crate::merge::merge;
use crate::replica::Replica;
use crate::time::epoch_ms;

use super::Router;
use super::query::Prepared;

/// Endpoints whose answers can be merged.
const MERGEABLE: [&str; 4] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/labels",
];

/// An answer with its whole body.
struct Whole {
    head: response::Parts,
    body: Bytes,
}

/// Index of a replica, and its answer.
type Told = (usize, Result<Whole, String>);

impl Router {
    /// Whether a query goes to several replicas.
    pub(super) fn merges(&self, query: &Prepared) -> bool {
        let path = query.target.split('?').next().unwrap_or_default();
        let values = path.starts_with("/api/v1/label/") && path.ends_with("/values");
        query.method != Method::HEAD
            && query.idempotent
            && query.is_rewindable()
            && (MERGEABLE.contains(&path) || values)
    }

    /// Answers a query from several replicas. `None` if fewer than two are eligible, or none has
    /// answered with data.
    pub(super) async fn merged(
        self: &Arc<Self>,
        query: &mut Prepared,
    ) -> Option<Result<Response, Rejection>> {
        let mut replicas = locked(&self.fleet).all(query.range, epoch_ms(), Instant::now());
        replicas.truncate(self.keys.merge.replicas);
        if replicas.len() < 2 {
            return None;
        }
        // Merging needs the answers uncompressed.
        query
            .headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let answers = self.ask_all(query, &replicas).await;
        let mut missing = Vec::new();
        let mut good = Vec::new();
        for (replica, answer) in replicas.iter().zip(answers) {
            match answer {
                Some(Ok(whole)) if whole.head.status == StatusCode::OK => {
                    good.push((replica.name.clone(), whole));
                }
                // An error of the query is the same at every replica.
                Some(Ok(whole)) if whole.head.status.is_client_error() => {
                    return Some(Ok(Response::from_parts(whole.head, whole.body.into())));
                }
                _ => missing.push(replica.name.to_string()),
            }
        }
        if good.is_empty() {
            return None;
        }
        let names: Vec<&str> = good.iter().map(|(name, _)| &**name).collect();
        let names = names.join(", ");
        let bodies: Vec<Bytes> = good.iter().map(|(_, whole)| whole.body.clone()).collect();
        let (_, best) = good.swap_remove(0);
        // Off the workers: large answers take a while.
        let merging = tokio::task::spawn_blocking(move || {
            let texts: Vec<&[u8]> = bodies.iter().map(|body| &body[..]).collect();
            merge(&texts, &missing)
        });
        let text = match merging.await {
            Ok(Some(text)) => Bytes::from(text),
            Ok(None) => best.body,
            Err(error) => {
                let reason = format!("sink {}: answers cannot be merged: {error}", self.id);
                return Some(Err(Rejection::new(RejectionKind::Internal, reason)));
            }
        };
        let mut head = best.head;
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, ETAG, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let json = HeaderValue::from_static("application/json");
        head.headers.insert(CONTENT_TYPE, json);
        let answer = Response::from_parts(head, Body::from(text));
        Some(Ok(self.mark(answer, &names, false)))
    }

    /// Sends a query to all replicas at once. After the first answer, the others get `merge.wait`.
    async fn ask_all(
        self: &Arc<Self>,
        query: &Prepared,
        replicas: &[Arc<Replica>],
    ) -> Vec<Option<Result<Whole, String>>> {
        let mut asking: JoinSet<Told> = JoinSet::new();
        for (at, replica) in replicas.iter().enumerate() {
            let (router, replica, query) = (self.clone(), replica.clone(), query.copy());
            asking.spawn(async move { (at, router.whole(&query, &replica).await) });
        }
        let mut answers: Vec<Option<Result<Whole, String>>> =
            replicas.iter().map(|_| None).collect();
        let mut until = query.deadline;
        loop {
            tokio::select! {
                biased;
                told = asking.join_next() => match told {
                    Some(Ok((at, answer))) => {
                        if answer.is_ok() {
                            until = until.min(Instant::now() + self.keys.merge.wait.0);
                        }
                        answers[at] = Some(answer);
                    }
                    Some(Err(_)) => {}
                    None => return answers,
                },
                // Dropping the set cancels the late requests.
                () = sleep_until(until) => return answers,
            }
        }
    }

    async fn whole(
        self: &Arc<Self>,
        query: &Prepared,
        replica: &Arc<Replica>,
    ) -> Result<Whole, String> {
        let sent = self.attempt(query, replica, query.whole_body()).await;
        let answer = sent.map_err(|failure| match failure.answer(&self.id) {
            Ok(answer) => format!("status {}", answer.status().as_u16()),
            Err(rejection) => rejection.reason,
        })?;
        let (head, body) = answer.into_parts();
        let most = self.keys.merge.max_bytes.bytes();
        let left = query.deadline.saturating_duration_since(Instant::now());
        let body = body::read(body, None, most, left)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Whole { head, body })
    }
}
