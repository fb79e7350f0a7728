//! What became of a part of a delivery: how it is counted, told and kept.

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{Unsent, Written};
use metrifold_engine::dead_letters::Letter;
use metrifold_engine::planes::metrics::Delivery;
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Fault, Outcome, Rejection};

use super::Shared;
use crate::transport::{Refusal, Transport};

impl<T: Transport> Shared<T> {
    /// Counts what was left out of a part when it was looked into. Returns whether anything is left.
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

    /// Gives up a part that the endpoint refuses, and makes a dead letter of it.
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

    /// Gives up a part that the endpoint refuses whatever is in it, as the configuration wants it.
    pub(super) fn give_up_unwanted(
        &self,
        delivery: &mut Delivery,
        reason: Reason,
        text: String,
    ) -> Outcome {
        let lost = delivery.batch.counts();
        self.count_lost(delivery, reason, &text);
        Outcome::Rejected {
            rejection: Rejection::invalid(text).with_fault(Fault::Upstream),
            lost,
        }
    }

    /// Counts the part that comes next as lost, and says so.
    pub(super) fn count_lost(&self, delivery: &mut Delivery, reason: Reason, text: &str) {
        let lost = delivery.batch.counts();
        delivery.count_lost(reason, lost);
        self.terms.metrics.error(reason.as_str(), text);
        let samples = lost.map(|lost| lost.all_samples());
        self.reports.lost(reason, samples, text);
    }

    /// Makes a dead letter of a part.
    pub(super) fn keep(&self, part: &mut Batch, refusal: &Refusal) {
        let Some((store, _)) = &self.terms.letters else {
            return;
        };
        let version = self.versions.choose(part.version());
        // As it was sent, so it has been encoded before.
        let Ok(body) = part.body(version) else {
            return;
        };
        let letter = Letter {
            tenant: part.tenant().map(|tenant| tenant.to_string()),
            status: refusal.code.parse().ok(),
            reason: refusal.reason.clone(),
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

    /// Books a part of which the endpoint says that it has all samples, and not all exemplars.
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

    /// Counts the exemplars among what is lost, and says so.
    pub(super) fn count_lost_exemplars(&self, reason: Reason, lost: Counts, text: &str) {
        if lost.exemplars > 0 {
            self.terms
                .metrics
                .discarded_exemplars(reason.as_str(), lost.exemplars);
            self.reports.lost_exemplars(lost.exemplars, text);
        }
    }

    /// Says that the endpoint has stored a part only.
    pub(super) fn note_partial(&self, samples: Option<u64>, reason: &str) {
        self.terms.metrics.error(Reason::Partial.as_str(), reason);
        self.reports.lost(Reason::Partial, samples, reason);
    }

    /// Counts what the version that is sent has no place for, and has the sender told.
    pub(super) fn lose_by_version(&self, delivery: &mut Delivery, unsent: Unsent) {
        let Some(outcome) = unsent.outcome() else {
            return;
        };
        if unsent.histograms > 0 {
            delivery.count_lost_samples(Reason::NotInV1, unsent.histograms);
            let text = "endpoint takes remote write 1.0 only";
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

/// What an endpoint stored of a batch, by its own account, and what it did not, if it says so.
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
