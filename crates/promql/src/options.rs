//! Features of the language, and bounds of an input.

use crate::function::{FUNCTIONS, Function};

/// Default for the most bytes of an input.
///
/// Dashboards expand variables into alternatives of thousands of pod names, tens of kilobytes; a
/// query of this length is parsed in about a millisecond.
pub const DEFAULT_MAX_LENGTH: usize = 256 * 1024;

/// Default for the most levels of nesting.
///
/// Parentheses, calls, signs and `^` nest; a chain such as `a or b or c` does not, however long.
/// Expressions that people write stay below 20. The parser recurses once per level.
pub const DEFAULT_MAX_DEPTH: u32 = 200;

/// Default for the most parts of an expression.
///
/// A part is an operand, an operator, a matcher or a label. It takes up to 200 bytes of memory.
pub const DEFAULT_MAX_PARTS: u32 = 20_000;

/// Features of the language, and bounds of an input.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether experimental functions and aggregations are allowed, as Prometheus does with
    /// `--enable-feature=promql-experimental-functions`; on by default.
    pub experimental_functions: bool,
    /// Whether `fill`, `fill_left` and `fill_right` are allowed between vectors, as Prometheus
    /// does with `--enable-feature=promql-binop-fill-modifiers`; on by default.
    pub fill_modifiers: bool,
    /// Whether names may have letters beyond ASCII and dots without quotes, as Prometheus does
    /// with `--enable-feature=promql-unquoted-utf8-names`; off by default, and printed the same
    /// way as parsed.
    pub unquoted_names: bool,
    /// The functions that exist, sorted by name; those of Prometheus by default.
    pub functions: &'static [Function],
    /// Validates a regular expression of a matcher, with the reason if it is invalid; accepts all
    /// by default.
    pub validate_regex: fn(&str) -> Result<(), String>,
    /// Most bytes of an input; never more than 4 GiB.
    pub max_length: usize,
    /// Most levels of nesting; each takes up to four kilobytes of stack in a build for debugging,
    /// and one in an optimised one.
    pub max_depth: u32,
    /// Most parts of an expression: operands, operators, matchers, labels.
    pub max_parts: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            experimental_functions: true,
            fill_modifiers: true,
            unquoted_names: false,
            functions: FUNCTIONS,
            validate_regex: |_| Ok(()),
            max_length: DEFAULT_MAX_LENGTH,
            max_depth: DEFAULT_MAX_DEPTH,
            max_parts: DEFAULT_MAX_PARTS,
        }
    }
}
