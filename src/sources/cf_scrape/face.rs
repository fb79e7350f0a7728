//! Promregator's interface for programs that pull: the same paths, labels and headers, so that a
//! Prometheus that was configured for Promregator works unchanged. Two things differ on purpose: a
//! failed scrape is answered with an error status, and listing targets sends no request to the
//! platform.

mod catalogue;
mod list;
mod merge;
mod single;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use metrifold_base::BoxFuture;
use metrifold_discovery::Targets;
use metrifold_http::{Body, Handler, Request, Response, answer};
use metrifold_scrape::{Candidate, NoPage, OnRequest, RequestedPage, Why};
use metrifold_telemetry::ComponentMetrics;

use catalogue::Catalogue;

use super::expose::{Endpoint, ExposeKeys, PATHS};

/// Header with the processes that a scrape on request has come through, separated by commas: each
/// recognizes itself.
const INSTANCE: HeaderName = HeaderName::from_static("x-promregator-instance");
/// Longest list of processes that a request may have come through, in bytes.
const MAX_THROUGH: usize = 500;
const TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Seconds in `Retry-After`.
const RETRY_AFTER: u64 = 5;
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Parts of the source that the face uses.
pub(super) struct FaceParts {
    /// The targets of each provider.
    pub(super) targets: Vec<Targets>,
    pub(super) scrapes: OnRequest,
    /// Renders the metrics of the process.
    pub(super) own: Box<dyn Fn() -> String + Send + Sync>,
    pub(super) metrics: ComponentMetrics,
}

/// Promregator's interface.
pub(super) struct Face {
    keys: ExposeKeys,
    parts: FaceParts,
    /// Value of the header that identifies this process.
    id: HeaderValue,
    started: Instant,
    catalogue: Mutex<Arc<Catalogue>>,
    /// Lock of the request that makes a new catalogue.
    indexing: tokio::sync::Mutex<()>,
    /// One permit for each scrape that may be in flight.
    slots: Semaphore,
    /// Permit of the request for the page of all instances: their pages wait in memory meanwhile.
    merging: Semaphore,
}

/// Failure of a scrape on request: the status and the text of its answer.
#[derive(Debug)]
struct Failed(StatusCode, String);

impl Face {
    pub(super) fn new(keys: ExposeKeys, parts: FaceParts) -> Arc<Self> {
        let random = || RandomState::new().hash_one(0u8);
        let id = format!("{:016x}{:016x}", random(), random());
        Arc::new(Self {
            slots: Semaphore::new(keys.max_scrapes),
            merging: Semaphore::new(1),
            keys,
            parts,
            // Digits are valid in a header.
            id: HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("metrifold")),
            started: Instant::now(),
            catalogue: Mutex::default(),
            indexing: tokio::sync::Mutex::default(),
        })
    }

    /// The handlers of the paths, in the order of [`PATHS`].
    pub(super) fn handlers(self: &Arc<Self>) -> impl Iterator<Item = Arc<dyn Handler>> {
        PATHS.iter().map(|(_, endpoint)| {
            let handler: Arc<dyn Handler> = Arc::new(At {
                face: self.clone(),
                endpoint: *endpoint,
            });
            handler
        })
    }

    /// Answers a request to an endpoint.
    async fn answer(self: Arc<Self>, endpoint: Endpoint, request: Request) -> Response {
        if self.is_loop(&request) {
            let text = "this process scrapes itself: one of its targets leads here";
            return answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        match endpoint {
            Endpoint::Discovery => {
                let catalogue = self.catalogue().await;
                self.discovery(&catalogue, &request)
            }
            Endpoint::Single => self.single(request).await,
            Endpoint::Own => page(TEXT, (self.parts.own)().into()),
            Endpoint::Invalidate => {
                for targets in &self.parts.targets {
                    targets.nudge();
                }
                answer::empty(StatusCode::NO_CONTENT)
            }
            Endpoint::Merged => self.merged(request).await,
        }
    }

    /// Whether a request has come through this process already, or through too many others.
    fn is_loop(&self, request: &Request) -> bool {
        let through = request.headers.get(INSTANCE).map(HeaderValue::as_bytes);
        let through = through.unwrap_or_default();
        let mut ids = through.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        through.len() > MAX_THROUGH || ids.any(|id| id == self.id.as_bytes())
    }

    /// The processes that a scrape for this request comes through: the request's, and this one.
    fn through(&self, request: &Request) -> HeaderValue {
        let Some(before) = request.headers.get(INSTANCE) else {
            return self.id.clone();
        };
        let all = [before.as_bytes(), b", ", self.id.as_bytes()].concat();
        HeaderValue::from_bytes(&all).unwrap_or_else(|_| self.id.clone())
    }

    /// Scrapes an instance, with this `Accept` header, as one that comes `through` these processes.
    async fn scrape(
        &self,
        candidate: &Candidate,
        accept: Option<HeaderValue>,
        through: HeaderValue,
        deadline: Instant,
    ) -> Result<RequestedPage, Failed> {
        let slot = tokio::time::timeout_at(deadline, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| {
            let text = "too many scrapes are under way: see max_scrapes".to_owned();
            Failed(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(INSTANCE, through);
        headers.extend(accept.map(|value| (http::header::ACCEPT, value)));
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(self.parts.scrapes.page(candidate, headers, left).await?)
    }

    /// Deadline of the scrape for a request.
    fn deadline(&self, request: &Request) -> Instant {
        let asked = request.headers.get(TIMEOUT).and_then(|it| it.to_str().ok());
        let asked = asked.and_then(|it| Duration::try_from_secs_f64(it.parse().ok()?).ok());
        let asked = asked.filter(|it| !it.is_zero());
        let limit = self.keys.timeout.0;
        Instant::now() + asked.map_or(limit, |asked| asked.min(limit))
    }
}

impl From<NoPage> for Failed {
    fn from(error: NoPage) -> Self {
        let status = match error.why {
            Why::Late => StatusCode::GATEWAY_TIMEOUT,
            Why::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Why::Target => StatusCode::BAD_GATEWAY,
        };
        Self(status, error.to_string())
    }
}

/// Handler of one endpoint.
struct At {
    face: Arc<Face>,
    endpoint: Endpoint,
}

impl Handler for At {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            let answer = self.face.clone().answer(self.endpoint, request).await;
            self.face.parts.metrics.answered(answer.status());
            answer
        })
    }

    fn refused(&self, status: StatusCode) {
        self.face.parts.metrics.answered(status);
    }
}

fn page(content_type: HeaderValue, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
