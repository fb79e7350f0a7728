//! Finds the series for which an endpoint refuses a batch, by halving it.
//!
//! A batch that is refused is sent again in two halves, the first half first, until what is
//! refused is a single series. A series that is not to blame is accepted in the first part
//! without an offender. Prometheus 2.42 takes a 1.0 request that it refuses back as a whole. Others
//! may store the valid part: these are sent samples that they have, which they take as long as they
//! are equal.

use metrifold_codec::{Arena, Batch};
use metrifold_model::Outcome;

use super::transport::{Refusal, RefusalClass};

/// The most series of a batch that are found one by one, for their content or for their size. What
/// is refused after that is given up part by part.
pub(super) const OFFENDERS_MAX: usize = 16;

/// How far a delivery has come in finding what its endpoint refuses.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Found alone: refused for their content, and for their size. The former must not keep what is
    /// too large together from being sent in parts.
    offenders: [usize; 2],
    /// How often a refused part may still be halved; none before the first time.
    left: Option<usize>,
}

/// What to do about a part that was refused.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, for a part that was refused"
)]
pub(super) enum Step {
    /// Send it again: it had not been looked into, and now its labels are sorted and what is
    /// invalid is left out, which says how much that is.
    Mended {
        lost: Vec<(&'static str, u64)>,
        outcome: Outcome,
    },
    /// Send these, the first one first.
    Halves(Batch, Batch),
    /// Give it up: it is alone.
    Alone,
    /// Give it up with all that is in it: so many series.
    Together(usize),
}

impl Isolation {
    /// What to do about a part that was refused.
    pub(super) fn step(&mut self, part: &mut Batch, refusal: &Refusal) -> Step {
        if refusal.class == RefusalClass::Whole {
            return Step::Alone;
        }
        let Ok(invalid) = part.decode() else {
            // Not even its series can be told apart.
            return self.alone(refusal);
        };
        // What was encoded no longer holds if decoding left out or moved something.
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

    /// As often as it takes to find the most offenders that are looked for: an endpoint that
    /// refuses a part and takes both halves of it must not be asked about every series. One that
    /// says that a part is too large means that, so all of it is sent, however small the parts.
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

/// How often so many series have to be halved until each is alone. Metadata goes with the first
/// one, from which it is told in one step more.
pub(super) fn depth(series: usize) -> usize {
    series.next_power_of_two().ilog2() as usize + 1
}

/// The first half of the series, with the metadata, and the second; a single one is parted from
/// its metadata.
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
