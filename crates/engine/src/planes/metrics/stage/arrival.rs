//! A batch at a sink, before it is queued. Its counts are booked only once it is certain that no
//! other sink refuses the batch.

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{DecodeError, GivenUp, Unsent};
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Rejection, Version};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::metrics::Needs;

use super::super::edge::Edge;
use super::SendError;

/// The batches that a sink receives out of one batch.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The sink's index in the stage.
    pub(super) edge: usize,
    /// Counts of the batch in front of the sink's own transform.
    pub(super) received: Option<Counts>,
    /// Batches to put into the queue.
    pub(super) batches: Vec<Batch>,
    /// Samples that the sink's own transform dropped or that the sink's version cannot represent,
    /// by reason.
    pub(super) dropped: Vec<(&'static str, u64)>,
    /// Exemplars that the sink's version cannot represent, or whose sample never arrived.
    pub(super) lost_exemplars: u64,
    /// Reason why an optional sink receives nothing.
    pub(super) failure: Option<SendError>,
}

impl Arrival {
    /// A batch for a sink without a transform of its own.
    pub(super) fn of(edge: usize, batch: Batch) -> Self {
        Self {
            edge,
            received: None,
            batches: vec![batch],
            dropped: Vec::new(),
            lost_exemplars: 0,
            failure: None,
        }
    }

    /// A batch on which the sink's own transform failed.
    pub(super) fn failed(edge: usize, received: Option<Counts>, failure: SendError) -> Self {
        Self {
            edge,
            received,
            batches: Vec::new(),
            dropped: Vec::new(),
            lost_exemplars: 0,
            failure: Some(failure),
        }
    }

    /// Converts each batch into the form that the sink takes.
    ///
    /// # Errors
    ///
    /// Fails when a required sink refuses one of them.
    pub(super) fn prepare(&mut self, edge: &Edge) -> Result<(), SendError> {
        let mut prepared = Vec::with_capacity(self.batches.len());
        for mut batch in std::mem::take(&mut self.batches) {
            let finished = self.finish(edge, &mut batch);
            match finished {
                Ok(true) => prepared.push(batch),
                Ok(false) => {}
                Err(rejection) if edge.required => return Err(rejection.into()),
                Err(rejection) => {
                    // An error of an optional sink affects no other sink.
                    self.failure = Some(rejection.into());
                    return Ok(());
                }
            }
        }
        self.batches = prepared;
        Ok(())
    }

    /// Converts a batch; returns whether there is anything to deliver.
    fn finish(&mut self, edge: &Edge, batch: &mut Batch) -> Result<bool, Rejection> {
        let decodes = match edge.needs_behind(batch.version()) {
            Needs::Decode => true,
            Needs::Check => !batch.is_checked(),
            Needs::Nothing | Needs::Count => false,
        };
        if decodes {
            batch.decode()?;
        }
        if edge.before.is_none() {
            self.received = batch.counts();
        }
        if batch.counts().is_some_and(|counts| counts.is_empty()) {
            return Ok(false);
        }
        batch.forget_request();
        if let Some(version) = edge.version(batch) {
            return Ok(self.settle(edge, batch, version)?);
        }
        Ok(true)
    }

    /// Encodes a batch in the version that the sink sends; returns whether there is anything to
    /// deliver.
    fn settle(
        &mut self,
        edge: &Edge,
        batch: &mut Batch,
        version: Version,
    ) -> Result<bool, DecodeError> {
        let given_up = match version {
            Version::V1 => GivenUp::default(),
            Version::V2 => edge.complete(batch)?,
        };
        // 2.0 cannot represent metadata without series.
        let is_left = version == Version::V1 || batch.counts().is_none_or(|left| left.series > 0);
        let mut unsent = match is_left {
            true => batch.settle(version, &edge.compression)?,
            false => Unsent::default(),
        };
        unsent.exemplars += given_up.unsent;
        self.lost_exemplars += given_up.expired + unsent.exemplars;
        self.dropped
            .push((Reason::NotInV1.as_str(), unsent.histograms));
        if let Some(outcome) = unsent.outcome()
            && let Some(ack) = batch.ack().filter(|_| edge.required)
        {
            ack.ticket(edge.id.clone()).report(outcome);
        }
        let carries = |left: Counts| left.all_samples() + left.exemplars + left.metadata > 0;
        Ok(is_left && (unsent.histograms == 0 || batch.counts().is_none_or(carries)))
    }

    /// Counts the arrival in the sink's metrics.
    pub(super) fn count(&self, metrics: &ComponentMetrics, bytes: usize) {
        metrics.received().batch(self.received, bytes);
        for (reason, samples) in &self.dropped {
            metrics.discarded_samples(reason, *samples);
        }
        metrics.discarded_exemplars(Unsent::WITHOUT_SAMPLE, self.lost_exemplars);
        if let Some(failure) = &self.failure {
            failure.note(metrics);
            let dropped = self.dropped.iter().map(|(_, samples)| samples).sum();
            let left = self.received.map(|counts| counts.all_samples());
            let left = left.map(|samples| samples.saturating_sub(dropped));
            metrics.discarded("rejected", left);
        }
    }
}
