//! Transforms of batches: synchronous functions, without I/O.

use std::fmt::{self, Debug};

use metrifold_codec::{Batch, SeriesMut};
use metrifold_model::{Counts, Outcome, Rejection};

/// A transform, built: synchronous, without I/O.
pub trait Transform: Debug + Send + Sync {
    /// Whether it reads labels, so that batches have to be decoded for it.
    fn reads_labels(&self) -> bool {
        true
    }

    /// Decides what is to be done to a batch, and says of it as a whole what there is to say, such
    /// as its tenant. It must not look at the series: transforms before it may share a walk with
    /// it, and have not edited them yet.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch has to be refused to its sender.
    fn plan(&self, batch: &mut Batch) -> Result<Plan<'_>, Rejection>;
}

/// What a transform does to one batch.
pub enum Plan<'a> {
    /// The batch goes to the only output with its series as they are.
    Keep,
    /// Every series is edited or dropped on its own, and the batch goes to the only output.
    /// Neighbours that can say so share one walk over the batch, in which every series is still in
    /// the processor's cache for the next one.
    Pass(Box<dyn Pass + 'a>),
    /// Whatever else: any number of batches at any outputs.
    Split(Split<'a>),
}

/// Takes a batch and emits what becomes of it, possibly nothing. Fails when the whole batch has to
/// be refused to its sender.
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

    /// Under which reason the samples of the series count that it has just not kept.
    fn reason(&self) -> &'static str;

    /// Ends the walk behind the last series, and says what the batch's sender is to be told of it.
    /// Nothing has been delivered yet.
    ///
    /// # Errors
    ///
    /// Fails when the whole batch has to be refused to its sender.
    fn finish(&mut self) -> Result<Told, Rejection> {
        Ok(Told::default())
    }
}

/// What the sender of a batch is told of what transforms left out of it. What is left out on purpose,
/// as by relabelling, is no news to anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What was refused, as a verdict over the batch: it is the sender's to change.
    pub refused: Option<Outcome>,
    /// Whether series were left out that another replica sends.
    pub duplicates: bool,
}

impl Told {
    /// Adds what another transform, or the same one of another part of the batch, tells.
    pub(crate) fn join(&mut self, other: Self) {
        self.duplicates |= other.duplicates;
        match (&mut self.refused, other.refused) {
            (Some(refused), Some(more)) => refused.join(more),
            (None, more @ Some(_)) => self.refused = more,
            (_, None) => {}
        }
    }
}

/// Where a transform puts its results.
pub struct Emitter<'a> {
    emit: &'a mut dyn FnMut(usize, Batch),
    dropped: &'a mut dyn FnMut(&'static str, Counts),
}

impl<'a> Emitter<'a> {
    /// An emitter that hands batches, with the index of their output, and drops to these.
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

    /// Counts what the transform dropped on purpose.
    pub fn dropped(&mut self, reason: &'static str, lost: Counts) {
        (self.dropped)(reason, lost);
    }
}
