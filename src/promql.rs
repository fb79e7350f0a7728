//! Options of PromQL: the regular expressions are those of Metrifold's own selectors.

use metrifold_promql::Options;
use metrifold_regex::Regex;

/// Options that allow the whole language, and require valid regular expressions.
pub(crate) fn options() -> Options {
    Options {
        validate_regex,
        ..Options::default()
    }
}

fn validate_regex(pattern: &str) -> Result<(), String> {
    Regex::validate(pattern).map_err(|error| error.to_string())
}
