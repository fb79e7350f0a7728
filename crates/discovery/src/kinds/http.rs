//! `http`: targets that an HTTP server lists, as Prometheus' `http_sd_configs`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use metrifold_base::keys::Keys;
use metrifold_base::{BoxFuture, BuildError, Endpoint, Period, Problems, RunError, keys};
use metrifold_http::redirect::{MAX_REDIRECTS, redirected, same_server};
use metrifold_http::{Body, BodyError, Client, ClientKeys, Credentials, body};

use crate::answer::{Failure, Reason};
use crate::file_sd::{from_json, targets};
use crate::limits::{LimitKeys, Limits, OnEmpty};
use crate::poll::{Polled, aside, poll};
use crate::provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo};
use crate::slot::Feed;

/// Label with the URL of the target's list.
const URL: &str = "__meta_url";
/// Header that tells the server the interval of the requests.
const INTERVAL: HeaderName = HeaderName::from_static("x-prometheus-refresh-interval-seconds");

keys! {
    /// `[discovery.NAME] type = "http"`.
    #[derive(Clone, Debug)]
    pub struct HttpConfig {
        /// URL of the target list. It becomes a label of each target, so it must not contain a secret.
        url: Endpoint = required("https://targets.example/list"),
        /// How often the target list is requested.
        refresh_interval: Period = default("1m"),
        /// Maximum time for an answer, redirects included; by default, `refresh_interval`.
        timeout: Option<Period> = unset("10s"),
        client: ClientKeys = include,
        limits: LimitKeys = include,
    }
}

inventory::submit! {
    ProviderInfo {
        name: "http",
        summary: "targets from an HTTP endpoint, as with Prometheus' http_sd_configs",
        keys: HttpConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "http")]
impl ProviderConfig for HttpConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        self.limits.on_empty
    }

    fn question(&self) -> String {
        // With the query, which selects another list.
        self.url.uri().to_string()
    }

    fn files(&self) -> Vec<&Path> {
        self.client.files()
    }

    fn validate(&self, problems: &mut Problems) {
        if self.refresh_interval < Period::millis(100) {
            problems.at("refresh_interval", "must be at least 100ms");
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            problems.at("timeout", "must be longer than 0s");
        }
        self.client.validate(problems);
        self.limits.validate(problems);
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        Ok(Box::new(Http {
            client: self.client.client(1)?,
            credentials: self.client.credentials()?,
            url: self.url.clone(),
            interval: self.refresh_interval.0,
            timeout: self.timeout.unwrap_or(self.refresh_interval).0,
            validators: HeaderMap::new(),
        }))
    }
}

struct Http {
    client: Client,
    credentials: Credentials,
    url: Endpoint,
    interval: Duration,
    timeout: Duration,
    /// Request headers that identify the list that was last accepted.
    validators: HeaderMap,
}

/// Answer of the server.
enum Listed {
    Same,
    New(Bytes, HeaderMap),
}

impl Provider for Http {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        let interval = self.interval;
        poll(*self, interval, feed)
    }
}

impl Polled for Http {
    fn ask<'a>(
        &'a mut self,
        feed: &'a Feed,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), RunError>> + Send + 'a>> {
        Box::pin(async move {
            let source: Arc<str> = self.url.to_string().into();
            let (body, validators) = match self.list(&feed.limits()).await {
                Ok(Listed::New(body, validators)) => (body, validators),
                Ok(Listed::Same) => {
                    feed.same();
                    return Ok(());
                }
                Err(failure) => {
                    feed.all(vec![(source, Err(failure))]);
                    return Ok(());
                }
            };
            let feed = feed.clone();
            let url = self.url.uri().to_string();
            let taken = aside(move || {
                let limits = feed.limits();
                let found = from_json(&body);
                let found = found.and_then(|groups| targets(groups, &[(URL, &url)], &limits));
                feed.all(vec![(source, found)]);
                feed.is_content()
            })
            .await?;
            // A list that was refused is requested in full again.
            self.validators = match taken {
                true => validators,
                false => HeaderMap::new(),
            };
            Ok(())
        })
    }
}

