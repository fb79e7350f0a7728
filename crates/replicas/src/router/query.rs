//! A query as it was read, and whether it can be retried.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method};
use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_http::form::is_form;
use metrifold_http::{Body, hop_by_hop};
use metrifold_model::Rejection;

use crate::range::Parameters;
use crate::time::epoch_ms;

use super::Ask;
use super::bodies::{Start, start};

/// A query ready to be sent.
pub(super) struct Prepared {
    pub(super) method: Method,
    /// Path and query string.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) peer: Option<IpAddr>,
    pub(super) tenant: Option<Arc<str>>,
    pub(super) cookies: Vec<HeaderValue>,
    pub(super) deadline: Instant,
    /// Whether sending it repeatedly is safe.
    pub(super) idempotent: bool,
    /// Whether its answer is about the replica's own state.
    pub(super) pinned: bool,
    /// Time range that it reads, in milliseconds since the epoch.
    pub(super) range: Option<(i64, i64)>,
    body: Sending,
}

enum Sending {
    /// The whole body, which can be sent any number of times.
    Whole(Bytes),
    /// A stream, which can be sent once.
    Once(Mutex<Option<Body>>),
}

/// Endpoints that only read, even by POST.
const READING: [&str; 13] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/query_cost",
    "/api/v1/query_range_cost",
    "/api/v1/search/metric_names",
    "/api/v1/search/label_names",
    "/api/v1/search/label_values",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/format_query",
    "/api/v1/parse_query",
    "/api/v1/read",
];

/// Endpoints about a replica's own state, which differs between replicas, or that change it.
const OWN: [&str; 9] = [
    "/api/v1/admin/",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/alertmanagers",
    "/api/v1/targets",
    "/api/v1/scrape_pools",
    "/api/v1/status/",
    "/api/v1/notifications",
    "/api/v1/metadata",
];

/// Whether a path belongs to one replica alone. The user interface does, since versions differ in
/// the files of its pages, and so does federation: whoever scrapes it would see samples of another
/// replica as older ones of the same series.
fn is_own(path: &str) -> bool {
    let api = path.starts_with("/api/");
    !api || OWN.iter().any(|own| path.starts_with(own))
}

impl Prepared {
    /// Reads as much of a query as the choice of a replica and retries need.
    pub(super) async fn read(ask: Ask, max_body: usize) -> Result<Self, Rejection> {
        let mut headers = ask.headers;
        hop_by_hop::remove(&mut headers);
        let path = ask.uri.path();
        let target = ask.uri.path_and_query().map_or("/", |it| it.as_str());
        let safe = matches!(ask.method, Method::GET | Method::HEAD);
        let idempotent = safe || ask.method == Method::POST && READING.contains(&path);
        let left = ask.deadline.saturating_duration_since(Instant::now());
        let started = tokio::time::timeout(left, start(ask.body, max_body)).await;
        let started = started.map_err(|_| {
            let reason = "the request's body did not arrive in time";
            Rejection::new(metrifold_model::RejectionKind::TimedOut, reason)
        })?;
        let body = match started.map_err(|error| Rejection::invalid(error.to_string()))? {
            Start::Whole(whole) => Sending::Whole(whole),
            Start::More(body) => Sending::Once(Mutex::new(Some(body))),
        };
        let form = is_form(&headers);
        let text = match &body {
            Sending::Whole(whole) if form => Some(&whole[..]),
            _ => None,
        };
        let range = Parameters::read(ask.uri.query(), text).range(path, epoch_ms());
        // Without `Content-Length: 0` on a POST, some servers answer 411.
        if ask.method == Method::POST && matches!(&body, Sending::Whole(whole) if whole.is_empty())
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(Self {
            idempotent,
            pinned: is_own(path),
            range,
            target: target.to_owned(),
            method: ask.method,
            headers,
            peer: ask.peer,
            tenant: ask.tenant,
            cookies: ask.cookies,
            deadline: ask.deadline,
            body,
        })
    }

    /// A copy; without the body if that can be sent only once.
    pub(super) fn copy(&self) -> Self {
        let body = match &self.body {
            Sending::Whole(whole) => whole.clone(),
            Sending::Once(_) => Bytes::new(),
        };
        Self {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            cookies: self.cookies.clone(),
            tenant: self.tenant.clone(),
            body: Sending::Whole(body),
            ..*self
        }
    }

    /// The text of the body, if that is a form.
    pub(super) fn form_text(&self) -> Option<&str> {
        match &self.body {
            Sending::Whole(whole) if is_form(&self.headers) => std::str::from_utf8(whole).ok(),
            _ => None,
        }
    }

    /// The same query with other parameters, in the body or the URL as before.
    pub(super) fn with_form(&self, path: &str, form: &str) -> Self {
        let mut query = self.copy();
        if self.method == Method::POST && is_form(&self.headers) {
            query.target = path.to_owned();
            query.body = Sending::Whole(Bytes::copy_from_slice(form.as_bytes()));
        } else {
            query.target = format!("{path}?{form}");
        }
        query
    }

    /// Whether it can be retried.
    pub(super) fn is_rewindable(&self) -> bool {
        matches!(self.body, Sending::Whole(_))
    }

    /// The body for an attempt; empty if it was a stream and has been taken.
    pub(super) fn body(&self) -> Body {
        match &self.body {
            Sending::Whole(whole) => whole.clone().into(),
            Sending::Once(body) => locked(body).take().unwrap_or_default(),
        }
    }

    /// The body for a further attempt; empty if it is a stream.
    pub(super) fn whole_body(&self) -> Body {
        match &self.body {
            Sending::Whole(whole) => whole.clone().into(),
            Sending::Once(_) => Body::empty(),
        }
    }
}
