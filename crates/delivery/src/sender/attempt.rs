//! A single delivery: its attempts, its parts, and giving up.

use bytes::Bytes;
use tracing::info;

use metrifold_codec::remote_write::DecodeError;
use metrifold_engine::planes::metrics::{Delivery, Form, Input, Trouble};
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Version};

use super::Shared;
use super::search::Searched;
use crate::isolation::{Isolation, OFFENDERS_MAX, Step};
use crate::pace::Permit;
use crate::protocol::Protocol;
use crate::stuck::Control;
use crate::transport::{Answer, Attempt, Failure, Refusal, RefusalClass, Transport};

/// Result of delivering a part.
enum Part {
    /// The part is settled with this outcome.
    Over(Outcome),
    /// The endpoint refuses something in the part.
    Refused(Refusal),
    /// The attempt failed, and the part is to be retried.
    Later(Failed),
    /// The part is left to the sink's successor.
    Left,
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// Batches that pause after the failure.
    pub(super) trouble: Trouble,
    /// Whether the endpoint answered with a server error, which the content may have caused.
    pub(super) server_error: bool,
    reason: String,
}

impl Failed {
    /// The failure as if the endpoint had refused the content.
    pub(super) fn as_refusal(&self) -> Refusal {
        Refusal {
            code: String::new(),
            class: RefusalClass::Content,
            reason: self.reason.clone(),
        }
    }
}

