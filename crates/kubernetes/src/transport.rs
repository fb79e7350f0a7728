//! Sends kube's requests over Metrifold's HTTP client: the same TLS, proxies and credentials as
//! elsewhere, answers bounded in size and time, and a token that is read again when it is refused.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body::{Body as _, Frame, SizeHint};
use kube::client::ConfigExt;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tower_layer::Layer;
use tower_service::Service;

use metrifold_base::{BoxFuture, locked};
use metrifold_discovery::{Failure, Reason};
use metrifold_http::{Body, BoxError, Client, Credentials, TransportError};

use crate::connect::Cluster;

/// Shortest time between two watches of the same objects, in case a server ends each at once.
const APART: Duration = Duration::from_millis(500);

/// Time that a watch may stay open beyond the requested duration.
const OVERTIME: Duration = Duration::from_secs(10);

/// Largest body of a request: far more than the objects that this crate writes.
const MAX_SENT: u64 = 4 << 20;

/// Health of the API server as a watcher's requests show it. Clones share the state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// Notified when a watch is answered.
    watching: Notify,
    /// Notified when the objects have to be listed again.
    relist: Notify,
    /// Error of the last request.
    failure: Mutex<Option<Failure>>,
    /// Time of the last request for a watch.
    asked: Mutex<Option<Instant>>,
}

impl Health {
    /// Waits until a watch is answered.
    pub(crate) async fn watching(&self) {
        self.0.watching.notified().await;
    }

    /// Has the watcher list the objects again.
    pub(crate) fn relist(&self) {
        self.0.relist.notify_one();
    }

    /// Waits until the objects have to be listed again.
    pub(crate) async fn relisting(&self) {
        self.0.relist.notified().await;
    }

    /// Error of the last request, unless it was taken already.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        locked(&self.0.failure).take()
    }

    fn fail(&self, failure: Failure) -> BoxError {
        *locked(&self.0.failure) = Some(failure.clone());
        failure.into()
    }

    /// Waits until another watch may be requested.
    async fn pace(&self) {
        let next = locked(&self.0.asked).map(|asked| asked + APART);
        if let Some(next) = next {
            tokio::time::sleep_until(next).await;
        }
        *locked(&self.0.asked) = Some(Instant::now());
    }
}

/// Sends the requests of a kube client.
#[derive(Clone)]
pub(crate) struct Transport {
    client: Client,
    /// URL of the API server, without a trailing slash.
    server: Arc<str>,
    credentials: Credentials,
    helper: Option<kube::Config>,
    timeout: Duration,
    health: Health,
    max_bytes: usize,
}

impl Cluster {
    /// A client over this transport. Results of its requests are reported to `health`; `max_bytes`
    /// bounds an answer, and one event of a watch.
    pub(crate) fn client(&self, health: Health, max_bytes: usize) -> kube::Client {
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        Transport::new(self, health, max_bytes).client(namespace)
    }
}

impl Transport {
    pub(crate) fn new(cluster: &Cluster, health: Health, max_bytes: usize) -> Self {
        Self {
            client: cluster.client.clone(),
            server: cluster.server.to_string().trim_end_matches('/').into(),
            credentials: cluster.credentials.clone(),
            helper: cluster.helper.clone(),
            timeout: cluster.timeout,
            health,
            max_bytes,
        }
    }

    /// A client over this transport. Needs a runtime.
    pub(crate) fn client(self, namespace: String) -> kube::Client {
        let helper = self.helper.as_ref().map(kube::Config::auth_layer);
        match helper {
            Some(Ok(Some(layer))) => kube::Client::new(layer.layer(self), namespace),
            // Errors of the exec plugin are reported when it runs.
            _ => kube::Client::new(self, namespace),
        }
    }

