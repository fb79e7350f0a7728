//! Operators, and what decides which series they apply to.

use crate::text::Text;

/// The sign before an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

impl Sign {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

/// An operator between expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "as_str says how each is written")]
pub enum BinaryOp {
    Add,
    And,
    Atan2,
    Div,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Mod,
    Mul,
    NotEqual,
    Or,
    Pow,
    Sub,
    TrimLower,
    TrimUpper,
    Unless,
}

impl BinaryOp {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::And => "and",
            Self::Atan2 => "atan2",
            Self::Div => "/",
            Self::Equal => "==",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Mod => "%",
            Self::Mul => "*",
            Self::NotEqual => "!=",
            Self::Or => "or",
            Self::Pow => "^",
            Self::Sub => "-",
            Self::TrimLower => ">/",
            Self::TrimUpper => "</",
            Self::Unless => "unless",
        }
    }

    /// How tightly it binds; more is tighter.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Equal | Self::NotEqual | Self::Greater | Self::GreaterEqual => 3,
            Self::Less | Self::LessEqual | Self::TrimLower | Self::TrimUpper => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 6,
        }
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::NotEqual
                | Self::Greater
                | Self::GreaterEqual
                | Self::Less
                | Self::LessEqual
        )
    }

    /// Whether it works on sets of series instead of their samples.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// A way to aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "as_str says how each is written")]
pub enum AggregateOp {
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    LimitRatio,
    Limitk,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
}

impl AggregateOp {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avg => "avg",
            Self::Bottomk => "bottomk",
            Self::Count => "count",
            Self::CountValues => "count_values",
            Self::Group => "group",
            Self::LimitRatio => "limit_ratio",
            Self::Limitk => "limitk",
            Self::Max => "max",
            Self::Min => "min",
            Self::Quantile => "quantile",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Sum => "sum",
            Self::Topk => "topk",
        }
    }

    /// Whether it takes a parameter.
    pub fn has_param(self) -> bool {
        matches!(
            self,
            Self::Bottomk
                | Self::CountValues
                | Self::LimitRatio
                | Self::Limitk
                | Self::Quantile
                | Self::Topk
        )
    }

    /// Whether it is refused unless experimental functions are on.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::LimitRatio | Self::Limitk)
    }
}

/// Which series an aggregation puts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Whether series go together that agree in all labels but these.
    pub without: bool,
    /// The labels.
    pub labels: Vec<Text>,
}

/// Which series of two vectors meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    /// How many series of each side meet.
    pub cardinality: Cardinality,
    /// Whether only these labels have to agree, instead of all others.
    pub on: bool,
    /// The labels.
    pub labels: Vec<Text>,
    /// Labels that come from the side of which there is one.
    pub include: Vec<Text>,
    /// Values of series that are missing.
    pub fill: Fill,
}

/// How many series of each side meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// One of each.
    #[default]
    OneToOne,
    /// Many of the left with one of the right: `group_left`.
    ManyToOne,
    /// One of the left with many of the right: `group_right`.
    OneToMany,
    /// Any number of each: operators on sets.
    ManyToMany,
}

/// Values of series that are missing on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fill {
    /// Of those missing on the left.
    pub left: Option<f64>,
    /// Of those missing on the right.
    pub right: Option<f64>,
}