impl<T: Transport> Shared<T> {
    /// Delivers a batch. Returns the delivery with the batches that pause if it is to be retried, and
    /// with `None` if it is left to the sink's successor. `searches` makes a server error start the
    /// search for the series at fault at once, even if the lane is not stuck.
    pub(super) async fn deliver(
        &self,
        mut delivery: Delivery,
        searches: bool,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Option<(Delivery, Option<Trouble>)> {
        let mut isolation = Isolation::default();
        let mut asked_v1 = false;
        let (tenant, lane) = (delivery.batch.tenant().cloned(), delivery.lane());
        let tenant = tenant.as_ref();
        loop {
            let part = self.deliver_part(&mut delivery, &mut asked_v1, permit, input);
            let outcome = match part.await {
                Part::Over(outcome) => outcome,
                Part::Refused(refusal) => match isolation.step(&mut delivery.batch, &refusal) {
                    Step::Mended { lost, outcome } => {
                        if self.note_mended(&mut delivery, lost, outcome) {
                            continue;
                        }
                        Outcome::Delivered
                    }
                    Step::Halves(first, second) => {
                        delivery.split(first, second);
                        continue;
                    }
                    Step::Alone => self.give_up(&mut delivery, refusal.loss(), refusal),
                    Step::Together(series) => {
                        let reason = format!(
                            "{}; {series} series dropped together, after {OFFENDERS_MAX} of the batch were refused one by one",
                            refusal.reason
                        );
                        let refusal = Refusal { reason, ..refusal };
                        self.give_up(&mut delivery, Reason::RefusedTogether, refusal)
                    }
                },
                Part::Later(failed) => {
                    if !failed.server_error {
                        self.stuck.over(tenant, lane);
                    }
                    let stuck =
                        failed.server_error && (self.stuck.failed(tenant, lane) || searches);
                    if !stuck {
                        return Some((delivery, Some(failed.trouble)));
                    }
                    match self.search(&mut delivery, failed, permit, input).await {
                        Searched::Again => continue,
                        Searched::Later(trouble) => return Some((delivery, Some(trouble))),
                        Searched::Left => return Some((delivery, None)),
                        Searched::Over => {
                            delivery.finish(Outcome::Delivered);
                            return None;
                        }
                    }
                }
                Part::Left => return Some((delivery, None)),
            };
            if !delivery.finish_part(outcome) {
                self.stuck.over(tenant, lane);
                delivery.finish(Outcome::Delivered);
                return None;
            }
        }
    }

    /// Delivers the next part. As long as the endpoint's version is unknown, one refused part of the
    /// delivery is also tried as 1.0.
    async fn deliver_part(
        &self,
        delivery: &mut Delivery,
        asked_v1: &mut bool,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Part {
        loop {
            if input.superseded() {
                return Part::Left;
            }
            if let Some(outcome) = self.give_up_in_time(delivery) {
                return Part::Over(outcome);
            }
            let version = self.versions.choose(delivery.batch.version());
            let body = match self.encode(delivery, version) {
                Ok(body) => body,
                Err(error) => return Part::Over(self.give_up_unencoded(delivery, error)),
            };
            let bytes = body.len();
            let request = attempt(delivery, version, body);
            let control = Control::of(&request);
            let answer = match self.send(request, permit).await {
                Ok(answer) => answer,
                Err(failed) => return Part::Later(failed),
            };
            if answer.is_accepted() {
                let tenant = delivery.batch.tenant();
                self.stuck.went_through(tenant, delivery.lane(), control);
            }
            match answer {
                Answer::Stored => {
                    delivery.count_sent(delivery.batch.counts(), bytes);
                    return Part::Over(Outcome::Delivered);
                }
                Answer::LacksExemplars(written) => {
                    return Part::Over(self.store_without_exemplars(delivery, written, bytes));
                }
                Answer::Partly(reason, written) => {
                    return Part::Over(self.store_partly(delivery, reason, written, bytes));
                }
                Answer::OtherVersion | Answer::Unwritten => self.fall_back(input),
                Answer::Refused(refusal)
                    if refusal.class == RefusalClass::ContentOrVersion
                        && self.versions.is_unknown()
                        && !*asked_v1 =>
                {
                    *asked_v1 = true;
                    return self.ask_in_v1(delivery, refusal, permit, input).await;
                }
                Answer::Refused(refusal) => return Part::Refused(refusal),
                Answer::Unwanted(reason, text) => {
                    return Part::Over(self.give_up_unwanted(delivery, reason, text));
                }
                // The failure has been reported.
                Answer::Failed { .. } => {}
            }
        }
    }

    /// Gives up a delivery whose sender does not wait any more, or that is too old.
    fn give_up_in_time(&self, delivery: &mut Delivery) -> Option<Outcome> {
        if delivery.abandoned() {
            delivery.count_lost(Reason::Abandoned, delivery.batch.counts());
            return Some(Outcome::failed("sender was told to send it again"));
        }
        if delivery.expired(self.terms.retry.max_age) {
            self.count_lost(
                delivery,
                Reason::TooOld,
                "not delivered within retry.max_age",
            );
            return Some(Outcome::failed("not delivered within retry.max_age"));
        }
        None
    }

    /// Switches to 1.0 for a while.
    fn fall_back(&self, input: &Input) {
        if self.versions.fall_back() {
            input.prefer(Form::V1);
            info!(
                sink = %self.terms.id,
                "endpoint does not accept remote write 2.0: sending 1.0, and trying 2.0 again later"
            );
        }
    }

    /// Switches back to 2.0 if it is time to try it again.
    pub(super) fn probe_version(&self, input: &Input) {
        if self.versions.probe() {
            input.prefer(Form::AsReceived);
        }
    }

    /// Sends a part as 1.0 that an endpoint of unknown version has refused as 2.0. If the endpoint
    /// accepts it, the refusal was for the version.
    async fn ask_in_v1(
        &self,
        delivery: &mut Delivery,
        refusal: Refusal,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Part {
        let encoded = delivery
            .settled(Version::V1)
            .and_then(|(mut narrowed, lost)| {
                let body = narrowed.body(Version::V1)?;
                Ok((narrowed, lost, body))
            });
        let Ok((narrowed, unsent, body)) = encoded else {
            return Part::Refused(refusal);
        };
        let bytes = body.len();
        let asked = Attempt {
            counts: narrowed.counts(),
            ..attempt(delivery, Version::V1, body)
        };
        let control = Control::of(&asked);
        let outcome = match self.send(asked, permit).await {
            Err(failed) => return Part::Later(failed),
            Ok(answer @ (Answer::Stored | Answer::Partly(..))) => {
                self.fall_back(input);
                let tenant = delivery.batch.tenant();
                self.stuck.went_through(tenant, delivery.lane(), control);
                delivery.batch = narrowed;
                self.lose_by_version(delivery, unsent);
                match answer {
                    Answer::Partly(reason, written) => {
                        self.store_partly(delivery, reason, written, bytes)
                    }
                    _ => {
                        delivery.count_sent(delivery.batch.counts(), bytes);
                        Outcome::Delivered
                    }
                }
            }
            // The endpoint refuses 1.0 as well: the content is at fault, not the version.
            Ok(_) => return Part::Refused(refusal),
        };
        Part::Over(outcome)
    }

    /// Sends a request and returns the answer, or the failure with the batches that pause.
    pub(super) async fn send(
        &self,
        attempt: Attempt<'_>,
        permit: &Permit<'_>,
    ) -> Result<Answer, Failed> {
        let (version, tenant) = (attempt.version, attempt.tenant);
        let samples = attempt.counts.map(|counts| counts.all_samples());
        let mut sending = permit.sending();
        let answer = sending.wait_for(self.transport.attempt(attempt)).await;
        let answer = self.learn_version(version, answer);
        let Answer::Failed {
            failure,
            reason,
            after,
        } = answer
        else {
            self.terms.metrics.succeeded();
            if let Some(recovery) = self.pace.succeeded(tenant) {
                let waiting = || self.terms.metrics.waiting();
                self.reports.recovered(&recovery, waiting);
            }
            return Ok(answer);
        };
        drop(sending);
        match failure {
            // The endpoint works and asks for fewer requests, so this is no failure.
            Failure::TooMuch => self.terms.metrics.error("retry", &reason),
            _ => self.terms.metrics.failed("retry", &reason),
        }
        self.terms.metrics.retried();
        self.reports.retried(samples, &reason);
        Err(Failed {
            trouble: self.pace.failed(tenant, failure, after),
            server_error: failure == Failure::ServerError,
            reason,
        })
    }

    /// Learns the endpoint's version from an answer. If no other version can be tried, the answer
    /// becomes a failure.
    fn learn_version(&self, version: Version, answer: Answer) -> Answer {
        let failed = |reason: &str| Answer::Failed {
            failure: Failure::Broken,
            reason: reason.into(),
            after: None,
        };
        let may_fall_back = version == Version::V2 && self.terms.protocol == Protocol::Auto;
        match answer {
            Answer::Stored | Answer::LacksExemplars(_) | Answer::Partly(_, Some(_))
                if version == Version::V2 =>
            {
                self.versions.confirm();
                answer
            }
            Answer::OtherVersion if !may_fall_back => {
                failed("endpoint does not accept this version of remote write: check protocol")
            }
            Answer::Unwritten if !may_fall_back || !self.versions.doubt() => {
                failed("endpoint, or a proxy in front of it, did not report what was written")
            }
            answer => answer,
        }
    }

    /// The body to send. A batch that was queued as 2.0 is converted here if the endpoint turns out
    /// not to accept 2.0.
    pub(super) fn encode(
        &self,
        delivery: &mut Delivery,
        version: Version,
    ) -> Result<Bytes, DecodeError> {
        let unsent = delivery.settle(version)?;
        self.lose_by_version(delivery, unsent);
        delivery.batch.body(version)
    }
}

/// An attempt to deliver the next part.
pub(super) fn attempt(delivery: &Delivery, version: Version, body: Bytes) -> Attempt<'_> {
    Attempt {
        version,
        tenant: delivery.batch.tenant(),
        counts: delivery.batch.counts(),
        body: vec![body],
        failures: delivery.attempts(),
    }
}
