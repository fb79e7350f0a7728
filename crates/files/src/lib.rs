//! Files by name and pattern: which there are, what they hold, when that changes, and how one is
//! replaced whole. Knows nothing of what they are for.
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

mod fingerprint;
mod look;
mod paths;
mod replace;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use fingerprint::Fingerprint;
pub use look::Look;
pub use paths::{PathError, folder_of, paths};
pub use replace::{replace, replace_private};
pub use watch::Watch;

/// Files, each with the state in which it was found.
pub type NamedFiles = BTreeMap<PathBuf, Fingerprint>;
