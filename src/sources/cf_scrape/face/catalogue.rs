//! Index of the targets that can be requested.

use std::collections::HashMap;
use std::sync::Arc;

use metrifold_base::locked;
use metrifold_discovery::{Snapshot, Standing, Target};
use metrifold_scrape::Candidate;

use super::Face;

/// The targets of some snapshots.
#[derive(Default)]
pub(super) struct Catalogue {
    of: Vec<Arc<Snapshot>>,
    /// The targets in the order of the list.
    pub(super) entries: Vec<Entry>,
    by_instance: HashMap<(String, String), Vec<usize>>,
}

/// Part of the providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    None,
    Some,
    All,
}

/// A target, and its scrape.
pub(super) struct Entry {
    pub(super) discovered: Target,
    /// The candidate for a scrape, or the reason why it cannot be scraped.
    pub(super) candidate: Result<Candidate, String>,
    /// Path that requests this target.
    pub(super) path: String,
    /// Distinguishes it from other targets of the same instance.
    which: String,
}

impl Catalogue {
    /// A catalogue of one target that cannot be scraped.
    #[cfg(test)]
    pub(super) fn of(labels: metrifold_discovery::Labels) -> Self {
        let entry = Entry {
            discovered: Arc::new(labels),
            candidate: Err("it is one of a test".to_owned()),
            path: "/path".to_owned(),
            which: String::new(),
        };
        Self {
            entries: vec![entry],
            ..Self::default()
        }
    }

    /// How many of the providers have answered.
    pub(super) fn known(&self) -> Part {
        let standings = self.of.iter().map(|it| it.standing());
        match standings.filter(|it| *it != Standing::Unknown).count() {
            0 => Part::None,
            known if known < self.of.len() => Part::Some,
            _ => Part::All,
        }
    }

    /// Whether it was made from these snapshots.
    fn is_of(&self, snapshots: &[Arc<Snapshot>]) -> bool {
        let mut pairs = self.of.iter().zip(snapshots);
        self.of.len() == snapshots.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// A target of an instance: the first, or the one with this `which`.
    pub(super) fn find(&self, app: &str, number: &str, which: Option<&str>) -> Option<&Entry> {
        let places = self.by_instance.get(&(app.to_owned(), number.to_owned()))?;
        let mut entries = places.iter().map(|place| &self.entries[*place]);
        match which {
            None => entries.next(),
            Some(which) => entries.find(|it| it.which == which),
        }
    }
}

impl Face {
    /// The current targets. When a snapshot has changed, one request makes a new catalogue, off the
    /// workers since rules over many targets take a while; others wait for it.
    pub(super) async fn catalogue(self: &Arc<Self>) -> Arc<Catalogue> {
        let known = locked(&self.catalogue).clone();
        if known.is_of(&self.snapshots()) {
            return known;
        }
        let _indexing = self.indexing.lock().await;
        let known = locked(&self.catalogue).clone();
        let snapshots = self.snapshots();
        if known.is_of(&snapshots) {
            return known;
        }
        let face = self.clone();
        let made = tokio::task::spawn_blocking(move || face.read(snapshots)).await;
        // Fails only while the process ends.
        let made = made.map_or(known, Arc::new);
        *locked(&self.catalogue) = made.clone();
        made
    }

    fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let targets = self.parts.targets.iter();
        targets.map(|it| it.clone().snapshot()).collect()
    }

    fn read(&self, of: Vec<Arc<Snapshot>>) -> Catalogue {
        let found = of.iter().enumerate().flat_map(|(inlet, snapshot)| {
            let targets = snapshot.targets();
            let candidates = self.parts.scrapes.candidates(targets, inlet);
            targets.iter().cloned().zip(candidates)
        });
        let mut entries = Vec::new();
        let mut by_instance: HashMap<(String, String), Vec<usize>> = HashMap::new();
        for (discovered, candidate) in found {
            let get = |name: &str| discovered.get(name).map(str::to_owned);
            let (Some(candidate), Some(app), Some(number)) = (
                candidate,
                get("__meta_cf_app_guid"),
                get("__meta_cf_instance_number"),
            ) else {
                continue;
            };
            by_instance
                .entry((app, number))
                .or_default()
                .push(entries.len());
            entries.push(Entry {
                which: which(&discovered),
                path: String::new(),
                discovered,
                candidate,
            });
        }
        for ((app, number), places) in &mut by_instance {
            // Web processes first, and among those the older ones.
            places.sort_by_key(|place| {
                let target = &entries[*place].discovered;
                let is_web = target.get("__meta_cf_process_type") == Some("web");
                (!is_web, target.get("cf_process_id").is_some())
            });
            for (order, place) in places.iter().enumerate() {
                let entry = &mut entries[*place];
                entry.path = format!("/singleTargetMetrics/{app}/{number}");
                if order > 0 {
                    entry.path.extend(["/", &entry.which]);
                }
            }
        }
        Catalogue {
            of,
            entries,
            by_instance,
        }
    }
}

/// Text that distinguishes the targets of an instance: the process, and in hexadecimal the path, or
/// the URL where the path is not enough.
fn which(target: &Target) -> String {
    let get = |name: &str| target.get(name).unwrap_or_default();
    let text = target.get("metrics_url");
    let text = text.unwrap_or_else(|| get("__metrics_path__")).bytes();
    let text: String = text.map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{text}", get("__meta_cf_process_guid"))
}
