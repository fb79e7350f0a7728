//! Transforms of batches: synchronous functions, without I/O.

use std::fmt::{self, Debug};

use metrifold_codec::{Batch, SeriesMut};
use metrifold_model::{Counts, Outcome, Rejection};

/// A built transform: synchronous, without I/O.
pub trait Transform: Debug + Send + Sync {
    /// Whether the transform reads labels, so that batches must be decoded for it.
    fn reads_labels(&self) -> bool {
        true
    }

    /// Decides how the transform treats a batch, and sets properties of the batch as a whole, such as
    /// its tenant. Must not read the series: transforms in front may share a walk with this one and
    /// have not edited them yet.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch must be refused to its sender.
    fn plan(&self, batch: &mut Batch) -> Result<Plan<'_>, Rejection>;
}

/// Treatment of one batch by a transform.
pub enum Plan<'a> {
    /// The batch goes to the only output with its series unchanged.
    Keep,
    /// Every series is edited or dropped on its own, and the batch goes to the only output.
    /// Neighbours with this plan share one walk over the batch, in which a series is still in the
    /// processor's cache for the next transform.
    Pass(Box<dyn Pass + 'a>),
    /// Anything else: the transform emits any number of batches at any outputs.
    Split(Split<'a>),
}

/// Consumes a batch and emits any number of batches. Fails when the whole batch must be refused to
/// its sender.
pub type Split<'a> = Box<dyn FnOnce(Batch, &mut Emitter<'_>) -> Result<(), Rejection> + 'a>;

impl Debug for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "Keep",
            Self::Pass(_) => "Pass",
            Self::Split(_) => "Split",
        })
    }
}

/// A transform's walk over the series of one batch.
pub trait Pass {
    /// Edits a series; returns whether to keep it.
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool;

    /// Reason under which the samples of the series that was just dropped are counted.
    fn reason(&self) -> &'static str;

    /// Ends the walk after the last series; returns the findings for the batch's sender. Nothing has
    /// been delivered yet.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch must be refused to its sender.
    fn finish(&mut self) -> Result<Told, Rejection> {
        Ok(Told::default())
    }
}

/// Series that transforms left out and that the batch's sender must be told of. Series that are
/// dropped on purpose, as by relabelling, are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Outcome for refused series, which the sender has to correct.
    pub refused: Option<Outcome>,
    /// Whether series were left out because another replica sends them.
    pub duplicates: bool,
}

impl Told {
    /// Adds the findings of another transform, or of another part of the batch.
    pub(crate) fn join(&mut self, other: Self) {
        self.duplicates |= other.duplicates;
        match (&mut self.refused, other.refused) {
            (Some(refused), Some(more)) => refused.join(more),
            (None, more @ Some(_)) => self.refused = more,
            (_, None) => {}
        }
    }
}

/// Receives the batches that a transform emits.
pub struct Emitter<'a> {
    emit: &'a mut dyn FnMut(usize, Batch),
    dropped: &'a mut dyn FnMut(&'static str, Counts),
}

impl<'a> Emitter<'a> {
    /// An emitter that passes batches, with the index of their output, and dropped counts to these
    /// functions.
    pub fn new(
        emit: &'a mut dyn FnMut(usize, Batch),
        dropped: &'a mut dyn FnMut(&'static str, Counts),
    ) -> Self {
        Self { emit, dropped }
    }

    /// Sends a batch to the transform's only output.
    pub fn emit(&mut self, batch: Batch) {
        (self.emit)(0, batch);
    }

    /// Sends a batch to the output at `index` in the transform's list of outputs.
    pub fn emit_to(&mut self, index: usize, batch: Batch) {
        (self.emit)(index, batch);
    }

    /// Counts series that the transform dropped on purpose.
    pub fn dropped(&mut self, reason: &'static str, lost: Counts) {
        (self.dropped)(reason, lost);
    }
}
