//! A provider's targets on disk: one file for each provider, replaced as a whole.
//!
//! The file's modification time is that of the last answer, so that an answer without changes costs
//! no write.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use metrifold_base::open_file;
use metrifold_files::replace;

use super::labels::{Labels, Target};
use super::limits::Limits;

/// Shortest pause between two writes of the file.
pub(crate) const PAUSE: Duration = Duration::from_secs(2);
/// Pause between two writes, as a multiple of the time that the last one took: writing many targets
/// that change all the time takes a fiftieth of the time.
pub(crate) const CALM: u32 = 50;
/// Interval at which the modification time is updated while the targets do not change.
pub(crate) const REFRESH: Duration = Duration::from_secs(60);
/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 30;
/// Version of the file's format. A file of another version is ignored.
const VERSION: u32 = 1;

/// File that keeps the answers of a provider to one question.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    question: String,
}

/// Contents of the file.
pub(crate) struct Found {
    pub(crate) groups: BTreeMap<Arc<str>, Vec<Target>>,
    pub(crate) answered: SystemTime,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    question: &'a str,
    sources: &'a BTreeMap<Arc<str>, Arc<[Target]>>,
}

#[derive(Deserialize)]
struct ReadBack {
    version: u32,
    question: String,
    sources: BTreeMap<Arc<str>, Vec<BTreeMap<String, String>>>,
}

impl Kept {
    /// A file for answers to this question. The question identifies what a provider asks, see
    /// [`ProviderConfig::question`](super::provider::ProviderConfig::question).
    pub(crate) fn new(path: PathBuf, question: String) -> Self {
        Self { path, question }
    }

    /// The targets in the file. `None` without a file, or if the file answers another question.
    pub(crate) fn read(&self, limits: &Limits) -> io::Result<Option<Found>> {
        let file = match open_file(&self.path) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(io::Error::other(error)),
        };
        let answered = file.metadata()?.modified()?;
        let read: ReadBack = serde_json::from_reader(BufReader::new(file.take(MAX_BYTES)))?;
        if read.version != VERSION || read.question != self.question {
            return Ok(None);
        }
        let sources = read.sources.into_iter().map(|(source, targets)| {
            let targets = targets.into_iter();
            let mut targets: Vec<Target> = targets
                .map(|labels| Arc::new(labels.into_iter().collect::<Labels>()))
                .collect();
            targets.sort_unstable();
            targets.dedup();
            (source, targets)
        });
        let groups: BTreeMap<_, _> = sources.collect();
        let count = groups.values().map(Vec::len).sum();
        limits.check_count(count).map_err(io::Error::other)?;
        Ok(Some(Found { groups, answered }))
    }

    /// Replaces the file and sets its modification time to that of the last answer.
    pub(crate) fn write(
        &self,
        groups: &BTreeMap<Arc<str>, Arc<[Target]>>,
        answered: SystemTime,
    ) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let written = Written {
            version: VERSION,
            question: &self.question,
            sources: groups,
        };
        replace(&self.path, |file| {
            serde_json::to_writer(file, &written).map_err(io::Error::from)
        })?;
        self.touch(answered)
    }

    /// Sets the file's modification time to that of the last answer.
    pub(crate) fn touch(&self, answered: SystemTime) -> io::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        file.set_modified(answered)
    }
}
