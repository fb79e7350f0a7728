//! One delivery: attempts, what their answers mean, splitting, and giving up.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::component::Form;
use crate::http::Reply;
use crate::protocol::Version;
use crate::protocol::remote_write::{DecodeError, VERSION, Written, content_type, version_value};
use crate::signal::{Batch, Counts, NOT_IN_V1, Outcome};
use crate::topology::{Delivery, Input};

use super::config::{Protocol, RETRY_AFTER_MAX};
use super::sender::Shared;

/// How often a delivery looks whether its sender has given it up.
const ABANDONED_CHECK: Duration = Duration::from_millis(500);

/// What an answer means.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The endpoint has it.
    Done,
    /// The endpoint has what was valid of it: as much as it says, if it says so.
    Partial(String, Option<Written>),
    /// The endpoint does not take this version.
    Fallback,
    /// It is too large.
    TooLarge,
    /// Trying again cannot help.
    Refused(&'static str, String),
    /// Trying again may help.
    Retry(String, Option<Duration>),
}

/// What became of a part of a delivery.
enum Part {
    Delivered,
    Rejected(String),
    Failed(String),
    Split,
    /// It was left to the sink's successor.
    Left,
}

impl Shared {
    /// Sees a delivery to its end, or leaves it to the sink's successor.
    pub(super) async fn deliver(&self, mut delivery: Delivery, input: &Input) {
        loop {
            let outcome = match self.deliver_part(&mut delivery, input).await {
                Part::Delivered => Outcome::Delivered,
                Part::Rejected(reason) => Outcome::Rejected(reason),
                Part::Failed(reason) => Outcome::failed(reason),
                Part::Split => match halves(&mut delivery.batch) {
                    // The first half is sent first.
                    Some((first, second)) => {
                        delivery.split(first, second);
                        continue;
                    }
                    None => {
                        let reason = "endpoint answered 413 to a single series";
                        delivery.count_lost("too_large", delivery.batch.counts());
                        self.warn(reason);
                        Outcome::Rejected(reason.into())
                    }
                },
                // Dropping it gives it back.
                Part::Left => return,
            };
            if !delivery.finish_part(outcome) {
                return delivery.finish(Outcome::Delivered);
            }
        }
    }

    async fn deliver_part(&self, delivery: &mut Delivery, input: &Input) -> Part {
        let retry = self.target.retry;
        let mut backoff = Backoff::new(retry.min_backoff.0, retry.max_backoff.0);
        let mut attempt = 0u32;
        let mut renewed = false;
        loop {
            if input.superseded() {
                return Part::Left;
            }
            if delivery.abandoned() {
                delivery.count_lost("abandoned", delivery.batch.counts());
                return Part::Failed("sender was told to send it again".into());
            }
            if delivery.expired(retry.max_age.0) {
                delivery.count_lost("too_old", delivery.batch.counts());
                self.warn("gave a batch up that had reached retry.max_age");
                return Part::Failed("not delivered within retry.max_age".into());
            }
            let version = self.version(&delivery.batch);
            let body = match self.encode(delivery, version) {
                Ok(body) => body,
                Err(error) => {
                    delivery.count_lost("invalid", delivery.batch.counts());
                    return Part::Rejected(error.to_string());
                }
            };
            let part = &delivery.batch;
            let bytes = body.len();
            let place = self.current.load(Ordering::Relaxed) % self.target.endpoints.len();
            let answer = match self.post(place, version, body, part, attempt).await {
                Ok(reply) => self.judge(version, part, &reply),
                Err(reason) => Answer::Retry(reason, None),
            };
            match answer {
                Answer::Done => {
                    delivery.count_sent(part.counts(), bytes);
                    return Part::Delivered;
                }
                Answer::Partial(reason, written) => {
                    let (stored, lost) = stored(part.counts(), written);
                    delivery.count_sent(stored, bytes);
                    delivery.count_lost_samples("partial", lost);
                    self.target.metrics.error("partial", &reason);
                    self.warn(&reason);
                    return Part::Rejected(reason);
                }
                Answer::Fallback => {
                    self.fell_back.store(true, Ordering::Relaxed);
                    input.prefer(Form::V1);
                    info!(
                        sink = %self.target.id,
                        endpoint = %self.target.endpoints[place],
                        "endpoint does not take remote write 2.0, falling back to 1.0"
                    );
                }
                Answer::TooLarge => return Part::Split,
                Answer::Refused("unauthorized", _) if !renewed => {
                    // A token may have been revoked before its time.
                    self.target.credentials.invalidate();
                    renewed = true;
                }
                Answer::Refused(kind, reason) => {
                    delivery.count_lost(kind, part.counts());
                    self.target.metrics.error(kind, &reason);
                    self.warn(&reason);
                    return Part::Rejected(reason);
                }
                Answer::Retry(reason, after) => {
                    self.target.metrics.error("retry", &reason);
                    self.target.metrics.retried();
                    delivery.failing();
                    self.warn(&reason);
                    self.move_on(place);
                    attempt += 1;
                    let pause = backoff.next_pause();
                    self.pause(after.unwrap_or(pause), delivery, input).await;
                }
            }
        }
    }

    /// The body to send. A batch that came from its queue as 2.0 becomes 1.0 only here when the
    /// endpoint turns out not to take 2.0.
    fn encode(&self, delivery: &mut Delivery, version: Version) -> Result<Bytes, DecodeError> {
        let lost = delivery.batch.settle(version)?;
        delivery.count_lost_samples(NOT_IN_V1, lost);
        delivery.batch.body(version)
    }

