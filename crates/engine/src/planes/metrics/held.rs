//! Enforces limits on batches, for the transform `limit` and for every source whose callers are
//! tenants.

use std::fmt;

use metrifold_access::Gate;
use metrifold_codec::{Batch, SeriesMut};
use metrifold_limits::{Check, Limit};
use metrifold_model::{Outcome, Rejection};

use super::{Pass, Plan, Told, Transform};

/// Transform that holds the callers of a source to the limits of their tenants.
pub(super) struct HeldToLimits {
    gate: Gate,
}

impl HeldToLimits {
    pub(super) fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }
}

impl fmt::Debug for HeldToLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldToLimits")
    }
}

impl Transform for HeldToLimits {
    /// Whether any tenant has limits that require reading its batches.
    fn reads_labels(&self) -> bool {
        self.gate.looks_inside()
    }

    fn plan(&self, batch: &mut Batch) -> Result<Plan<'_>, Rejection> {
        let check = self.gate.check(&batch.origin().caller, batch.arrived())?;
        Ok(LimitPass::plan(check))
    }
}

/// A [`Check`] applied to the series of one batch.
pub struct LimitPass {
    check: Check,
    last: Limit,
}

impl LimitPass {
    /// The plan that applies a check; batches without one are kept.
    pub fn plan<'a>(check: Option<Check>) -> Plan<'a> {
        match check {
            Some(check) => Plan::Pass(Box::new(Self {
                check,
                last: Limit::ActiveSeries,
            })),
            None => Plan::Keep,
        }
    }
}

impl Pass for LimitPass {
    fn series(&mut self, series: &mut SeriesMut<'_>) -> bool {
        match self.check.series(series) {
            Ok(()) => true,
            Err(limit) => {
                self.last = limit;
                false
            }
        }
    }

    fn reason(&self) -> &'static str {
        self.last.reason()
    }

    fn finish(&mut self) -> Result<Told, Rejection> {
        let excess = self.check.finish()?;
        Ok(Told {
            refused: excess.map(|excess| Outcome::Rejected {
                rejection: excess.rejection,
                lost: Some(excess.lost),
            }),
            ..Told::default()
        })
    }
}
