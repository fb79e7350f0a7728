//! Answers range queries from the cache and asks only for missing steps. Identical queries in
//! flight share one answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::Instant;

use metrifold_base::{Period, locked};
use metrifold_http::form::Form;
use metrifold_http::{Response, body};
use metrifold_model::Rejection;

use crate::cache::{Cache, Matrix, Steps, add, lookahead, read, within, write};
use crate::range::time;
use crate::time::epoch_ms;

use super::Router;
use super::query::Prepared;

/// The endpoint whose answers are cached.
const RANGE: &str = "/api/v1/query_range";

/// Headers by which no server chooses the data of an answer. All others, such as one that names a
/// tenant, are part of the key. Sources decide which headers they forward, and this list does not
/// follow theirs: a header that is new there may choose the data, and is part of the key until it is
/// listed here.
const NEUTRAL: [&str; 28] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "b3",
    "baggage",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "range",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "user-agent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-query-tags",
    "x-request-id",
];

/// Beginnings of the names of further ones.
const FAMILIES: [&str; 3] = ["x-b3-", "x-dashboard-", "x-panel-"];

/// Queries in flight, by their key.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<String, Weak<Flight>>>);

type Flight = OnceCell<Result<Option<Told>, Rejection>>;

/// An answer that several callers share.
#[derive(Clone, Debug)]
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A range query whose answer can be assembled from parts.
struct Ranged {
    key: String,
    steps: Steps,
    lookahead: i64,
    form: Form,
}

/// The most steps that Prometheus answers in one query.
const MOST_STEPS: i64 = 11_000;

/// Number of flights at which finished ones are removed.
const MANY: usize = 1024;

