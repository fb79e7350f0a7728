//! Finds files by pattern, detects changes of their content, and replaces files atomically. Knows
//! nothing of their purpose.
#![warn(unreachable_pub)]
// Tests may use all of these.
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

mod fingerprint;
mod look;
mod paths;
mod replace;
mod watch;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use fingerprint::Fingerprint;
pub use look::Look;
pub use paths::{PathError, folder_of, paths};
pub use replace::{is_temporary, replace, replace_private};
pub use watch::Watch;

/// Paths of files with the fingerprints that were taken.
pub type NamedFiles = HashMap<Arc<Path>, Fingerprint>;
