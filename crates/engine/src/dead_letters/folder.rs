//! A sink's letters on disk: files with numbers for names, within their bounds.
//!
//! A letter's number is the time at which it was kept, in milliseconds since the epoch, or the next
//! free one. Letters therefore sort by age, and no number is used twice. A file is renamed to its
//! final name once it is complete: a crash leaves either a whole letter or an unfinished file,
//! which the next start removes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Limits on a sink's letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes on disk.
    pub bytes: u64,
    /// Age at which a letter is removed.
    pub age: Duration,
}

/// The letters of a sink.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Bytes on disk of each letter, by number.
    letters: BTreeMap<u64, u64>,
    bytes: u64,
}

/// Result of adding a letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The letter was kept; `removed` older ones were removed to make room.
    Kept { removed: usize },
    /// The letter is larger than the folder's bound.
    TooLarge,
}

const SUFFIX: &str = ".letter";
const UNFINISHED: &str = ".unfinished";

/// Block size that a letter's size is rounded up to: file systems allocate whole blocks, and
/// letters are small.
const BLOCK: u64 = 4096;

impl Folder {
    /// Opens a folder, creating it if it is missing.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let mut letters = BTreeMap::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
            let number = name.strip_suffix(SUFFIX).and_then(|n| n.parse().ok());
            // Files that are not dead letters are left alone.
            if let Some(number) = number.filter(|number| name == name_of(*number)) {
                letters.insert(number, room(entry.metadata()?.len()));
            }
        }
        Ok(Self {
            path,
            bytes: letters.values().sum(),
            letters,
        })
    }

    /// The number of letters, and their bytes on disk.
    pub(super) fn fill(&self) -> (usize, u64) {
        (self.letters.len(), self.bytes)
    }

    /// The numbers of all letters, the newest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.letters.keys().rev().copied().collect()
    }

    /// The path of the letter with this number, whether or not it exists.
    pub(super) fn file(&self, number: u64) -> PathBuf {
        self.path.join(name_of(number))
    }

    /// Keeps a letter, removing the oldest ones to make room.
    pub(super) fn add(&mut self, now: u64, letter: &[u8], bounds: Bounds) -> io::Result<Added> {
        let needs = room(letter.len() as u64);
        if needs > bounds.bytes {
            return Ok(Added::TooLarge);
        }
        let mut removed = 0;
        while self.bytes + needs > bounds.bytes {
            let Some((&oldest, _)) = self.letters.first_key_value() else {
                break;
            };
            self.remove(oldest)?;
            removed += 1;
        }
        let last = self.letters.last_key_value().map_or(0, |(last, _)| *last);
        let number = now.max(last + 1);
        let file = self.file(number);
        write_whole(&self.path, &file, letter)?;
        self.letters.insert(number, needs);
        self.bytes += needs;
        Ok(Added::Kept { removed })
    }

    /// Removes the letters that were kept before a time; returns their number.
    pub(super) fn expire(&mut self, before: u64) -> io::Result<usize> {
        let mut removed = 0;
        while let Some((&oldest, _)) = self.letters.first_key_value()
            && oldest < before
        {
            self.remove(oldest)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes a letter; returns whether it existed.
    pub(super) fn remove(&mut self, number: u64) -> io::Result<bool> {
        let Some(&bytes) = self.letters.get(&number) else {
            return Ok(false);
        };
        match fs::remove_file(self.file(number)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            // An operator may have removed the file.
            _ => {}
        }
        self.letters.remove(&number);
        self.bytes -= bytes;
        Ok(true)
    }
}

fn name_of(number: u64) -> String {
    format!("{number:013}{SUFFIX}")
}

fn room(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(BLOCK)
}

/// Writes a file under a temporary name and renames it, so that it is complete whenever it has its
/// name.
fn write_whole(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = file.with_extension(&UNFINISHED[1..]);
    let written = || {
        let mut out = File::create(&unfinished)?;
        out.write_all(bytes)?;
        out.sync_data()?;
        fs::rename(&unfinished, file)
    };
    written().inspect_err(|_| {
        // An unfinished file takes room on a full disk. If it cannot be removed, the next start
        // tries again.
        let _ = fs::remove_file(&unfinished);
    })?;
    File::open(folder)?.sync_all()
}
