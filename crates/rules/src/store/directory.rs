//! Objects as files of a local directory. Conditions hold among all processes that use the directory: a
//! writer holds the directory's lock file, which the system unlocks when the process dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use metrifold_base::{FileError, read_file};
use metrifold_files::{is_temporary, replace};

use super::{
    ENTRY, EXTENSION, Expected, FILES, Listed, Object, ObjectError, Objects, WORTH_THREADS,
    on_threads,
};

/// Name of the lock file that a writer holds.
const LOCK: &str = ".rules.lock";
/// Attempts at the lock and the pause between them: ten seconds, far longer than any write takes.
const LOCK_ATTEMPTS: usize = 2000;
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Maximum depth of folders with objects, below the root.
const MAX_DEPTH: usize = 4;
/// Maximum number of objects of a list.
const MAX_OBJECTS: usize = 1_000_000;

/// A store of objects in a local directory.
#[derive(Debug)]
pub struct LocalDirectory {
    root: PathBuf,
    /// Whether the folder of all files was there. Nothing that writes a store removes it.
    is_found: AtomicBool,
}

impl LocalDirectory {
    /// Opens a directory, and creates it if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails if the directory cannot be created or written.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let directory = Self::to_read(root);
        directory.lock_file()?;
        Ok(directory)
    }

    /// A directory that is only read. It need not exist yet, and nothing is created in it.
    pub fn to_read(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            is_found: AtomicBool::new(false),
        }
    }

    /// Opens the lock file and locks it, unless another process keeps it locked for too long.
    #[expect(
        clippy::disallowed_methods,
        reason = "every call of a store blocks, and is made where it may"
    )]
    fn lock(&self) -> io::Result<File> {
        let lock = self.lock_file()?;
        for _ in 0..LOCK_ATTEMPTS {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let wait = LOCK_PAUSE * u32::try_from(LOCK_ATTEMPTS).unwrap_or(u32::MAX);
        let reason = format!("another process has kept {LOCK} locked for {wait:?}");
        Err(io::Error::new(ErrorKind::TimedOut, reason))
    }

    /// Fails if the directory is not there, or its files no longer are, as when it is not mounted: then
    /// the files are not known, and not gone.
    fn check(&self) -> io::Result<()> {
        fs::metadata(&self.root)?;
        match fs::metadata(self.root.join(FILES)) {
            Ok(_) => self.is_found.store(true, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.is_found.load(Ordering::Relaxed) {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn lock_file(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.root.join(LOCK))
    }

    /// Changes an object under the lock, if it has the expected state.
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
        let lock = self.lock().map_err(failed)?;
        let stamp = stamp(&path).map_err(failed)?;
        let holds = match expected {
            Expected::Any => true,
            Expected::Absent => stamp.is_none(),
            Expected::Stamp(expected) => stamp.as_deref() == Some(expected),
        };
        if !holds {
            return Err(ObjectError::Changed);
        }
        // Closing the file releases the lock, after the change.
        let done = act(&path).map_err(failed);
        drop(lock);
        done
    }

    /// Lists the objects below a folder, on several threads if it has many folders.
    fn walk(&self, folder: &Path) -> io::Result<Vec<Listed>> {
        let (mut found, mut folders) = (Vec::new(), Vec::new());
        self.look(folder, &mut found, &mut folders)?;
        let walk_all = |folders: Vec<PathBuf>| {
            let mut found = Vec::new();
            let mut open: Vec<_> = folders.into_iter().map(|folder| (folder, 1)).collect();
            while let Some((folder, depth)) = open.pop() {
                let mut folders = Vec::new();
                self.look(&folder, &mut found, &mut folders)?;
                if depth < MAX_DEPTH {
                    open.extend(folders.into_iter().map(|folder| (folder, depth + 1)));
                }
            }
            Ok(found)
        };
        let lists: Vec<io::Result<_>> = match folders.len() < WORTH_THREADS {
            true => vec![walk_all(folders)],
            false => on_threads(self.readers(), folders, &walk_all),
        };
        for list in lists {
            found.extend(list?);
        }
        match found.len() <= MAX_OBJECTS {
            true => Ok(found),
            false => Err(too_many()),
        }
    }

    /// Lists the objects and the folders in a folder.
    fn look(
        &self,
        folder: &Path,
        found: &mut Vec<Listed>,
        folders: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            // Hidden files are temporary, or belong to other programs.
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let path = folder.join(name);
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            // A file that cannot be looked at is listed without a stamp, and fails when it is read.
            let stamp = stamp(&path).unwrap_or_else(|_| Some(String::new()));
            if let (Some(key), Some(stamp)) = (key, stamp) {
                if found.len() == MAX_OBJECTS {
                    return Err(too_many());
                }
                found.push(Listed {
                    key: key.to_owned(),
                    stamp,
                    problem: None,
                });
            }
        }
        Ok(())
    }
}

fn too_many() -> io::Error {
    io::Error::other(format!("the store holds more than {MAX_OBJECTS} objects"))
}

/// The stamp of a file, from its metadata; `None` if there is no file.
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
        let listed = self
            .check()
            .and_then(|()| self.walk(&self.root.join(prefix)));
        listed.map_err(|error| ObjectError::Store {
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
        // The stamp is read before the text. Files are replaced and never modified, except by hand;
        // after such an edit the older stamp makes a conditional write fail.
        let Some(stamp) = stamp(&path).map_err(|error| failed(error.to_string()))? else {
            return Ok(None);
        };
        match read_file(&path, max as u64) {
            Ok(text) => Ok(Some(Object { text, stamp })),
            Err(FileError::TooLarge(_)) => Err(ObjectError::TooLarge {
                key: key.to_owned(),
                max,
                stamp,
            }),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn put(&self, key: &str, text: &[u8], expected: Expected<'_>) -> Result<(), ObjectError> {
        self.locked("write", key, expected, |path| {
            if let Some(folder) = path.parent() {
                make_folders(folder)?;
                sweep(folder);
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
                    Some(folder) => {
                        File::open(folder)?.sync_all()?;
                        sweep(folder);
                        // Nobody writes to it meanwhile, and it stays if there is anything left in it.
                        let _ = fs::remove_dir(folder);
                        Ok(())
                    }
                    None => Ok(()),
                },
            }
        })
    }
}

/// Removes what writers that were killed have left in a folder. Nobody writes to it meanwhile, as the lock
/// is held.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_left = |ending| name.to_str().is_some_and(|name| is_temporary(name, ending));
        if is_left(EXTENSION) || is_left(ENTRY) {
            // What stays costs its place on the disk, and the change in hand nothing.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Creates a folder and its parents durably.
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
