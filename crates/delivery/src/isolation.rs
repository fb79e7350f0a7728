//! Isolation: finds the series for which an endpoint refuses a batch, by halving the batch.
//!
//! A refused batch is sent again in two halves, the first half first, until the refused part is a
//! single series. Other series are accepted with the first part that has no offender. Prometheus
//! 2.42 rolls a 1.0 request that it refuses back as a whole. Other endpoints may have stored the
//! valid part: they receive some samples again, which they accept as long as they are equal.

use metrifold_codec::{Arena, Batch};
use metrifold_model::Outcome;

use super::transport::{Refusal, RefusalClass};

/// The most series of a batch that are isolated one by one, for their content or for their size
/// each. Parts that are refused after that are dropped as a whole.
pub(super) const OFFENDERS_MAX: usize = 16;

/// Progress of the isolation within a delivery.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Series isolated so far: refused for their content, and for their size. Counted separately,
    /// so that offenders by content do not keep parts that are only too large from being halved.
    offenders: [usize; 2],
    /// Number of halvings that are left; `None` before the first.
    left: Option<usize>,
}

/// Next step for a refused part.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, for a part that was refused"
)]
pub(super) enum Step {
    /// Send the part again: it had not been decoded, and now its labels are sorted and invalid
    /// series are left out, with the samples in `lost`.
    Mended {
        lost: Vec<(&'static str, u64)>,
        outcome: Outcome,
    },
    /// Send these parts, the first one first.
    Halves(Batch, Batch),
    /// Drop the part: it is a single series.
    Alone,
    /// Drop the part with all of its series; their number.
    Together(usize),
}

impl Isolation {
    /// Decides on a refused part.
    pub(super) fn step(&mut self, part: &mut Batch, refusal: &Refusal) -> Step {
        if refusal.class == RefusalClass::Whole {
            return Step::Alone;
        }
        let Ok(invalid) = part.decode() else {
            // The series cannot be told apart, so the part is treated like a single one.
            return self.alone(refusal);
        };
        // Without a body, decoding has left out or sorted something: the part is encoded again.
        if part.body_len() == 0 {
            let outcome = match invalid.series() {
                0 => Outcome::Delivered,
                _ => Outcome::rejected(invalid.to_string()),
            };
            let lost = invalid.by_reason();
            let lost = lost.map(|(reason, samples)| (reason.as_str(), samples));
            return Step::Mended {
                lost: lost.collect(),
                outcome,
            };
        }
        let Ok(arena) = part.arena().cloned() else {
            return self.alone(refusal);
        };
        let series: Vec<usize> = arena.iter().map(|series| series.index()).collect();
        let has_metadata = arena.counts().metadata > 0;
        if series.len() + usize::from(has_metadata) < 2 {
            return self.alone(refusal);
        }
        let offenders = self.offenders[usize::from(refusal.is_of_size())];
        if offenders >= OFFENDERS_MAX || !self.may_halve(series.len(), refusal) {
            return Step::Together(series.len());
        }
        let (first, second) = halves(&arena, &series, has_metadata);
        Step::Halves(part.with_arena(first), part.with_arena(second))
    }

    fn alone(&mut self, refusal: &Refusal) -> Step {
        self.offenders[usize::from(refusal.is_of_size())] += 1;
        Step::Alone
    }

    /// Whether the part may be halved once more. The number of halvings is bounded by those needed
    /// to find `OFFENDERS_MAX` series: an endpoint that refuses a part and accepts both halves must
    /// not be asked about every series. A refusal for size is taken literally and halves without
    /// bound.
    fn may_halve(&mut self, series: usize, refusal: &Refusal) -> bool {
        if refusal.is_of_size() {
            return true;
        }
        let left = self.left.get_or_insert(OFFENDERS_MAX * depth(series));
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }
}

/// The number of halvings until each of `series` is alone. Metadata goes with the first series, and
/// is separated from it by one more step.
pub(super) fn depth(series: usize) -> usize {
    series.next_power_of_two().ilog2() as usize + 1
}

/// Splits the series into the first half, with the metadata, and the second half; a single series
/// is separated from its metadata.
fn halves(arena: &Arena, series: &[usize], has_metadata: bool) -> (Arena, Arena) {
    if let [_] = series {
        return (arena.extract(false, series), arena.extract(true, &[]));
    }
    let (first, second) = series.split_at(series.len() / 2);
    (
        arena.extract(has_metadata, first),
        arena.extract(false, second),
    )
}

#[cfg(test)]
mod tests;
