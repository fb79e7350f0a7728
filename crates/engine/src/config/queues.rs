//! The queues on disk of a configuration, and the orphaned ones that no sink reads.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use metrifold_queue::QueueConfig;
use metrifold_queue::disk::{OpenError, Survey, survey};

use super::{Config, Diagnostic};

/// A directory under `data_dir` that holds a queue.
#[derive(Debug)]
pub struct Found {
    /// Name of the sink that the queue belongs or belonged to.
    pub name: String,
    /// Path of the directory.
    pub path: PathBuf,
    /// Whether a sink of the configuration reads the queue.
    pub is_read: bool,
    /// Content of the queue.
    pub survey: Result<Survey, OpenError>,
}

impl Found {
    /// The number of batches that no sink will deliver.
    pub fn orphaned_batches(&self) -> u64 {
        let survey = self.survey.as_ref().ok().filter(|_| !self.is_read);
        survey.map_or(0, |survey| survey.queued.batches)
    }
}

/// The folder of a sink's queue, if the configuration has a `data_dir`.
pub fn folder(config: &Config, sink: &str) -> Option<PathBuf> {
    Some(all(config)?.join(sink))
}

fn all(config: &Config) -> Option<PathBuf> {
    Some(config.data_dir.as_ref()?.join("queues"))
}

/// Whether a sink of this name delivers what is in the queue on disk: one whose queue is in memory
/// now delivers what an earlier process has left there.
pub fn is_read(config: &Config, sink: &str) -> bool {
    queue(config, sink).is_some()
}

/// Whether a sink of this name has a queue on disk.
pub fn is_declared(config: &Config, sink: &str) -> bool {
    queue(config, sink).is_some_and(|queue| queue.is_disk())
}

fn queue(config: &Config, sink: &str) -> Option<QueueConfig> {
    let node = config.sinks.get(sink)?;
    Some(node.config.metrics()?.queue())
}

/// The names of the directories that hold queues, sorted.
fn names(config: &Config) -> Vec<String> {
    let entries = all(config).and_then(|path| fs::read_dir(path).ok());
    let directories = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir());
    let names = directories.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A queue has a temporary name while it is moved or removed.
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    names
}

/// All queues under `data_dir`. Blocks on the disk.
pub fn find(config: &Config) -> Vec<Found> {
    find_if(config, |_| true)
}

/// The queues on disk that no sink of the configuration reads.
pub fn orphans(config: &Config) -> Vec<Found> {
    find_if(config, |name| !is_read(config, name))
}

fn find_if(config: &Config, wanted: impl Fn(&str) -> bool) -> Vec<Found> {
    let names = names(config).into_iter().filter(|name| wanted(name));
    let found = names.filter_map(|name| {
        let path = folder(config, &name)?;
        Some(Found {
            is_read: is_read(config, &name),
            survey: survey(&path),
            name,
            path,
        })
    });
    found.collect()
}

/// A fingerprint that changes when orphans appear, disappear or change; much cheaper than reading
/// them.
pub fn fingerprint(config: &Config) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in names(config) {
        if is_read(config, &name) {
            continue;
        }
        name.hash(&mut hasher);
        let files = folder(config, &name).and_then(|path| fs::read_dir(path).ok());
        let mut files: Vec<_> = files
            .into_iter()
            .flatten()
            .flatten()
            .map(|it| it.path())
            .collect();
        files.sort_unstable();
        for file in files {
            let state = |path: &Path| {
                let metadata = fs::metadata(path).ok()?;
                Some((metadata.len(), metadata.modified().ok()?))
            };
            (state(&file), file).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Warnings about queues that hold batches and that no sink reads.
pub(crate) fn warnings(config: &Config) -> Vec<Diagnostic> {
    let orphans = orphans(config).into_iter();
    let warning = |found: Found| {
        let batches = found.orphaned_batches();
        let survey = found.survey.as_ref().ok()?;
        if batches == 0 {
            return None;
        }
        let name = &found.name;
        let so_far = match survey.in_use {
            true => ", unless the sink that still runs delivers them before it ends",
            false => "",
        };
        let uncounted = match survey.queued.uncounted {
            0 => String::new(),
            more => format!(" (and those of {more} batches that were not counted)"),
        };
        let message = format!(
            "no sink reads the queue on disk of {name:?}: {batches} batches with {} samples{uncounted} stay \
             undelivered{so_far}",
            survey.queued.samples
        );
        let help = format!(
            "give the sink its name again, or stop metrifold and run `metrifold queues adopt {name} \
             NEW` with the sink's new name, or `metrifold queues discard {name} --yes`"
        );
        Some(Diagnostic::warning(message).with_help(help))
    };
    orphans.filter_map(warning).collect()
}