impl Http {
    /// Requests the list, following redirects.
    async fn list(&self, limits: &Limits) -> Result<Listed, Failure> {
        let deadline = Instant::now() + self.timeout;
        let authorization = self.credentials.header().await;
        let authorization =
            authorization.map_err(|error| Failure::new(Reason::Credentials, error))?;
        let mut uri = self.url.uri().clone();
        // Credentials are sent only to the configured server, and to nothing that another server has
        // redirected to.
        let mut own_server = true;
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = self.headers();
            own_server &= same_server(&uri, self.url.uri());
            if let Some(value) = authorization.clone().filter(|_| own_server) {
                headers.insert(AUTHORIZATION, value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .client
                .request(Method::GET, &uri, headers, Bytes::new(), left)
                .await
                .map_err(|error| Failure::new(Reason::Unreachable, error))?;
            let next = redirected(&uri, answer.status(), answer.headers());
            match next.map_err(|error| Failure::new(Reason::Refused, error))? {
                Some(next) => uri = next,
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                    if let Some(value) = &authorization
                        // Another server was not sent them, and says nothing about them.
                        && own_server
                        && refused.contains(&answer.status())
                    {
                        self.credentials.refused(value);
                    }
                    return self.take(answer, left, limits).await;
                }
            }
        }
        let text = format!("there are more than {MAX_REDIRECTS} redirects in a row");
        Err(Failure::new(Reason::Refused, text))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = self.validators.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let agent = concat!("metrifold/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let seconds = self.interval.as_secs_f64().to_string();
        if let Ok(seconds) = HeaderValue::try_from(seconds) {
            headers.insert(INTERVAL, seconds);
        }
        headers.remove(HOST);
        headers
    }

    /// Reads the answer to a request, which is not a redirect.
    async fn take(
        &self,
        answer: http::Response<Body>,
        timeout: Duration,
        limits: &Limits,
    ) -> Result<Listed, Failure> {
        let (head, body) = answer.into_parts();
        let status = head.status;
        if status == StatusCode::NOT_MODIFIED && !self.validators.is_empty() {
            return Ok(Listed::Same);
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let text = format!("server answered {status}");
            return Err(Failure::new(Reason::Credentials, text));
        }
        if status != StatusCode::OK {
            let text = format!("server answered {status}");
            return Err(Failure::new(Reason::Refused, text));
        }
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type.map_or(b"".as_slice(), HeaderValue::as_bytes);
        let content_type = String::from_utf8_lossy(content_type);
        if !is_json(&content_type) {
            let text = format!("server answered {content_type:?} instead of application/json");
            return Err(Failure::new(Reason::Invalid, text));
        }
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let body = body::read(body, length, limits.answer_bytes, timeout).await;
        let body = body.map_err(|error| match error {
            BodyError::TooLarge { .. } => {
                let text = format!("the answer is larger than {} bytes", limits.answer_bytes);
                Failure::new(Reason::TooLarge, format!("{text}: see max_answer_bytes"))
            }
            error => Failure::new(Reason::Unreachable, error),
        })?;
        let mut validators = HeaderMap::new();
        for (has, asks) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
            if let Some(value) = head.headers.get(has) {
                validators.insert(asks, value.clone());
            }
        }
        Ok(Listed::New(body, validators))
    }
}

/// Whether Prometheus accepts the content type as JSON.
fn is_json(content_type: &str) -> bool {
    let content_type = content_type.trim().to_ascii_lowercase();
    let Some(rest) = content_type.strip_prefix("application/json") else {
        return false;
    };
    let charset = rest.strip_prefix(';').map(str::trim_start);
    rest.is_empty() || matches!(charset, Some("charset=utf-8" | "charset=\"utf-8\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_taken_as_prometheus_takes_them() {
        for good in [
            "application/json",
            " Application/JSON ",
            "application/json;charset=utf-8",
            "application/json; charset=\"UTF-8\"",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/json; charset=latin1",
            "application/json;",
            "application/json ; charset=utf-8",
            "application/jsonx",
            "application/problem+json",
        ] {
            assert!(!is_json(bad), "{bad}");
        }
    }
}
