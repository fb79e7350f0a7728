//! What is valid, and yet hardly what its author meant.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use super::problem::{Key, Problem, Problems};
use super::{Group, Kind, Rule};
use crate::yaml::Place;

/// A kind of warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lint {
    /// Prometheus does not read it.
    Ignored,
    /// Two rules produce series of the same name and labels.
    DuplicateRules,
    /// An alert has no label that says how severe it is.
    NoSeverity,
    /// A rate is taken of what is no counter by its name.
    RateOfGauge,
    /// A regular expression that every value matches, the missing one too.
    MatchesAll,
}

impl Lint {
    /// Its name.
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

/// Something odd in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which kind it is.
    pub lint: Lint,
    /// Where it is, and what to do.
    pub problem: Problem,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.problem, self.lint.as_str())
    }
}

/// Warnings as they are found.
pub(super) struct Warnings {
    list: Vec<Warning>,
    max: usize,
    hashes: RandomState,
    /// The rules so far by a hash of what they produce, and the line of each.
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

    /// Looks at a whole group, whose rules stand at these places.
    pub(super) fn group(&mut self, group: &Group, places: &[Place], key: &Key<'_>) {
        let key = key.field("rules");
        for (index, (rule, &place)) in group.rules.iter().zip(places).enumerate() {
            let key = key.item(index);
            self.duplicate(group, rule, place, &key);
            let severe = |labels: &BTreeMap<_, _>| labels.contains_key("severity");
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
        // A rule's own labels override those of its group.
        let inherited = group
            .labels
            .iter()
            .filter(|(name, _)| !rule.labels.contains_key(*name));
        let mut labels: Vec<_> = inherited.chain(&rule.labels).collect();
        labels.sort_unstable();
        labels.hash(&mut hash);
        // By a key that no author knows: two rules that differ do not meet.
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

    /// The warnings by line.
    pub(super) fn into_list(mut self) -> Vec<Warning> {
        self.list
            .sort_by_key(|warning| (warning.problem.line, warning.problem.column));
        self.list
    }
}
