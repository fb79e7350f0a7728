//! Selectors of series.

use crate::ast::Offset;
use crate::regex;
use crate::text::Text;

/// The label that holds the name of a metric.
pub(crate) const METRIC_NAME: &str = "__name__";

/// A selector of series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// The metric's name, if written before the braces.
    pub name: Option<Text>,
    /// The matchers, all of which must match.
    pub matchers: Vec<Matcher>,
    /// Offset into the past.
    pub offset: Offset,
    /// Fixed time of the evaluation, if one is given.
    pub at: Option<At>,
    /// Extension of the range, if one is given.
    pub extension: Option<Extension>,
}

impl Selector {
    /// Whether the name or a matcher keeps it from selecting every series.
    pub fn is_restricted(&self) -> bool {
        self.name.is_some() || self.matchers.iter().any(|matcher| !matcher.matches_empty())
    }
}

/// A condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// Name of the label.
    pub name: Text,
    /// Comparison operator.
    pub op: MatchOp,
    /// Value or regular expression to compare with.
    pub value: Text,
}

impl Matcher {
    /// Makes a matcher.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Self {
        Self {
            name: name.into(),
            op,
            value: value.into(),
        }
    }

    /// A matcher for exactly these values; without any, it matches only series without the label.
    pub fn one_of(name: &str, values: &[&str]) -> Self {
        match values {
            [] => Self::new(name, MatchOp::Equal, ""),
            [value] => Self::new(name, MatchOp::Equal, value),
            _ => Self::new(name, MatchOp::Regex, &Self::pattern_of(values)),
        }
    }

    /// A regular expression that matches exactly these values.
    pub fn pattern_of(values: &[&str]) -> String {
        let alternatives: Vec<_> = values
            .iter()
            .map(|value| regex::literal_of(value))
            .collect();
        alternatives.join("|")
    }

    /// Whether it matches an empty value, which stands for an absent label.
    pub fn matches_empty(&self) -> bool {
        match self.op {
            MatchOp::Equal => self.value.is_empty(),
            MatchOp::NotEqual => !self.value.is_empty(),
            MatchOp::Regex => regex::matches_empty(self.value.as_bytes()),
            MatchOp::NotRegex => !regex::matches_empty(self.value.as_bytes()),
        }
    }
}

/// Comparison operators of matchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// Spelling of the operator.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A fixed time of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since the epoch.
    Timestamp(i64),
    /// The start of the query.
    Start,
    /// The end of the query.
    End,
}

/// Extension of a selector's range to its boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// To the samples nearest to the boundaries.
    Anchored,
    /// By interpolation at the boundaries.
    Smoothed,
}

impl Extension {
    /// Spelling of the keyword.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}
