//! Reads small files that other programs write: with a limit on the size, and without blocking on
//! pipes or devices.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use thiserror::Error;

/// Why a file was not read.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refused it.
    #[error("{}", reason(.0))]
    Io(#[from] io::Error),
    /// A pipe, a device or a socket, of which a read may block forever.
    #[error("it is not a regular file")]
    NotRegular,
    /// The file is larger than the limit.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
}

impl FileError {
    /// Whether the file does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Opens a regular file for reading. Anything else is refused at once: opening a pipe would block
/// until a writer appears.
///
/// # Errors
///
/// Fails when the file cannot be opened or is not a regular one.
pub fn open_file(path: &Path) -> Result<File, FileError> {
    // Checked before opening, since opening a device may have effects.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::NotRegular);
    }
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    // The file may have been replaced between the two calls.
    if !file.metadata()?.is_file() {
        return Err(FileError::NotRegular);
    }
    Ok(file)
}

/// Reads a regular file of at most `max` bytes.
///
/// # Errors
///
/// Fails when the file cannot be read, is not a regular one or is larger.
pub fn read_file(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let file = open_file(path)?;
    if file.metadata()?.len() > max {
        return Err(FileError::TooLarge(max));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read.
    file.take(max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(FileError::TooLarge(max)),
        false => Ok(bytes),
    }
}

/// Reads a regular file of at most `max` bytes as text.
///
/// # Errors
///
/// Fails when the file cannot be read, is not a regular one, is larger, or is not UTF-8.
pub fn read_text(path: &Path, max: u64) -> Result<String, FileError> {
    String::from_utf8(read_file(path, max)?)
        .map_err(|_| FileError::Io(io::Error::other("it is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_file(&path, 5).unwrap(), b"12345");
        let error = read_file(&path, 4).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 4 bytes");
        // Sparse: larger than any machine's memory.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(
            read_file(&path, 1 << 20),
            Err(FileError::TooLarge(_))
        ));
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            let error = read_file(path, 10).unwrap_err();
            assert_eq!(error.to_string(), "it is not a regular file", "{path:?}");
        }
        let error = read_text(&folder.path().join("none"), 10).unwrap_err();
        assert_eq!(error.to_string(), "no such file or directory");
        assert!(error.is_absent());
    }
}
