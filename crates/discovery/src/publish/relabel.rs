//! Rules over the labels of targets.

use std::sync::Arc;

use metrifold_codec::remote_write::Limits;
use metrifold_codec::{ArenaBuilder, Name};
use metrifold_expr::relabel::Program;

use crate::labels::{Labels, Target};

/// What rules make of a target.
#[derive(Clone, Debug)]
pub enum Relabelled {
    /// It has these labels.
    Kept(Target),
    /// A rule drops it.
    Dropped,
    /// It has no address any more.
    WithoutAddress,
}

impl Relabelled {
    /// The target, if there is one.
    pub fn kept(&self) -> Option<&Target> {
        match self {
            Self::Kept(target) => Some(target),
            Self::Dropped | Self::WithoutAddress => None,
        }
    }
}

/// How many targets are relabelled together.
const TOGETHER: usize = 1000;
/// A series has a name and a target has none.
const NAME: &str = "__name__";

/// Compiled rules over the labels of targets.
#[derive(Debug)]
pub struct TargetRules(Program);

impl TargetRules {
    /// Rules that have been compiled.
    pub fn new(program: Program) -> Self {
        Self(program)
    }

    /// Applies them to each target.
    pub fn apply(&self, targets: &[Target]) -> Vec<Relabelled> {
        let together = targets.chunks(TOGETHER);
        together
            .flat_map(|targets| self.apply_to(targets))
            .collect()
    }

    fn apply_to(&self, targets: &[Target]) -> Vec<Relabelled> {
        // What a provider may find is bounded by itself.
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
            // Its labels are sorted, unique and not empty, so that nothing is wrong with them.
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
                // What no rule has touched stays the same in memory.
                _ if labels == *targets[place] => Relabelled::Kept(Arc::clone(&targets[place])),
                _ => Relabelled::Kept(Arc::new(labels)),
            };
            true
        });
        relabelled
    }
}
