//! Durations, which may be computed expressions.

use crate::text::Span;

/// A duration greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duration {
    /// A number of nanoseconds.
    Fixed(i64),
    /// The result of a computed duration.
    Computed(DurationId),
}

/// Offset of a selector into the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offset {
    /// No offset.
    #[default]
    None,
    /// A number of nanoseconds; a negative one looks ahead.
    Fixed(i64),
    /// The result of a computed duration.
    Computed(DurationId),
}

/// Index of a node of computed durations in its expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DurationId(pub(crate) u32);

/// A node of a computed duration.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationNode {
    /// Bytes of the input that the node was parsed from.
    pub span: Span,
    /// Kind of the node, with its operands.
    pub kind: DurationKind,
    /// Whether it is in parentheses.
    pub wrapped: bool,
}

/// Kinds of nodes in computed durations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DurationKind {
    /// A number, in seconds.
    Number {
        /// Value in seconds.
        value: f64,
        /// Whether it was written with units.
        is_duration: bool,
    },
    /// `step()`: the query's step.
    Step,
    /// `range()`: the query's range.
    Range,
    /// `min_of(a, b)`
    MinOf(DurationId, DurationId),
    /// `max_of(a, b)`
    MaxOf(DurationId, DurationId),
    /// `+a`
    Plus(DurationId),
    /// `-a`
    Minus(DurationId),
    /// `a * b`
    Binary(DurationOp, DurationId, DurationId),
}

/// An operator between durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
}

impl DurationOp {
    /// Spelling of the operator.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }
}
