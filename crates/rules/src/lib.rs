//! Rule files of Prometheus and sets of them: reading, writing, comparing and storing. Knows
//! nothing of HTTP, components, configuration or batches, and no PromQL: whoever reads a file
//! passes in what checks an expression.
//!
//! - [`RuleFile::parse`] reads a file as strictly as Prometheus, with every problem and its line;
//!   [`RuleFile::to_yaml`] writes one in a canonical form that reads back the same.
//! - [`RuleSet`] is what all tenants have, a persistent map: [`RuleSet::diff`] names the tenants
//!   that changed in time proportional to how many did.
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
mod version;
mod write;
mod yaml;

pub use directory::{Applied, DirectoryError, RulesDirectory, decode_name};
pub use duration::{DurationError, PromDuration};
pub use file::{
    Alerting, Check, Checks, Group, Kind, Limits, Names, Parsed, Problem, Rule, RuleFile,
};
pub use read::{FilesRead, GlobLimits, ReadError, ReadProblem, read_globs};
pub use set::{Change, RuleSet, StoredFile, Tenant, TenantRules};
pub use version::Version;
