//! One delivery: its attempts, the parts that it is split into, and giving up.

use bytes::Bytes;
use tracing::info;

use metrifold_codec::remote_write::DecodeError;
use metrifold_engine::planes::metrics::{Delivery, Form, Input, Trouble};
use metrifold_model::ledger::Reason;
use metrifold_model::{Outcome, Rejection, Version};

use super::Shared;
use super::search::Searched;
use crate::isolation::{Isolation, OFFENDERS_MAX, Step};
use crate::pace::Permit;
use crate::protocol::Protocol;
use crate::stuck::Control;
use crate::transport::{Answer, Attempt, Failure, Refusal, RefusalClass, Transport};

/// What became of a part of a delivery.
enum Part {
    /// The part is settled with this outcome.
    Over(Outcome),
    /// Something in it is refused.
    Refused(Refusal),
    /// The attempt has failed, and the part is to be tried again.
    Later(Failed),
    /// The part was left to the sink's successor.
    Left,
}

/// An attempt in vain.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    /// Whose batches pause after the failure.
    pub(super) trouble: Trouble,
    /// Whether the endpoint answered that it failed inside, which may be for what was sent.
    pub(super) server_error: bool,
    reason: String,
}

impl Failed {
    /// What it would be if the endpoint had said that the content is at fault.
    pub(super) fn as_refusal(&self) -> Refusal {
        Refusal {
            code: String::new(),
            class: RefusalClass::Content,
            reason: self.reason.clone(),
        }
    }
}

impl<T: Transport> Shared<T> {
    /// Sees a delivery to its end. If it is to be tried again, it is returned with the reason, and
    /// without one if it is left to the sink's successor. `searches` has a batch searched on which the
    /// endpoint fails, though it has not kept its lane from getting on for so long.
    pub(super) async fn deliver(
        &self,
        mut delivery: Delivery,
        searches: bool,
        permit: &Permit<'_>,
        input: &Input,
    ) -> Option<(Delivery, Option<Trouble>)> {
        let mut isolation = Isolation::default();
        let mut asked_v1 = false;
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
                            "{}; {series} series given up together, after {OFFENDERS_MAX} of the batch",
                            refusal.reason
                        );
                        let refusal = Refusal { reason, ..refusal };
                        self.give_up(&mut delivery, Reason::RefusedTogether, refusal)
                    }
                },
                Part::Later(failed) => {
                    let (tenant, lane) = (delivery.batch.tenant(), delivery.lane());
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
                delivery.finish(Outcome::Delivered);
                return None;
            }
        }
    }

    /// Tries to deliver the part that comes next. Of a delivery whose endpoint has not shown which
    /// version it takes, one part is asked about in 1.0 too.
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
                Err(error) => {
                    self.count_lost(delivery, Reason::Invalid, &error.to_string());
                    return Part::Over(Rejection::from(error).into());
                }
            };
            let bytes = body.len();
            let request = attempt(delivery, version, body);
            let control = Control::of(&request);
            let answer = match self.send(request, permit).await {
                Ok(answer) => answer,
                Err(failed) => return Part::Later(failed),
            };
            if let Answer::Stored | Answer::Partly(..) = answer {
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
                // Told as trouble.
                Answer::Failed { .. } => {}
            }
        }
    }

    /// Gives a delivery up that nobody waits for any more, or that has become too old.
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

    /// Sends 1.0 from now on, for a while.
    fn fall_back(&self, input: &Input) {
        if self.versions.fall_back() {
            input.prefer(Form::V1);
            info!(
                sink = %self.terms.id,
                "endpoint does not take remote write 2.0: it is sent 1.0, and 2.0 is tried again later"
            );
        }
    }

    /// Asks for 2.0 again if it is time to.
    pub(super) fn probe_version(&self, input: &Input) {
        if self.versions.probe() {
            input.prefer(Form::AsReceived);
        }
    }

    /// Sends a part as 1.0 that was refused as 2.0 by an endpoint of which nothing is known yet. If
    /// it is taken, it was the version that was refused.
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
        let outcome = match self.send(asked, permit).await {
            Err(failed) => return Part::Later(failed),
            Ok(answer @ (Answer::Stored | Answer::Partly(..))) => {
                self.fall_back(input);
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
            // The endpoint refuses it as 1.0 as well: the content is at fault, not the version.
            Ok(_) => return Part::Refused(refusal),
        };
        Part::Over(outcome)
    }

    /// Sends a request and says what the answer means, or whom it concerns that it has failed.
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
            // The endpoint answers, and asks for fewer requests: it has not failed.
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

    /// What an answer tells about the version. Where there is no other version to try, it is a
    /// failure.
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
            Answer::OtherVersion if !may_fall_back => failed("endpoint takes another version only"),
            Answer::Unwritten if !may_fall_back || !self.versions.doubt() => {
                failed("endpoint, or somebody in its place, did not say what was written")
            }
            answer => answer,
        }
    }

    /// The body to send. A batch that came from its queue as 2.0 becomes 1.0 only here when the
    /// endpoint turns out not to take 2.0.
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

/// An attempt to deliver the part that comes next.
pub(super) fn attempt(delivery: &Delivery, version: Version, body: Bytes) -> Attempt<'_> {
    Attempt {
        version,
        tenant: delivery.batch.tenant(),
        counts: delivery.batch.counts(),
        body: vec![body],
        failures: delivery.attempts(),
    }
}
