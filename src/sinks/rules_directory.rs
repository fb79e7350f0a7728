//! Writes the rules of all tenants to a folder, for a Prometheus or a Thanos Ruler to read.
//!
//! Delivery: atomic, also through `kill -9` or a loss of power at any moment: the path is a
//! symbolic link to a folder that never changes once the link names it. Nothing is written before
//! every source of this sink has published, since rules that are not known yet must not count as
//! removed. A failed write is retried; the folder keeps its previous content. A tenant whose sources
//! contradict each other keeps its previous files.
//!
//! Limits: those of the sources; the two previous sets stay for readers that still use them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{error, info};

use metrifold_base::keys::Keys;
use metrifold_base::{Backoff, BoxFuture, BuildError, Problems, RunError, Shutdown, keys};
use metrifold_engine::component::{
    BuildContext, BuildSink, ComponentInfo, Resource, SinkConfig, SinkPort,
};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::rules::{Input, Joined, RuleSet, Rules, View};
use metrifold_model::Kind;
use metrifold_rules::RulesDirectory;
use metrifold_telemetry::ComponentMetrics;

use crate::rules::Conflicts;

keys! {
    /// Configuration of the `rules_directory` sink.
    #[derive(Clone, Debug)]
    pub struct RulesDirectoryConfig {
        /// Directory to fill. It must not exist, must be empty, or must have been created by this sink: a symbolic link into `.NAME.metrifold` beside it.
        path: PathBuf = required("/var/lib/ruler/rules"),
    }
}

/// Pauses between attempts after a failed write.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "rules_directory",
        summary: "Writes rules into a directory, atomically.",
        keys: RulesDirectoryConfig::ENTRIES,
    }
}

#[typetag::deserialize(name = "rules_directory")]
impl SinkConfig for RulesDirectoryConfig {
    fn port(&self) -> SinkPort<'_> {
        SinkPort::Rules(self)
    }

    fn resources(&self) -> Vec<Resource> {
        vec![Resource::Folder(self.path.clone())]
    }

    fn validate(&self, problems: &mut Problems) {
        if self.path.file_name().is_none() {
            problems.at("path", "must end in the name of a folder");
        }
    }
}

impl BuildSink<Rules> for RulesDirectoryConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Sink<Rules>>, BuildError> {
        Ok(Box::new(Writer {
            id: cx.id.clone(),
            metrics: cx.metrics.clone(),
            path: self.path.clone(),
        }))
    }
}

struct Writer {
    id: Arc<str>,
    metrics: ComponentMetrics,
    path: PathBuf,
}

impl Sink<Rules> for Writer {
    fn run(
        self: Box<Self>,
        mut input: Input,
        mut shutdown: Shutdown,
    ) -> BoxFuture<Result<(), RunError>> {
        Box::pin(async move {
            let mut folder = Folder::default();
            let mut due: Option<Joined> = None;
            let mut told = Conflicts::default();
            let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
            loop {
                if let Some(joined) = &due {
                    // Not cancelled by a shutdown, which would leave a partial set behind.
                    if self.write(&mut folder, joined.clone()).await? {
                        due = None;
                        backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                    }
                }
                tokio::select! {
                    biased;
                    // Polled first: a replaced sink must not write after its successor.
                    () = shutdown.wait() => return Ok(()),
                    view = input.changed() => match view {
                        Some(view) => due = self.joined(&view, &mut told).or(due),
                        None => return Ok(()),
                    },
                    () = tokio::time::sleep(backoff.next_pause()), if due.is_some() => {}
                }
            }
        })
    }
}

/// The folder, as far as it is known.
#[derive(Default)]
struct Folder {
    /// The folder, unless it must be opened first.
    open: Option<RulesDirectory>,
    /// The last set that was written; `None` before the first.
    written: Option<RuleSet>,
}

impl Writer {
    /// The rules that the folder should hold; `None` before all sources have published.
    fn joined(&self, view: &View, told: &mut Conflicts) -> Option<Joined> {
        let awaited: Vec<_> = view.awaited().map(|source| &**source).collect();
        if !awaited.is_empty() {
            info!(sink = %self.id, sources = awaited.join(", "), "waiting for the first rules of all sources");
            return None;
        }
        let joined = view.joined();
        told.tell(&self.id, &self.metrics, &joined);
        Some(joined)
    }

    /// Writes a set; returns whether the folder holds it now.
    async fn write(&self, folder: &mut Folder, joined: Joined) -> Result<bool, RunError> {
        let (path, opened) = (self.path.clone(), folder.open.take());
        let written = folder.written.clone();
        let writing = spawn_blocking(move || {
            let mut directory = match opened {
                Some(directory) => directory,
                None => RulesDirectory::open(&path)?,
            };
            let set = match (joined.conflicts.is_empty(), written) {
                (true, _) => joined.set,
                (false, Some(written)) => joined.keeping(&written),
                (false, None) => joined.keeping(&directory.held()),
            };
            let applied = directory.apply(&set)?;
            Ok::<_, metrifold_rules::WriteError>((directory, set, applied))
        });
        let written = writing.await.map_err(|error| RunError(error.to_string()))?;
        match written {
            Ok((directory, set, applied)) => {
                self.metrics.succeeded();
                self.metrics.rules_published(set.len());
                *folder = Folder {
                    open: Some(directory),
                    written: Some(set),
                };
                if applied.is_change() {
                    info!(
                        sink = %self.id,
                        written = applied.written,
                        unchanged = applied.unchanged,
                        removed = applied.removed,
                        "rules were written"
                    );
                }
                Ok(true)
            }
            Err(error) => {
                // The folder's state is unknown: it is opened again.
                self.metrics.failed("write", &error);
                error!(sink = %self.id, %error, "rules were not written: the previous ones stay, trying again");
                Ok(false)
            }
        }
    }
}
