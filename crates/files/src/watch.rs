//! Watching files: what the kernel reports and a slow look besides say that something may have
//! happened; what the files hold says whether it has.

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

/// The pause between two looks, which have to find the same before it is taken for a change.
const SETTLE: Duration = Duration::from_millis(200);
/// The most looks at files that do not hold still.
const MAX_LOOKS: usize = 25;

/// Watches files.
pub struct Watch {
    folders: Arc<Mutex<Folders>>,
    /// Holds one event at most: the next look sees them all.
    events: mpsc::Receiver<()>,
    interval: Duration,
    /// A look is due without an event.
    due: bool,
    /// Kept from one call to the next, so that a file system that hangs holds one thread.
    looking: Option<JoinHandle<Look>>,
}

/// The folders that the kernel reports about.
struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    /// Those that cannot be watched, which is logged once.
    failed: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches by events, and looks every `interval` besides: not all file systems have events.
    pub fn new(interval: Duration) -> Self {
        let (sender, events) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Our own looks are accesses. An error may hide any event.
            if event.is_err() || event.is_ok_and(|event| !event.kind.is_access()) {
                // When it is full, a look is due already.
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

    /// Waits until the files hold something else than at `seen`, and hold still. Can be cancelled.
    pub async fn changed(&mut self, seen: &Look) {
        loop {
            if !self.due {
                tokio::select! {
                    // Nothing comes without a watcher.
                    Some(()) = self.events.recv() => {}
                    () = sleep(self.interval) => {}
                }
            }
            self.due = true;
            let mut settling = Settling::new(seen);
            let changed = loop {
                // An editor's burst of events needs one look.
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
            // A look that begins now sees whatever has been reported so far.
            let _ = self.events.try_recv();
            let (folders, seen) = (self.folders.clone(), seen.clone());
            tokio::task::spawn_blocking(move || {
                let wanted = seen.folders();
                // Before the look, so that nothing falls between.
                let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
                folders.watch(wanted);
                seen.again()
            })
        });
        let look = looking.await;
        self.looking = None;
        // It fails when the runtime ends.
        look.unwrap_or_else(|_| seen.clone())
    }
}

impl Folders {
    /// Watches these folders. All of them anew: one that was removed and made again has the same
    /// name, but its watch is gone.
    fn watch(&mut self, wanted: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for folder in &self.watched {
            // An error says that it is gone already.
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

/// Looks with pauses between them, until the same is found twice.
struct Settling<'a, T> {
    /// What was there before.
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

    /// Takes what a look has found; says whether that is something new, once it is known.
    fn found(&mut self, now: T) -> Option<bool> {
        self.looks += 1;
        if self.last.as_ref() == Some(&now) && now != *self.seen {
            return Some(true);
        }
        // What never holds still must not keep its changes from being seen.
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

    /// What is found by looks one after the other, the last of them from then on; returns the
    /// result and the number of looks.
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
        // Truncated, then written.
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
                // The folder is watched once the first look is over.
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
