//! Templates of alerting rules: Go's `text/template` with the functions of Prometheus.
//!
//! Labels and annotations of an alert are templates, and one of their functions, `query`, reads
//! series. So a template is parsed as Go does it, with the same verdict, and every call of `query`
//! is found in it: [`Template::map_queries`] rewrites what is queried where that is known, and
//! fails where it is not.
//!
//! A text is parsed into the pipelines that stand in it, wherever they stand: in branches, loops and
//! definitions of further templates. Recursion ends at [`MAX_DEPTH`].

mod lexer;
mod literal;
mod parser;
mod queries;

use std::fmt;
use std::ops::Range;

/// The deepest nesting of parentheses, branches and loops. Go takes up to 10,000 parentheses.
pub(crate) const MAX_DEPTH: usize = 100;

/// The functions of Prometheus' templates, and those of Go.
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

/// A template that was parsed.
#[derive(Clone, Debug)]
pub struct Template<'t> {
    text: &'t str,
    pipelines: Vec<parser::Pipeline<'t>>,
}

/// Why a text is no template, or one whose queries are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TemplateError {
    /// The byte at which it was found.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// The line and the column in characters of that byte, both from 1.
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
    /// Parses a label or annotation of the alert of that name.
    ///
    /// # Errors
    ///
    /// Fails with the first thing that is wrong.
    pub fn parse(text: &'t str, alert: &str) -> Result<Self, TemplateError> {
        let pipelines = parser::parse(text, &format!("__alert_{alert}"))?;
        Ok(Self { text, pipelines })
    }

    /// The text with every query replaced by what `map` makes of it.
    ///
    /// # Errors
    ///
    /// Fails if `map` does, or if there is a call of `query` whose argument is not known before it is
    /// evaluated.
    pub fn map_queries(
        &self,
        map: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<String, TemplateError> {
        queries::map(self, map)
    }
}

/// A part of the text.
type Span = Range<usize>;

fn is_function(name: &str) -> bool {
    FUNCTIONS.contains(&name)
}

/// What a misspelt function was meant to be.
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
