//! A rule file: groups of recording and alerting rules, as Prometheus reads them.
//!
//! Reading is as strict as `model/rulefmt` of Prometheus v0.316 with unknown keys refused, and reports
//! every problem instead of the first. Every key that Prometheus reads is kept, in a normal form:
//! labels are sorted, and an interval of zero is unset. Expressions are checked by the caller's
//! function. Valid but questionable rules give warnings, which never make a file invalid.

mod check;
mod expr;
mod fields;
mod labels;
mod lint;
mod parse;
mod problem;

use std::sync::Arc;

pub use expr::{CheckedExpr, Expr, ExprCheck, any_expr};
pub use labels::Labels;
pub use lint::{Lint, Warning};
pub use problem::Problem;

use crate::PromDuration;

/// The groups of a file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFile {
    /// The groups, with distinct names.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated together, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Name of the group, which is not empty.
    pub name: String,
    /// Evaluation interval; `None` takes the ruler's default.
    pub interval: Option<PromDuration>,
    /// Offset into the past at which the rules are evaluated; `None` takes the ruler's default, and
    /// zero means now.
    pub query_offset: Option<PromDuration>,
    /// Maximum number of series or alerts that a rule may produce; 0 means no limit.
    pub limit: i64,
    /// Strategy for partial responses, which only a Thanos Ruler supports; `None` takes its default.
    pub partial_response: Option<PartialResponse>,
    /// Labels of all rules of the group; a rule's own labels override them.
    pub labels: Labels,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// Reaction of a Thanos Ruler to a query that some stores do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialResponse {
    /// Continue with the other stores' answers.
    Warn,
    /// Fail the evaluation.
    Abort,
}

impl PartialResponse {
    /// The value in a rule file.
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
    /// Name of the recorded metric, or of the alert.
    pub name: Arc<str>,
    /// PromQL expression.
    pub expr: Expr,
    /// Labels that are set on the resulting series or alerts.
    pub labels: Labels,
    /// Whether the rule records or alerts.
    pub kind: Kind,
}

/// Use of the result of a rule's expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Store the result as a metric.
    Recording,
    /// Raise an alert for each series.
    Alerting(Arc<Alerting>),
}

/// Fields of alerting rules only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alerting {
    /// Time for which the expression must hold before the alert fires (`for`); `None` means at once.
    pub hold: Option<PromDuration>,
    /// Time for which the alert keeps firing after the expression ceases to hold.
    pub keep_firing_for: Option<PromDuration>,
    /// Annotations of the alert, which are templates.
    pub annotations: Labels,
}

/// Validation scheme for names of metrics, labels and annotations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Any non-empty text, as in Prometheus since 3.0.
    #[default]
    Utf8,
    /// Letters, digits and underscores, and colons in metric names.
    Legacy,
}

/// Limits of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the file, in bytes, and of its texts together, where a text counts again for
    /// each alias to it.
    pub bytes: usize,
    /// Maximum number of groups.
    pub groups: usize,
    /// Maximum number of rules, over all groups.
    pub rules: usize,
    /// Maximum number of YAML nodes, where a node counts again for each alias to it.
    pub nodes: usize,
    /// Maximum number of reported problems; further ones are only counted.
    pub problems: usize,
}

impl Limits {
    /// Default limits, about ten times the largest rule files that are known to be in use.
    pub const DEFAULT: Self = Self {
        bytes: 4 << 20,
        groups: 10_000,
        rules: 50_000,
        nodes: 1_000_000,
        problems: 100,
    };

    /// Limits of files that this program wrote: far above those of the sources, as a file that cannot be
    /// read counts as empty, and low enough for one that somebody else has changed since.
    pub(crate) const OWN: Self = Self {
        bytes: 1 << 30,
        groups: 10_000_000,
        rules: 10_000_000,
        nodes: 100_000_000,
        problems: 1,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Options of reading a file.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Checks a PromQL expression.
    pub expr: ExprCheck<'a>,
    /// Whether groups may set a strategy for partial responses, which requires that every ruler is a
    /// Thanos Ruler.
    pub thanos: bool,
    /// Whether an unknown key is a warning instead of an error, for files with private keys.
    pub ignore_unknown: bool,
    /// Validation scheme for names.
    pub names: Names,
    /// Limits of the file.
    pub limits: Limits,
}

impl<'a> Checks<'a> {
    /// Options for Prometheus, with default limits.
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
    /// The rules in the file.
    pub file: RuleFile,
    /// Whether the file has a list of groups, even an empty one. A file without the key has no rules,
    /// most likely by mistake.
    pub has_groups: bool,
    /// Whether the file has the key `groups`, be it without a value.
    pub names_groups: bool,
    /// Warnings about valid but questionable parts.
    pub warnings: Vec<Warning>,
}

impl RuleFile {
    /// Parses a file. Fails with all of its problems, ordered by line.
    pub fn parse(text: &[u8], checks: &Checks<'_>) -> Result<Parsed, Vec<Problem>> {
        parse::parse(text, checks)
    }

    /// The number of rules in all groups.
    pub fn rules(&self) -> usize {
        self.groups.iter().map(|group| group.rules.len()).sum()
    }
}

impl Group {
    /// A copy without the rules.
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
    /// The fields of an alerting rule; `None` for a recording rule.
    pub fn alerting(&self) -> Option<&Alerting> {
        match &self.kind {
            Kind::Recording => None,
            Kind::Alerting(alerting) => Some(alerting),
        }
    }
}

#[cfg(test)]
mod tests;
