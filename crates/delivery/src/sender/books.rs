//! Books the outcome of a part: metrics, log messages and dead letters.

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{DecodeError, Unsent, Written};
use metrifold_engine::dead_letters::Letter;
use metrifold_engine::planes::metrics::Delivery;
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Fault, Outcome, Rejection, Version};

use super::Shared;
use crate::transport::{Refusal, Transport};

impl<T: Transport> Shared<T> {
    /// Counts the series that were left out when a part was decoded. Returns whether anything is
    /// left.
    pub(super) fn note_mended(
        &self,
        delivery: &mut Delivery,
        lost: Vec<(&'static str, u64)>,
        outcome: Outcome,
    ) -> bool {
        for (rule, samples) in lost {
            delivery.count_invalid(rule, samples);
            self.reports.lost(Reason::Invalid, Some(samples), rule);
        }
        delivery.note(outcome);
        delivery.batch.counts().is_none_or(|c| !c.is_empty())
    }

    /// Drops a part that the endpoint refuses, and makes it a dead letter.
    pub(super) fn give_up(
        &self,
        delivery: &mut Delivery,
        reason: Reason,
        refusal: Refusal,
    ) -> Outcome {
        self.keep(&mut delivery.batch, &refusal);
        let lost = delivery.batch.counts();
        self.count_lost(delivery, reason, &refusal.reason);
        Outcome::Rejected {
            rejection: Rejection::invalid(refusal.reason),
            lost,
        }
    }

    /// Drops a part that cannot be encoded in the version that is sent, and makes it a dead letter as
    /// it is.
    pub(super) fn give_up_unencoded(&self, delivery: &mut Delivery, error: DecodeError) -> Outcome {
        let rejection = Rejection::from(error);
        let reason = Reason::of_rejected(rejection.kind);
        self.keep_as(
            delivery.batch.body_version(),
            &mut delivery.batch,
            None,
            &rejection.reason,
        );
        self.count_lost(delivery, reason, &rejection.reason);
        rejection.into()
    }

    /// Drops a part that the endpoint refuses whatever its content, as configured.
    pub(super) fn give_up_unwanted(
        &self,
        delivery: &mut Delivery,
        reason: Reason,
        text: String,
    ) -> Outcome {
        let lost = delivery.batch.counts();
        delivery.count_lost(reason, lost);
        self.terms.metrics.error(reason.as_str(), &text);
        let samples = lost.map(|lost| lost.all_samples());
        self.reports.unwanted(reason, samples, &text);
        Outcome::Rejected {
            rejection: Rejection::invalid(text).with_fault(Fault::Upstream),
            lost,
        }
    }

    /// Counts the next part as lost, and reports it.
    pub(super) fn count_lost(&self, delivery: &mut Delivery, reason: Reason, text: &str) {
        let lost = delivery.batch.counts();
        delivery.count_lost(reason, lost);
        self.terms.metrics.error(reason.as_str(), text);
        let samples = lost.map(|lost| lost.all_samples());
        self.reports.lost(reason, samples, text);
    }

    /// Makes a part a dead letter.
    pub(super) fn keep(&self, part: &mut Batch, refusal: &Refusal) {
        // The version that was sent, so the part is encoded already.
        let version = self.versions.choose(part.version());
        self.keep_as(version, part, refusal.code.parse().ok(), &refusal.reason);
    }

    fn keep_as(&self, version: Version, part: &mut Batch, status: Option<u16>, reason: &str) {
        let Some((store, _)) = &self.terms.letters else {
            return;
        };
        let Ok(body) = part.body(version) else {
            return;
        };
        let letter = Letter {
            tenant: part.tenant().map(|tenant| tenant.to_string()),
            status,
            reason: reason.to_owned(),
            version,
            body,
        };
        store.keep(part, letter);
    }

    pub(super) fn store_partly(
        &self,
        delivery: &mut Delivery,
        reason: String,
        written: Option<Written>,
        bytes: usize,
    ) -> Outcome {
        let (stored, lost) = stored(delivery.batch.counts(), written);
        delivery.count_sent(stored, bytes);
        let samples = lost.map(|lost| lost.all_samples());
        delivery.count_lost_samples(Reason::Partial, samples.unwrap_or(0));
        self.count_lost_exemplars(Reason::Partial, lost.unwrap_or_default(), &reason);
        if samples != Some(0) {
            self.note_partial(samples, &reason);
        }
        Outcome::Rejected {
            rejection: Rejection::invalid(reason),
            lost,
        }
    }

    /// Books a part of which the endpoint stored all samples but not all exemplars.
    pub(super) fn store_without_exemplars(
        &self,
        delivery: &mut Delivery,
        written: Written,
        bytes: usize,
    ) -> Outcome {
        let (stored, lost) = stored(delivery.batch.counts(), Some(written));
        delivery.count_sent(stored, bytes);
        let lost = lost.unwrap_or_default();
        let reason = format!("endpoint wrote {} of the exemplars", written.exemplars);
        self.count_lost_exemplars(Reason::Partial, lost, &reason);
        Outcome::Lacks(lost)
    }

    /// Counts lost exemplars, and reports them.
    pub(super) fn count_lost_exemplars(&self, reason: Reason, lost: Counts, text: &str) {
        if lost.exemplars > 0 {
            self.terms
                .metrics
                .discarded_exemplars(reason.as_str(), lost.exemplars);
            self.reports.lost_exemplars(lost.exemplars, text);
        }
    }

    /// Reports that the endpoint stored only a part.
    pub(super) fn note_partial(&self, samples: Option<u64>, reason: &str) {
        self.terms.metrics.error(Reason::Partial.as_str(), reason);
        self.reports.lost(Reason::Partial, samples, reason);
    }

    /// Counts the data that the sent version cannot represent, and tells the sender.
    pub(super) fn lose_by_version(&self, delivery: &mut Delivery, unsent: Unsent) {
        let Some(outcome) = unsent.outcome() else {
            return;
        };
        if unsent.histograms > 0 {
            delivery.count_lost_samples(Reason::NotInV1, unsent.histograms);
            let text = "endpoint accepts only remote write 1.0";
            self.reports
                .lost(Reason::NotInV1, Some(unsent.histograms), text);
        }
        if unsent.exemplars > 0 {
            let metrics = &self.terms.metrics;
            metrics.discarded_exemplars(Unsent::WITHOUT_SAMPLE, unsent.exemplars);
        }
        delivery.note(outcome);
    }
}

/// The counts that an endpoint stored by its own account, and those that it did not, if it states
/// them.
fn stored(counts: Option<Counts>, written: Option<Written>) -> (Option<Counts>, Option<Counts>) {
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
