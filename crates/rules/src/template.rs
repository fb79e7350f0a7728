//! Templates of alerting rules: Go's `text/template` with the functions of Prometheus.
//!
//! Labels and annotations of an alert are templates, and one of their functions, `query`, reads series.
//! A tenant's queries must therefore be found and restricted. A template is parsed as in Go, with the
//! same verdict, and every call of `query` is located: [`Template::map_queries`] rewrites the queries
//! that are known statically, and fails if there is any other.
//!
//! A text is parsed into a flat list of its pipelines, including those in branches, loops and
//! definitions of further templates. Recursion ends at `MAX_DEPTH`.

mod lexer;
mod literal;
mod parser;
mod plain;
mod queries;

use std::fmt;
use std::ops::Range;

/// Maximum nesting of parentheses, branches and loops. Go allows up to 10,000 parentheses.
pub(crate) const MAX_DEPTH: usize = 100;

/// Functions of Prometheus' templates, and Go's built-in ones.
const FUNCTIONS: [&str; 48] = [
    "and",
    "args",
    "call",
    "eq",
    "externalURL",
    "first",
    "ge",
    "graphLink",
    "gt",
    "html",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "index",
    "js",
    "label",
    "le",
    "len",
    "lt",
    "match",
    "ne",
    "not",
    "now",
    "or",
    "parseDuration",
    "pathPrefix",
    "print",
    "printf",
    "println",
    "query",
    "reReplaceAll",
    "safeHtml",
    "slice",
    "sortByLabel",
    "stripDomain",
    "stripPort",
    "strvalue",
    "tableLink",
    "title",
    "toDuration",
    "toLower",
    "toTime",
    "toUpper",
    "urlQueryEscape",
    "urlquery",
    "value",
];

/// The variables that Prometheus declares before every template.
const VARIABLES: [&str; 5] = ["$", "$externalLabels", "$externalURL", "$labels", "$value"];

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template<'t> {
    text: &'t str,
    pipelines: Vec<parser::Pipeline<'t>>,
}

/// Why a text is not a valid template, or why its queries are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TemplateError {
    /// Byte offset of the error.
    pub offset: usize,
    /// Description of the error.
    pub message: String,
    /// Line and column of the error, counted from 1; columns are characters.
    pub at: (usize, usize),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.at;
        write!(f, "{} (line {line}, column {column} of it)", self.message)
    }
}

impl TemplateError {
    fn new(text: &str, offset: usize, message: impl Into<String>) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or(before);
        Self {
            offset,
            message: message.into(),
            at: (before.matches('\n').count() + 1, line.chars().count() + 1),
        }
    }
}

impl<'t> Template<'t> {
    /// Parses a label or annotation of an alert, given the alert's name.
    ///
    /// # Errors
    ///
    /// Fails with the first error.
    pub fn parse(text: &'t str, alert: &str) -> Result<Self, TemplateError> {
        let pipelines = parser::parse(text, &format!("__alert_{alert}"))?;
        Ok(Self { text, pipelines })
    }

    /// Whether a text can have calls of `query`. One in which the name does not occur has none.
    pub fn may_query(text: &str) -> bool {
        text.contains("{{") && text.contains("query")
    }

    /// Checks a label or annotation of an alert, given the alert's name.
    ///
    /// # Errors
    ///
    /// Fails with the first error.
    pub fn check(text: &str, alert: &str) -> Result<(), TemplateError> {
        match plain::is_valid(text) {
            true => Ok(()),
            false => Template::parse(text, alert).map(drop),
        }
    }

    /// Returns the text with every query replaced by the result of `map`.
    ///
    /// # Errors
    ///
    /// Fails if `map` does, or if the argument of a call of `query` is known only when the template is
    /// evaluated.
    pub fn map_queries(
        &self,
        map: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<String, TemplateError> {
        queries::map(self, map)
    }
}

/// A byte range of the text.
type Span = Range<usize>;

fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// The known function whose name is most similar to an unknown one, if any is similar enough.
fn nearest_function(name: &str) -> Option<&'static str> {
    let scored = FUNCTIONS
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), *known));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= 0.8)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
