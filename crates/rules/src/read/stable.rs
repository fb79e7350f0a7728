//! Reads files and detects changes during the reading.

use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use metrifold_base::{FileError, open_file};

/// Metadata that changes with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Why a file could not be read.
pub(super) enum Failure {
    /// The file changed; the reading can be repeated.
    Changed,
    Message(String),
}

impl Stamp {
    fn new(stat: &Metadata) -> Self {
        Self {
            file: (stat.dev(), stat.ino()),
            bytes: stat.len(),
            modified: (stat.mtime(), stat.mtime_nsec()),
            changed: (stat.ctime(), stat.ctime_nsec()),
        }
    }

    /// The stamp of the file at a path; `None` if there is no file.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, String> {
        match fs::metadata(path) {
            // Opening another kind of file, such as a pipe, may block for ever.
            Ok(stat) if !stat.is_file() => {
                Err("is no regular file: name files, or make the pattern narrower".to_owned())
            }
            Ok(stat) => Ok(Some(Self::new(&stat))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot look at it: {error}")),
        }
    }
}

/// Reads a file, and fails if its stamp differs before or after the reading.
pub(super) fn read(path: &Path, stamp: &Stamp, max: usize) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Changed,
        io::ErrorKind::PermissionDenied => {
            Failure::Message("cannot be read: let this process read it".to_owned())
        }
        _ => Failure::Message(format!("cannot be read: {error}")),
    };
    // A pipe may have taken its place, which would block.
    let file = open_file(path).map_err(|error| match error {
        FileError::Io(error) => failed(error),
        _ => Failure::Changed,
    })?;
    let mut text = Vec::new();
    (&file)
        .take(max as u64 + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let now = file.metadata().map_err(failed)?;
    if Stamp::new(&now) != *stamp {
        return Err(Failure::Changed);
    }
    if text.len() > max {
        let message = format!("is larger than {max} bytes: split it");
        return Err(Failure::Message(message));
    }
    match text.len() as u64 == stamp.bytes {
        true => Ok(text),
        false => Err(Failure::Changed),
    }
}