impl Flights {
    fn join(&self, key: &str) -> Arc<Flight> {
        let mut flights = locked(&self.0);
        if let Some(flight) = flights.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        if flights.len() >= MANY {
            flights.retain(|_, flight| flight.strong_count() > 0);
        }
        let flight = Arc::new(Flight::new());
        flights.insert(key.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

impl Router {
    /// Answers a range query with the cache. `None` if the query has to be sent as it is.
    pub(super) async fn cached(
        self: &Arc<Self>,
        cache: &Cache,
        query: &Prepared,
    ) -> Option<Result<Response, Rejection>> {
        let ranged = ranged(query)?;
        let Steps { start, last, .. } = ranged.steps;
        // Identical queries in flight share one answer; if the caller that sent the query goes
        // away, the next one sends it.
        let flight = self.flights.join(&format!("{start} {last} {}", ranged.key));
        let mut own = false;
        let assembled = || {
            own = true;
            self.assembled(cache, query, &ranged)
        };
        let told = flight.get_or_init(assembled).await.clone();
        let told = match told {
            Ok(told) => told?,
            Err(rejection) if own => return Some(Err(rejection)),
            // The failure may be due to the deadline of the caller that sent the query.
            Err(_) => return None,
        };
        let mut answer = Response::new(told.body.into());
        *answer.status_mut() = told.status;
        *answer.headers_mut() = told.headers;
        Some(Ok(answer))
    }

    /// Sends a query and reads its answer. `None` if the answer cannot be read, or is larger than
    /// `most`.
    async fn told(
        self: Arc<Self>,
        query: Prepared,
        most: usize,
    ) -> Result<Option<Told>, Rejection> {
        let deadline = query.deadline;
        let (head, body) = self.route(query).await?.into_parts();
        let left = deadline.saturating_duration_since(Instant::now());
        let body = body::read(body, None, most, left).await;
        Ok(body.ok().map(|body| Told {
            status: head.status,
            headers: head.headers,
            body,
        }))
    }

    /// Assembles an answer. `None` if it cannot be assembled.
    async fn assembled(
        self: &Arc<Self>,
        cache: &Cache,
        query: &Prepared,
        ranged: &Ranged,
    ) -> Result<Option<Told>, Rejection> {
        let (key, steps) = (&ranged.key, ranged.steps);
        let known = cache.get(key, steps);
        let missing = steps.missing(known.as_ref().map(|(steps, _)| *steps));
        let mut matrix: Matrix = match &known {
            Some((_, known)) => within(known, steps),
            None => Matrix::new(),
        };
        let mut headers = HeaderMap::new();
        let mut parts = missing.into_iter().flat_map(|it| it.split(cache.split));
        let mut size = 0;
        // Parts still in flight are cancelled when this returns.
        let mut asked = JoinSet::new();
        loop {
            while asked.len() < cache.max_parallel
                && let Some(part) = parts.next()
            {
                let told = self
                    .clone()
                    .told(part_of(query, ranged, part), cache.max_answer);
                asked.spawn(async move { (part, told.await) });
            }
            let Some(answered) = asked.join_next().await else {
                break;
            };
            let Ok((part, told)) = answered else {
                // The part's task panicked, which has been reported.
                return Ok(None);
            };
            let Some(told) = told? else {
                return Ok(None);
            };
            size += told.body.len();
            let found = (told.status == StatusCode::OK).then(|| read(&told.body));
            let Some(found) = found.flatten() else {
                // An error or a warning is passed on if it is about the whole query.
                return Ok((part == steps).then_some(told));
            };
            if size > cache.max_answer {
                return Ok(None);
            }
            add(&mut matrix, found);
            if let Some(name) = &self.served_by
                && let Some(value) = told.headers.get(name)
            {
                headers.insert(name, value.clone());
            }
        }
        // The entry stays one contiguous range: the cached steps and the new ones.
        let mut kept = steps;
        let mut all = matrix.clone();
        if let Some((known, other)) = known {
            kept.start = kept.start.min(known.start);
            kept.last = kept.last.max(known.last);
            add(&mut all, (*other).clone());
        }
        let now = epoch_ms();
        cache.put(key, kept, &all, ranged.lookahead, now);
        if kept != steps && cache.steps(key).map(|it| it.start) != Some(kept.start) {
            // The union is too large for the cache: the steps of this query are kept instead.
            cache.put(key, steps, &matrix, ranged.lookahead, now);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Some(Told {
            status: StatusCode::OK,
            headers,
            body: write(&matrix).into(),
        }))
    }
}

/// Reads a range query. `None` if its answer cannot be assembled from parts.
fn ranged(query: &Prepared) -> Option<Ranged> {
    let (path, text) = query.target.split_once('?').unwrap_or((&query.target, ""));
    if path != RANGE || query.method == Method::HEAD || !query.is_rewindable() {
        return None;
    }
    let control = query.headers.get_all(CACHE_CONTROL).iter();
    let mut control = control.filter_map(|value| value.to_str().ok());
    if control.any(|value| value.contains("no-store") || value.contains("no-cache")) {
        return None;
    }
    let mut form = Form::parse(query.form_text().unwrap_or_default()).ok()?;
    let url = Form::parse(text).ok()?;
    for name in url.names() {
        // A parameter of the form takes precedence over the URL's, as in Go.
        if form.values(name).next().is_none() {
            form.add(name, url.values(name).next()?);
        }
    }
    let one = |name: &str| {
        let mut values = form.values(name);
        let first = values.next().map(str::to_owned);
        first.filter(|_| values.next().is_none())
    };
    let (start, end) = (time(&one("start")?)?, time(&one("end")?)?);
    let step = step(&one("step")?)?;
    let text = one("query")?;
    let lookahead = lookahead(&text)?;
    // A query with more steps goes to Prometheus, which refuses it.
    let steps = Steps::new(start, end, step).filter(|steps| steps.count() <= MOST_STEPS)?;
    let phase = start.rem_euclid(step);
    let mut key = format!(
        "{} {step} {phase} {text}",
        query.tenant.as_deref().unwrap_or_default()
    );
    for name in form.names() {
        // Statistics and the most series belong to the query as it was sent.
        if matches!(name, "stats" | "limit") {
            return None;
        }
        if !["query", "start", "end", "step", "timeout"].contains(&name) {
            key.push_str(&format!(
                "\n{name}={:?}",
                form.values(name).collect::<Vec<_>>()
            ));
        }
    }
    for (name, value) in &query.headers {
        if !is_neutral(name.as_str()) {
            key.push_str(&format!("\n{name}: {:?}", value.as_bytes()));
        }
    }
    Some(Ranged {
        key,
        steps,
        lookahead,
        form,
    })
}

fn is_neutral(header: &str) -> bool {
    NEUTRAL.binary_search(&header).is_ok()
        || FAMILIES.iter().any(|family| header.starts_with(family))
}

/// A step in milliseconds: a number of seconds, or a duration.
fn step(text: &str) -> Option<i64> {
    let millis = match text.parse::<f64>() {
        Ok(secs) => (secs * 1000.0).round(),
        Err(_) => text.parse::<Period>().ok()?.0.as_millis() as f64,
    };
    (1.0..1e15).contains(&millis).then_some(millis as i64)
}

/// The query for a part of the steps.
fn part_of(query: &Prepared, ranged: &Ranged, part: Steps) -> Prepared {
    // Cannot fail: the text was written by `Form`.
    let mut form = Form::parse(&ranged.form.to_string()).unwrap_or_default();
    let seconds =
        |millis: i64| format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000));
    // A whole query is sent as it is: Prometheus says more about one that ends between two steps.
    let times = [("start", part.start), ("end", part.last)];
    for (name, time) in times.into_iter().filter(|_| part != ranged.steps) {
        form.remove(name);
        form.add(name, &seconds(time));
    }
    let mut asked = query.with_form(RANGE, &form.to_string());
    asked
        .headers
        .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    asked
}
