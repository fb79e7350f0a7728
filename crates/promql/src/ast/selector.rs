//! Selectors of series.

use crate::ast::Offset;
use crate::regex;
use crate::text::Text;

/// The label that holds the name of a metric.
pub(crate) const METRIC_NAME: &str = "__name__";

/// A selector of series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// The metric's name, if it stands before the braces.
    pub name: Option<Text>,
    /// What labels have to be: all of these at once.
    pub matchers: Vec<Matcher>,
    /// How far back it looks.
    pub offset: Offset,
    /// The time that it is evaluated for, if that is fixed.
    pub at: Option<At>,
    /// How its range is extended.
    pub extension: Option<Extension>,
}

impl Selector {
    /// Whether a matcher or the name keeps it from selecting every series.
    pub fn is_restricted(&self) -> bool {
        self.name.is_some() || self.matchers.iter().any(|matcher| !matcher.matches_empty())
    }
}

/// What a label has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The label.
    pub name: Text,
    /// How it is compared.
    pub op: MatchOp,
    /// With what.
    pub value: Text,
}

impl Matcher {
    /// A matcher.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Self {
        Self {
            name: name.into(),
            op,
            value: value.into(),
        }
    }

    /// A matcher of exactly these values; of none, it matches only series without the label.
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

    /// Whether it matches an empty value, which is that of a label that a series has not.
    pub fn matches_empty(&self) -> bool {
        match self.op {
            MatchOp::Equal => self.value.is_empty(),
            MatchOp::NotEqual => !self.value.is_empty(),
            MatchOp::Regex => regex::matches_empty(self.value.as_bytes()),
            MatchOp::NotRegex => !regex::matches_empty(self.value.as_bytes()),
        }
    }
}

/// How a label is compared.
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
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A time that does not depend on that of evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// The start of the query.
    Start,
    /// Its end.
    End,
}

/// How a selector's range is extended to meet its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// By the samples nearest to the limits.
    Anchored,
    /// By interpolation.
    Smoothed,
}

impl Extension {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Smoothed => "smoothed",
        }
    }
}
