//! Publishing targets for programs that read Prometheus' `file_sd` or `http_sd`.
//!
//! What is published is what a provider knows, after rules. It changes when that changes, and never
//! for a failure: as long as nothing is known, or some of what was known before may be missing, what
//! was published before stays.

mod config;
mod relabel;
mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tracing::{info, warn};

use metrifold_base::{Backoff, BoxFuture, BuildError, RunError, locked, read_file};
use metrifold_files::replace;
use metrifold_http::{Access, Doors, Listeners, Route};
use metrifold_telemetry::{State, Telemetry};

use super::file_sd::{to_json, to_lines};
use super::kinds::Format;
use super::labels::Target;
use super::meters::{PublishMeters, seconds};
use super::slot::Targets;
use super::snapshot::{Snapshot, Standing, difference};

pub use config::PublishConfig;
pub use relabel::{Relabelled, TargetRules};

use serve::Served;

/// The pauses between attempts to write a file that cannot be written.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is known of a publisher by name.
pub struct Published {
    /// Its name.
    pub name: Arc<str>,
    /// The provider whose targets it publishes.
    pub discovery: Arc<str>,
    config: PublishConfig,
    rules: TargetRules,
    meters: PublishMeters,
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    targets: usize,
    dropped: usize,
    written: Option<SystemTime>,
    error: Option<String>,
    /// What is served over HTTP, once it is known.
    list: Option<Served>,
}

/// What there is to tell of a publisher.
#[derive(Clone, Debug, Serialize)]
pub struct PublishStatus {
    name: Arc<str>,
    discovery: Arc<str>,
    state: State,
    targets: usize,
    dropped: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_sd: Option<String>,
    last_write: Option<f64>,
    error: Option<String>,
}

/// A publisher that is built and does nothing yet.
pub struct Publisher {
    published: Arc<Published>,
    targets: Targets,
    http: Option<(Route, Arc<dyn Access>)>,
}

impl Published {
    /// Says whether the publisher runs.
    pub fn set_state(&self, state: State) {
        locked(&self.inner).state = state;
    }

    /// Tells of the end of the publisher itself.
    pub fn died(&self, text: impl fmt::Display) {
        locked(&self.inner).error = Some(text.to_string());
        self.meters.failures.increment(1);
    }

    /// What its rules make of targets.
    pub fn relabel(&self, targets: &[Target]) -> Vec<Relabelled> {
        self.rules.apply(targets)
    }

    /// What there is to tell.
    pub fn status(&self) -> PublishStatus {
        let inner = locked(&self.inner);
        let file = self.config.file.as_ref();
        PublishStatus {
            name: self.name.clone(),
            discovery: self.discovery.clone(),
            state: inner.state,
            targets: inner.targets,
            dropped: inner.dropped,
            file: file.map(|file| file.display().to_string()),
            http_sd: self.config.http_sd.as_ref().map(|http| http.shown()),
            last_write: inner.written.map(seconds),
            error: inner.error.clone(),
        }
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.name).finish()
    }
}

impl PublishConfig {
    /// What is known of the publisher of this name, which does not run yet.
    ///
    /// # Errors
    ///
    /// Fails when its rules cannot be compiled.
    pub fn published(
        &self,
        name: &Arc<str>,
        telemetry: &Telemetry,
    ) -> Result<Arc<Published>, BuildError> {
        Ok(Arc::new(Published {
            name: name.clone(),
            discovery: self.discovery.as_str().into(),
            rules: self.rules()?,
            config: self.clone(),
            meters: PublishMeters::new(telemetry, name),
            inner: Mutex::new(Inner {
                state: State::Built,
                targets: 0,
                dropped: 0,
                written: None,
                error: None,
                list: None,
            }),
        }))
    }
}

impl Publisher {
    /// Builds it: claims its path and reads its secrets.
    ///
    /// # Errors
    ///
    /// Fails when the path cannot be claimed or a secret cannot be read.
    pub fn build(
        published: &Arc<Published>,
        targets: Targets,
        listeners: &Listeners,
        doors: &dyn Doors,
    ) -> Result<Self, BuildError> {
        let http = published.config.http_sd.as_ref();
        let http = http.map(|http| {
            let owner = format!("publish.{}", published.name);
            Ok((
                listeners.route(&http.listen(), &owner)?,
                http.access(doors)?,
            ))
        });
        Ok(Self {
            targets,
            published: published.clone(),
            http: http.transpose()?,
        })
    }

