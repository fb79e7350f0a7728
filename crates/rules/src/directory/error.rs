//! Why a folder cannot be made to hold a set.

use std::io;
use std::path::{Path, PathBuf};

/// Why a folder cannot hold a set of rules. What it held before is still there.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The path ends in no name.
    #[error("{path} names no folder: end it in the folder's own name")]
    Unnamed {
        /// The configured path.
        path: PathBuf,
    },
    /// There is something at the path that was not made here.
    #[error(
        "{path} is there already and was not made by this component: name a folder that does not exist or is empty, or move its files"
    )]
    Occupied {
        /// The configured path.
        path: PathBuf,
    },
    /// An empty folder at the path cannot be replaced.
    #[error(
        "{path} cannot be replaced by a link, as it is a mount point or in use: name a folder within it"
    )]
    Mounted {
        /// The configured path.
        path: PathBuf,
    },
    /// A file of somebody else is in the way.
    #[error("{path} was not written by this component and is in the way: move it elsewhere")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Somebody else is writing to the folder.
    #[error("{path} is being written by another process or component: let one of them write to it")]
    Busy {
        /// The configured path.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot {action} {path}: {source}{}", hint(source))]
    Io {
        /// What was tried, as in `write`.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirectoryError {
    pub(super) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": let this process write to the folder above it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space",
        io::ErrorKind::ReadOnlyFilesystem => ": name a folder on a file system that can be written",
        _ => "",
    }
}