    fn version(&self, part: &Batch) -> Version {
        match self.target.protocol {
            Protocol::V1 => Version::V1,
            Protocol::V2 => Version::V2,
            Protocol::Auto if self.fell_back.load(Ordering::Relaxed) => Version::V1,
            Protocol::Auto => part.version(),
        }
    }

    /// Uses the next endpoint from now on, unless somebody else has moved on already.
    fn move_on(&self, place: usize) {
        let next = (place + 1) % self.target.endpoints.len();
        let _ = self
            .current
            .compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn post(
        &self,
        place: usize,
        version: Version,
        body: Bytes,
        part: &Batch,
        attempt: u32,
    ) -> Result<Reply, String> {
        let target = &self.target;
        let uri = &target.endpoints[place];
        let mut headers = target.headers.clone();
        headers.insert(CONTENT_TYPE, content_type(version));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
        headers.insert(VERSION, version_value(version));
        headers.insert(USER_AGENT, AGENT);
        if attempt > 0 {
            headers.insert(RETRY_ATTEMPT, attempt.into());
        }
        if let (Some(name), Some(tenant)) = (&target.tenant_header, part.tenant()) {
            let value = HeaderValue::from_str(tenant).map_err(|e| e.to_string())?;
            headers.insert(name.clone(), value);
        }
        let credentials = target.credentials.header().await;
        if let Some(value) = credentials.map_err(|e| e.to_string())? {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let sent = target.client.post(uri, headers, body, target.timeout).await;
        target
            .metrics
            .requested(sent.as_ref().ok().map(|reply| reply.status));
        sent.map_err(|error| format!("{uri}: {error}"))
    }

    fn judge(&self, version: Version, part: &Batch, reply: &Reply) -> Answer {
        let said = || {
            let excerpt: String = reply.excerpt.trim().chars().take(300).collect();
            format!("endpoint answered {}: {excerpt}", reply.status)
        };
        let written = Written::read(&reply.headers).filter(|_| version == Version::V2);
        match reply.status {
            status if status.is_success() => {
                if version == Version::V1 {
                    return Answer::Done;
                }
                judge_written(self.target.protocol, part, written)
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE
                if version == Version::V2 && self.target.protocol == Protocol::Auto =>
            {
                Answer::Fallback
            }
            StatusCode::PAYLOAD_TOO_LARGE => Answer::TooLarge,
            StatusCode::TOO_MANY_REQUESTS => Answer::Retry(said(), retry_after(&reply.headers)),
            StatusCode::CONFLICT if self.target.flavour.conflict_is_partial => {
                Answer::Partial(said(), None)
            }
            StatusCode::BAD_REQUEST
                if written.is_some_and(|w| w.samples + w.histograms + w.exemplars > 0) =>
            {
                Answer::Partial(said(), written)
            }
            StatusCode::UNAUTHORIZED => Answer::Refused("unauthorized", said()),
            status if status.is_server_error() => {
                Answer::Retry(said(), retry_after(&reply.headers))
            }
            _ => Answer::Refused("refused", said()),
        }
    }

    /// Sleeps, and wakes up early if the sender gives the delivery up or a successor takes over.
    async fn pause(&self, pause: Duration, delivery: &Delivery, input: &Input) {
        let until = Instant::now() + pause;
        while !delivery.abandoned() {
            let left = until - Instant::now();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(ABANDONED_CHECK)) => {}
                () = input.wait_superseded() => return,
            }
        }
    }

    fn warn(&self, reason: &str) {
        if let Some(silent) = self.log.pass() {
            warn!(sink = %self.target.id, reason, silent, "delivery failed");
        }
    }
}

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("metrifold/", env!("CARGO_PKG_VERSION")));
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

/// A 2xx to 2.0 is believed only as far as it says what was written.
fn judge_written(protocol: Protocol, part: &Batch, written: Option<Written>) -> Answer {
    let Some(written) = written else {
        return if protocol == Protocol::Auto {
            Answer::Fallback
        } else {
            let reason = "endpoint answered 2xx without saying what it wrote: it does not take remote write 2.0";
            Answer::Refused("not_written", reason.into())
        };
    };
    let Some(counts) = part.counts() else {
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

/// What an endpoint stored of a batch, by its own account, and how many samples it did not.
fn stored(counts: Option<Counts>, written: Option<Written>) -> (Option<Counts>, u64) {
    let (Some(counts), Some(written)) = (counts, written) else {
        return (counts, 0);
    };
    let stored = Counts {
        samples: written.samples.min(counts.samples),
        histograms: written.histograms.min(counts.histograms),
        exemplars: written.exemplars.min(counts.exemplars),
        ..counts
    };
    (Some(stored), counts.all_samples() - stored.all_samples())
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

/// Splits a batch in two by its series; none if there is at most one.
fn halves(part: &mut Batch) -> Option<(Batch, Batch)> {
    let arena = part.arena().ok()?.clone();
    let alive: Vec<usize> = arena.iter().map(|series| series.index()).collect();
    if alive.len() < 2 {
        return None;
    }
    let middle = alive[alive.len() / 2];
    let first = part.with_arena(arena.subset(true, |index| index < middle));
    let second = part.with_arena(arena.subset(false, |index| index >= middle));
    Some((first, second))
}

/// Lets one message pass in ten seconds and counts those that it held back.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<(Option<Instant>, u64)>);

const LOG_EVERY: Duration = Duration::from_secs(10);

impl LogLimit {
    fn pass(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, silent) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            *silent += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(silent))
    }
}
