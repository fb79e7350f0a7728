//! Operators, and the matching of series between their operands.

use crate::text::Text;

/// A unary sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `+`
    Plus,
    /// `-`
    Minus,
}

impl Sign {
    /// Spelling of the sign.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
        }
    }
}

/// A binary operator.
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
    /// Spelling of the operator.
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

    /// Precedence; a higher one binds tighter.
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

    /// Whether it is a comparison.
    pub(crate) fn is_comparison(self) -> bool {
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

    /// Whether it operates on sets of series instead of samples.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

/// An aggregation operator.
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
    /// Spelling of the operator.
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
    pub(crate) fn has_param(self) -> bool {
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

    /// Whether it needs experimental functions to be enabled.
    pub(crate) fn is_experimental(self) -> bool {
        matches!(self, Self::LimitRatio | Self::Limitk)
    }
}

/// Grouping of series in an aggregation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    /// Whether series are grouped by all labels except these.
    pub without: bool,
    /// The labels of `by` or `without`.
    pub labels: Vec<Text>,
}

/// Matching of series between two vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matching {
    /// Cardinality of the match.
    pub cardinality: Cardinality,
    /// Whether only these labels must agree (`on`), instead of all others (`ignoring`).
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<Text>,
    /// Labels that the result takes from the "one" side.
    pub include: Vec<Text>,
    /// Values for series without a match.
    pub fill: Fill,
}

/// Cardinality of a match between two vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    /// One to one.
    #[default]
    OneToOne,
    /// Many on the left to one on the right: `group_left`.
    ManyToOne,
    /// One on the left to many on the right: `group_right`.
    OneToMany,
    /// Many to many: set operators.
    ManyToMany,
}

/// Values for series without a match on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fill {
    /// Value for series missing on the left.
    pub left: Option<f64>,
    /// Value for series missing on the right.
    pub right: Option<f64>,
}
