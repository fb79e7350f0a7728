//! Makes a folder hold the rules of all tenants, for a Prometheus or a Thanos Ruler to read.
//!
//! Delivery: whole or not at all, also through `kill -9` or a loss of power at any moment: the path
//! is a symbolic link to a folder that is never changed once the link names it. Nothing is written
//! before every source that leads here has published: what is not known yet is not taken to be gone.
//! What cannot be written is tried again; the folder keeps what it held before.
//!
//! Limits: those of the sources; the two sets before are kept for readers that are still in them.

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
        /// The folder to fill. It must not exist, be empty, or be one that this sink has made: a symbolic link into `.NAME.metrifold` beside it.
        path: PathBuf = required("/var/lib/ruler/rules"),
    }
}

/// The pauses between attempts to write what could not be written.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

inventory::submit! {
    ComponentInfo {
        kind: Kind::Sink,
        name: "rules_directory",
        summary: "Writes rules into a folder, whole or not at all.",
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
            problems.at("path", "must end in the folder's own name");
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
                    // Never cut short: a set that is half written would only be swept up later.
                    let (opened, written) = self.write(directory.take(), set.clone()).await?;
                    directory = opened;
                    if written {
                        due = None;
                        backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                    }
                }
                tokio::select! {
                    biased;
                    // First: a sink that was replaced must not write after its successor.
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
    /// What the folder should hold, if that is known.
    fn joined(&self, view: &View) -> Option<RuleSet> {
        let awaited: Vec<_> = view.awaited().map(|source| &**source).collect();
        if !awaited.is_empty() {
            info!(sink = %self.id, sources = awaited.join(", "), "waits for the first rules of all sources");
            return None;
        }
        match view.joined() {
            Ok(set) => Some(set),
            Err(conflict) => {
                self.metrics.error("conflict", &conflict);
                error!(sink = %self.id, %conflict, "rules were not written: those of before stay");
                None
            }
        }
    }

    /// Writes a set; says whether the folder holds it now.
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
            Ok::<_, metrifold_rules::DirectoryError>((directory, applied))
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
                // What is known of the folder may no longer hold.
                self.metrics.failed("write", &error);
                error!(sink = %self.id, %error, "rules were not written: those of before stay, and it is tried again");
                Ok((None, false))
            }
        }
    }
}
