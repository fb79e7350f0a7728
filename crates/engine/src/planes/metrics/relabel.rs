//! Compiled rules as a transform: what the transform `relabel` and the `relabel` key of sinks
//! run.

use std::sync::{Mutex, PoisonError};

use metrifold_base::Problems;
use metrifold_codec::{Batch, SeriesMut};
use metrifold_expr::relabel::{Program, RuleConfig, Scratch, Validation};
use metrifold_model::Rejection;

use crate::planes::metrics::{Pass, Plan, Transform};

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

/// The rules on their way over one batch; the scratch goes back when it is over.
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
