//! Requests to a ruler over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use tokio::time::Instant;

use metrifold_http::body::read;
use metrifold_http::{BodyError, Client, Credentials};

/// Longest excerpt of an answer in an error, in bytes.
const EXCERPT: usize = 500;

/// Header that names the tenant, for rulers with several tenants.
const SCOPE: HeaderName = HeaderName::from_static("x-scope-orgid");

/// A ruler's HTTP interface.
#[derive(Clone)]
pub(super) struct RulerClient {
    pub(super) base: Uri,
    pub(super) client: Client,
    pub(super) credentials: Credentials,
    pub(super) timeout: Duration,
    pub(super) max_answer: usize,
}

/// A ruler's answer to a reload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reloaded {
    Done,
    /// The ruler rejects its configuration or its rules, for this reason.
    Refused(String),
    /// The outcome is unknown, as the request failed.
    Failed(String),
}

/// Why a request has no answer that can be used.
#[derive(Debug)]
pub(super) enum Failed {
    /// The ruler does not answer, or cannot be reached.
    Silent(String),
    /// The request cannot be sent for this tenant, or its answer is none that is understood.
    Answered(String),
}

impl Failed {
    pub(super) fn into_reason(self) -> String {
        let (Self::Silent(reason) | Self::Answered(reason)) = self;
        reason
    }
}

/// A group that a ruler has loaded.
#[derive(Debug, Deserialize)]
pub(super) struct LoadedGroup {
    pub(super) name: String,
    #[serde(default)]
    pub(super) file: String,
    #[serde(default, rename = "lastEvaluation")]
    pub(super) last_evaluation: Option<String>,
    #[serde(default)]
    pub(super) rules: Vec<LoadedRule>,
}

/// A rule that a ruler has loaded.
#[derive(Debug, Deserialize)]
pub(super) struct LoadedRule {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, rename = "lastError")]
    pub(super) last_error: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    groups: Vec<LoadedGroup>,
}

impl RulerClient {
    /// Reloads the ruler's files.
    pub(super) async fn reload(&self) -> Reloaded {
        match self.ask(Method::POST, "/-/reload", None).await {
            Ok((status, _)) if status.is_success() => Reloaded::Done,
            Ok((status, text)) => {
                let reason = format!("the ruler answered {status}: {}", excerpt(&text));
                match status {
                    StatusCode::BAD_REQUEST | StatusCode::INTERNAL_SERVER_ERROR => {
                        Reloaded::Refused(reason)
                    }
                    _ => Reloaded::Failed(reason),
                }
            }
            Err(failed) => Reloaded::Failed(failed.into_reason()),
        }
    }

    /// Lists the groups that the ruler has loaded.
    pub(super) async fn rules(&self) -> Result<Vec<LoadedGroup>, Failed> {
        self.groups(None).await
    }

    /// Lists a tenant's groups that the ruler has loaded.
    pub(super) async fn rules_of(&self, tenant: &str) -> Result<Vec<LoadedGroup>, Failed> {
        self.groups(Some(tenant)).await
    }

    async fn groups(&self, tenant: Option<&str>) -> Result<Vec<LoadedGroup>, Failed> {
        let path = "/api/v1/rules?exclude_alerts=true";
        let (status, text) = self.ask(Method::GET, path, tenant).await?;
        if !status.is_success() {
            let reason = format!("the ruler answered {status}: {}", excerpt(&text));
            return Err(Failed::Answered(reason));
        }
        let answer: Result<Answer, _> = serde_json::from_slice(&text);
        answer.map(|answer| answer.data.groups).map_err(|error| {
            let reason = format!("the answer is not that of Prometheus' rules API: {error}");
            Failed::Answered(reason)
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        tenant: Option<&str>,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let base = self.base.to_string();
        let uri = format!("{}{path}", base.trim_end_matches('/'));
        let uri: Uri = uri.parse().map_err(answered)?;
        self.send(method, &uri, tenant, Bytes::new()).await
    }

    /// Sends a request, in the name of a tenant if there is one, and reads the answer.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        tenant: Option<&str>,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failed> {
        let deadline = Instant::now() + self.timeout;
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/json, text/plain, */*"),
        );
        if !body.is_empty() {
            let yaml = HeaderValue::from_static("application/yaml");
            headers.insert(CONTENT_TYPE, yaml);
        }
        if let Some(tenant) = tenant.filter(|tenant| !tenant.is_empty()) {
            let value = HeaderValue::from_str(tenant).map_err(|_| {
                let reason =
                    format!("the tenant's name cannot be sent in {SCOPE}: rename the tenant");
                Failed::Answered(reason)
            })?;
            headers.insert(SCOPE, value);
        }
        let credentials = self.credentials.header().await;
        let credentials = credentials.map_err(silent)?;
        if let Some(value) = &credentials {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let sent = self
            .client
            .request(method, uri, headers, body, self.timeout);
        let answer = sent.await.map_err(silent)?;
        let (head, answer) = answer.into_parts();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if let Some(value) = credentials.filter(|_| refused.contains(&head.status)) {
            self.credentials.refused(&value);
        }
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = deadline.saturating_duration_since(Instant::now());
        let text = read(answer, length, self.max_answer, left).await;
        let text = text.map_err(|error| {
            let reason = format!("the answer cannot be read: {error}");
            match error {
                BodyError::TooLarge { .. } => Failed::Answered(reason),
                _ => Failed::Silent(reason),
            }
        })?;
        Ok((head.status, text))
    }
}

fn silent(error: impl std::fmt::Display) -> Failed {
    Failed::Silent(error.to_string())
}

fn answered(error: impl std::fmt::Display) -> Failed {
    Failed::Answered(error.to_string())
}

/// The beginning of a text, on one line.
pub(super) fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(EXCERPT).collect()
}
