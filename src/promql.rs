//! PromQL as the product takes it: with the regular expressions that its own selectors know.

use metrifold_expr::regex::Regex;
use metrifold_promql::Options;

/// What is taken of the language: all of it, with valid regular expressions.
pub(crate) fn options() -> Options {
    Options {
        validate_regex,
        ..Options::default()
    }
}

fn validate_regex(pattern: &str) -> Result<(), String> {
    Regex::new(pattern)
        .map(drop)
        .map_err(|error| error.to_string())
}
