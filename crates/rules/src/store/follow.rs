//! Follows a store and keeps its rules as a set. Each refresh reads only the changed files.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ObjectError, Place, Store, StoreError, WORTH_THREADS, on_threads};
use crate::file::{Checks, RuleFile};
use crate::{RuleSet, StoredFile, Tenant, TenantRules};

/// Maximum number of problems of a file in a message.
const MAX_TOLD: usize = 3;

/// The set of a store's rules, with the state that the next refresh compares with.
#[derive(Debug, Default)]
pub struct Follower {
    known: BTreeMap<Place, Known>,
    foreign: Vec<String>,
    set: RuleSet,
}

/// State of a file after its last reading.
#[derive(Debug, Default)]
struct Known {
    /// Stamp in the listing before the reading: a change in between is noticed by the next refresh.
    stamp: String,
    /// The newest valid version.
    good: Option<Arc<StoredFile>>,
    /// Why the current version is invalid or unreadable; `good` is then an older one.
    problem: Option<String>,
    /// Why the store did not tell whether there is another version by now.
    unknown: Option<String>,
}

/// A file that is left out or kept at an earlier version, or an object that is no rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The tenant; empty for an object that is no rule file.
    pub tenant: String,
    /// Name of the file, or key of the object.
    pub file: String,
    /// Why the file cannot be used.
    pub reason: String,
    /// Whether an earlier version stays in the set.
    pub keeps: bool,
}

/// Result of a refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Number of files that were read.
    pub read: usize,
    /// Whether the set has changed.
    pub changed: bool,
}

impl Follower {
    /// The rules as of the last refresh.
    pub fn set(&self) -> &RuleSet {
        &self.set
    }

    /// Whether every file has been read once, be it valid or not. A file that could not be read yet is
    /// missing in the set.
    pub fn is_complete(&self) -> bool {
        self.known.values().all(|known| !known.stamp.is_empty())
    }

    /// Files that cannot be used, and objects that are no rule files.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let files = self.known.iter().filter_map(|(place, known)| {
            Some(Quarantined {
                tenant: place.tenant.clone(),
                file: place.file.clone(),
                reason: known.unknown.as_ref().or(known.problem.as_ref())?.clone(),
                keeps: known.good.is_some(),
            })
        });
        let foreign = self.foreign.iter().map(|key| Quarantined {
            tenant: String::new(),
            file: key.clone(),
            reason:
                "the object is not a file of a tenant: files are metrics/rules/TENANT/FILE.yaml"
                    .into(),
            keeps: false,
        });
        files.chain(foreign).collect()
    }

    /// Lists the files of a tenant, or of all tenants, and reads the changed ones. An unreadable or
    /// invalid file keeps its last valid version, and affects no other file.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be listed; the set is then unchanged.
    pub fn refresh(
        &mut self,
        store: &Store,
        checks: &Checks<'_>,
        tenant: Option<&str>,
    ) -> Result<Refreshed, StoreError> {
        let (listed, foreign) = store.list(tenant)?;
        let before = self.set.clone();
        let mut touched: BTreeMap<String, ()> = BTreeMap::new();
        let mut refreshed = Refreshed::default();
        let listed: BTreeMap<Place, Result<String, String>> = listed.into_iter().collect();
        let gone: Vec<Place> = self
            .known
            .keys()
            .filter(|place| tenant.is_none_or(|tenant| tenant == place.tenant))
            .filter(|place| !listed.contains_key(*place))
            .cloned()
            .collect();
        for place in gone {
            self.known.remove(&place);
            touched.insert(place.tenant, ());
        }
        let mut changed = BTreeMap::new();
        for (place, stamp) in listed {
            match (stamp, self.known.get_mut(&place)) {
                (Ok(stamp), Some(known)) if known.stamp == stamp => known.unknown = None,
                (Ok(stamp), _) => drop(changed.insert(place, stamp)),
                (Err(reason), _) => {
                    self.known.entry(place).or_default().unknown = Some(reason);
                }
            }
        }
        let places: Vec<Place> = changed.keys().cloned().collect();
        refreshed.read = places.len();
        for (place, read) in read_all(store, checks, places) {
            touched.insert(place.tenant.clone(), ());
            let stamp = changed.remove(&place).unwrap_or_default();
            let known = self.known.entry(place).or_default();
            known.unknown = None;
            match read {
                Read::Good(file) => {
                    (known.stamp, known.good, known.problem) = (stamp, Some(file), None);
                }
                Read::Bad(problem) => {
                    (known.stamp, known.problem) = (stamp, Some(problem));
                }
                // Removed since the listing, as the next refresh will show.
                Read::Gone => {}
                // The stamp stays, so that the next refresh reads the file again.
                Read::Failed(problem) => known.problem = Some(problem),
            }
        }
        if tenant.is_none() {
            self.foreign = foreign;
        }
        for tenant in touched.into_keys() {
            self.publish(&tenant);
        }
        refreshed.changed = before != self.set;
        Ok(refreshed)
    }

    /// Updates the set with the valid files of a tenant.
    fn publish(&mut self, tenant: &str) {
        let first = Place::new(tenant, "");
        let files = self.known.range(first..);
        let files = files.take_while(|(place, _)| place.tenant == tenant);
        let files =
            files.filter_map(|(place, known)| Some((Arc::from(&*place.file), known.good.clone()?)));
        let rules = TenantRules::new(files);
        self.set = match rules.is_empty() {
            true => self.set.without(tenant),
            false => self.set.with(Tenant::from(tenant), Arc::new(rules)),
        };
    }
}

/// Outcome of reading a file.
enum Read {
    Good(Arc<StoredFile>),
    Bad(String),
    Gone,
    Failed(String),
}

impl Read {
    fn of(store: &Store, checks: &Checks<'_>, place: &Place) -> Self {
        let text = match store.get(place) {
            Ok(Some(text)) => text,
            Ok(None) => return Self::Gone,
            // Until it changes, it will not be smaller.
            Err(error @ StoreError::Objects(ObjectError::TooLarge { .. })) => {
                return Self::Bad(error.to_string());
            }
            Err(error) => return Self::Failed(error.to_string()),
        };
        match RuleFile::parse(&text.text, checks) {
            // Such a file was most likely cut short.
            Ok(parsed) if !parsed.names_groups => Self::Bad("the file has no `groups`".to_owned()),
            Ok(parsed) => Self::Good(Arc::new(StoredFile::new(parsed.file))),
            Err(problems) => {
                let told = problems.iter().take(MAX_TOLD).map(ToString::to_string);
                Self::Bad(told.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Reads files, on several threads if there are many.
fn read_all(store: &Store, checks: &Checks<'_>, places: Vec<Place>) -> Vec<(Place, Read)> {
    let read = |place: Place| {
        let read = Read::of(store, checks, &place);
        (place, read)
    };
    if places.len() < WORTH_THREADS {
        return places.into_iter().map(read).collect();
    }
    let read_share = |places: Vec<Place>| places.into_iter().map(read).collect::<Vec<_>>();
    let shares = on_threads(store.objects.readers(), places, &read_share);
    shares.into_iter().flatten().collect()
}
