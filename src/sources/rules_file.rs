//! Reads Prometheus rule files and publishes their rules, again on every change.
//!
//! Delivery: all files form one set, published whole or not at all: while one of them is invalid or
//! unreadable, the previous set stays, and every problem is logged with file and line. Folders are
//! watched, and polled at an interval as well.
//!
//! Limits: the number of files and their total bytes, the bytes of one file, its groups and rules,
//! and the length and nesting of an expression.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use metrifold_base::keys::Keys;
use metrifold_base::{
    Backoff, BoxFuture, BuildError, Period, Problems, RunError, Shutdown, Size, keys,
};
use metrifold_engine::component::{
    BuildContext, BuildSource, ComponentInfo, SourceConfig, SourcePort,
};
use metrifold_engine::planes::Source;
use metrifold_engine::planes::rules::{Output, RuleSet, Rules};
use metrifold_files::{Look, Watch, folder_of};
use metrifold_model::Kind;
use metrifold_rules::{Checks, FilesRead, GlobLimits, read_globs};
use metrifold_telemetry::ComponentMetrics;

use crate::rules::{Checker, Feature, checker};

keys! {
    /// Configuration of the `rules_file` source.
    #[derive(Clone, Debug)]
    pub struct RulesFileConfig {
        /// Rule files, or glob patterns with `*`, `?`, `[abc]` and `**` (any number of directories). The directory at which a pattern begins must exist.
        files: Vec<PathBuf> = required(["/etc/rules/*.yaml"]),
        /// How often the files are checked for changes, in addition to file system notifications.
        watch_interval: Period = default("10s"),
        /// Maximum number of files.
        max_files: usize = default(10000),
        /// Maximum size of all files together.
        max_bytes: Size = default("256MiB"),
        /// Allow `partial_response_strategy` in rule groups. Set it only if all rulers that get the rules are Thanos rulers.
        thanos: bool = default(false),
        /// Features of PromQL that all rulers which get the rules have enabled, by the names of `--enable-feature` of Prometheus, such as `promql-experimental-functions`. Expressions that need another one are refused.
        enable_features: Vec<Feature> = default([]),
    }
}

/// Pauses between attempts after a failed reading.
const RETRY_MIN: std::time::Duration = std::time::Duration::from_secs(1);
const RETRY_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// Most problems of one reading that are logged.
const MAX_LOGGED: usize = 20;

inventory::submit! {
    ComponentInfo {
        kind: Kind::Source,
        name: "rules_file",
        summary: "Reads rules from Prometheus rule files.",
        keys: RulesFileConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "rules_file")]
impl SourceConfig for RulesFileConfig {
    fn port(&self) -> SourcePort<'_> {
        SourcePort::Rules(self)
    }

    fn validate(&self, problems: &mut Problems) {
        if self.files.is_empty() {
            problems.at("files", "must name at least one file or pattern");
        }
        for (place, pattern) in self.files.iter().enumerate() {
            let text = pattern.to_string_lossy();
            if let Err(error) = glob::Pattern::new(&text) {
                problems.at(format!("files[{place}]"), error.to_string());
            }
        }
        if self.watch_interval < Period::millis(100) {
            problems.at("watch_interval", "must be at least 100ms");
        }
        if self.max_files == 0 {
            problems.at("max_files", "must be at least 1");
        }
        if self.max_bytes.0 == 0 {
            problems.at("max_bytes", "must be at least 1B");
        }
    }
}

impl BuildSource<Rules> for RulesFileConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source<Rules>>, BuildError> {
        Ok(Box::new(RulesFile {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            reader: Arc::new(Reader {
                patterns: self
                    .files
                    .iter()
                    .map(|file| file.to_string_lossy().into_owned())
                    .collect(),
                limits: GlobLimits {
                    files: self.max_files,
                    bytes: self.max_bytes.0,
                },
                thanos: self.thanos,
                expr: checker(&self.enable_features),
            }),
            interval: self.watch_interval,
        }))
    }
}

struct RulesFile {
    id: Arc<str>,
    metrics: ComponentMetrics,
    reader: Arc<Reader>,
    interval: Period,
}

impl Source<Rules> for RulesFile {
    fn run(
        self: Box<Self>,
        out: Output,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            tokio::select! {
                ended = self.follow(&out) => ended,
                () = shutdown.wait() => Ok(()),
            }
        })
    }
}

impl RulesFile {
    /// Publishes the rules of the files, and again after every change.
    async fn follow(&self, out: &Output) -> Result<(), RunError> {
        let mut watch = Watch::new(self.interval.0);
        let mut published: Option<RuleSet> = None;
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        loop {
            let reader = self.reader.clone();
            // The snapshot comes first, so that a change during the reading is noticed later.
            let read = spawn_blocking(move || (Look::first(&reader.patterns), reader.read()));
            let (seen, read) = read.await.map_err(|error| RunError(error.to_string()))?;
            let failed = read.is_err();
            match read {
                Ok(read) => {
                    self.warn(&read);
                    let rules = read.rules;
                    let (files, count) = (rules.files().len(), rules.rules());
                    let set = RuleSet::of_none(Arc::new(rules));
                    if published.as_ref() != Some(&set) {
                        info!(source = %self.id, files, rules = count, "rules were read");
                        out.publish(set.clone()).await;
                        published = Some(set);
                    }
                    backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                }
                Err(problems) => self.complain(&problems, published.is_some()),
            }
            tokio::select! {
                () = watch.changed(&seen) => {}
                // Not every obstacle to reading shows as a change of content.
                () = tokio::time::sleep(backoff.next_pause()), if failed => {}
            }
        }
    }

    fn complain(&self, problems: &[String], keeps: bool) {
        let what = match keeps {
            true => "rules were not loaded: the previous ones stay",
            false => "rules were not loaded: there are none yet",
        };
        let first = problems.first().map_or("", String::as_str);
        self.metrics.error("invalid", first);
        for problem in problems.iter().take(MAX_LOGGED) {
            error!(source = %self.id, %problem, "{what}");
        }
        let more = problems.len().saturating_sub(MAX_LOGGED);
        if more > 0 {
            error!(source = %self.id, more, "{what}: there are further problems");
        }
    }

    fn warn(&self, read: &FilesRead) {
        for problem in read.warnings.iter().take(MAX_LOGGED) {
            warn!(source = %self.id, %problem, "lint warning in a rule file");
        }
    }
}

/// Reads the files.
struct Reader {
    patterns: Vec<String>,
    limits: GlobLimits,
    thanos: bool,
    expr: Checker,
}

impl Reader {
    /// Reads all files, or returns every problem. Blocks.
    fn read(&self) -> Result<FilesRead, Vec<String>> {
        // A missing folder is an error: it may not be mounted yet.
        let absent = |pattern: &String| {
            let folder = folder_of(Path::new(pattern));
            let error = std::fs::read_dir(&folder).err()?;
            Some(format!("{}: {error}", folder.display()))
        };
        let absent: Vec<String> = self.patterns.iter().filter_map(absent).collect();
        if !absent.is_empty() {
            return Err(absent);
        }
        let checks = Checks {
            thanos: self.thanos,
            ..Checks::new(&*self.expr)
        };
        let read = read_globs(&self.patterns, &checks, &self.limits);
        read.map_err(|error| error.0.iter().map(ToString::to_string).collect())
    }
}
