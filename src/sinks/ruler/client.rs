//! Requests to a ruler over HTTP.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;

use metrifold_http::BodyError;

use crate::rules::Asker;

/// Longest excerpt of an answer in an error, in bytes.
const EXCERPT: usize = 500;

/// Header that names the tenant, for rulers with several tenants.
const SCOPE: HeaderName = HeaderName::from_static("x-scope-orgid");

/// A ruler's HTTP interface.
#[derive(Clone)]
pub(super) struct RulerClient {
    pub(super) base: Uri,
    pub(super) asker: Asker,
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

/// A ruler's answer that lists the groups that it has loaded.
pub(super) struct Listing(Bytes);

/// A group that a ruler has loaded.
#[derive(Debug, Deserialize)]
pub(super) struct LoadedGroup<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) file: Cow<'a, str>,
    /// Interval in seconds.
    pub(super) interval: Option<f64>,
    pub(super) limit: Option<i64>,
    /// Strategy for partial responses, which only a Thanos Ruler has.
    #[serde(borrow, rename = "partialResponseStrategy")]
    pub(super) strategy: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "lastEvaluation")]
    pub(super) last_evaluation: Option<Cow<'a, str>>,
    /// The rules, which are read one group at a time: together they may be many.
    #[serde(borrow)]
    rules: Option<&'a RawValue>,
}

/// A rule that a ruler has loaded.
#[derive(Debug, Deserialize)]
pub(super) struct LoadedRule {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) query: String,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    /// Time for which the expression must hold before the alert fires, in seconds.
    #[serde(default)]
    pub(super) duration: f64,
    /// Time for which the alert keeps firing, in seconds; older rulers do not tell it.
    #[serde(rename = "keepFiringFor")]
    pub(super) keep_firing_for: Option<f64>,
    #[serde(rename = "lastError")]
    pub(super) last_error: Option<String>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    groups: Vec<LoadedGroup<'a>>,
}

impl Listing {
    #[cfg(test)]
    pub(super) fn of(text: String) -> Self {
        Self(text.into())
    }

    /// The listed groups. Takes time in proportion to the answer, which may be large.
    pub(super) fn groups(&self) -> Result<Vec<LoadedGroup<'_>>, String> {
        let answer: Result<Answer<'_>, _> = serde_json::from_slice(&self.0);
        answer.map(|answer| answer.data.groups).map_err(unlike)
    }
}

impl LoadedGroup<'_> {
    /// Whether it is of a Thanos Ruler.
    pub(super) fn is_of_thanos(&self) -> bool {
        self.strategy.is_some()
    }

    pub(super) fn rules(&self) -> Result<Vec<LoadedRule>, String> {
        let text = self.rules.map_or("[]", RawValue::get);
        serde_json::from_str(text).map_err(unlike)
    }
}

impl LoadedRule {
    pub(super) fn is_alerting(&self) -> bool {
        self.kind == "alerting"
    }
}

fn unlike(error: serde_json::Error) -> String {
    format!("the answer is not that of Prometheus' rules API: {error}")
}

impl RulerClient {
    /// Reloads the ruler's files.
    pub(super) async fn reload(&self) -> Reloaded {
        match self.ask(Method::POST, "/-/reload", None).await {
            Ok((status, _)) if status.is_success() => Reloaded::Done,
            Ok((status, text)) => {
                let reason = format!("the ruler answered {status}: {}", excerpt(&text));
                match is_verdict(status, &text) {
                    true => Reloaded::Refused(reason),
                    false => Reloaded::Failed(reason),
                }
            }
            Err(failed) => Reloaded::Failed(failed.into_reason()),
        }
    }

    /// Lists the groups that the ruler has loaded.
    pub(super) async fn rules(&self) -> Result<Listing, Failed> {
        self.groups(None).await
    }

    /// Lists a tenant's groups that the ruler has loaded.
    pub(super) async fn rules_of(&self, tenant: &str) -> Result<Listing, Failed> {
        self.groups(Some(tenant)).await
    }

    async fn groups(&self, tenant: Option<&str>) -> Result<Listing, Failed> {
        let path = "/api/v1/rules?exclude_alerts=true";
        let (status, text) = self.ask(Method::GET, path, tenant).await?;
        if !status.is_success() {
            let reason = format!("the ruler answered {status}: {}", excerpt(&text));
            return Err(Failed::Answered(reason));
        }
        Ok(Listing(text))
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
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        let answer = self.asker.ask(request, self.max_answer).await;
        let (head, text) = answer.map_err(Failed::Silent)?.into_parts();
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

/// Whether an answer to a reload is about the configuration or the rules. Prometheus and Thanos Rule answer
/// 500 to what they refuse, and say so; a 500 of other origin, such as a proxy, is no verdict.
fn is_verdict(status: StatusCode, text: &[u8]) -> bool {
    /// Beginnings of what they say.
    const SAID: [&str; 2] = ["failed to reload config", "reloading rules failed"];
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => true,
        StatusCode::INTERNAL_SERVER_ERROR => {
            let text = String::from_utf8_lossy(text);
            SAID.iter().any(|said| text.contains(said))
        }
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_ruler_says_of_its_rules_is_a_verdict() {
        let prometheus = "failed to reload config: one or more errors occurred";
        let thanos = "reloading rules failed: strategy abort, update rules: error loading rules";
        for (status, text, verdict) in [
            (500, prometheus, true),
            (500, thanos, true),
            (400, "", true),
            (500, "<html>Internal Server Error</html>", false),
            (502, prometheus, false),
            (503, "", false),
            (401, "", false),
            (403, "Lifecycle API is not enabled.", false),
            (404, "", false),
            (429, "", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(
                is_verdict(status, text.as_bytes()),
                verdict,
                "{status} {text}"
            );
        }
    }
}
