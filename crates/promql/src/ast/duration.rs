//! Durations, which may be computed.

use crate::text::Span;

/// A length of time that is greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duration {
    /// So many nanoseconds.
    Fixed(i64),
    /// What a computation gives.
    Computed(DurationId),
}

/// How far back a selector looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offset {
    /// Not at all.
    #[default]
    None,
    /// So many nanoseconds; negative ones look ahead.
    Fixed(i64),
    /// What a computation gives.
    Computed(DurationId),
}

/// The number of a part of a duration in its expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DurationId(pub(crate) u32);

/// A part of a computed duration.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationNode {
    /// Where it stands in the input.
    pub span: Span,
    /// What it is.
    pub kind: DurationKind,
    /// Whether it stands in parentheses.
    pub wrapped: bool,
}

/// What a part of a computed duration is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DurationKind {
    /// A number, in seconds.
    Number {
        /// Its value.
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
    /// How it is written.
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
