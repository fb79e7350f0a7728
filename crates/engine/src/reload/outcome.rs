//! What comes of a reload, and how it is told.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::config::{Diagnostic, Place, Severity};

/// The most errors that are kept and told; nobody reads more.
const MAX_ERRORS: usize = 100;

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A file has changed.
    File,
    /// SIGHUP.
    Signal,
    /// A request to the admin address.
    Request,
}

/// A reload that is over.
#[derive(Clone, Debug)]
pub struct Report {
    /// What asked for it.
    pub trigger: Trigger,
    /// When it was over.
    pub time: SystemTime,
    /// How long it took, from the reading of the files on.
    pub took: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a reload.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The configuration is in force.
    Applied {
        /// What was added, changed, rewired and removed, in one line.
        changes: String,
        /// Warnings about the configuration.
        warnings: Vec<Finding>,
    },
    /// The files say what runs already.
    Unchanged {
        /// The reload that brought it shortly before, as when a change was noticed earlier.
        before: Option<Arc<Report>>,
        /// Warnings about the configuration.
        warnings: Vec<Finding>,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why nothing was changed.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Whether the configuration is wrong, or something that it needs is not available.
    pub cause: Cause,
    /// What is wrong; warnings, if any, come last.
    pub findings: Vec<Finding>,
    /// How many errors there are, those that are left out included.
    pub errors: usize,
}

/// What a refused reload has to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The configuration is wrong.
    Invalid,
    /// The configuration is right, and cannot be had at the moment: a port is taken, say.
    NotBuilt,
}

/// Something that is wrong or odd. It shows no secret.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub message: String,
    /// Where: file, line and column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// All of that as `validate` prints it, with the line.
    #[serde(skip)]
    pub rendered: String,
}

impl Trigger {
    /// In logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Signal => "signal",
            Self::Request => "request",
        }
    }
}

impl Outcome {
    /// All outcomes, as metrics and the topology name them.
    pub const NAMES: [&str; 3] = ["applied", "unchanged", "refused"];

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Unchanged { .. } => "unchanged",
            Self::Refused(_) => "refused",
        }
    }

    /// What is odd about a configuration that was taken.
    pub fn warnings(&self) -> &[Finding] {
        match self {
            Self::Applied { warnings, .. } | Self::Unchanged { warnings, .. } => warnings,
            Self::Refused(_) => &[],
        }
    }

    /// A refusal.
    pub fn refused(cause: Cause, found: &[Diagnostic]) -> Self {
        let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
        Self::Refused(Refusal {
            cause,
            findings: findings(found),
            errors: found.iter().filter(is_error).count(),
        })
    }
}

impl Refusal {
    /// What is wrong, without what is only odd.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().take(self.errors)
    }
}

/// The first of the findings as they are told, errors before warnings.
pub(super) fn findings(found: &[Diagnostic]) -> Vec<Finding> {
    found.iter().take(MAX_ERRORS).map(Finding::from).collect()
}

impl From<&Diagnostic> for Finding {
    fn from(found: &Diagnostic) -> Self {
        let place = |place: &Place| format!("{}:{}:{}", place.file(), place.line(), place.column());
        Self {
            message: found.message.clone(),
            place: found.place.as_ref().map(place),
            help: found.help.clone(),
            rendered: found.render(false),
        }
    }
}

/// For people, in several lines without a line end: what `validate` prints, and last what came of
/// it.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = match self {
            Self::Refused(refusal) => &refusal.findings,
            taken => taken.warnings(),
        };
        for finding in findings {
            write!(f, "{}\n\n", finding.rendered)?;
        }
        match self {
            Self::Applied { changes, .. } => write!(f, "applied: {changes}"),
            Self::Unchanged { before, .. } => {
                if let Some(report) = before
                    && let Self::Applied { changes, .. } = &report.outcome
                {
                    let trigger = report.trigger.as_str();
                    writeln!(
                        f,
                        "applied shortly before, asked for by a {trigger}: {changes}"
                    )?;
                }
                f.write_str("unchanged: what runs is what the files say")
            }
            Self::Refused(refusal) => {
                let plural = if refusal.errors == 1 { "" } else { "s" };
                write!(
                    f,
                    "refused: {} error{plural}, nothing was changed",
                    refusal.errors
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_after_what_was_found() {
        let found = [
            Diagnostic::error("a is wrong").with_help("fix it"),
            Diagnostic::warning("b is odd"),
        ];
        let refused = Outcome::refused(Cause::Invalid, &found);
        assert_eq!(
            refused.to_string(),
            "error: a is wrong\n |\n = help: fix it\n\nwarning: b is odd\n\nrefused: 1 error, nothing was changed"
        );
        let applied = Outcome::Applied {
            changes: "added sinks.b".to_owned(),
            warnings: findings(&found[1..]),
        };
        assert_eq!(
            applied.to_string(),
            "warning: b is odd\n\napplied: added sinks.b"
        );
    }

    #[test]
    fn a_flood_of_errors_is_counted_and_cut() {
        let found: Vec<_> = (0..MAX_ERRORS + 20)
            .map(|at| Diagnostic::error(at.to_string()))
            .collect();
        let Outcome::Refused(refusal) = Outcome::refused(Cause::Invalid, &found) else {
            panic!("not refused");
        };
        assert_eq!(
            (refusal.findings.len(), refusal.errors),
            (MAX_ERRORS, MAX_ERRORS + 20)
        );
    }
}
