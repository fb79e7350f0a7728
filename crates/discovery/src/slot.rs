//! Slots keep the targets of providers. A slot has the provider's name, and outlives the provider
//! over its restarts and over reloads.
//!
//! A provider may have several sources, such as files or names. For each, the slot holds the last
//! good answer, which a failure of that source leaves in place. All answers together form a
//! [`Snapshot`].

mod diff;
mod feed;
mod status;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use metrifold_base::locked;
use metrifold_telemetry::{State, Telemetry};

use super::answer::{Failure, Reason};
use super::kept::Kept;
use super::labels::Target;
use super::limits::{Limits, OnEmpty};
use super::meters::ProviderMeters;
use super::snapshot::{Changes, Snapshot, Standing};

use diff::{Diff, replace};

pub use feed::{Answer, Feed};
pub use status::{LeftOut, Status, Trouble};

/// The most failing sources that the status lists by name.
const MAX_TOLD: usize = 10;

/// The provider's part of a slot, replaced when another provider takes over.
#[derive(Clone, Debug)]
pub struct SlotOptions {
    /// The provider's `type`.
    pub type_name: Arc<str>,
    /// Identifies what the provider asks: answers to another question are not its own.
    pub question: String,
    /// Limits on what it may find.
    pub limits: Limits,
    /// Meaning of an empty answer of a source after one that had targets.
    pub on_empty: OnEmpty,
    /// Folder in which targets are kept over restarts of the process. `None` without `data_dir`.
    pub folder: Option<PathBuf>,
}

impl SlotOptions {
    /// The file for the provider with this name. `None` without a folder.
    fn kept(&self, name: &str) -> Option<Kept> {
        let folder = self.folder.as_ref()?;
        let question = format!("{} {}", self.type_name, self.question);
        Some(Kept::new(folder.join(format!("{name}.json")), question))
    }
}

/// The targets and the state of a provider by name.
pub struct Slot {
    name: Arc<str>,
    meters: Mutex<Arc<ProviderMeters>>,
    inner: Mutex<Inner>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// Number of the provider's attempts.
    attempts: watch::Sender<u64>,
    /// Asks the provider to refresh early, if it is one that supports that.
    nudge: Notify,
    /// Facts about the targets besides their labels, for users that know the provider's type.
    beside: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    telemetry: Telemetry,
}

struct Inner {
    options: SlotOptions,
    /// Turn of the feed that may write: writes of earlier feeds are ignored.
    turn: u64,
    state: State,
    /// The last good answer of each source.
    groups: BTreeMap<Arc<str>, Arc<[Target]>>,
    /// Sum of the lengths of all groups. A target that several sources have counts several times.
    count: usize,
    /// Number of sources that have each target.
    targets: BTreeMap<Target, u32>,
    /// Sources whose last attempt has failed.
    failed: BTreeMap<Arc<str>, Failure>,
    /// Whether every answer ever given is among the groups: they were read from disk, or all
    /// sources have answered since the start.
    remembers: bool,
    /// Whether the targets come from an earlier run, or from an earlier question.
    inherited: bool,
    /// Version of the snapshot that is on disk.
    on_disk: Option<u64>,
    answered: Option<SystemTime>,
    attempted: Option<SystemTime>,
    trouble: Option<Trouble>,
    /// Things found at the last attempt that are not targets: the first ones, and the number of
    /// all.
    left_out: (Vec<LeftOut>, usize),
}

impl Slot {
    /// A slot that starts with the targets kept on disk for the same question.
    pub fn new(name: Arc<str>, options: SlotOptions, telemetry: &Telemetry) -> Arc<Self> {
        let meters = ProviderMeters::new(telemetry, &name, &options.type_name);
        let slot = Self {
            meters: Mutex::new(Arc::new(meters)),
            inner: Mutex::new(Inner {
                turn: 0,
                state: State::Built,
                groups: BTreeMap::new(),
                count: 0,
                targets: BTreeMap::new(),
                failed: BTreeMap::new(),
                remembers: false,
                inherited: false,
                on_disk: None,
                answered: None,
                attempted: None,
                trouble: None,
                left_out: Default::default(),
                options,
            }),
            snapshots: watch::Sender::new(Arc::new(Snapshot::unknown())),
            attempts: watch::Sender::new(0),
            nudge: Notify::new(),
            beside: Mutex::default(),
            telemetry: telemetry.clone(),
            name,
        };
        slot.restore();
        Arc::new(slot)
    }

    /// The provider's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver of the targets.
    pub fn targets(self: &Arc<Self>) -> Targets {
        Targets {
            snapshots: self.snapshots.subscribe(),
            slot: Arc::clone(self),
        }
    }

