//! `file`: targets in files, read again when they change.
//!
//! Each file is a source of its own. A file that cannot be read or parsed, or is empty, keeps its
//! targets; so does a pattern that matched files before and matches none now, since a folder that
//! is not mounted looks like that. A file with an empty list removes its targets, and so does the
//! absence of one of several files that a pattern matched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrifold_base::keys::Keys;
use metrifold_base::{
    Backoff, BoxFuture, BuildError, FileError, Period, Problems, RunError, keys, read_file, words,
};
use metrifold_files::{Look, Watch, folder_of};

use crate::answer::{Failure, Reason};
use crate::file_sd::{from_json, from_lines, from_yaml, targets};
use crate::labels::Labels;
use crate::limits::{LimitKeys, Limits, OnEmpty};
use crate::poll::aside;
use crate::provider::{Provider, ProviderConfig, ProviderContext, ProviderInfo};
use crate::slot::Feed;

/// Label with the path of the target's file.
const FILE: &str = "__meta_filepath";
/// The most files that a provider reads.
const MAX_FILES: usize = 10_000;
/// Pauses between attempts while some file cannot be read.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

keys! {
    /// `[discovery.NAME] type = "file"`.
    #[derive(Clone, Debug)]
    pub struct FileConfig {
        /// Files, or glob patterns with `*`, `?`, `[abc]` and `**` (any number of directories). They are read in order; a file that cannot be read keeps its last targets and does not affect the others.
        files: Vec<PathBuf> = required(["/etc/metrifold/targets/*.json"]),
        /// Format of the files: `file_sd` (Prometheus' list of target groups, in JSON or YAML according to the file extension) or `lines` (one address per line).
        format: Format = default("file_sd"),
        /// How often the files are checked for changes, in addition to file system notifications.
        watch_interval: Period = default("30s"),
        limits: LimitKeys = include,
    }
}

words! {
    /// Formats of a file of targets.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Format {
        /// Groups in JSON or YAML.
        FileSd = "file_sd",
        /// One address per line.
        Lines = "lines",
    }
}

inventory::submit! {
    ProviderInfo {
        name: "file",
        summary: "targets from files, as with Prometheus' file_sd_configs or one per line; changes are followed",
        keys: FileConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "file")]
impl ProviderConfig for FileConfig {
    fn limits(&self) -> Limits {
        self.limits.limits()
    }

    fn on_empty(&self) -> OnEmpty {
        // An empty list in a file is a decision of its writer; empty files and unmounted folders
        // have become failures before this applies.
        OnEmpty::Take
    }

    fn question(&self) -> String {
        format!("{:?} {:?}", self.format, self.files)
    }

    fn validate(&self, problems: &mut Problems) {
        if self.files.is_empty() {
            problems.at("files", "must name at least one file or pattern");
        }
        for (at, file) in self.files.iter().enumerate() {
            let text = file.to_string_lossy();
            if let Err(error) = glob::Pattern::new(&text) {
                problems.at(format!("files[{at}]"), error);
            } else if self.format == Format::FileSd && Syntax::of(file).is_none() {
                let message = "does not end with .json, .yml or .yaml";
                let problem = problems.at(format!("files[{at}]"), message);
                problem.help("rename the file after its format, or set format = \"lines\"");
            }
        }
        if self.watch_interval < Period::millis(100) {
            problems.at("watch_interval", "must be at least 100ms");
        }
        self.limits.validate(problems);
    }

    fn build(&self, _cx: &ProviderContext) -> Result<Box<dyn Provider>, BuildError> {
        let patterns = self.files.iter();
        Ok(Box::new(Files {
            reader: Arc::new(Reader {
                patterns: patterns
                    .map(|file| file.to_string_lossy().into_owned())
                    .collect(),
                format: self.format,
                on_empty: self.limits.on_empty,
            }),
            interval: self.watch_interval.0,
        }))
    }
}

struct Files {
    reader: Arc<Reader>,
    interval: Duration,
}

impl Provider for Files {
    fn run(self: Box<Self>, feed: Feed) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let mut watch = Watch::new(self.interval);
            let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
            loop {
                let (reader, feed) = (self.reader.clone(), feed.clone());
                let (seen, failed) = aside(move || {
                    // The look comes first: a change during the reading then counts as a change.
                    let seen = Look::first(&reader.patterns);
                    let answers = reader.read(&feed);
                    let failed = answers.iter().any(|(_, answer)| answer.is_err());
                    feed.all(answers);
                    (seen, failed)
                })
                .await?;
                if !failed {
                    backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                }
                tokio::select! {
                    () = watch.changed(&seen) => {}
                    // Retried by time as well: a change of permissions, for one, does not show in
                    // the content.
                    () = tokio::time::sleep(backoff.next_pause()), if failed => {}
                }
            }
        })
    }
}

