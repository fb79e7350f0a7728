//! A rule file: groups of recording and alerting rules, as Prometheus reads them.
//!
//! Reading is as strict as Prometheus v0.316's `model/rulefmt` with unknown keys refused, and finds
//! every problem instead of the first. A key that Prometheus reads is kept; what is equal to it is
//! one value here: labels are sorted, and an interval of zero is none. Expressions are checked by the
//! caller's function. What is valid and yet hardly meant is a warning, and never in the way.

mod check;
mod fields;
mod lint;
mod parse;
mod problem;

use std::collections::BTreeMap;

pub use lint::{Lint, Warning};
pub use problem::Problem;

use crate::PromDuration;

/// The groups of a file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFile {
    /// Groups have names of their own within a file.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated together, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Not empty.
    pub name: String,
    /// How often it is evaluated; none is the ruler's default.
    pub interval: Option<PromDuration>,
    /// How far back in time it is evaluated; none is the ruler's default, zero is now.
    pub query_offset: Option<PromDuration>,
    /// How many series or alerts a rule may produce; 0 is any number.
    pub limit: i64,
    /// What becomes of partial answers; only a Thanos Ruler knows it, and none is its default.
    pub partial_response: Option<PartialResponse>,
    /// Labels of all its rules, which a rule's own override.
    pub labels: BTreeMap<String, String>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// What a Thanos Ruler does when some of the stores do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialResponse {
    /// It goes on with what the others say.
    Warn,
    /// It takes the evaluation for failed.
    Abort,
}

impl PartialResponse {
    /// The word for it in a rule file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Abort => "abort",
        }
    }
}

/// A recording or alerting rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The metric that it records or the alert that it raises.
    pub name: String,
    /// The PromQL expression, as it was written.
    pub expr: String,
    /// Labels that are set on what it produces.
    pub labels: BTreeMap<String, String>,
    /// Which of the two it is.
    pub kind: Kind,
}

/// What a rule does with the result of its expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It stores it as a metric.
    Recording,
    /// It raises an alert for each series. Boxed, as most rules record.
    Alerting(Box<Alerting>),
}

/// What only an alerting rule has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerting {
    /// How long the expression has to hold before the alert fires; none is at once.
    pub hold: Option<PromDuration>,
    /// How long the alert goes on firing after the expression has ceased to hold.
    pub keep_firing_for: Option<PromDuration>,
    /// What people are told, as templates.
    pub annotations: BTreeMap<String, String>,
}

/// Which names of metrics, labels and annotations are valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Any text that is not empty, as in Prometheus since 3.0.
    #[default]
    Utf8,
    /// Letters, digits and underscores, and colons in metrics.
    Legacy,
}

/// Bounds of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest file, in bytes; also what its texts may hold, those that aliases repeat counted
    /// each time.
    pub bytes: usize,
    /// The most groups.
    pub groups: usize,
    /// The most rules, of all groups together.
    pub rules: usize,
    /// The most YAML nodes, those that aliases repeat counted each time.
    pub nodes: usize,
    /// The most problems that are reported; what comes after them is only counted.
    pub problems: usize,
}

impl Limits {
    /// The default bounds: some ten times the largest rule files that are known to be in use.
    pub const DEFAULT: Self = Self {
        bytes: 4 << 20,
        groups: 10_000,
        rules: 50_000,
        nodes: 1_000_000,
        problems: 100,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A check of an expression: what is odd about it, or what is wrong.
pub type ExprCheck<'a> = &'a (dyn Fn(&str) -> Result<Vec<(Lint, String)>, String> + Sync);

/// How a file is read.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Checks a PromQL expression.
    pub expr: ExprCheck<'a>,
    /// Whether every ruler is a Thanos, so that a group may say what becomes of partial answers.
    pub thanos: bool,
    /// Whether a key that nobody knows is a warning, as some keep notes of their own in rule files.
    pub ignore_unknown: bool,
    /// Which names are valid.
    pub names: Names,
    /// Bounds of the file.
    pub limits: Limits,
}

impl<'a> Checks<'a> {
    /// Checks for a Prometheus.
    pub fn new(expr: ExprCheck<'a>) -> Self {
        Self {
            expr,
            thanos: false,
            ignore_unknown: false,
            names: Names::default(),
            limits: Limits::default(),
        }
    }
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it holds.
    pub file: RuleFile,
    /// Whether it has a list of groups, be it an empty one. A file without any holds nothing, which
    /// hardly anybody means who sends it.
    pub has_groups: bool,
    /// What its author may not have meant.
    pub warnings: Vec<Warning>,
}

impl RuleFile {
    /// Reads a file. Fails with all of its problems, in the order of their lines.
    pub fn parse(text: &[u8], checks: &Checks<'_>) -> Result<Parsed, Vec<Problem>> {
        parse::parse(text, checks)
    }

    /// The number of rules in all groups.
    pub fn rules(&self) -> usize {
        self.groups.iter().map(|group| group.rules.len()).sum()
    }
}

impl Group {
    /// The same without its rules.
    #[must_use]
    pub fn clone_without_rules(&self) -> Self {
        Self {
            name: self.name.clone(),
            interval: self.interval,
            query_offset: self.query_offset,
            limit: self.limit,
            partial_response: self.partial_response,
            labels: self.labels.clone(),
            rules: Vec::new(),
        }
    }
}

impl Rule {
    /// What only an alerting rule has, if it is one.
    pub fn alerting(&self) -> Option<&Alerting> {
        match &self.kind {
            Kind::Recording => None,
            Kind::Alerting(alerting) => Some(alerting),
        }
    }
}

#[cfg(test)]
mod tests;
