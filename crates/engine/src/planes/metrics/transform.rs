//! Transforms of batches: synchronous functions, without I/O.

use std::fmt::Debug;

use metrifold_codec::{Batch, SeriesMut};
use metrifold_model::Rejection;

/// A transform, built: synchronous, without I/O.
pub trait Transform: Debug + Send + Sync {
    /// Whether it reads labels, so that batches have to be decoded for it.
    fn reads_labels(&self) -> bool {
        true
    }

    /// What it does to a batch series by series, if that is all that it does and the batch goes to
    /// its only output. Neighbours that can say so share one walk over the batch, in which every
    /// series is still in the processor's cache for the next one. What it says of the batch as a
    /// whole, such as its tenant, it says here.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch has to be refused to its sender.
    fn begin(&self, _batch: &mut Batch) -> Result<Option<Box<dyn Pass + '_>>, Rejection> {
        Ok(None)
    }

    /// Transforms a batch and emits what becomes of it, possibly nothing.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch has to be refused to its sender.
    fn apply(&self, batch: Batch, out: &mut Emitter<'_>) -> Result<(), Rejection>;
}

/// A transform's walk over the series of one batch.
pub trait Pass {
    /// Edits a series; returns whether to keep it.
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool;

    /// Under which reason samples count of series that it does not keep.
    fn reason(&self) -> &'static str;
}

/// Where a transform puts its results.
pub struct Emitter<'a> {
    emit: &'a mut dyn FnMut(usize, Batch),
    dropped: &'a mut dyn FnMut(&'static str, u64),
}

impl<'a> Emitter<'a> {
    /// An emitter that hands batches, with the index of their output, and drops to these.
    pub fn new(
        emit: &'a mut dyn FnMut(usize, Batch),
        dropped: &'a mut dyn FnMut(&'static str, u64),
    ) -> Self {
        Self { emit, dropped }
    }

    /// Sends a batch to the transform's only output.
    pub fn emit(&mut self, batch: Batch) {
        (self.emit)(0, batch);
    }

    /// Sends a batch to the output at `index` in [`TransformConfig::outputs`].
    pub fn emit_to(&mut self, index: usize, batch: Batch) {
        (self.emit)(index, batch);
    }

    /// Counts samples that the transform dropped on purpose.
    pub fn dropped(&mut self, reason: &'static str, samples: u64) {
        (self.dropped)(reason, samples);
    }
}