    /// Receiver of the number of attempts, which counts failed ones, too.
    pub fn attempts(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    /// A feed for a provider with these options. Feeds handed out before are ignored from now on.
    /// Answers to another question stay until this one is answered.
    pub fn take_over(self: &Arc<Self>, options: SlotOptions) -> Feed {
        let mut inner = locked(&self.inner);
        inner.turn += 1;
        let turn = inner.turn;
        if inner.options.type_name != options.type_name {
            let meters = ProviderMeters::new(&self.telemetry, &self.name, &options.type_name);
            *locked(&self.meters) = Arc::new(meters);
            // Facts of one type say nothing to users of another. Otherwise they hold as long as the
            // targets that they are about: until the new provider shares its own.
            *locked(&self.beside) = None;
        }
        if inner.options.question != options.question {
            inner.inherited = !inner.groups.is_empty();
            inner.on_disk = None;
            inner.failed.clear();
            inner.left_out = Default::default();
        }
        inner.options = options;
        self.publish(&mut inner, None);
        Feed {
            slot: Arc::clone(self),
            turn,
        }
    }

    /// Sets whether the provider runs.
    pub fn set_state(&self, state: State) {
        locked(&self.inner).state = state;
        let up = f64::from(u8::from(state == State::Running));
        self.meters().up.set(up);
    }

    /// Records that the provider itself has died.
    pub fn died(&self, text: impl fmt::Display) {
        let mut inner = locked(&self.inner);
        let failure = Failure::new(Reason::Died, text);
        self.complain(&mut inner, &Arc::from("provider"), failure);
        self.publish(&mut inner, None);
    }

    /// The provider's state for the status page.
    pub fn status(&self) -> Status {
        let inner = locked(&self.inner);
        let snapshot = self.snapshots.borrow();
        let time = inner.attempted.unwrap_or(SystemTime::UNIX_EPOCH);
        let failing = inner.failed.iter().take(MAX_TOLD);
        let failing = failing.map(|(source, failure)| Trouble {
            time,
            reason: failure.reason,
            source: source.clone(),
            text: failure.text.clone(),
        });
        let age = inner.answered.and_then(|time| time.elapsed().ok());
        Status {
            r#type: inner.options.type_name.clone(),
            state: inner.state,
            targets: snapshot.targets.len(),
            sources: inner.groups.len(),
            standing: snapshot.standing,
            stale: snapshot.stale,
            inherited: inner.inherited,
            age_seconds: age.map(|age| age.as_secs_f64()),
            last_success: inner.answered,
            last_attempt: inner.attempted,
            failing: failing.collect(),
            last_error: inner.trouble.clone(),
            left_out_count: inner.left_out.1,
            left_out: inner.left_out.0.clone(),
        }
    }

    fn meters(&self) -> Arc<ProviderMeters> {
        locked(&self.meters).clone()
    }

    /// Reads the targets kept on disk.
    fn restore(&self) {
        let mut inner = locked(&self.inner);
        let Some(kept) = inner.options.kept(&self.name) else {
            return;
        };
        match kept.read(&inner.options.limits) {
            Ok(Some(found)) => {
                for (source, targets) in found.groups {
                    replace(&mut inner, &source, targets, &mut Diff::default());
                }
                inner.remembers = true;
                inner.inherited = true;
                inner.answered = Some(found.answered);
                let targets = inner.targets.len();
                info!(discovery = %self.name, targets, "restored the targets of an earlier run");
                self.publish(&mut inner, Some(Diff::default()));
                inner.on_disk = Some(self.snapshot().version);
            }
            // Without a file there is nothing to miss, and from now on every answer is kept.
            Ok(None) => inner.remembers = true,
            Err(error) => {
                warn!(discovery = %self.name, %error, "cannot read the stored targets of an earlier run");
            }
        }
    }

    fn complain(&self, inner: &mut Inner, source: &Arc<str>, failure: Failure) {
        self.meters().failed(failure.reason);
        let known = inner.failed.get(source);
        if known.is_none_or(|known| *known != failure) {
            let kept = inner.groups.get(source).map_or(0, |targets| targets.len());
            let reason = failure.reason.as_str();
            warn!(discovery = %self.name, %source, reason, error = %failure, kept, "discovery has failed for this source of targets");
        }
        inner.trouble = Some(Trouble {
            time: SystemTime::now(),
            reason: failure.reason,
            source: source.clone(),
            text: failure.text.clone(),
        });
        if failure.reason != Reason::Died {
            inner.failed.insert(source.clone(), failure);
        }
    }

    /// Publishes a new snapshot. Without a diff, its targets are the same as before.
    fn publish(&self, inner: &mut Inner, diff: Option<Diff>) {
        let before = self.snapshot();
        let unanswered = |source: &Arc<str>| !inner.groups.contains_key(source);
        let standing = if inner.groups.is_empty() && inner.answered.is_none() {
            Standing::Unknown
        } else if !inner.remembers && inner.failed.keys().any(unanswered) {
            Standing::Partial
        } else {
            Standing::Known
        };
        let stale = !inner.failed.is_empty() || inner.inherited || standing == Standing::Unknown;
        let diff =
            diff.filter(|diff| !diff.0.is_empty() || inner.targets.len() != before.targets.len());
        let next = match diff {
            None if before.standing == standing && before.stale == stale => return,
            None => Snapshot {
                standing,
                stale,
                ..(*before).clone()
            },
            Some(diff) => {
                let targets: Arc<[Target]> = inner.targets.keys().cloned().collect();
                let changes = match before.standing == Standing::Unknown {
                    true => Changes {
                        added: targets.to_vec(),
                        removed: Vec::new(),
                    },
                    false => diff.into_changes(),
                };
                Snapshot {
                    targets,
                    changes: Arc::new(changes),
                    version: before.version + 1,
                    standing,
                    stale,
                }
            }
        };
        let meters = self.meters();
        meters.targets.set(next.targets.len() as f64);
        meters.stale.set(f64::from(u8::from(stale)));
        self.snapshots.send_replace(Arc::new(next));
    }

    /// Writes the targets to disk unless they are there already. Blocks.
    pub fn flush(&self) {
        let (kept, groups, answered, version) = {
            let inner = locked(&self.inner);
            let version = self.snapshot().version;
            let (Some(kept), Some(answered)) = (inner.options.kept(&self.name), inner.answered)
            else {
                return;
            };
            if inner.inherited || inner.on_disk == Some(version) {
                return;
            }
            (kept, inner.groups.clone(), answered, version)
        };
        match kept.write(&groups, answered) {
            Ok(()) => locked(&self.inner).on_disk = Some(version),
            Err(error) => {
                warn!(discovery = %self.name, %error, "cannot store targets on disk");
            }
        }
    }

    /// Keeps the targets on disk, and writes them again whenever they change. Returns when the slot
    /// has no file.
    async fn keep(self: Arc<Self>) {
        let (name, kept) = {
            let inner = locked(&self.inner);
            (self.name.clone(), inner.options.kept(&self.name))
        };
        let Some(kept) = kept else {
            return;
        };
        let mut snapshots = self.snapshots.subscribe();
        loop {
            let mut pause = super::kept::PAUSE;
            let (groups, answered, now, changed) = {
                let inner = locked(&self.inner);
                // Answers to another question are not kept as answers to this one.
                let groups = (!inner.inherited).then(|| inner.groups.clone());
                let now = snapshots.borrow_and_update().version;
                (groups, inner.answered, now, inner.on_disk != Some(now))
            };
            if let (Some(groups), Some(answered)) = (groups, answered) {
                let kept = kept.clone();
                let started = Instant::now();
                let written = tokio::task::spawn_blocking(move || match changed {
                    true => kept.write(&groups, answered),
                    false => kept.touch(answered),
                });
                match written.await {
                    Ok(Ok(())) => locked(&self.inner).on_disk = Some(now),
                    Ok(Err(error)) => {
                        warn!(discovery = %name, %error, "cannot store targets on disk");
                    }
                    Err(_) => return,
                }
                pause =
                    pause.max((started.elapsed() * super::kept::CALM).min(super::kept::REFRESH));
            }
            // Changes within this pause share one write.
            tokio::time::sleep(pause).await;
            let _ = tokio::time::timeout(super::kept::REFRESH, snapshots.changed()).await;
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.name).finish()
    }
}

/// Receiver of a slot's targets. Each clone tracks changes for itself.
#[derive(Clone, Debug)]
pub struct Targets {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Keeps the slot alive while its targets are in use.
    slot: Arc<Slot>,
}

impl Targets {
    /// Asks the provider to refresh early, if it supports that.
    pub fn nudge(&self) {
        self.slot.nudge.notify_one();
    }

    /// Facts about the targets besides their labels. `None` unless the provider shares some of this
    /// type.
    pub fn beside<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let beside = locked(&self.slot.beside).clone();
        beside.and_then(|it| it.downcast().ok())
    }

    /// The newest snapshot. [`changed`](Self::changed) waits for a newer one.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.snapshots.borrow_and_update().clone()
    }

    /// Waits for a newer snapshot.
    pub async fn changed(&mut self) {
        if self.snapshots.changed().await.is_err() {
            // Unreachable: the slot, which holds the sender, is held here.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
