//! One delivery: its attempts, the parts that it is split into, and giving up.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue};
use tracing::{info, warn};

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{DecodeError, VERSION, content_type, version_value};
use metrifold_engine::dead_letters::Letter;
use metrifold_engine::planes::metrics::{Delivery, Form, Input, Trouble};
use metrifold_http::{Parts, Reply, TransportKind};
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Version};

use super::answer::{Answer, Refusal, stored};
use super::config::Protocol;
use super::isolation::{Isolation, OFFENDERS_MAX, Step};
use super::pace::{Failure, Permit};
use super::sender::Shared;

/// What became of a part of a delivery.
enum Part {
    /// There is nothing more to do about it.
    Over(Outcome),
    /// Something in it is refused.
    Refused(Refusal),
    /// It is to be tried again.
    Later(Trouble),
    /// It was left to the sink's successor.
    Left,
}

impl Shared {
    /// Sees a delivery to its end. If it is to be tried again, it is returned with the reason, and
    /// without one if it is left to the sink's successor.
    pub(super) async fn deliver(
        &self,
        mut delivery: Delivery,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Option<(Delivery, Option<Trouble>)> {
        let mut isolation = Isolation::default();
        loop {
            let outcome = match self.deliver_part(&mut delivery, permit, input).await {
                Part::Over(outcome) => outcome,
                Part::Refused(refusal) => match isolation.step(&mut delivery.batch, &refusal) {
                    Step::Mended { lost, outcome } => {
                        for (reason, samples) in lost {
                            delivery.count_invalid(reason, samples);
                        }
                        delivery.note(outcome);
                        if delivery.batch.counts().is_none_or(|c| !c.is_empty()) {
                            continue;
                        }
                        Outcome::Delivered
                    }
                    Step::Halves(first, second) => {
                        delivery.split(first, second);
                        continue;
                    }
                    Step::Alone => self.give_up(&mut delivery, refusal.kind(), refusal),
                    Step::Together(series) => {
                        let reason = format!(
                            "{}; {series} series given up together, after {OFFENDERS_MAX} of the batch",
                            refusal.reason
                        );
                        self.give_up(
                            &mut delivery,
                            Reason::RefusedTogether,
                            Refusal { reason, ..refusal },
                        )
                    }
                },
                Part::Later(trouble) => return Some((delivery, Some(trouble))),
                Part::Left => return Some((delivery, None)),
            };
            if !delivery.finish_part(outcome) {
                delivery.finish(Outcome::Delivered);
                return None;
            }
        }
    }

    /// Gives up a part that the endpoint refuses.
    fn give_up(&self, delivery: &mut Delivery, kind: Reason, refusal: Refusal) -> Outcome {
        self.keep(&mut delivery.batch, &refusal);
        let counts = delivery.batch.counts();
        let reason = refusal.reason;
        delivery.count_lost(kind, counts);
        self.target.metrics.error(kind.as_str(), &reason);
        self.warn(&reason);
        Outcome::Rejected {
            reason,
            lost: counts,
        }
    }

    /// Makes a dead letter of it.
    fn keep(&self, part: &mut Batch, refusal: &Refusal) {
        let Some((store, _)) = &self.target.letters else {
            return;
        };
        let version = self.version(part);
        // As it was sent, so it has been encoded before.
        let Ok(body) = part.body(version) else {
            return;
        };
        let letter = Letter {
            tenant: part.tenant().map(|tenant| tenant.to_string()),
            status: refusal.status.as_u16(),
            reason: refusal.reason.clone(),
            version,
            body,
        };
        store.keep(part, letter);
    }

    async fn deliver_part(
        &self,
        delivery: &mut Delivery,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Part {
        let max_age = self.target.retry.max_age.0;
        let mut renewed = false;
        loop {
            if input.superseded() {
                return Part::Left;
            }
            if delivery.abandoned() {
                delivery.count_lost(Reason::Abandoned, delivery.batch.counts());
                return Part::Over(Outcome::failed("sender was told to send it again"));
            }
            if delivery.expired(max_age) {
                delivery.count_lost(Reason::TooOld, delivery.batch.counts());
                self.warn("gave a batch up that had reached retry.max_age");
                return Part::Over(Outcome::failed("not delivered within retry.max_age"));
            }
            let version = self.version(&delivery.batch);
            let body = match self.encode(delivery, version) {
                Ok(body) => body,
                Err(error) => {
                    delivery.count_lost(Reason::Invalid, delivery.batch.counts());
                    return Part::Over(Outcome::rejected(error.to_string()));
                }
            };
            let part = &delivery.batch;
            let bytes = body.len();
            let sent = self.send(part, version, body, delivery.attempts(), permit);
            let answer = match sent.await {
                Ok(answer) => answer,
                Err(trouble) => return Part::Later(trouble),
            };
            match answer {
                Answer::Done => {
                    delivery.count_sent(part.counts(), bytes);
                    return Part::Over(Outcome::Delivered);
                }
                Answer::Partial(reason, written) => {
                    let (stored, lost) = stored(part.counts(), written);
                    delivery.count_sent(stored, bytes);
                    let samples = lost.map_or(0, |lost| lost.all_samples());
                    delivery.count_lost_samples(Reason::Partial, samples);
                    self.target.metrics.error("partial", &reason);
                    self.warn(&reason);
                    return Part::Over(Outcome::Rejected { reason, lost });
                }
                Answer::Fallback => {
                    self.fell_back.store(true, Ordering::Relaxed);
                    input.prefer(Form::V1);
                    info!(
                        sink = %self.target.id,
                        "endpoint does not take remote write 2.0, falling back to 1.0"
                    );
                }
                Answer::Poisoned(refusal) => return Part::Refused(refusal),
                Answer::Refused(Reason::Unauthorized, _) if !renewed => {
                    // A token may have been revoked before its time.
                    self.target.credentials.invalidate();
                    renewed = true;
                }
                Answer::Refused(kind, reason) => {
                    let lost = part.counts();
                    delivery.count_lost(kind, lost);
                    self.target.metrics.error(kind.as_str(), &reason);
                    self.warn(&reason);
                    return Part::Over(Outcome::Rejected { reason, lost });
                }
                // That is told as trouble.
                Answer::Retry(..) => {}
            }
        }
    }

    /// Sends a request and says what the answer means, or whom it concerns that it has failed.
    pub(super) async fn send(
        &self,
        part: &Batch,
        version: Version,
        body: impl Into<Parts>,
        attempts: u32,
        permit: &Permit<'_>,
    ) -> Result<Answer, Trouble> {
        let place = self.current.load(Ordering::Relaxed) % self.target.endpoints.len();
        let mut sending = permit.sending();
        let reply = self.post(place, version, body, part, attempts);
        let answer = match sending.wait_for(reply).await {
            Ok(reply) => self.target.judge(version, part.counts(), &reply),
            Err((failure, reason)) => Answer::Retry(failure, reason, None),
        };
        let Answer::Retry(failure, reason, after) = answer else {
            self.pace.succeeded(part.tenant());
            return Ok(answer);
        };
        drop(sending);
        self.target.metrics.error("retry", &reason);
        self.target.metrics.retried();
        self.warn(&reason);
        if failure != Failure::TooMuch {
            self.move_on(place);
        }
        Err(self.pace.failed(part.tenant(), failure, after))
    }

    /// The body to send. A batch that came from its queue as 2.0 becomes 1.0 only here when the
    /// endpoint turns out not to take 2.0.
    fn encode(&self, delivery: &mut Delivery, version: Version) -> Result<Bytes, DecodeError> {
        delivery.settle(version)?;
        delivery.batch.body(version)
    }

    pub(super) fn version(&self, part: &Batch) -> Version {
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
        body: impl Into<Parts>,
        part: &Batch,
        attempt: u32,
    ) -> Result<Reply, (Failure, String)> {
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
            let value = HeaderValue::from_str(tenant);
            let value = value.map_err(|error| (Failure::Broken, error.to_string()))?;
            headers.insert(name.clone(), value);
        }
        let credentials = target.credentials.header().await;
        let credentials = credentials.map_err(|error| (Failure::Unreachable, error.to_string()))?;
        if let Some(value) = credentials {
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let sent = target.client.post(uri, headers, body, target.timeout).await;
        target
            .metrics
            .requested(sent.as_ref().ok().map(|reply| reply.status));
        sent.map_err(|error| {
            let failure = match error.kind {
                // It has got the request: what is the matter may be the request.
                TransportKind::Timeout | TransportKind::Reset => Failure::Broken,
                _ => Failure::Unreachable,
            };
            (failure, format!("{uri}: {error}"))
        })
    }

    pub(super) fn warn(&self, reason: &str) {
        if let Some(silent) = self.log.pass() {
            warn!(sink = %self.target.id, reason, silent, "delivery failed");
        }
    }
}

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("metrifold/", env!("CARGO_PKG_VERSION")));
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");