type Answers = Vec<(Arc<str>, Result<Vec<Labels>, Failure>)>;

struct Reader {
    patterns: Vec<String>,
    format: Format,
    on_empty: OnEmpty,
}

/// Syntax of a file, by its ending.
#[derive(Clone, Copy)]
enum Syntax {
    Json,
    Yaml,
}

impl Syntax {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" | "JSON" => Some(Self::Json),
            "yml" | "yaml" | "YML" | "YAML" => Some(Self::Yaml),
            _ => None,
        }
    }
}

impl Reader {
    /// Reads all files. Blocks.
    fn read(&self, feed: &Feed) -> Answers {
        let limits = feed.limits();
        let mut room = limits.answer_bytes;
        let mut answers = Answers::new();
        let known = feed.sources();
        for pattern in &self.patterns {
            match self.expand(pattern, &known) {
                Ok(paths) => {
                    for path in paths {
                        let source: Arc<str> = path.to_string_lossy().into();
                        if answers.iter().any(|(read, _)| *read == source) {
                            continue;
                        }
                        let answer = match answers.len() < MAX_FILES {
                            true => self.read_one(&path, &mut room, &limits),
                            false => {
                                let text = format!("there are more than {MAX_FILES} files");
                                Err(Failure::new(Reason::TooLarge, text))
                            }
                        };
                        answers.push((source, answer));
                    }
                }
                Err((failure, kept)) => {
                    let sources = match kept.is_empty() {
                        true => vec![Arc::from(pattern.as_str())],
                        false => kept,
                    };
                    answers.extend(sources.into_iter().map(|it| (it, Err(failure.clone()))));
                }
            }
        }
        answers
    }

    /// The files of a pattern, or a failure and the sources whose targets stay.
    fn expand(
        &self,
        pattern: &str,
        known: &[Arc<str>],
    ) -> Result<Vec<PathBuf>, (Failure, Vec<Arc<str>>)> {
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![PathBuf::from(pattern)]);
        }
        let matcher = glob::Pattern::new(pattern);
        let before = known.iter().filter(|source| {
            matcher
                .as_ref()
                .is_ok_and(|matcher| matcher.matches(source))
        });
        let before: Vec<Arc<str>> = before.cloned().collect();
        let failed = |text: String| Failure::new(Reason::Unreadable, text);
        let folder = folder_of(Path::new(pattern));
        if let Err(error) = std::fs::read_dir(&folder) {
            return Err((failed(format!("{}: {error}", folder.display())), before));
        }
        let found = glob::glob(pattern).map_err(|error| (failed(error.to_string()), Vec::new()))?;
        let paths: Vec<PathBuf> = found.flatten().filter(|path| !path.is_dir()).collect();
        if paths.is_empty() && !before.is_empty() && self.on_empty == OnEmpty::Keep {
            let text =
                format!("no file matches {pattern:?} any more: keeping the targets known so far");
            return Err((Failure::new(Reason::Empty, text), before));
        }
        Ok(paths)
    }

    fn read_one(
        &self,
        path: &Path,
        room: &mut usize,
        limits: &Limits,
    ) -> Result<Vec<Labels>, Failure> {
        let text = read_file(path, *room as u64).map_err(|error| match error {
            FileError::TooLarge(_) => {
                let text = format!(
                    "the files are larger than max_answer_bytes, {} bytes",
                    limits.answer_bytes
                );
                Failure::new(Reason::TooLarge, text)
            }
            _ => Failure::new(Reason::Unreadable, error),
        })?;
        *room -= text.len();
        if text.is_empty() {
            let text = "the file is empty: write [] for no targets";
            let text = match self.format {
                Format::FileSd => text,
                Format::Lines => "the file is empty: write a comment (#) for no targets",
            };
            return Err(Failure::new(Reason::Empty, text));
        }
        let groups = match (self.format, Syntax::of(path)) {
            (Format::Lines, _) => from_lines(&text),
            (Format::FileSd, Some(Syntax::Json)) => from_json(&text),
            (Format::FileSd, Some(Syntax::Yaml)) => from_yaml(&text),
            (Format::FileSd, None) => {
                let text = "does not end with .json, .yml or .yaml";
                Err(Failure::new(Reason::Invalid, text))
            }
        }?;
        targets(groups, &[(FILE, &path.to_string_lossy())], limits)
    }
}
