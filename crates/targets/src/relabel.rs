//! Relabelling of targets.

use std::sync::Arc;

use metrifold_codec::remote_write::Limits;
use metrifold_codec::{ArenaBuilder, Name};
use metrifold_discovery::{Labels, Target};
use metrifold_expr::relabel::Program;

/// Result of relabelling a target.
#[derive(Clone, Debug)]
pub enum Relabelled {
    /// Labels of the target that is kept.
    Kept(Target),
    /// A rule dropped the target.
    Dropped,
    /// The rules removed the address.
    WithoutAddress,
}

impl Relabelled {
    /// The relabelled target, unless it is left out.
    pub fn kept(&self) -> Option<&Target> {
        match self {
            Self::Kept(target) => Some(target),
            Self::Dropped | Self::WithoutAddress => None,
        }
    }
}

/// Number of targets that are relabelled in one arena, which takes a few kilobytes for each.
const TOGETHER: usize = 100;
/// Name of a series, which a target does not need to have.
const NAME: &str = "__name__";

/// Compiled rules over the labels of targets.
#[derive(Debug)]
pub struct TargetRules(Program);

impl TargetRules {
    /// Wraps a compiled program.
    pub fn new(program: Program) -> Self {
        Self(program)
    }

    /// Applies the rules to each target.
    pub fn apply(&self, targets: &[Target]) -> Vec<Relabelled> {
        let together = targets.chunks(TOGETHER);
        together
            .flat_map(|targets| self.apply_to(targets))
            .collect()
    }

    fn apply_to(&self, targets: &[Target]) -> Vec<Relabelled> {
        // No limits here: the provider's own bound its targets.
        let mut builder = ArenaBuilder::new(Limits {
            decoded_bytes: usize::MAX,
            series: usize::MAX,
            labels: usize::MAX,
            name_bytes: usize::MAX,
            value_bytes: usize::MAX,
        });
        let mut relabelled = vec![Relabelled::Dropped; targets.len()];
        let mut places = Vec::with_capacity(targets.len());
        for (place, target) in targets.iter().enumerate() {
            builder.start_series();
            for (name, value) in target.iter() {
                builder.push_label(name, value);
            }
            let named = builder.has_label(NAME);
            if !named {
                builder.push_label(NAME, NAME);
            }
            builder.push_sample(0.0, 0);
            // A target's labels are sorted, unique and not empty, so that this does not fail.
            if builder.finish_series().is_ok() {
                places.push((place, named));
            }
        }
        let mut arena = builder.finish();
        let mut scratch = self.0.scratch();
        scratch.begin();
        let name = Name::new(NAME);
        let mut places = places.into_iter();
        arena.retain(|series| {
            let Some((place, named)) = places.next() else {
                return false;
            };
            if !named {
                series.remove(&name);
            }
            if !self.0.run(series, &mut scratch) {
                return false;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let labels =
                (0..series.len()).map(|at| (text(series.name_at(at)), text(series.value_at(at))));
            let labels: Labels = labels.collect();
            relabelled[place] = match labels.address() {
                "" => Relabelled::WithoutAddress,
                // A target that the rules left unchanged keeps its allocation.
                _ if labels == *targets[place] => Relabelled::Kept(Arc::clone(&targets[place])),
                _ => Relabelled::Kept(Arc::new(labels)),
            };
            true
        });
        relabelled
    }
}
