//! Compiled relabel rules as a transform, for the transform `relabel` and the key `relabel` of
//! sinks.

use std::sync::{Mutex, PoisonError};

use metrifold_base::Problems;
use metrifold_codec::{Batch, SeriesMut};
use metrifold_expr::relabel::{Program, RuleConfig, Scratch, Validation};
use metrifold_model::Rejection;

use crate::planes::metrics::{Pass, Plan, Transform};

/// The most scratch buffers that are kept for reuse; it should cover all threads that run the
/// transform.
const MAX_IDLE: usize = 64;

/// Compiled rules that several threads can apply at once.
#[derive(Debug)]
pub struct Relabel {
    program: Program,
    /// Scratch buffers, one for each thread that has run the rules at the same time.
    scratches: Mutex<Vec<Scratch>>,
}

impl Relabel {
    /// Compiles rules. Problems are reported at `path[index]` and below; the result is then `None`.
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

impl Relabel {
    fn pass(&self) -> RelabelPass<'_> {
        let idle = self.scratches().pop();
        let mut scratch = idle.unwrap_or_else(|| self.program.scratch());
        scratch.begin();
        RelabelPass {
            relabel: self,
            scratch: Some(scratch),
        }
    }
}

impl Transform for Relabel {
    fn plan(&self, _batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        Ok(Plan::Pass(Box::new(self.pass())))
    }
}

/// The rules applied to one batch. The scratch buffer is returned at the end.
struct RelabelPass<'a> {
    relabel: &'a Relabel,
    scratch: Option<Scratch>,
}

impl Pass for RelabelPass<'_> {
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool {
        let scratch = self.scratch.as_mut();
        scratch.is_none_or(|scratch| self.relabel.program.run(series, scratch))
    }

    fn reason(&self) -> &'static str {
        "relabel"
    }
}

impl Drop for RelabelPass<'_> {
    fn drop(&mut self) {
        let mut scratches = self.relabel.scratches();
        if scratches.len() < MAX_IDLE {
            scratches.extend(self.scratch.take());
        }
    }
}
