//! Where what a provider found is kept: a slot has the provider's name, and outlives the provider
//! over its restarts and over reloads.
//!
//! A provider may have several sources, such as files or names. Each has its last good answer, which
//! a failure of that source does not touch. All of them together are a [`Snapshot`].

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

/// The most sources of a provider whose failures are told by name.
const MAX_TOLD: usize = 10;

/// What a slot needs to know of its provider.
#[derive(Clone, Debug)]
pub struct SlotOptions {
    /// The provider's `type`.
    pub type_name: Arc<str>,
    /// What it asks: answers to another question are not its own.
    pub question: String,
    /// How much it may find.
    pub limits: Limits,
    /// What an empty answer of a source means after one that had targets.
    pub on_empty: OnEmpty,
    /// Where its targets outlive the process, if anywhere.
    pub folder: Option<PathBuf>,
}

impl SlotOptions {
    /// The file of the provider of this name, if it is to have one.
    fn kept(&self, name: &str) -> Option<Kept> {
        let folder = self.folder.as_ref()?;
        let question = format!("{} {}", self.type_name, self.question);
        Some(Kept::new(folder.join(format!("{name}.json")), question))
    }
}

/// What is known of a provider by name.
pub struct Slot {
    name: Arc<str>,
    meters: Mutex<Arc<ProviderMeters>>,
    inner: Mutex<Inner>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// How often the provider has tried.
    attempts: watch::Sender<u64>,
    /// Has the provider ask before its time, if it is one that listens.
    nudge: Notify,
    /// What the provider knows of its targets besides their labels.
    beside: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    telemetry: Telemetry,
}

struct Inner {
    options: SlotOptions,
    /// Whose turn it is to write: a feed of before is not heard.
    turn: u64,
    state: State,
    /// The last good answer of each source.
    groups: BTreeMap<Arc<str>, Arc<[Target]>>,
    /// How many targets all groups have, those of several groups several times.
    count: usize,
    /// How many sources have each target.
    targets: BTreeMap<Target, u32>,
    /// Sources whose last attempt has failed.
    failed: BTreeMap<Arc<str>, Failure>,
    /// Whether the groups are all that there ever was: kept on disk, or answered since the start.
    remembers: bool,
    /// Whether what is known was kept from a run before, or from another question.
    inherited: bool,
    /// The version of the snapshot that is on disk.
    on_disk: Option<u64>,
    answered: Option<SystemTime>,
    attempted: Option<SystemTime>,
    trouble: Option<Trouble>,
    /// What was found at the last attempt and is no target: the first, and how many there are.
    left_out: (Vec<LeftOut>, usize),
}

impl Slot {
    /// A slot that knows what was kept of the same question in a run before.
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

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The newest that is known.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// An end from which the targets can be read.
    pub fn targets(self: &Arc<Self>) -> Targets {
        Targets {
            snapshots: self.snapshots.subscribe(),
            slot: Arc::clone(self),
        }
    }

    /// Hears of each attempt of the provider, whatever came of it.
    pub fn attempts(&self) -> watch::Receiver<u64> {
        self.attempts.subscribe()
    }

    /// The end to write to, for a provider of these options. Whoever wrote before is not heard any
    /// more. What another question was answered stays until this one is.
    pub fn take_over(self: &Arc<Self>, options: SlotOptions) -> Feed {
        let mut inner = locked(&self.inner);
        inner.turn += 1;
        let turn = inner.turn;
        if inner.options.type_name != options.type_name {
            let meters = ProviderMeters::new(&self.telemetry, &self.name, &options.type_name);
            *locked(&self.meters) = Arc::new(meters);
        }
        if inner.options.question != options.question {
            inner.inherited = !inner.groups.is_empty();
            inner.on_disk = None;
            inner.failed.clear();
            inner.left_out = Default::default();
        }
        inner.options = options;
        *locked(&self.beside) = None;
        self.publish(&mut inner, None);
        Feed {
            slot: Arc::clone(self),
            turn,
        }
    }

    /// Says whether the provider runs.
    pub fn set_state(&self, state: State) {
        locked(&self.inner).state = state;
        let up = f64::from(u8::from(state == State::Running));
        self.meters().up.set(up);
    }

    /// Tells of the end of the provider itself.
    pub fn died(&self, text: impl fmt::Display) {
        let mut inner = locked(&self.inner);
        let failure = Failure::new(Reason::Died, text);
        self.complain(&mut inner, &Arc::from("provider"), failure);
        self.publish(&mut inner, None);
    }

    /// What there is to tell.
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

    /// Takes over what was kept on disk.
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
                info!(discovery = %self.name, targets, "targets of a run before were taken over");
                self.publish(&mut inner, Some(Diff::default()));
                inner.on_disk = Some(self.snapshot().version);
            }
            // A folder that can be written remembers everything from now on.
            Ok(None) => inner.remembers = true,
            Err(error) => {
                warn!(discovery = %self.name, %error, "targets of a run before cannot be read");
            }
        }
    }

    fn complain(&self, inner: &mut Inner, source: &Arc<str>, failure: Failure) {
        self.meters().failed(failure.reason);
        let known = inner.failed.get(source);
        if known.is_none_or(|known| *known != failure) {
            let kept = inner.groups.get(source).map_or(0, |targets| targets.len());
            let reason = failure.reason.as_str();
            warn!(discovery = %self.name, %source, reason, error = %failure, kept, "source of targets has failed");
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

    /// Shows what is known now. Without a difference, the targets are the same.
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

    /// Keeps on disk what is not there yet. Blocks.
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
                warn!(discovery = %self.name, %error, "targets cannot be kept on disk");
            }
        }
    }

    /// Keeps what is known on disk, again whenever it changes. Ends when nothing can be kept.
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
            let (groups, answered, now, changed) = {
                let inner = locked(&self.inner);
                // What another question was answered is not kept as the answer to this one.
                let groups = (!inner.inherited).then(|| inner.groups.clone());
                let now = snapshots.borrow_and_update().version;
                (groups, inner.answered, now, inner.on_disk != Some(now))
            };
            if let (Some(groups), Some(answered)) = (groups, answered) {
                let kept = kept.clone();
                let written = tokio::task::spawn_blocking(move || match changed {
                    true => kept.write(&groups, answered),
                    false => kept.touch(answered),
                });
                match written.await {
                    Ok(Ok(())) => locked(&self.inner).on_disk = Some(now),
                    Ok(Err(error)) => {
                        warn!(discovery = %name, %error, "targets cannot be kept on disk");
                    }
                    Err(_) => return,
                }
            }
            // Changes that come faster than this share a file.
            tokio::time::sleep(super::kept::PAUSE).await;
            let _ = tokio::time::timeout(super::kept::REFRESH, snapshots.changed()).await;
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.name).finish()
    }
}

/// The end of a slot from which targets are read. A clone reads by itself.
#[derive(Clone, Debug)]
pub struct Targets {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What is known stays as long as somebody reads it.
    slot: Arc<Slot>,
}

impl Targets {
    /// Has the provider ask before its time, if it is one that can.
    pub fn nudge(&self) {
        self.slot.nudge.notify_one();
    }

    /// What the provider knows of its targets besides their labels, if it is of this type.
    pub fn beside<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let beside = locked(&self.slot.beside).clone();
        beside.and_then(|it| it.downcast().ok())
    }

    /// The newest that is known. [`changed`](Self::changed) tells of what comes after it.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        self.snapshots.borrow_and_update().clone()
    }

    /// Waits until something else is known.
    pub async fn changed(&mut self) {
        if self.snapshots.changed().await.is_err() {
            // The slot is held here, so that this cannot be.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
