//! A sink's letters on disk: files with numbers for names, within their bounds.
//!
//! A letter's number is the time at which it was kept, in milliseconds since the epoch, or the
//! next free one. So letters sort by age, and no number is given twice. A file gets its name once
//! it is whole: a crash leaves a letter or a file that the next start removes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a sink's letters may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes on disk.
    pub bytes: u64,
    /// How long each is kept.
    pub age: Duration,
}

/// The letters of a sink.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// What each takes on disk, by number.
    letters: BTreeMap<u64, u64>,
    bytes: u64,
}

/// What became of a letter that is to be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The letter is kept, and so many older ones made room for it.
    Kept { removed: usize },
    /// The letter is larger than the folder's bound.
    TooLarge,
}

const SUFFIX: &str = ".letter";
const UNFINISHED: &str = ".unfinished";

/// File systems give out room in blocks, and letters are small.
const BLOCK: u64 = 4096;

impl Folder {
    /// Opens a folder, which is made if it is not there.
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
            // Files that are no dead letters are left alone.
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

    /// How many there are, and what they take on disk.
    pub(super) fn fill(&self) -> (usize, u64) {
        (self.letters.len(), self.bytes)
    }

    /// Their numbers, the newest first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.letters.keys().rev().copied().collect()
    }

    /// Where the letter of a number is, or would be.
    pub(super) fn file(&self, number: u64) -> PathBuf {
        self.path.join(name_of(number))
    }

    /// Keeps a letter, for which the oldest ones make room.
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

    /// Removes those that were kept before that time; returns how many.
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

    /// Removes a letter; returns whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> io::Result<bool> {
        let Some(&bytes) = self.letters.get(&number) else {
            return Ok(false);
        };
        match fs::remove_file(self.file(number)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            // Somebody else may have removed it.
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

/// Writes a file that is whole whenever it has its name.
fn write_whole(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = file.with_extension(&UNFINISHED[1..]);
    let written = || {
        let mut out = File::create(&unfinished)?;
        out.write_all(bytes)?;
        out.sync_data()?;
        fs::rename(&unfinished, file)
    };
    written().inspect_err(|_| {
        // What stays takes room on a full disk, and the next start tries again.
        let _ = fs::remove_file(&unfinished);
    })?;
    File::open(folder)?.sync_all()
}
