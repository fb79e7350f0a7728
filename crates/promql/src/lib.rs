//! PromQL, the language of Prometheus 3.16: parses, checks, prints, formats and restricts
//! expressions.
//!
//! Verdicts, messages and printing are those of Prometheus' own parser; golden files in the tests
//! check this. Knows only the language: neither HTTP nor tenants.
//!
//! Inputs may be hostile: [`Options`] bound their length, their nesting and the number of their
//! parts, all work is linear in the length, and recursion ends at the bound of nesting.

#![warn(unreachable_pub)]
// Tests may use all of these.
#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::expect_used,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unwrap_used,
    )
)]

mod ast;
mod check;
mod enforce;
mod error;
mod function;
mod go;
mod insert;
mod lexer;
mod names;
mod options;
mod parser;
mod pretty;
mod print;
mod regex;
mod series;
mod text;
mod token;

pub use ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Duration, DurationId,
    DurationKind, DurationNode, DurationOp, Expr, Extension, Fill, Grouping, MatchOp, Matcher,
    Matching, Node, NodeId, NodeKind, Number, Offset, RangeSelector, Selector, Sign, Subquery,
};
pub use enforce::{EnforceError, ImplicitInfo, enforce};
pub use error::{ErrorKind, ParseError, Position};
pub use function::{FUNCTIONS, Function, ValueType, Variadic};
pub use insert::insert;
pub use options::{DEFAULT_MAX_DEPTH, DEFAULT_MAX_LENGTH, DEFAULT_MAX_PARTS, Options};
pub use parser::{parse, parse_selector, parse_series};
pub use series::{Histogram, ResetHint, Series, SeriesItem, SeriesValue};
pub use text::{Span, Text};
