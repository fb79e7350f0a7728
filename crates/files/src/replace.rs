//! Replaces files atomically: a reader sees the old content or the new content, never a part.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What ends the names of temporary files, which begin with a dot.
const TEMPORARY: &str = ".new";

/// Writes a temporary file beside `path`, syncs it and renames it over `path`; syncs the folder as
/// well, so that the new content survives a power failure. On an error the old file stays.
///
/// # Errors
///
/// Fails when the folder or the file cannot be written.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    replace_as(path, 0o666, write)
}

/// As [`replace`], with a file that only the user of the process may read.
///
/// # Errors
///
/// Fails when the folder or the file cannot be written.
pub fn replace_private(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    replace_as(path, 0o600, write)
}

/// Whether a file is a temporary one, which stays if its writer is killed, for a path with this ending.
pub fn is_temporary(name: &str, ending: &str) -> bool {
    let name = name.strip_suffix(TEMPORARY);
    name.is_some_and(|name| name.starts_with('.') && name.ends_with(ending))
}

/// Replaces a file by one with this mode, less the process' umask.
fn replace_as(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    // Hidden, and with an extension that no pattern for configuration files matches. Each path has
    // one writer, so that a left-over of an earlier process can be overwritten.
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(TEMPORARY);
    let beside = folder.join(beside);
    let written = (|| {
        // A left-over of an earlier process may have another mode.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(mode);
        let mut file = BufWriter::new(file.open(&beside)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&beside);
        return written;
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_is_told_from_others() {
        assert!(is_temporary(".a.yaml.new", ".yaml"));
        for other in [
            "a.yaml.new",
            ".a.yaml",
            ".a.json.new",
            ".a.yaml.swp",
            ".new",
        ] {
            assert!(!is_temporary(other, ".yaml"), "{other}");
        }
    }

    #[test]
    fn a_file_is_replaced_whole_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("targets.json");
        replace(&path, |file| file.write_all(b"one")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        let failed = replace(&path, |file| {
            file.write_all(b"tw")?;
            Err(io::Error::other("no space"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(Path::new("/"), |_| Ok(())).is_err());
    }

    #[test]
    fn what_is_private_is_readable_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        // A killed process may have left a temporary file that everybody may read: it must be
        // created anew.
        fs::write(folder.path().join(".token.new"), "half").unwrap();
        replace_private(&path, |file| file.write_all(b"secret")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
