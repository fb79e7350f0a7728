//! Promregator's face, for those who pull: the same paths, labels and headers, so that a Prometheus
//! that was configured for Promregator goes on as before. Two things differ on purpose: a scrape that
//! fails is answered with a status that says so, and listing targets costs no request to the platform.

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

/// Header by which a process knows a scrape of its own.
const INSTANCE: HeaderName = HeaderName::from_static("x-promregator-instance");
const TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the face needs of its source.
pub(super) struct FaceParts {
    /// Where targets come from.
    pub(super) targets: Vec<Targets>,
    pub(super) scrapes: OnRequest,
    /// Writes the metrics of the process.
    pub(super) own: Box<dyn Fn() -> String + Send + Sync>,
    pub(super) metrics: ComponentMetrics,
}

/// Promregator's face.
pub(super) struct Face {
    keys: ExposeKeys,
    parts: FaceParts,
    /// Identifies this process in its requests.
    id: HeaderValue,
    catalogue: Mutex<Arc<Catalogue>>,
    /// One for each scrape that may be under way.
    slots: Semaphore,
}

/// Why a scrape that was asked for came to nothing, and the status that says so.
#[derive(Debug)]
struct Failed(StatusCode, String);

impl Face {
    pub(super) fn new(keys: ExposeKeys, parts: FaceParts) -> Arc<Self> {
        let random = || RandomState::new().hash_one(0u8);
        let id = format!("{:016x}{:016x}", random(), random());
        Arc::new(Self {
            slots: Semaphore::new(keys.max_scrapes),
            keys,
            parts,
            // Digits are valid in a header.
            id: HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("metrifold")),
            catalogue: Mutex::default(),
        })
    }

    /// Who answers each of the paths, in the order of [`PATHS`].
    pub(super) fn handlers(self: &Arc<Self>) -> impl Iterator<Item = Arc<dyn Handler>> {
        PATHS.iter().map(|(_, endpoint)| {
            let handler: Arc<dyn Handler> = Arc::new(At {
                face: self.clone(),
                endpoint: *endpoint,
            });
            handler
        })
    }

    /// The answer at a path.
    async fn answer(self: Arc<Self>, endpoint: Endpoint, request: Request) -> Response {
        if request.headers.get(INSTANCE) == Some(&self.id) {
            let text = "this is a scrape of this process itself: one of its targets leads here";
            return answer::text(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        match endpoint {
            Endpoint::Discovery => self.discovery(&request),
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

    /// Scrapes an instance, asking for these formats.
    async fn scrape(
        &self,
        candidate: &Candidate,
        accept: Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<RequestedPage, Failed> {
        let slot = tokio::time::timeout_at(deadline, self.slots.acquire()).await;
        let _slot = slot.map_err(|_| {
            let text = "other scrapes take all the time: see max_scrapes".to_owned();
            Failed(StatusCode::SERVICE_UNAVAILABLE, text)
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(INSTANCE, self.id.clone());
        headers.extend(accept.map(|value| (http::header::ACCEPT, value)));
        let left = deadline.saturating_duration_since(Instant::now());
        Ok(self.parts.scrapes.page(candidate, headers, left).await?)
    }

    /// When a scrape has to be done that a request asks for.
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

/// A path of the face.
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