    /// Publishes until the future is dropped. What is served is served when this returns.
    pub fn run(self) -> BoxFuture<Result<(), RunError>> {
        let Self {
            published,
            mut targets,
            http,
        } = self;
        let serving = http.map(|(route, access)| {
            let serving = route.serve(access, published.clone());
            (serving, route)
        });
        Box::pin(async move {
            let _serving = serving;
            let mut work = Work::new(published);
            let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
            loop {
                let snapshot = targets.snapshot();
                // Relabelling and writing take a while for many targets.
                let done = tokio::task::spawn_blocking(move || {
                    let written = work.publish(&snapshot);
                    (work, written)
                });
                let (back, written) = done.await.map_err(|error| RunError(error.to_string()))?;
                work = back;
                if written {
                    backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                }
                tokio::select! {
                    () = targets.changed() => {}
                    () = tokio::time::sleep(backoff.next_pause()), if !written => {}
                }
            }
        })
    }
}

/// What a publisher remembers from one snapshot to the next.
struct Work {
    published: Arc<Published>,
    last: Option<Arc<Snapshot>>,
    /// What the rules make of each target of the last snapshot.
    relabelled: BTreeMap<Target, Relabelled>,
    /// The text that was last written to the file.
    written: Option<Bytes>,
}

impl Work {
    fn new(published: Arc<Published>) -> Self {
        Self {
            published,
            last: None,
            relabelled: BTreeMap::new(),
            written: None,
        }
    }

    /// Publishes a snapshot. Says whether there is nothing to be done again. Blocks.
    fn publish(&mut self, snapshot: &Arc<Snapshot>) -> bool {
        if snapshot.standing() != Standing::Known {
            return true;
        }
        self.relabel(snapshot);
        let published = &self.published;
        let kept = || self.relabelled.values().filter_map(Relabelled::kept);
        let json: Bytes = to_json(kept()).into();
        let targets = kept().count();
        let dropped = self.relabelled.len() - targets;
        published.meters.targets.set(targets as f64);
        published.meters.dropped.set(dropped as f64);
        {
            let mut inner = locked(&published.inner);
            inner.targets = targets;
            inner.dropped = dropped;
            let same = inner.list.as_ref().is_some_and(|list| list.is(&json));
            if !same {
                inner.list = Some(Served::new(json.clone()));
            }
        }
        let Some(file) = published.config.file.as_deref() else {
            return true;
        };
        let content = match published.config.format {
            Format::FileSd => json,
            Format::Lines => to_lines(kept()).into(),
        };
        if self.written.as_ref() == Some(&content) {
            return true;
        }
        let written = write(file, &content);
        let mut inner = locked(&published.inner);
        match written {
            Ok(written) => {
                if written {
                    let (publish, file) = (&published.name, file.display());
                    info!(%publish, %file, targets, "targets were published");
                    let now = SystemTime::now();
                    inner.written = Some(now);
                    published.meters.written.set(seconds(now));
                }
                inner.error = None;
                self.written = Some(content);
                true
            }
            Err(error) => {
                let text = format!("{}: {error}", file.display());
                published.meters.failures.increment(1);
                if inner.error.as_ref() != Some(&text) {
                    warn!(publish = %published.name, error = text, "targets cannot be published");
                }
                inner.error = Some(text);
                false
            }
        }
    }

    /// Applies the rules to what is new.
    fn relabel(&mut self, snapshot: &Arc<Snapshot>) {
        let changes = match &self.last {
            Some(last) => snapshot.changes_since(last),
            None => Arc::new(difference(&[], snapshot.targets())),
        };
        for gone in &changes.removed {
            self.relabelled.remove(gone);
        }
        let relabelled = self.published.rules.apply(&changes.added);
        let new = changes.added.iter().cloned().zip(relabelled);
        self.relabelled.extend(new);
        self.last = Some(snapshot.clone());
    }
}

/// Has a file hold this. Says whether it did not before.
fn write(path: &Path, content: &Bytes) -> io::Result<bool> {
    // Compared and never written through: its time is that of the last change.
    let before = read_file(path, content.len() as u64);
    if before.is_ok_and(|before| before == content[..]) {
        return Ok(false);
    }
    replace(path, |file| file.write_all(content))?;
    Ok(true)
}
