//! Sends a query to several replicas and merges their answers.

use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue,
    TRANSFER_ENCODING,
};
use http::{Method, StatusCode, response};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use metrifold_base::locked;
use metrifold_http::Response;

use crate::merge::{Flaw, Gaps, Merging, Reader, Unread, missing, told};
use crate::range::Parameters;
use crate::replica::Replica;
use crate::time::epoch_ms;

use super::Router;
use super::attempt::Failure;
use super::bodies::{Start, prefixed, start};
use super::query::Prepared;

/// Endpoints whose answers can be merged.
const MERGEABLE: [&str; 4] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/series",
    "/api/v1/labels",
];

/// The outcome of a query to several replicas.
pub(super) enum Merged {
    Answer(Response),
    /// None of these replicas has answered, for this reason among others; without one, in time.
    Failed(Vec<Arc<str>>, Option<Failure>),
    /// The answers cannot be merged, or there is only one replica to ask.
    Alone,
}

/// The answer of a replica.
enum Told {
    /// An answer that can be merged, read up to its first series.
    Mergeable(response::Parts, Box<Reader>),
    /// Another answer, and why it cannot be merged.
    Other(Response, String),
    /// Nothing, for this reason.
    Failed(Option<Failure>, String),
}

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

    /// Answers a query from several replicas.
    pub(super) async fn merged(self: &Arc<Self>, query: &mut Prepared) -> Merged {
        let mut replicas = locked(&self.fleet).all(query.range, epoch_ms(), Instant::now());
        replicas.truncate(self.keys.merge.replicas);
        if replicas.len() < 2 {
            return Merged::Alone;
        }
        // Merging needs the answers uncompressed.
        query
            .headers
            .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let told = self.ask_all(query, &replicas).await;
        let mut head = None;
        let mut answers: Vec<(Arc<str>, Reader)> = Vec::new();
        let mut other = None;
        let mut failure = None;
        let mut warnings = Vec::new();
        for (replica, told) in replicas.iter().zip(told) {
            let name = &replica.name;
            let told = told.unwrap_or_else(|| Told::Failed(None, "did not answer in time".into()));
            match told {
                Told::Mergeable(parts, reader) => match answers.first() {
                    Some((_, best)) if !best.shape.fits(&reader.shape) => {
                        warnings.push(missing(name, "sent an answer of another type"));
                    }
                    _ => {
                        head.get_or_insert(parts);
                        answers.push((name.clone(), *reader));
                    }
                },
                // An error of the execution: where the data at fault is missing, the same query succeeds.
                Told::Other(answer, _) if answer.status() == StatusCode::UNPROCESSABLE_ENTITY => {
                    return Merged::Answer(self.mark(answer, name, false));
                }
                // It may be of the replica alone: an older version does not know all functions.
                Told::Other(answer, reason) => {
                    other.get_or_insert((name, answer));
                    warnings.push(missing(name, &reason));
                }
                Told::Failed(reason, told) => {
                    // Of a request that a replica may have worked on rather than of another.
                    let sent = reason.as_ref().is_some_and(Failure::was_sent);
                    if failure.is_none() || sent {
                        failure = reason.or(failure);
                    }
                    warnings.push(missing(name, &told));
                }
            }
        }
        let Some(mut head) = head else {
            // All replicas that answered refuse the query.
            return match other {
                Some((name, answer)) => Merged::Answer(self.mark(answer, name, false)),
                None => {
                    let names = replicas.iter().map(|it| it.name.clone());
                    Merged::Failed(names.collect(), failure)
                }
            };
        };
        let names: Vec<&str> = answers.iter().map(|(name, _)| &**name).collect();
        let names = names.join(", ");
        let merging = Merging {
            answers,
            warnings,
            most: self.keys.merge.max_bytes.bytes(),
            wait: self.keys.merge.wait.0,
            limit: limit(query),
            gaps: gaps(query),
        };
        // Until its beginning is known, the query can go to one replica instead.
        let body = start(merging.into_body(), self.keys.retry.answer_bytes.bytes()).await;
        let body = match body {
            Ok(Start::Whole(whole)) => whole.into(),
            Ok(Start::More(body)) => body,
            Err(_) => return Merged::Alone,
        };
        for name in [CONTENT_ENCODING, CONTENT_LENGTH, ETAG, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let json = HeaderValue::from_static("application/json");
        head.headers.insert(CONTENT_TYPE, json);
        let answer = Response::from_parts(head, body);
        Merged::Answer(self.mark(answer, &names, false))
    }

    /// Sends a query to all replicas at once. After the first answer has begun, the others get
    /// `merge.wait`.
    async fn ask_all(
        self: &Arc<Self>,
        query: &Prepared,
        replicas: &[Arc<Replica>],
    ) -> Vec<Option<Told>> {
        let mut asking: JoinSet<(usize, Told)> = JoinSet::new();
        for (at, replica) in replicas.iter().enumerate() {
            let (router, replica, query) = (self.clone(), replica.clone(), query.copy());
            asking.spawn(async move { (at, router.opened(&query, &replica).await) });
        }
        let mut answers: Vec<Option<Told>> = replicas.iter().map(|_| None).collect();
        let mut until = query.deadline;
        loop {
            tokio::select! {
                biased;
                told = asking.join_next() => match told {
                    Some(Ok((at, answer))) => {
                        if !matches!(answer, Told::Failed(..)) {
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

    /// Sends a query to a replica, and reads the beginning of its answer.
    async fn opened(self: &Arc<Self>, query: &Prepared, replica: &Arc<Replica>) -> Told {
        let answer = match self.attempt(query, replica, query.whole_body()).await {
            Ok(answer) => answer,
            Err(failure) => {
                let reason = failure.of_the_replica();
                return Told::Failed(Some(failure), reason);
            }
        };
        let status = answer.status();
        if status != StatusCode::OK {
            return Told::Other(answer, format!("answered {}", status.as_u16()));
        }
        let (head, body) = answer.into_parts();
        match Reader::open(body, self.keys.merge.max_bytes.bytes()).await {
            Ok(reader) => Told::Mergeable(head, Box::new(reader)),
            Err(Unread {
                flaw: Flaw::Broke(error),
                ..
            }) => {
                let failure = Failure::Broke(replica.name.clone(), error.clone());
                Told::Failed(Some(failure), told(&Flaw::Broke(error)))
            }
            Err(Unread { flaw, read, rest }) => {
                let answer = Response::from_parts(head, prefixed(read.freeze(), rest));
                Told::Other(answer, told(&flaw))
            }
        }
    }
}

/// What counts as a gap: an instant query returns several points of a series only if they are samples.
fn gaps(query: &Prepared) -> Gaps {
    match query.target.split('?').next() {
        Some("/api/v1/query") => Gaps::Samples,
        _ => Gaps::Steps,
    }
}

/// The query's parameter `limit`, which holds for the merged answer, too.
fn limit(query: &Prepared) -> Option<usize> {
    let url = query.target.split_once('?').map(|(_, text)| text);
    let form = query.form_text().map(str::as_bytes);
    let limit = Parameters::read(url, form).get("limit")?.parse().ok()?;
    // 0 is no limit.
    Some(limit).filter(|limit| *limit > 0)
}
