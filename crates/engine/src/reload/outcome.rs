//! The outcome of a reload, and its forms for logs, metrics and people.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::config::{Diagnostic, Place, Severity};

/// The most errors of a reload that are kept and shown; nobody reads more.
const MAX_ERRORS: usize = 100;

/// Trigger of a reload.
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

/// A finished reload.
#[derive(Clone, Debug)]
pub struct Report {
    /// Trigger of the reload.
    pub trigger: Trigger,
    /// Time at which the reload ended.
    pub time: SystemTime,
    /// Duration of the reload, including reading the files.
    pub took: Duration,
    /// Result of the reload.
    pub outcome: Outcome,
}

/// Result of a reload.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The configuration is in force.
    Applied {
        /// Components that were added, changed, rewired and removed, in one line.
        changes: String,
        /// Warnings about the configuration.
        warnings: Vec<Finding>,
    },
    /// The files hold the configuration that runs already.
    Unchanged {
        /// The reload that applied this configuration shortly before, if a file change triggered
        /// it.
        before: Option<Arc<Report>>,
        /// Warnings about the configuration.
        warnings: Vec<Finding>,
    },
    /// The running configuration was left unchanged.
    Refused(Refusal),
}

/// Reason why a reload was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Whether the configuration is wrong, or something that it needs is not available.
    pub cause: Cause,
    /// Errors; warnings, if any, come last.
    pub findings: Vec<Finding>,
    /// Number of errors, including those that were cut from `findings`.
    pub errors: usize,
}

/// Cause of a refused reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The configuration is wrong.
    Invalid,
    /// The configuration is valid, but a resource is not available at the moment: a port is taken,
    /// say.
    NotBuilt,
}

/// An error or a warning. It shows no secret.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Statement of the problem.
    pub message: String,
    /// File, line and column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Advice on how to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The whole finding as `validate` prints it, with the line of the file.
    #[serde(skip)]
    pub rendered: String,
}

impl Trigger {
    /// Name of the trigger in logs.
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

    /// Name of the outcome in metrics and the topology.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Unchanged { .. } => "unchanged",
            Self::Refused(_) => "refused",
        }
    }

    /// Warnings about a configuration that was accepted.
    pub fn warnings(&self) -> &[Finding] {
        match self {
            Self::Applied { warnings, .. } | Self::Unchanged { warnings, .. } => warnings,
            Self::Refused(_) => &[],
        }
    }

    /// A refusal with these findings.
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
    /// The errors, without the warnings.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().take(self.errors)
    }
}

/// The first `MAX_ERRORS` findings; errors come before warnings.
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

/// For people, in several lines without a final line end: the findings as `validate` prints them,
/// then the result.
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
                        "applied shortly before, triggered by a {trigger}: {changes}"
                    )?;
                }
                f.write_str("unchanged: the files match the running configuration")
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
