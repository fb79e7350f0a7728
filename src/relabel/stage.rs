//! Compiled rules as a transform: what the transform `relabel` and the `relabel` key of sinks
//! run.

use std::sync::{Mutex, PoisonError};

use super::{Program, RuleConfig, Scratch, Validation};
use crate::component::{Emitter, Transform};
use crate::config::Problems;
use crate::signal::{Batch, Rejection};

/// The most scratch buffers that wait to be used again: as many as threads run the transform.
const MAX_IDLE: usize = 64;

/// Rules, ready to be applied by several threads at once.
#[derive(Debug)]
pub struct Relabel {
    program: Program,
    /// One for each thread that has been here at the same time.
    scratches: Mutex<Vec<Scratch>>,
}

impl Relabel {
    /// Compiles rules. Problems are reported at `path[index]` and below; then there is none.
    pub fn compile(rules: &[RuleConfig], path: &str, problems: &mut Problems) -> Option<Self> {
        Program::compile(rules, Validation::default(), path, problems).map(Self::from)
    }

    fn scratches(&self) -> std::sync::MutexGuard<'_, Vec<Scratch>> {
        let scratches = self.scratches.lock();
        scratches.unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Program> for Relabel {
    fn from(program: Program) -> Self {
        Self {
            program,
            scratches: Mutex::default(),
        }
    }
}

impl Transform for Relabel {
    fn apply(&self, mut batch: Batch, out: &mut Emitter<'_>) -> Result<(), Rejection> {
        let scratch = self.scratches().pop();
        let mut scratch = scratch.unwrap_or_else(|| self.program.scratch());
        let dropped = batch
            .edit(|arena| self.program.apply(arena, &mut scratch))
            .map_err(|error| Rejection(error.to_string()))?;
        let mut scratches = self.scratches();
        if scratches.len() < MAX_IDLE {
            scratches.push(scratch);
        }
        drop(scratches);
        out.dropped("relabel", dropped.all_samples());
        // A batch of which nothing is left ends here.
        if dropped.is_empty() || batch.counts().is_none_or(|counts| !counts.is_empty()) {
            out.emit(batch);
        }
        Ok(())
    }
}
