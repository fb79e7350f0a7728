//! What a file holds, as far as telling its versions apart goes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;

use metrifold_base::{FileError, open_file};

/// The most of a file that is looked at: more than any file that is used may hold.
const MAX_BYTES: u64 = 32 << 20;

/// The state of a file: its content, or why it has none. Made with a key that this process alone
/// has, so that it says nothing of a secret to whoever sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(u64);

/// Fingerprints of different times have to be comparable, so that all share a key.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Fingerprint {
    /// Reads a file. That it cannot be read is a state like any other.
    pub fn of_file(path: &Path) -> Self {
        let mut hasher = KEY.build_hasher();
        if let Err(error) = digest(path, &mut hasher) {
            hasher.write(b"failed");
            hasher.write(error.kind().to_string().as_bytes());
        }
        Self(hasher.finish())
    }
}

fn digest(path: &Path, hasher: &mut impl Hasher) -> io::Result<()> {
    let mut file = match open_file(path) {
        Ok(file) => file.take(MAX_BYTES),
        Err(FileError::Io(error)) => return Err(error),
        // What is no file, such as a pipe, may be read once only, and not by us.
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
}
