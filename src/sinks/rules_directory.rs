//! Writes the rules of all tenants to a folder, for a Prometheus or a Thanos Ruler to read.
//!
//! Delivery: atomic, also through `kill -9` or a loss of power at any moment: the path is a
//! symbolic link to a folder that never changes once the link names it. Nothing is written before
//! every source of this sink has published, since rules that are not known yet must not count as
//! removed. A failed write is retried; the folder keeps its previous content.
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
use metrifold_engine::planes::rules::{Input, RuleSet, Rules, View};
use metrifold_model::Kind;
use metrifold_rules::RulesDirectory;
use metrifold_telemetry::ComponentMetrics;

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
            let mut directory = None;
            let mut due: Option<RuleSet> = None;
            let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
            loop {
                if let Some(set) = &due {
                    // Not cancelled by a shutdown, which would leave a partial set behind.
                    let (opened, written) = self.write(directory.take(), set.clone()).await?;
                    directory = opened;
                    if written {
                        due = None;
                        backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                    }
                }
                tokio::select! {
                    biased;
                    // Polled first: a replaced sink must not write after its successor.
                    () = shutdown.wait() => return Ok(()),
                    view = input.changed() => match view {
                        Some(view) => due = self.joined(&view).or(due),
                        None => return Ok(()),
                    },
                    () = tokio::time::sleep(backoff.next_pause()), if due.is_some() => {}
                }
            }
        })
    }
}

impl Writer {
    /// The rules that the folder should hold; `None` before all sources have published, or on a
    /// conflict.
    fn joined(&self, view: &View) -> Option<RuleSet> {
        let awaited: Vec<_> = view.awaited().map(|source| &**source).collect();
        if !awaited.is_empty() {
            info!(sink = %self.id, sources = awaited.join(", "), "waiting for the first rules of all sources");
            return None;
        }
        match view.joined() {
            Ok(set) => Some(set),
            Err(conflict) => {
                self.metrics.error("conflict", &conflict);
                error!(sink = %self.id, %conflict, "rules were not written: the previous ones stay");
                None
            }
        }
    }

    /// Writes a set; returns whether the folder holds it now.
    async fn write(
        &self,
        directory: Option<RulesDirectory>,
        set: RuleSet,
    ) -> Result<(Option<RulesDirectory>, bool), RunError> {
        let (path, tenants) = (self.path.clone(), set.len());
        let writing = spawn_blocking(move || {
            let mut directory = match directory {
                Some(directory) => directory,
                None => RulesDirectory::open(&path)?,
            };
            let applied = directory.apply(&set)?;
            Ok::<_, metrifold_rules::WriteError>((directory, applied))
        });
        let written = writing.await.map_err(|error| RunError(error.to_string()))?;
        match written {
            Ok((directory, applied)) => {
                self.metrics.succeeded();
                self.metrics.rules_published(tenants);
                if applied.is_change() {
                    info!(
                        sink = %self.id,
                        written = applied.written,
                        unchanged = applied.unchanged,
                        removed = applied.removed,
                        "rules were written"
                    );
                }
                Ok((Some(directory), true))
            }
            Err(error) => {
                // The folder's state is unknown: it is opened again.
                self.metrics.failed("write", &error);
                error!(sink = %self.id, %error, "rules were not written: the previous ones stay, trying again");
                Ok((None, false))
            }
        }
    }
}
