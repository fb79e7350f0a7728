//! Objects as files of a local directory. Conditions hold among all processes that use it: who
//! changes something has the lock of the directory, which the system takes back from the dead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use metrifold_base::{FileError, read_file};
use metrifold_files::replace;

use super::{Expected, Listed, Object, ObjectError, Objects};

/// The file that who changes something has locked.
const LOCK: &str = ".rules.lock";
/// The deepest folder below the root in which objects lie.
const MAX_DEPTH: usize = 4;
/// The most objects of a list.
const MAX_OBJECTS: usize = 1_000_000;

/// A local directory.
#[derive(Debug)]
pub struct LocalDirectory {
    root: PathBuf,
}

impl LocalDirectory {
    /// Opens a directory, and makes it if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be made or written.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let directory = Self {
            root: root.to_owned(),
        };
        directory.lock_file()?;
        Ok(directory)
    }

    fn lock_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join(LOCK))
    }

    /// Does something that nobody else does meanwhile, if the object is as expected.
    fn locked(
        &self,
        action: &'static str,
        key: &str,
        expected: Expected<'_>,
        act: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), ObjectError> {
        let path = self.root.join(key);
        let failed = |error: io::Error| ObjectError::Store {
            action,
            key: key.to_owned(),
            reason: error.to_string(),
        };
        let lock = self.lock_file().map_err(failed)?;
        lock.lock().map_err(failed)?;
        let stamp = stamp(&path).map_err(failed)?;
        let holds = match expected {
            Expected::Any => true,
            Expected::Absent => stamp.is_none(),
            Expected::Stamp(expected) => stamp.as_deref() == Some(expected),
        };
        if !holds {
            return Err(ObjectError::Changed);
        }
        // The lock ends with the file that holds it.
        let done = act(&path).map_err(failed);
        drop(lock);
        done
    }

    fn walk(&self, folder: &Path, depth: usize, found: &mut Vec<Listed>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // What is hidden is being written, or is of somebody else.
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let path = folder.join(name);
            if entry.file_type()?.is_dir() {
                if depth > 0 {
                    self.walk(&path, depth - 1, found)?;
                }
                continue;
            }
            let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            if let (Some(key), Some(stamp)) = (key, stamp(&path)?) {
                if found.len() == MAX_OBJECTS {
                    let message = format!("it holds more than {MAX_OBJECTS} objects");
                    return Err(io::Error::other(message));
                }
                found.push(Listed {
                    key: key.to_owned(),
                    stamp,
                });
            }
        }
        Ok(())
    }
}

/// What changes with a file; none if there is none.
fn stamp(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(stat) => Ok(Some(format!(
            "{}-{}-{}.{:09}-{}.{:09}",
            stat.ino(),
            stat.len(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.ctime(),
            stat.ctime_nsec(),
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Objects for LocalDirectory {
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let mut found = Vec::new();
        let listed = self.walk(&self.root.join(prefix), MAX_DEPTH, &mut found);
        listed.map(|()| found).map_err(|error| ObjectError::Store {
            action: "list",
            key: prefix.to_owned(),
            reason: error.to_string(),
        })
    }

    fn get(&self, key: &str, max: usize) -> Result<Option<Object>, ObjectError> {
        let path = self.root.join(key);
        let failed = |reason: String| ObjectError::Store {
            action: "read",
            key: key.to_owned(),
            reason,
        };
        // A file is replaced and never changed, unless somebody edits it by hand; then the stamp
        // before is what a condition is compared with.
        let Some(stamp) = stamp(&path).map_err(|error| failed(error.to_string()))? else {
            return Ok(None);
        };
        match read_file(&path, max as u64) {
            Ok(text) => Ok(Some(Object { text, stamp })),
            Err(FileError::TooLarge(_)) => Err(ObjectError::TooLarge {
                key: key.to_owned(),
                max,
            }),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError> {
        self.locked("write", key, expected, |path| {
            if let Some(folder) = path.parent() {
                make_folders(folder)?;
            }
            replace(path, |file| file.write_all(text))
        })
    }

    fn delete(&self, key: &str, expected: Expected<'_>) -> Result<(), ObjectError> {
        self.locked("remove", key, expected, |path| {
            match fs::remove_file(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
                Ok(()) => match path.parent() {
                    Some(folder) => File::open(folder)?.sync_all(),
                    None => Ok(()),
                },
            }
        })
    }
}

/// Makes a folder and those above it, which outlive a power cut.
fn make_folders(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => match folder.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        },
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = folder.parent() else {
                return Err(error);
            };
            make_folders(parent)?;
            make_folders(folder)
        }
        Err(error) => Err(error),
    }
}
