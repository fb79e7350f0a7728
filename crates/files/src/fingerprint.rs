//! Fingerprints, which tell versions of a file apart.

use std::fs::{self, Metadata};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrifold_base::{FileError, open_file};

/// Bytes of a file that are hashed; no file in use may be larger than 64 MiB.
const MAX_BYTES: u64 = (64 << 20) + 1;

/// Age of a file's last change from which its times show every later one: the clocks of file systems
/// are coarse, of FAT's even 2 s.
const SETTLED: Duration = Duration::from_secs(3);

/// Hash of a file's content, or of the reason why it cannot be read. Keyed by the process, so that
/// a fingerprint does not reveal a secret. Fingerprints of the same content are equal.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint {
    content: u64,
    /// Hash of the file's identity, size and times before it was read; `None` if these may stay the
    /// same when the file is written again.
    attributes: Option<u64>,
}

/// One key for all, so that fingerprints of different times can be compared.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for Fingerprint {}

impl Fingerprint {
    /// Fingerprints a file. One that cannot be read has a fingerprint as well.
    pub fn of_file(path: &Path) -> Self {
        let mut hasher = KEY.build_hasher();
        let mut before = None;
        if let Err(error) = digest(path, &mut hasher, &mut before) {
            hasher.write(b"failed");
            hasher.write(error.kind().to_string().as_bytes());
        }
        let settled = before.filter(|file| is_settled(file, SystemTime::now()));
        Self {
            content: hasher.finish(),
            attributes: settled.map(|file| attributes(&file)),
        }
    }

    /// Fingerprints the same file again. Reads it only if its attributes differ, so that this is cheap
    /// for very many files.
    #[must_use]
    pub fn again(self, path: &Path) -> Self {
        let now = || fs::metadata(path).ok().map(|file| attributes(&file));
        match self.attributes {
            Some(before) if now() == Some(before) => self,
            _ => Self::of_file(path),
        }
    }

    /// Hash of the content, the same for the same content throughout the process.
    pub fn content(self) -> u64 {
        self.content
    }
}

/// Hash of attributes of which at least one changes when the file is written or replaced.
fn attributes(file: &Metadata) -> u64 {
    let identity = (file.dev(), file.ino(), file.size());
    let times = (
        (file.mtime(), file.mtime_nsec()),
        (file.ctime(), file.ctime_nsec()),
    );
    KEY.hash_one((identity, times))
}

/// Whether the last change of a file is long ago at `now`.
fn is_settled(file: &Metadata, now: SystemTime) -> bool {
    let seconds = u64::try_from(file.mtime().max(file.ctime()));
    let changed = seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds + 1));
    let age = changed.ok().and_then(|at| now.duration_since(at).ok());
    age.is_some_and(|age| age >= SETTLED)
}

/// Hashes the content of a file; `before` receives its attributes before it was read.
fn digest(path: &Path, hasher: &mut impl Hasher, before: &mut Option<Metadata>) -> io::Result<()> {
    let mut file = match open_file(path) {
        Ok(file) => {
            *before = file.metadata().ok();
            file.take(MAX_BYTES)
        }
        Err(FileError::Io(error)) => return Err(error),
        // Reading a pipe or the like would take data from its reader.
        Err(_) => {
            hasher.write(b"special");
            return Ok(());
        }
    };
    let mut buffer = [0; 16 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => hasher.write(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    hasher.write(b"read");
    hasher.write_u64(MAX_BYTES - file.limit());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_a_file_holds_makes_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let missing = Fingerprint::of_file(&path);
        fs::write(&path, "one").unwrap();
        let one = Fingerprint::of_file(&path);
        fs::write(&path, "two").unwrap();
        let two = Fingerprint::of_file(&path);
        fs::write(&path, "").unwrap();
        let empty = Fingerprint::of_file(&path);
        let all = [
            missing,
            one,
            two,
            empty,
            Fingerprint::of_file(folder.path()),
        ];
        for (at, left) in all.iter().enumerate() {
            assert!(!all[..at].contains(left), "{at}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(Fingerprint::of_file(&path), missing);
        fs::write(folder.path().join("b"), "one").unwrap();
        assert_eq!(Fingerprint::of_file(&folder.path().join("b")), one);
    }

    /// Sets the time at which the content was changed.
    fn age(path: &Path, age: Duration) {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn a_file_is_read_again_unless_its_attributes_have_settled_and_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let long = Duration::from_secs(3600);
        age(&path, long);
        let fresh = Fingerprint::of_file(&path);
        // The file has just been created, so that its times prove nothing.
        assert_eq!(fresh.attributes, None);
        let file = fs::metadata(&path).unwrap();
        assert!(!is_settled(&file, SystemTime::now()));
        assert!(is_settled(&file, SystemTime::now() + 2 * SETTLED));
        // A clock that was set back.
        assert!(!is_settled(&file, SystemTime::now() - long));
        let settled = Fingerprint {
            attributes: Some(attributes(&file)),
            // A mark, which stays if the file is not read.
            content: !fresh.content,
        };
        assert_eq!(settled.again(&path), settled);
        assert_eq!(fresh.again(&path), fresh);
        // Of the same size.
        fs::write(&path, "two").unwrap();
        age(&path, long);
        let two = settled.again(&path);
        assert_eq!(two, Fingerprint::of_file(&path));
        assert_ne!(two, fresh);
        fs::remove_file(&path).unwrap();
        assert_eq!(settled.again(&path), Fingerprint::of_file(&path));
    }
}
