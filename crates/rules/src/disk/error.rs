//! Errors of writing a set to a folder or a file.

use std::io;
use std::path::{Path, PathBuf};

/// Why a set of rules cannot be written to a folder or a file, whose previous content stays.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path does not end in a name.
    #[error(
        "{path} does not end in a name: write the name of the folder or file itself at its end"
    )]
    Unnamed {
        /// The configured path.
        path: PathBuf,
    },
    /// The path is occupied by files of another program.
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
    /// A file at a mount point cannot be replaced.
    #[error("{path} cannot be replaced, as it is a mount point: mount the folder that holds it")]
    MountedFile {
        /// The configured path.
        path: PathBuf,
    },
    /// A symbolic link is where a file should be written.
    #[error(
        "{path} is a symbolic link, and would be replaced by a file: name the file that it leads to, or remove the link"
    )]
    Link {
        /// The configured path.
        path: PathBuf,
    },
    /// A file of another program has a name that is needed, or cannot be kept.
    #[error("{path} was not written by this component and is in the way: move it elsewhere")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version of the program wrote the folder.
    #[error(
        "{path} has format {format}, which this version of the program does not read: run the version that wrote it, or remove the folder that holds it and the link to it"
    )]
    Format {
        /// The manifest of a version of the folder.
        path: PathBuf,
        /// The format in the manifest.
        format: u32,
    },
    /// Another version of the program wrote the file.
    #[error(
        "{path} has format {format}, which this version of the program does not read: run the version that wrote it, or remove the file"
    )]
    FileFormat {
        /// The configured path.
        path: PathBuf,
        /// The format in its first line.
        format: u32,
    },
    /// Another process or component is writing to the folder or the file.
    #[error("{path} is being written by another process or component: let one of them write to it")]
    Busy {
        /// The configured path.
        path: PathBuf,
    },
    /// A call to the file system failed.
    #[error("cannot {action} {path}: {source}{}", hint(source))]
    Io {
        /// The verb of the failed call, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl WriteError {
    pub(crate) fn io<'a>(
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
