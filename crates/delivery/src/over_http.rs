//! Remote write over HTTP: sends requests and interprets the answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use metrifold_codec::remote_write::{VERSION, Written, content_type, version_value};
use metrifold_http::{Client, Credentials, Reply, TransportKind, retry_after};
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Version};
use metrifold_telemetry::ComponentMetrics;

use super::protocol::Protocol;
use super::statuses::{Statuses, Verdict, is_content};
use super::transport::{Answer, Attempt, Failure, Refusal, RefusalClass, Transport};

/// The longest pause that a Retry-After header can impose.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("metrifold/", env!("CARGO_PKG_VERSION")));
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

const UNWRITTEN: &str = "endpoint answered 2xx without saying what it wrote, so it does not take \
    remote write 2.0 (set protocol to \"auto\" or \"1.0\")";

/// The endpoints of a sink, with the client and its settings.
#[derive(Debug)]
pub(super) struct OverHttp {
    /// Endpoints, of which one is used until it fails.
    pub(super) endpoints: Vec<Uri>,
    /// Index of the endpoint in use.
    pub(super) current: AtomicUsize,
    pub(super) client: Client,
    pub(super) credentials: Credentials,
    pub(super) headers: HeaderMap,
    pub(super) tenant_header: Option<HeaderName>,
    pub(super) protocol: Protocol,
    /// Whether 409 means that the valid part of the batch was stored.
    pub(super) conflict_is_partial: bool,
    pub(super) statuses: Statuses,
    pub(super) timeout: Duration,
    pub(super) metrics: ComponentMetrics,
}

impl Transport for OverHttp {
    async fn attempt(&self, attempt: Attempt<'_>) -> Answer {
        let place = self.current.load(Ordering::Relaxed) % self.endpoints.len();
        let (version, counts) = (attempt.version, attempt.counts);
        let answer = match self.post(place, attempt).await {
            Ok(reply) => self.judge(version, counts, &reply),
            Err(failed) => failed,
        };
        if let Answer::Failed { failure, .. } = answer
            && failure != Failure::TooMuch
        {
            self.move_on(place);
        }
        answer
    }
}

