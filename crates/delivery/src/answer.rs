//! What an endpoint's answer means.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use metrifold_codec::remote_write::Written;
use metrifold_http::Reply;
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Version};

use super::config::{Protocol, RETRY_AFTER_MAX};
use super::pace::Failure;
use super::sender::Target;

/// What an answer means.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The endpoint has it.
    Done,
    /// The endpoint has what was valid of it: as much as it says, if it says so.
    Partial(String, Option<Written>),
    /// The endpoint does not take this version.
    Fallback,
    /// Something in it is refused, for good.
    Poisoned(Refusal),
    /// It is refused for a reason that concerns all data alike: the kind, and the text.
    Refused(Reason, String),
    /// Trying again may help: why it failed, and when the endpoint wants it again.
    Retry(Failure, String, Option<Duration>),
}

/// What an endpoint said to a batch of which it does not want everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: String,
}

impl Refusal {
    /// Whether the size is all that is wrong with it.
    pub(super) fn is_of_size(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// Under which reason its samples count as lost.
    pub(super) fn kind(&self) -> Reason {
        if self.is_of_size() {
            Reason::TooLarge
        } else {
            Reason::Refused
        }
    }
}

impl Target {
    /// What an answer to a batch of this version and with these counts means.
    pub(super) fn judge(&self, version: Version, counts: Option<Counts>, reply: &Reply) -> Answer {
        let said = || {
            let excerpt: String = reply.excerpt.trim().chars().take(300).collect();
            format!("endpoint answered {}: {excerpt}", reply.status)
        };
        let poisoned = || {
            Answer::Poisoned(Refusal {
                status: reply.status,
                reason: said(),
            })
        };
        let written = Written::read(&reply.headers).filter(|_| version == Version::V2);
        match reply.status {
            status if status.is_success() => {
                if version == Version::V1 {
                    return Answer::Done;
                }
                judge_written(self.protocol, counts, written)
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE
                if version == Version::V2 && self.protocol == Protocol::Auto =>
            {
                Answer::Fallback
            }
            StatusCode::TOO_MANY_REQUESTS => {
                Answer::Retry(Failure::TooMuch, said(), retry_after(&reply.headers))
            }
            StatusCode::CONFLICT if self.flavour.conflict_is_partial => {
                Answer::Partial(said(), None)
            }
            StatusCode::BAD_REQUEST
                if written.is_some_and(|w| w.samples + w.histograms + w.exemplars > 0) =>
            {
                Answer::Partial(said(), written)
            }
            // These speak of what is in the batch. What others say, such as 404, holds for
            // whatever is sent, so looking for who is to blame would be in vain.
            StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => poisoned(),
            StatusCode::UNAUTHORIZED => Answer::Refused(Reason::Unauthorized, said()),
            status if status.is_server_error() => {
                Answer::Retry(Failure::Broken, said(), retry_after(&reply.headers))
            }
            _ => Answer::Refused(Reason::Refused, said()),
        }
    }
}

/// A 2xx to 2.0 is believed only as far as it says what was written.
fn judge_written(protocol: Protocol, counts: Option<Counts>, written: Option<Written>) -> Answer {
    let Some(written) = written else {
        return if protocol == Protocol::Auto {
            Answer::Fallback
        } else {
            let reason = "endpoint answered 2xx without saying what it wrote: it does not take remote write 2.0";
            Answer::Refused(Reason::NotWritten, reason.into())
        };
    };
    let Some(counts) = counts else {
        return Answer::Done;
    };
    if written.samples + written.histograms < counts.all_samples() {
        let reason = format!(
            "endpoint wrote {} samples and {} histograms of {} and {}",
            written.samples, written.histograms, counts.samples, counts.histograms
        );
        return Answer::Partial(reason, Some(written));
    }
    Answer::Done
}

/// What an endpoint stored of a batch, by its own account, and what it did not, if it says so.
pub(super) fn stored(
    counts: Option<Counts>,
    written: Option<Written>,
) -> (Option<Counts>, Option<Counts>) {
    let (Some(counts), Some(written)) = (counts, written) else {
        return (counts, None);
    };
    let stored = Counts {
        samples: written.samples.min(counts.samples),
        histograms: written.histograms.min(counts.histograms),
        exemplars: written.exemplars.min(counts.exemplars),
        ..counts
    };
    (Some(stored), Some(counts.saturating_sub(stored)))
}

/// Retry-After in either of its forms, bounded.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => httpdate::parse_http_date(text)
            .ok()?
            .duration_since(SystemTime::now())
            .unwrap_or_default(),
    };
    Some(pause.min(RETRY_AFTER_MAX))
}
