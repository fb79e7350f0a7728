//! Lints: valid rules that are probably not what their author meant.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use super::problem::{Key, Problem, Problems};
use super::{Group, Kind, Labels, Rule};
use crate::yaml::Place;

/// A kind of warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// Prometheus ignores this part of the file.
    Ignored,
    /// Two rules produce series of the same name and labels.
    DuplicateRules,
    /// An alert has no label that says how severe it is.
    NoSeverity,
    /// A counter function, such as `rate`, is applied to a metric with the name of a gauge.
    RateOfGauge,
    /// A matcher's regular expression matches every value, even that of a missing label.
    MatchesAll,
}

impl Lint {
    /// Name of the lint.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::DuplicateRules => "duplicate-rules",
            Self::NoSeverity => "no-severity",
            Self::RateOfGauge => "rate-of-gauge",
            Self::MatchesAll => "matches-all",
        }
    }
}

/// A finding of a lint in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The lint.
    pub lint: Lint,
    /// Position of the finding, and how to resolve it.
    pub problem: Problem,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.problem, self.lint.as_str())
    }
}

/// Collects the warnings of a file.
pub(super) struct Warnings {
    list: Vec<Warning>,
    max: usize,
    hashes: RandomState,
    /// Lines of the rules so far, by a hash of the name and labels of their result.
    produced: HashMap<u64, u64>,
}

impl Warnings {
    pub(super) fn new(max: usize) -> Self {
        Self {
            list: Vec::new(),
            max,
            hashes: RandomState::new(),
            produced: HashMap::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        lint: Lint,
        place: Place,
        key: &Key<'_>,
        message: impl Into<String>,
    ) {
        if self.list.len() < self.max {
            let problem = Problems::problem(place, key, message);
            self.list.push(Warning { lint, problem });
        }
    }

    /// Lints a whole group, given the positions of its rules.
    pub(super) fn group(&mut self, group: &Group, places: &[Place], key: &Key<'_>) {
        let key = key.field("rules");
        for (index, (rule, &place)) in group.rules.iter().zip(places).enumerate() {
            let key = key.item(index);
            self.duplicate(group, rule, place, &key);
            let severe = |labels: &Labels| labels.get("severity").is_some();
            if matches!(rule.kind, Kind::Alerting(_))
                && !severe(&rule.labels)
                && !severe(&group.labels)
            {
                let message = format!(
                    "alert {:?} has no label `severity`: most routes of an Alertmanager ask for it",
                    rule.name
                );
                self.push(Lint::NoSeverity, place, &key, message);
            }
        }
    }

    fn duplicate(&mut self, group: &Group, rule: &Rule, place: Place, key: &Key<'_>) {
        let mut hash = self.hashes.build_hasher();
        rule.name.hash(&mut hash);
        if group.labels.is_empty() {
            rule.labels.hash(&mut hash);
        } else {
            // A rule's own labels override those of its group.
            let labels = group.labels.iter().chain(rule.labels.iter());
            let labels = labels.map(|(name, value)| (name.clone(), value.clone()));
            labels.collect::<Labels>().hash(&mut hash);
        }
        // The hash has a random key, so that nobody can construct rules that collide.
        let hash = hash.finish();
        if let Some(line) = self.produced.get(&hash) {
            let message = format!(
                "rule {:?} has the name and the labels of the one at line {line}: give it another label",
                rule.name
            );
            self.push(Lint::DuplicateRules, place, key, message);
        } else {
            self.produced.insert(hash, place.line);
        }
    }

    /// The warnings, sorted by line.
    pub(super) fn into_list(mut self) -> Vec<Warning> {
        self.list
            .sort_by_key(|warning| (warning.problem.line, warning.problem.column));
        self.list
    }
}
