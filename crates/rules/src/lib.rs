//! Rule files of Prometheus and sets of them: reading, writing, comparing and storing. Knows nothing of
//! HTTP, components, configuration or batches, and no PromQL: the caller passes in the check of
//! expressions.
//!
//! - [`RuleFile::parse`] reads a file as strictly as Prometheus, with every problem and its line;
//!   [`RuleFile::to_yaml`] writes one in a canonical form that reads back the same.
//! - [`Template`] is a label or annotation of an alert, and finds the queries in it.
//! - [`RuleSet`] holds the rules of all tenants in a persistent map: [`RuleSet::diff`] finds the
//!   changed tenants in time proportional to their number.
//! - [`store::Store`] stores the tenants' files with their history, for any number of processes.
//! - [`read_globs`] reads files from folders, and [`RulesDirectory`] writes a set to a folder,
//!   [`RulesDocument`] to one file; all are atomic.
#![warn(unreachable_pub)]
// Tests may panic and print.
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

mod directory;
mod disk;
mod document;
mod duration;
mod file;
mod read;
mod set;
pub mod store;
mod template;
mod version;
mod write;
mod yaml;

pub use directory::{Applied, RulesDirectory, decode_name};
pub use disk::WriteError;
pub use document::{NamedGroup, RulesDocument, named_groups};
pub use duration::{DurationError, PromDuration};
pub use file::{
    Alerting, CheckedExpr, Checks, Expr, ExprCheck, Group, Kind, Labels, Limits, Lint, Names,
    Parsed, PartialResponse, Problem, Rule, RuleFile, Warning, any_expr,
};
pub use read::{FilesRead, GlobLimits, ReadError, ReadProblem, read_globs};
pub use set::{Change, RuleSet, StoredFile, Tenant, TenantRules};
pub use template::{Template, TemplateError};
pub use version::Version;
