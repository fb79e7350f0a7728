//! Requests to Aiven's API: paced, with the current token, and with errors classified.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use metrifold_base::{BuildError, Secret, foreign, locked};
use metrifold_discovery::exchange::escape;
use metrifold_discovery::{Exchange, Failure, Reason};
use metrifold_http::{SecretFrom, place, retry_after};

use crate::config::AivenConfig;
use crate::resources::{
    Authority, Endpoint, EndpointTypes, Endpoints, Errors, Integration, OneEndpoint,
    OneIntegration, PROMETHEUS, Service, Services,
};

/// Pause after an answer that asks for one without `Retry-After`.
const UNSAID: Duration = Duration::from_secs(30);
/// Longest pause that Aiven can impose.
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest excerpt of an error's text, in characters.
const MAX_DETAIL: usize = 300;

/// A client of the API.
pub(crate) struct Api {
    exchange: Exchange,
    /// URL of the API, without a trailing slash.
    root: String,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    /// Largest answer, in bytes.
    most: usize,
    interval: Duration,
    /// Longest pause that a request waits for; it fails at once in a longer one.
    patience: Duration,
    pace: Mutex<Pace>,
}

/// Times before which no request is sent.
struct Pace {
    /// So that requests are `request_interval` apart.
    next: Instant,
    /// As Aiven has asked with status 429.
    paused: Instant,
}

/// A request without a usable answer.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    /// Status of the answer; None if there was none.
    pub(crate) status: Option<StatusCode>,
    /// Whether the request was sent.
    pub(crate) sent: bool,
    pub(crate) failure: Failure,
}

impl ApiError {
    /// The request was not sent.
    fn unsent(failure: Failure) -> Self {
        Self {
            status: None,
            sent: false,
            failure,
        }
    }

    /// The request was sent, and its answer was lost or cannot be read.
    fn unanswered(failure: Failure) -> Self {
        Self {
            sent: true,
            ..Self::unsent(failure)
        }
    }
}

impl ApiError {
    /// Whether the object to be created exists already.
    pub(crate) fn is_there_already(&self) -> bool {
        self.status == Some(StatusCode::CONFLICT) && self.failure.text.contains("already exists")
    }

    /// Whether the change may have been made in spite of the error.
    pub(crate) fn may_be_done(&self) -> bool {
        match self.status {
            None => self.sent,
            Some(status) => status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Whether other requests would fail alike, so that a round of changes should stop.
    pub(crate) fn is_general(&self) -> bool {
        let general = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        !self.sent || self.status.is_some_and(|status| general.contains(&status))
    }

    pub(crate) fn is_missing(&self) -> bool {
        self.status == Some(StatusCode::NOT_FOUND)
    }
}

impl Api {
    pub(crate) fn new(config: &AivenConfig) -> Result<Self, BuildError> {
        Ok(Self {
            exchange: Exchange::new(config.client()?, config.timeout.0),
            root: place(config.api.uri()).trim_end_matches('/').to_owned(),
            token: config.token.clone(),
            token_file: config.token_file.clone(),
            most: config.limits.limits().answer_bytes,
            interval: config.request_interval.0,
            patience: config.timeout.0,
            pace: Mutex::new(Pace {
                next: Instant::now(),
                paused: Instant::now(),
            }),
        })
    }

    /// Lists all services of a project; the API does not paginate.
    pub(crate) async fn services(&self, project: &str) -> Result<Vec<Service>, ApiError> {
        let path = format!("/project/{}/service", escape(project));
        self.get::<Services>(&path).await.map(|it| it.services)
    }

    /// Lists the endpoints of a project, without their credentials.
    pub(crate) async fn endpoints(&self, project: &str) -> Result<Vec<Endpoint>, ApiError> {
        let path = format!("/project/{}/integration_endpoint", escape(project));
        let read = self.get::<Endpoints>(&path).await?;
        let endpoints = read.service_integration_endpoints.into_iter();
        Ok(endpoints
            .filter(|it| it.endpoint_type == PROMETHEUS)
            .collect())
    }

    /// Reads an endpoint with the user and the password that nodes require.
    pub(crate) async fn endpoint(&self, project: &str, id: &str) -> Result<Endpoint, ApiError> {
        let (project, id) = (escape(project), escape(id));
        let path = format!("/project/{project}/integration_endpoint/{id}?include_secrets=true");
        let read = self.get::<OneEndpoint>(&path).await?;
        Ok(read.service_integration_endpoint)
    }

    /// Lists the service types that can be integrated with Prometheus.
    pub(crate) async fn eligible(&self, project: &str) -> Result<Vec<String>, ApiError> {
        let path = format!("/project/{}/integration_endpoint_types", escape(project));
        let read = self.get::<EndpointTypes>(&path).await?;
        let types = read.endpoint_types.into_iter();
        let types = types.filter(|it| it.endpoint_type == PROMETHEUS);
        Ok(types.flat_map(|it| it.service_types).collect())
    }

    /// Reads the certificate authority of a project's services, in PEM.
    pub(crate) async fn authority(&self, project: &str) -> Result<String, ApiError> {
        let path = format!("/project/{}/kms/ca", escape(project));
        self.get::<Authority>(&path).await.map(|it| it.certificate)
    }

    /// Creates an endpoint.
    pub(crate) async fn create_endpoint(
        &self,
        project: &str,
        name: &str,
        username: &str,
        password: &Secret,
    ) -> Result<String, ApiError> {
        let path = format!("/project/{}/integration_endpoint", escape(project));
        let body = serde_json::json!({
            "endpoint_name": name,
            "endpoint_type": PROMETHEUS,
            "user_config": {
                "basic_auth_username": username,
                "basic_auth_password": password.expose(),
            },
        });
        let made: OneEndpoint = self.send(Method::POST, &path, body.to_string()).await?;
        Ok(made.service_integration_endpoint.endpoint_id)
    }

    /// Integrates a service with an endpoint.
    pub(crate) async fn integrate(
        &self,
        project: &str,
        service: &str,
        endpoint: &str,
    ) -> Result<Integration, ApiError> {
        let path = format!("/project/{}/integration", escape(project));
        let body = serde_json::json!({
            "dest_endpoint_id": endpoint,
            "integration_type": PROMETHEUS,
            "source_service": service,
        });
        let made: OneIntegration = self.send(Method::POST, &path, body.to_string()).await?;
        Ok(made.service_integration)
    }

    /// Removes an integration.
    pub(crate) async fn remove(&self, project: &str, id: &str) -> Result<(), ApiError> {
        let path = format!("/project/{}/integration/{}", escape(project), escape(id));
        self.send::<serde_json::Value>(Method::DELETE, &path, String::new())
            .await?;
        Ok(())
    }

    async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T, ApiError> {
        self.send(Method::GET, path, String::new()).await
    }

    /// Current token; a token file is read for each request.
    fn token(&self) -> Result<Secret, Failure> {
        SecretFrom::new(self.token.as_ref(), self.token_file.as_deref())
            .read()
            .map_err(|error| Failure::new(Reason::Credentials, format!("token: {error}")))
    }

    /// Waits for the turn of the next request. Fails at once in a pause that is longer than a
    /// request may take, so that the failure is reported and other work goes on.
    async fn turn(&self) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            let until = {
                let mut pace = locked(&self.pace);
                if pace.paused > now + self.patience {
                    let text =
                        "no request is sent in the pause that Aiven has asked for with status 429";
                    return Err(Failure::new(Reason::Refused, text));
                }
                let until = pace.next.max(pace.paused);
                if until <= now {
                    pace.next = now + self.interval;
                    return Ok(());
                }
                until
            };
            tokio::time::sleep_until(until).await;
        }
    }