    async fn exchange(
        self,
        request: Request<kube::client::Body>,
    ) -> Result<Response<Bounded>, BoxError> {
        let (head, body) = request.into_parts();
        if body.size_hint().lower() > MAX_SENT {
            return Err("the object is too large".into());
        }
        let body = body.collect_bytes().await?;
        let path = head.uri.path_and_query().map_or("/", |it| it.as_str());
        let uri: Uri = format!("{}{path}", self.server).parse()?;
        let watch = watch_time(&uri);
        if watch.is_some() {
            self.health.pace().await;
        }
        let mut headers = head.headers;
        let agent = concat!("metrifold/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let given = headers.contains_key(AUTHORIZATION);
        let mut refused: Option<HeaderValue> = None;
        let answer = loop {
            let mut headers = headers.clone();
            let shown =
                match given {
                    true => None,
                    false => self.credentials.header().await.map_err(|error| {
                        self.health.fail(Failure::new(Reason::Credentials, error))
                    })?,
                };
            if let Some(shown) = &shown {
                headers.insert(AUTHORIZATION, shown.clone());
            }
            let method = head.method.clone();
            let answer = self
                .client
                .request(method, &uri, headers, body.clone(), self.timeout)
                .await
                .map_err(|error| self.health.fail(unreachable(&error)))?;
            // If the token was rotated, reads it again and repeats the request once.
            match shown {
                Some(shown)
                    if answer.status() == StatusCode::UNAUTHORIZED
                        && refused.as_ref() != Some(&shown) =>
                {
                    self.credentials.refused(&shown);
                    let again = refused.is_some();
                    refused = Some(shown);
                    if again {
                        break answer;
                    }
                }
                _ => break answer,
            }
        };
        if watch.is_some() && answer.status().is_success() {
            self.health.0.watching.notify_one();
        }
        let time = watch.map_or(self.timeout, |time| time + OVERTIME);
        Ok(answer.map(|body| Bounded {
            body,
            read: 0,
            max_bytes: self.max_bytes,
            watch: watch.is_some(),
            time,
            ends: Box::pin(tokio::time::sleep(time)),
            health: self.health.clone(),
        }))
    }
}

impl Service<Request<kube::client::Body>> for Transport {
    type Response = Response<Bounded>;
    type Error = BoxError;
    type Future = BoxFuture<Result<Response<Bounded>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        Box::pin(self.clone().exchange(request))
    }
}

fn unreachable(error: &TransportError) -> Failure {
    Failure::new(Reason::Unreachable, error)
}

/// Requested duration of a watch; None for other requests.
fn watch_time(uri: &Uri) -> Option<Duration> {
    let pairs = || uri.query().unwrap_or_default().split('&');
    let is = pairs().any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let seconds = pairs().find_map(|pair| pair.strip_prefix("timeoutSeconds=")?.parse().ok());
    is.then(|| Duration::from_secs(seconds.unwrap_or(290)))
}

/// Body of an answer, bounded as a whole, or per event for a watch.
pub(crate) struct Bounded {
    body: Body,
    /// Bytes so far; for a watch, since the last end of a line.
    read: usize,
    max_bytes: usize,
    watch: bool,
    time: Duration,
    ends: Pin<Box<Sleep>>,
    health: Health,
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.ends.as_mut().poll(cx).is_ready() {
            let text = format!("the answer did not end within {:?}", this.time);
            let failure = Failure::new(Reason::Unreachable, text);
            return Poll::Ready(Some(Err(this.health.fail(failure))));
        }
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => {
                let failure =
                    Failure::new(Reason::Unreachable, format!("answer broke off: {error}"));
                return Poll::Ready(Some(Err(this.health.fail(failure))));
            }
            Poll::Ready(Some(Ok(frame))) => frame,
        };
        if let Some(data) = frame.data_ref() {
            let line = data
                .iter()
                .rposition(|byte| *byte == b'\n')
                .filter(|_| this.watch);
            this.read = match line {
                Some(end) => data.len() - end - 1,
                None => this.read + data.len(),
            };
            if this.read > this.max_bytes {
                let text = format!("the answer is larger than {} bytes", this.max_bytes);
                let failure =
                    Failure::new(Reason::TooLarge, format!("{text}: see max_answer_bytes"));
                return Poll::Ready(Some(Err(this.health.fail(failure))));
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
