//! Getting a target's page: the request, redirects, and reading what comes.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use metrifold_exposition::Format;
use metrifold_http::redirect::{MAX_REDIRECTS, redirected, same_server};
use metrifold_http::{Body, BodyError, Client, Credentials, TransportKind, body};

use crate::encoding;
use crate::error::{Cause, ScrapeError};
use crate::in_flight::Share;
use crate::settings::Settings;
use crate::target::ScrapeTarget;

const TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// What gets pages.
pub(crate) struct Fetcher {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
}

/// How a page is asked for.
pub(crate) struct Ask {
    /// Longest time for all of it.
    pub(crate) timeout: Duration,
    /// Headers besides those of every scrape, or in the place of one.
    pub(crate) headers: HeaderMap,
}

/// A page, uncompressed.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) text: Bytes,
    pub(crate) format: Format,
    pub(crate) content_type: Option<HeaderValue>,
}

impl Fetcher {
    /// Gets a target's page within its timeout.
    pub(crate) async fn fetch(
        &self,
        settings: &Settings,
        target: &ScrapeTarget,
        ask: &Ask,
    ) -> Result<Page, ScrapeError> {
        let deadline = Instant::now() + ask.timeout;
        let credentials = target.own.credentials.as_ref().unwrap_or(&self.credentials);
        let authorization = tokio::time::timeout_at(deadline, credentials.header()).await;
        let authorization = authorization.map_err(|_| late(ask.timeout))?;
        let authorization =
            authorization.map_err(|error| ScrapeError::new(Cause::Credentials, error))?;
        let client = target.own.client.as_ref().unwrap_or(&self.client);
        let mut uri = target.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = headers(settings, ask.timeout);
            for (name, value) in &ask.headers {
                headers.insert(name, value.clone());
            }
            // What is the target's own is for its server alone.
            if same_server(&uri, &target.uri) {
                headers.extend(target.own.headers.clone());
                if let Some(value) = &authorization {
                    headers.insert(AUTHORIZATION, value.clone());
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = client
                .request(Method::GET, &uri, headers, Bytes::new(), left)
                .await;
            let answer = answer.map_err(|error| match error.kind {
                TransportKind::Timeout => late(ask.timeout),
                _ => ScrapeError::new(Cause::Unreachable, error),
            })?;
            if settings.keys.follow_redirects {
                let next = redirected(&uri, answer.status(), answer.headers());
                let next = next.map_err(|error| ScrapeError::new(Cause::Status, error))?;
                if let Some(next) = next {
                    uri = next;
                    continue;
                }
            }
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            if let Some(value) = &authorization
                && refused.contains(&answer.status())
            {
                credentials.refused(value);
            }
            return take(settings, answer, deadline, ask.timeout).await;
        }
        let text = format!("there are more than {MAX_REDIRECTS} redirects in a row");
        Err(ScrapeError::new(Cause::Status, text))
    }
}

/// Reads an answer that is no redirect.
async fn take(
    settings: &Settings,
    answer: http::Response<Body>,
    deadline: Instant,
    timeout: Duration,
) -> Result<Page, ScrapeError> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        let text = format!("server answered {}", head.status);
        return Err(ScrapeError::new(Cause::Status, text));
    }
    let header = |name| head.headers.get(name).map(HeaderValue::as_bytes);
    let length = header(CONTENT_LENGTH);
    let length = length.and_then(|length| str::from_utf8(length).ok()?.parse().ok());
    let limit = settings.keys.body_size_limit.bytes();
    let mut share = Share::of(&settings.in_flight);
    let left = deadline.saturating_duration_since(Instant::now());
    let read = body::read_within(body, length, limit, left, |bytes| share.take(bytes));
    let body = read.await.map_err(|error| match error {
        BodyError::TooLarge { .. } => encoding::too_large(limit),
        BodyError::Timeout => late(timeout),
        BodyError::NoRoom => {
            let text = "there is no room for the page: see max_in_flight_bytes";
            ScrapeError::new(Cause::Room, text)
        }
        BodyError::Broken(_) => ScrapeError::new(Cause::Unreachable, error),
    })?;
    let text = encoding::decode(body, header(CONTENT_ENCODING), limit)?;
    let content_type = header(CONTENT_TYPE).map(String::from_utf8_lossy);
    let format = match (Format::of(content_type.as_deref()), settings.fallback) {
        (Ok(format), _) | (Err(_), Some(format)) => format,
        // Nothing is in every format.
        (Err(_), None) if text.is_empty() => Format::Text,
        (Err(error), None) => {
            let text = format!("{error}: see fallback_scrape_protocol");
            return Err(ScrapeError::new(Cause::Format, text));
        }
    };
    Ok(Page {
        text,
        format,
        content_type: head.headers.get(CONTENT_TYPE).cloned(),
    })
}

fn late(timeout: Duration) -> ScrapeError {
    let text = format!("the page did not come within {timeout:?}");
    ScrapeError::new(Cause::Timeout, text)
}

fn headers(settings: &Settings, timeout: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, settings.accept.clone());
    let encoding = match settings.keys.enable_compression {
        true => encoding::COMPRESSED,
        false => encoding::PLAIN,
    };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    let agent = concat!("metrifold/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Ok(seconds) = HeaderValue::try_from(timeout.as_secs_f64().to_string()) {
        headers.insert(TIMEOUT, seconds);
    }
    headers
}