    /// Postpones all requests, as long as the answer's headers ask for.
    fn pause(&self, headers: &HeaderMap) {
        let pause = retry_after(headers).filter(|pause| !pause.is_zero());
        let until = Instant::now() + pause.unwrap_or(UNSAID).min(LONGEST);
        let mut pace = locked(&self.pace);
        pace.paused = pace.paused.max(until);
    }

    async fn send<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, ApiError> {
        self.turn().await.map_err(ApiError::unsent)?;
        let token = self.token().map_err(ApiError::unsent)?;
        let mut headers = HeaderMap::new();
        let mut shown = HeaderValue::try_from(format!("aivenv1 {}", token.expose()))
            .map_err(|error| ApiError::unsent(Failure::new(Reason::Credentials, error)))?;
        shown.set_sensitive(true);
        headers.insert(AUTHORIZATION, shown);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let uri: Uri = format!("{}{path}", self.root).parse().map_err(|error| {
            ApiError::unsent(Failure::new(Reason::Invalid, format!("{path}: {error}")))
        })?;
        let answered = self
            .exchange
            .send(method.clone(), &uri, headers, body, self.most)
            .await
            .map_err(ApiError::unanswered)?;
        let asked = format!("{method} {}", place(&uri));
        if answered.status.is_success() {
            // Parsing thousands of services takes a while. Errors must not quote the text, which
            // may hold secrets.
            let read = tokio::task::spawn_blocking(move || {
                let body: &[u8] = match answered.body.is_empty() {
                    true => b"null".as_slice(),
                    false => &answered.body,
                };
                serde_json::from_slice(body).map_err(|error| {
                    let at = format!("line {}, column {}", error.line(), error.column());
                    let text = format!("{asked}: the answer is not in the expected form ({at})");
                    Failure::new(Reason::Invalid, text)
                })
            });
            let read = read
                .await
                .map_err(|error| ApiError::unanswered(Failure::new(Reason::Died, error)))?;
            return read.map_err(ApiError::unanswered);
        }
        if answered.status == StatusCode::TOO_MANY_REQUESTS {
            self.pause(&answered.headers);
        }
        let said: Errors = serde_json::from_slice(&answered.body).unwrap_or_default();
        let said = foreign(&said.message, MAX_DETAIL);
        let reason = match answered.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Reason::Credentials,
            _ => Reason::Refused,
        };
        let text = format!("{asked} was answered {}: {said}", answered.status);
        Err(ApiError {
            status: Some(answered.status),
            sent: true,
            failure: Failure::new(reason, text.trim_end_matches(": ")),
        })
    }
}
