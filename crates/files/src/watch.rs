//! Watches files. Kernel events and a slow poll trigger a snapshot; only a snapshot that differs
//! counts as a change.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::look::Look;

/// Pause between two snapshots, which must be equal before a change is reported.
const SETTLE: Duration = Duration::from_millis(200);
/// Most snapshots of files that keep changing; then the change is reported all the same.
const MAX_LOOKS: usize = 25;

/// A watch on a set of files.
pub struct Watch {
    folders: Arc<Mutex<Folders>>,
    /// Holds one event at most: one snapshot covers all events before it.
    events: mpsc::Receiver<()>,
    interval: Duration,
    /// A snapshot is due without an event.
    due: bool,
    /// The running snapshot. Kept when a call is cancelled, so that a hanging file system blocks
    /// one thread only.
    looking: Option<JoinHandle<Look>>,
}

/// The folders that the kernel watches.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Folders that cannot be watched; each is logged once.
    failed: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches by kernel events, and polls every `interval`, since not all file systems have
    /// events.
    pub fn new(interval: Duration) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Snapshots cause access events themselves. An error may stand for any event.
            if event.is_err() || event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel means that a snapshot is due already.
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                warn!(%error, ?interval, "files cannot be watched and are only looked at");
            })
            .ok();
        Self {
            folders: Arc::new(Mutex::new(Folders {
                watcher,
                watched: BTreeSet::new(),
                failed: BTreeSet::new(),
            })),
            events,
            interval,
            due: true,
            looking: None,
        }
    }

    /// Waits until the files differ from `seen` and have settled. Cancel safe.
    pub async fn changed(&mut self, seen: &Look) {
        loop {
            if !self.due {
                tokio::select! {
                    // Without a watcher the channel stays silent.
                    Some(()) = self.events.recv() => {}
                    () = sleep(self.interval) => {}
                }
            }
            self.due = true;
            let mut settling = Settling::new(seen);
            let changed = loop {
                // An editor's burst of events needs one snapshot.
                sleep(SETTLE).await;
                if let Some(changed) = settling.found(self.look(seen).await) {
                    break changed;
                }
            };
            if changed {
                return;
            }
            self.due = false;
            debug!("looked at the files: nothing is new");
        }
    }

    async fn look(&mut self, seen: &Look) -> Look {
        let looking = self.looking.get_or_insert_with(|| {
            // A snapshot that starts now covers all events so far.
            let _ = self.events.try_recv();
            let (folders, seen) = (self.folders.clone(), seen.clone());
            tokio::task::spawn_blocking(move || {
                let wanted = seen.folders();
                // Watches are set before the snapshot, so that no change in between is lost.
                let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
                folders.watch(wanted);
                seen.again()
            })
        });
        let look = looking.await;
        self.looking = None;
        // Fails only when the runtime shuts down.
        look.unwrap_or_else(|_| seen.clone())
    }
}

impl Folders {
    /// Watches these folders. All watches are renewed: a folder that was removed and created again
    /// has the same name but no watch.
    fn watch(&mut self, wanted: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for folder in &self.watched {
            // An error means that the watch is gone already.
            let _ = watcher.unwatch(folder);
        }
        self.watched.clear();
        self.failed.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.failed.remove(&folder);
                    self.watched.insert(folder);
                }
                Err(error) => {
                    if self.failed.insert(folder.clone()) {
                        let folder = folder.display();
                        warn!(%folder, %error, "folder cannot be watched and is only looked at");
                    }
                }
            }
        }
    }
}

/// Compares snapshots until two in a row are equal.
struct Settling<'a, T> {
    /// The snapshot that changes are relative to.
    seen: &'a T,
    last: Option<T>,
    looks: usize,
}

impl<'a, T: PartialEq> Settling<'a, T> {
    fn new(seen: &'a T) -> Self {
        Self {
            seen,
            last: None,
            looks: 0,
        }
    }

    /// Adds a snapshot; returns whether it is a change, or `None` if another snapshot is needed.
    fn found(&mut self, now: T) -> Option<bool> {
        self.looks += 1;
        if self.last.as_ref() == Some(&now) && now != *self.seen {
            return Some(true);
        }
        // Files that never settle must not hide their changes.
        if now == *self.seen || self.looks > MAX_LOOKS {
            return Some(now != *self.seen);
        }
        self.last = Some(now);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds these snapshots, and repeats the last; returns the result and the number of snapshots.
    fn settle(found: &[u32]) -> (bool, usize) {
        let mut settling = Settling::new(&0);
        for look in 0.. {
            if let Some(changed) = settling.found(found[look.min(found.len() - 1)]) {
                return (changed, settling.looks);
            }
        }
        unreachable!("looks end")
    }

    #[test]
    fn a_change_counts_once_it_holds_still() {
        assert_eq!(settle(&[0]), (false, 1));
        assert_eq!(settle(&[1]), (true, 2));
        // A file that was truncated, then written.
        assert_eq!(settle(&[1, 2, 2]), (true, 3));
        assert_eq!(settle(&[1, 0]), (false, 2));
    }

    #[test]
    fn what_never_holds_still_is_taken_in_the_end() {
        let found: Vec<u32> = (1..1000).collect();
        assert_eq!(settle(&found), (true, MAX_LOOKS + 1));
    }

    #[tokio::test]
    async fn events_and_the_interval_both_lead_to_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "a").unwrap();
        let patterns = [file.display().to_string()];
        for interval in [Duration::from_secs(3600), Duration::from_millis(1)] {
            let mut watch = Watch::new(interval);
            if interval < SETTLE {
                watch.folders.lock().unwrap().watcher = None;
            }
            let seen = Look::first(&patterns);
            for text in ["b", "c"] {
                let seen = seen.again();
                // The folder is watched after the first snapshot.
                let early = tokio::time::timeout(2 * SETTLE, watch.changed(&seen)).await;
                assert!(early.is_err(), "{text}");
                let replaced = folder.path().join("new");
                std::fs::write(&replaced, text).unwrap();
                std::fs::rename(&replaced, &file).unwrap();
                watch.changed(&seen).await;
            }
        }
    }
}
