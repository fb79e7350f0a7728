//! Rule files of Prometheus and sets of them: reading, writing, comparing and storing. Knows
//! nothing of HTTP, components, configuration or batches, and no PromQL: whoever reads a file
//! passes in what checks an expression.
//!
//! - [`RuleFile::parse`] reads a file as strictly as Prometheus, with every problem and its line;
//!   [`RuleFile::to_yaml`] writes one in a canonical form that reads back the same.
//! - [`Template`] is a label or annotation of an alert, and finds the queries in it.
//! - [`RuleSet`] is what all tenants have, a persistent map: [`RuleSet::diff`] names the tenants
//!   that changed in time proportional to how many did.
//! - [`store::Store`] holds what tenants write, with its history, for any number of processes.
//! - [`read_globs`] reads files from folders and [`RulesDirectory`] makes a folder hold a set,
//!   both whole or not at all.
#![warn(unreachable_pub)]
// Tests may do all of this.
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
mod duration;
mod file;
mod read;
mod set;
pub mod store;
mod template;
mod version;
mod write;
mod yaml;

pub use directory::{Applied, DirectoryError, RulesDirectory, decode_name};
pub use duration::{DurationError, PromDuration};
pub use file::{
    Alerting, Checks, ExprCheck, Group, Kind, Limits, Lint, Names, Parsed, PartialResponse,
    Problem, Rule, RuleFile, Warning,
};
pub use read::{FilesRead, GlobLimits, ReadError, ReadProblem, read_globs};
pub use set::{Change, RuleSet, StoredFile, Tenant, TenantRules};
pub use template::{Template, TemplateError};
pub use version::Version;
