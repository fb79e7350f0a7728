//! The targets that those who pull can ask for.

use std::collections::HashMap;
use std::sync::Arc;

use metrifold_base::locked;
use metrifold_discovery::{Snapshot, Standing, Target};
use metrifold_scrape::Candidate;

use super::Face;

/// The targets as of some snapshots.
#[derive(Default)]
pub(super) struct Catalogue {
    of: Vec<Arc<Snapshot>>,
    /// In the order in which they are listed.
    pub(super) entries: Vec<Entry>,
    by_instance: HashMap<(String, String), Vec<usize>>,
}

/// A target, and what is scraped for it.
pub(super) struct Entry {
    pub(super) discovered: Target,
    /// Or why it cannot be scraped.
    pub(super) candidate: Result<Candidate, String>,
    /// The path under which it can be asked for.
    pub(super) path: String,
    /// What tells it from the other targets of its instance.
    which: String,
}

impl Catalogue {
    /// Whether some provider has not told anything yet.
    pub(super) fn is_unknown(&self) -> bool {
        let mut standings = self.of.iter().map(|it| it.standing());
        standings.any(|it| it == Standing::Unknown)
    }

    /// The target of an instance: the first, or the one that `which` names.
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
    /// The targets as they are now.
    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        let targets = self.parts.targets.iter();
        let snapshots: Vec<_> = targets.map(|it| it.clone().snapshot()).collect();
        let mut known = locked(&self.catalogue);
        let same = known.of.len() == snapshots.len()
            && known
                .of
                .iter()
                .zip(&snapshots)
                .all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            *known = Arc::new(self.read(snapshots));
        }
        known.clone()
    }

    fn read(&self, of: Vec<Arc<Snapshot>>) -> Catalogue {
        let found = of.iter().flat_map(|it| it.targets()).cloned();
        let found: Vec<Target> = found.collect();
        let candidates = self.parts.scrapes.candidates(&found);
        let mut entries = Vec::with_capacity(found.len());
        let mut by_instance: HashMap<(String, String), Vec<usize>> = HashMap::new();
        for (discovered, candidate) in found.into_iter().zip(candidates) {
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
            // Of several, web processes before others, and of those the one that was there before.
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

/// What tells a target from the others of its instance: its process and its path, in digits.
fn which(target: &Target) -> String {
    let get = |name: &str| target.get(name).unwrap_or_default();
    let path = get("__metrics_path__").bytes();
    let path: String = path.map(|byte| format!("{byte:02x}")).collect();
    format!("{}.{path}", get("__meta_cf_process_guid"))
}
