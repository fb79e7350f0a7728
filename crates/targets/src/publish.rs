//! Publishing targets for programs that read Prometheus' `file_sd` or `http_sd`.
//!
//! A publisher publishes the targets of a provider after its rules. The list changes when the
//! targets change, and never for a failure: while no targets are known, or some of those known
//! before a restart may be missing, the previous list stays.

mod config;
mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use metrifold_base::{Backoff, BoxFuture, BuildError, RunError, locked, read_file};
use metrifold_discovery::file_sd::{to_json, to_lines};
use metrifold_discovery::{Format, Snapshot, Standing, Target, Targets, difference, seconds};
use metrifold_files::replace;
use metrifold_http::{Access, Doors, Listeners, Route};
use metrifold_telemetry::{State, Telemetry};

use crate::meters::PublishMeters;
use crate::relabel::{Relabelled, TargetRules};

pub use config::PublishConfig;

use serve::Served;

/// Pauses between attempts to write the file after a failure.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Pause after publishing, as a multiple of the time that it took: a long list that changes all the
/// time does not take all the time.
const CALM: u32 = 20;
const CALM_MAX: Duration = Duration::from_secs(5);

/// A publisher by name: its configuration, its state and the list that it serves.
pub struct Published {
    /// The publisher's name.
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
    /// The list served over HTTP. `None` until the targets are known.
    list: Option<Served>,
}

/// State of a publisher on the status page.
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

/// A publisher that has been built and does not run yet.
pub struct Publisher {
    published: Arc<Published>,
    targets: Targets,
    http: Option<(Route, Arc<dyn Access>)>,
}

impl Published {
    /// Sets whether the publisher runs.
    pub fn set_state(&self, state: State) {
        locked(&self.inner).state = state;
    }

    /// Records that the publisher itself has died.
    pub fn died(&self, text: impl fmt::Display) {
        locked(&self.inner).error = Some(text.to_string());
        self.meters.failures.increment(1);
    }

    /// Applies its rules to targets.
    pub fn relabel(&self, targets: &[Target]) -> Vec<Relabelled> {
        self.rules.apply(targets)
    }

    /// The publisher's state for the status page.
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
    /// The entry of the publisher with this name, which does not run yet.
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
    /// Builds a publisher: claims its path and reads its secrets.
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

    /// Publishes until the future is dropped. The HTTP path is attached when this returns, before
    /// the future is polled.
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
                let started = Instant::now();
                // Off the workers: relabelling and writing many targets takes a while.
                let done = tokio::task::spawn_blocking(move || {
                    let written = work.publish(&snapshot);
                    (work, written)
                });
                let (back, written) = done.await.map_err(|error| RunError(error.to_string()))?;
                work = back;
                if written {
                    backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
                }
                tokio::time::sleep((started.elapsed() * CALM).min(CALM_MAX)).await;
                tokio::select! {
                    () = targets.changed() => {}
                    () = tokio::time::sleep(backoff.next_pause()), if !written => {}
                }
            }
        })
    }
}

/// State of a publisher between two snapshots.
struct Work {
    published: Arc<Published>,
    last: Option<Arc<Snapshot>>,
    /// Result of the rules for each target of the last snapshot.
    relabelled: BTreeMap<Target, Relabelled>,
    /// The text that was last written to the file.
    written: Option<Bytes>,
    /// Bytes that the list is expected to take.
    room: usize,
}

impl Work {
    fn new(published: Arc<Published>) -> Self {
        Self {
            published,
            last: None,
            relabelled: BTreeMap::new(),
            written: None,
            room: 0,
        }
    }

    /// Publishes a snapshot. Returns whether this needs no further attempt. Blocks.
    fn publish(&mut self, snapshot: &Arc<Snapshot>) -> bool {
        if snapshot.standing() != Standing::Known {
            return true;
        }
        self.relabel(snapshot);
        let published = &self.published;
        let kept = || self.relabelled.values().filter_map(Relabelled::kept);
        let json: Bytes = to_json(kept(), self.room).into();
        self.room = json.len() + json.len() / 16;
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
        let written = write(file, &content, self.written.is_none());
        let mut inner = locked(&published.inner);
        match written {
            Ok(written) => {
                if written {
                    let (publish, file) = (&published.name, file.display());
                    info!(%publish, %file, targets, "targets were published");
                    let now = SystemTime::now();
                    inner.written = Some(now);
                    published.meters.written.set(seconds(now));
                    published.meters.writes.increment(1);
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

    /// Applies the rules to targets that are new since the last snapshot.
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

/// Replaces the file. Returns whether it was written: after a start (`compares`), it is not if the
/// file has the same content, so that its time is that of its last change.
fn write(path: &Path, content: &Bytes, compares: bool) -> io::Result<bool> {
    let same = || read_file(path, content.len() as u64).is_ok_and(|before| before == content[..]);
    if compares && same() {
        return Ok(false);
    }
    replace(path, |file| file.write_all(content))?;
    Ok(true)
}