impl OverHttp {
    /// Switches to the next endpoint, unless another request has switched already.
    fn move_on(&self, place: usize) {
        let next = (place + 1) % self.endpoints.len();
        let _ = self
            .current
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sends a request. If it is answered with 401 and the credentials have changed since, as after
    /// a token was revoked early, sends it once more.
    async fn post(&self, place: usize, attempt: Attempt<'_>) -> Result<Reply, Answer> {
        let mut headers = self.head(&attempt)?;
        let Some(shown) = self.credentials().await? else {
            return self.send(place, headers, attempt.body).await;
        };
        headers.insert(AUTHORIZATION, shown.clone());
        let reply = self
            .send(place, headers.clone(), attempt.body.clone())
            .await?;
        if reply.status != StatusCode::UNAUTHORIZED {
            return Ok(reply);
        }
        self.credentials.refused(&shown);
        match self.credentials().await? {
            Some(renewed) if renewed != shown => {
                headers.insert(AUTHORIZATION, renewed);
                self.send(place, headers, attempt.body).await
            }
            _ => Ok(reply),
        }
    }

    async fn credentials(&self) -> Result<Option<HeaderValue>, Answer> {
        let shown = self.credentials.header().await;
        shown.map_err(|error| failed(Failure::Unreachable, error.to_string()))
    }

    async fn send(
        &self,
        place: usize,
        headers: HeaderMap,
        body: Vec<Bytes>,
    ) -> Result<Reply, Answer> {
        let uri = &self.endpoints[place];
        let sent = self.client.post(uri, headers, body, self.timeout).await;
        let status = sent.as_ref().map(|reply| reply.status);
        let code = status.as_ref().map_or("<error>", StatusCode::as_str);
        self.metrics.requested(code);
        sent.map_err(|error| {
            let failure = match error.kind {
                // The endpoint received the request, so the request itself may be the cause.
                TransportKind::Timeout | TransportKind::Reset => Failure::Broken,
                _ => Failure::Unreachable,
            };
            failed(failure, error.to_string())
        })
    }

    fn head(&self, attempt: &Attempt<'_>) -> Result<HeaderMap, Answer> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, content_type(attempt.version));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(VERSION, version_value(attempt.version));
        headers.entry(USER_AGENT).or_insert(AGENT);
        if attempt.failures > 0 {
            headers.insert(RETRY_ATTEMPT, attempt.failures.into());
        }
        if let (Some(name), Some(tenant)) = (&self.tenant_header, attempt.tenant) {
            let value = HeaderValue::from_str(tenant);
            let value = value.map_err(|error| failed(Failure::Broken, error.to_string()))?;
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }

    /// Interprets an answer to a batch of this version with these counts.
    fn judge(&self, version: Version, counts: Option<Counts>, reply: &Reply) -> Answer {
        let status = reply.status;
        let is_auto_v2 = version == Version::V2 && self.protocol == Protocol::Auto;
        let written = Written::read(&reply.headers).filter(|_| version == Version::V2);
        if status.is_success() {
            return match version {
                Version::V1 => Answer::Stored,
                Version::V2 => self.judge_written(counts, written),
            };
        }
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE && is_auto_v2 {
            return Answer::OtherVersion;
        }
        let said = match reply.excerpt.as_str() {
            "" => format!("endpoint answered {status}"),
            excerpt => format!("endpoint answered {status}: {excerpt}"),
        };
        if self.statuses.verdict(status) == Verdict::Retry {
            let reason = match hint(status) {
                Some(hint) => format!("{said} ({hint})"),
                None => said,
            };
            return Answer::Failed {
                failure: match status {
                    StatusCode::TOO_MANY_REQUESTS => Failure::TooMuch,
                    _ if status.is_server_error() => Failure::ServerError,
                    _ => Failure::Broken,
                },
                reason,
                after: retry_after(&reply.headers).map(|pause| pause.min(RETRY_AFTER_MAX)),
            };
        }
        match status {
            StatusCode::CONFLICT if self.conflict_is_partial => Answer::Partly(said, None),
            StatusCode::BAD_REQUEST
                if written.is_some_and(|written| says_the_rest(written, counts)) =>
            {
                Answer::Partly(said, written)
            }
            StatusCode::UNAUTHORIZED => Answer::Unwanted(Reason::Unauthorized, said),
            status if !is_content(status) => Answer::Unwanted(Reason::Refused, said),
            status => Answer::Refused(Refusal {
                code: status.as_str().to_owned(),
                class: match status {
                    _ if self.statuses == Statuses::Specification => RefusalClass::Whole,
                    StatusCode::PAYLOAD_TOO_LARGE => RefusalClass::Size,
                    // An endpoint of 2.0 states the written counts, even if they are zero.
                    StatusCode::BAD_REQUEST if is_auto_v2 && written.is_none() => {
                        RefusalClass::ContentOrVersion
                    }
                    _ => RefusalClass::Content,
                },
                reason: said,
            }),
        }
    }

    /// Interprets a 2xx answer to 2.0, which counts only for the samples that it states as written.
    fn judge_written(&self, counts: Option<Counts>, written: Option<Written>) -> Answer {
        let Some(written) = written else {
            return match self.protocol {
                Protocol::Auto => Answer::Unwritten,
                _ => failed(Failure::Broken, UNWRITTEN.into()),
            };
        };
        let Some(counts) = counts else {
            return Answer::Stored;
        };
        if written.samples.saturating_add(written.histograms) < counts.all_samples() {
            let reason = format!(
                "endpoint wrote {} samples and {} histograms of {} and {}",
                written.samples, written.histograms, counts.samples, counts.histograms
            );
            return Answer::Partly(reason, Some(written));
        }
        if written.exemplars < counts.exemplars {
            return Answer::LacksExemplars(written);
        }
        Answer::Stored
    }
}

/// Whether 400 with these counts means that the valid part was stored. Also true if nothing was
/// written but the batch had no samples: the refused part is then exemplars, and isolation would
/// have to ask about every one.
fn says_the_rest(written: Written, counts: Option<Counts>) -> bool {
    let any = written.samples > 0 || written.histograms > 0 || written.exemplars > 0;
    any || counts.is_some_and(|counts| counts.all_samples() == 0)
}

fn failed(failure: Failure, reason: String) -> Answer {
    Answer::Failed {
        failure,
        reason,
        after: None,
    }
}

/// Advice for statuses that usually persist until an operator acts.
fn hint(status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        300..=399 => "redirects are not followed: name the new URL in endpoint",
        401 | 403 => "check the sink's credentials, and what its tenants may do",
        404 | 405 | 410 => "check the path in endpoint",
        407 => "the proxy asks for credentials: check proxy_url and proxy_basic_auth",
        415 => "the endpoint does not accept this version of remote write: check protocol",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
