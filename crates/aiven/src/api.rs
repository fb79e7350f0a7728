//! Requests to Aiven's API: at a pace, with the token as it is now, and with what answers mean.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use metrifold_base::{BuildError, Secret, foreign, locked};
use metrifold_discovery::exchange::escape;
use metrifold_discovery::{Exchange, Failure, Reason};
use metrifold_http::{SecretFrom, place};

use crate::config::AivenConfig;
use crate::resources::{
    Authority, Endpoint, EndpointTypes, Endpoints, Errors, Integration, OneEndpoint,
    OneIntegration, PROMETHEUS, Service, Services,
};

/// The pause that is made where Aiven asks for one without saying how long.
const UNSAID: Duration = Duration::from_secs(30);
/// The longest pause that Aiven can ask for.
const LONGEST: Duration = Duration::from_secs(3600);
/// The most of an error's text that is shown.
const MAX_DETAIL: usize = 300;

/// A client of the API.
pub(crate) struct Api {
    exchange: Exchange,
    /// Its URL, without a slash at its end.
    root: String,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    /// The most bytes of an answer.
    most: usize,
    interval: Duration,
    /// When the next request may be made.
    next: Mutex<Instant>,
}

/// Why there is no answer that could be used.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    /// The status, if there was one.
    pub(crate) status: Option<StatusCode>,
    pub(crate) failure: Failure,
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self {
            status: None,
            failure,
        }
    }
}

impl ApiError {
    /// Whether what was asked for is there already.
    pub(crate) fn is_there_already(&self) -> bool {
        self.status == Some(StatusCode::CONFLICT) && self.failure.text.contains("already exists")
    }

    /// Whether what was asked for may have been done all the same.
    pub(crate) fn may_be_done(&self) -> bool {
        match self.status {
            None => true,
            Some(status) => status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Whether everything else would be answered alike.
    pub(crate) fn is_general(&self) -> bool {
        let general = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        self.status.is_some_and(|status| general.contains(&status))
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
            next: Mutex::new(Instant::now()),
        })
    }

    /// All services of a project. The list has no pages.
    pub(crate) async fn services(&self, project: &str) -> Result<Vec<Service>, ApiError> {
        let path = format!("/project/{}/service", escape(project));
        self.get::<Services>(&path).await.map(|it| it.services)
    }

    /// The endpoints of a project, without what nodes ask for.
    pub(crate) async fn endpoints(&self, project: &str) -> Result<Vec<Endpoint>, ApiError> {
        let path = format!("/project/{}/integration_endpoint", escape(project));
        let read = self.get::<Endpoints>(&path).await?;
        let endpoints = read.service_integration_endpoints.into_iter();
        Ok(endpoints
            .filter(|it| it.endpoint_type == PROMETHEUS)
            .collect())
    }

    /// An endpoint with the user and the password that nodes ask for.
    pub(crate) async fn endpoint(&self, project: &str, id: &str) -> Result<Endpoint, ApiError> {
        let (project, id) = (escape(project), escape(id));
        let path = format!("/project/{project}/integration_endpoint/{id}?include_secrets=true");
        let read = self.get::<OneEndpoint>(&path).await?;
        Ok(read.service_integration_endpoint)
    }

    /// The types of services that can be integrated with Prometheus.
    pub(crate) async fn eligible(&self, project: &str) -> Result<Vec<String>, ApiError> {
        let path = format!("/project/{}/integration_endpoint_types", escape(project));
        let read = self.get::<EndpointTypes>(&path).await?;
        let types = read.endpoint_types.into_iter();
        let types = types.filter(|it| it.endpoint_type == PROMETHEUS);
        Ok(types.flat_map(|it| it.service_types).collect())
    }

    /// The certificate authority of a project's services, in PEM.
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

    /// The token as it is now.
    fn token(&self) -> Result<Secret, Failure> {
        SecretFrom::new(self.token.as_ref(), self.token_file.as_deref())
            .read()
            .map_err(|error| Failure::new(Reason::Credentials, format!("token: {error}")))
    }

    /// Waits until a request may be made.
    async fn turn(&self) {
        loop {
            let now = Instant::now();
            let until = {
                let mut next = locked(&self.next);
                match *next <= now {
                    true => {
                        *next = now + self.interval;
                        return;
                    }
                    false => *next,
                }
            };
            tokio::time::sleep_until(until).await;
        }
    }

    /// Has nobody ask for a while.
    fn pause(&self, headers: &HeaderMap) {
        let said = headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        let pause = said.and_then(|said| match said.trim().parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => {
                let date = httpdate::parse_http_date(said).ok()?;
                date.duration_since(SystemTime::now()).ok()
            }
        });
        let until = Instant::now() + pause.unwrap_or(UNSAID).min(LONGEST);
        let mut next = locked(&self.next);
        *next = (*next).max(until);
    }

    async fn send<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<T, ApiError> {
        self.turn().await;
        let token = self.token()?;
        let mut headers = HeaderMap::new();
        let mut shown = HeaderValue::try_from(format!("aivenv1 {}", token.expose()))
            .map_err(|error| Failure::new(Reason::Credentials, error))?;
        shown.set_sensitive(true);
        headers.insert(AUTHORIZATION, shown);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let uri: Uri = format!("{}{path}", self.root)
            .parse()
            .map_err(|error| Failure::new(Reason::Invalid, format!("{path}: {error}")))?;
        let answered = self
            .exchange
            .send(method.clone(), &uri, headers, body, self.most)
            .await?;
        let asked = format!("{method} {}", place(&uri));
        if answered.status.is_success() {
            // A list of thousands of services takes a while, and its text may hold secrets, which an
            // error must not quote.
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
                .map_err(|error| Failure::new(Reason::Died, error))?;
            return read.map_err(ApiError::from);
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
            failure: Failure::new(reason, text.trim_end_matches(": ")),
        })
    }
}
