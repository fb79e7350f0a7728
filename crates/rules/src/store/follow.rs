//! What a store holds as a set, which costs what changed since it was looked at last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use super::{Place, Store, StoreError};
use crate::file::{Checks, RuleFile};
use crate::{RuleSet, StoredFile, Tenant, TenantRules};

/// Problems of a file that are told.
const MAX_TOLD: usize = 3;
/// How many files are worth several threads.
const WORTH_THREADS: usize = 16;

/// Follows a store.
#[derive(Debug, Default)]
pub struct Follower {
    known: BTreeMap<Place, Known>,
    foreign: Vec<String>,
    set: RuleSet,
}

/// A file as it was read last.
#[derive(Debug, Default)]
struct Known {
    /// As it was listed before it was read: what is changed in between is read again.
    stamp: String,
    /// The newest that could be read.
    good: Option<Arc<StoredFile>>,
    /// Why what is there is not that.
    problem: Option<String>,
}

/// A file, or an object that is none, that is left out or stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The tenant; empty for an object that is no file of any.
    pub tenant: String,
    /// The file's name, or the object's key.
    pub file: String,
    /// Why.
    pub reason: String,
    /// Whether an earlier version of it stays.
    pub keeps: bool,
}

/// What a look at the store has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Objects that were read.
    pub read: usize,
    /// Whether the set is another one.
    pub changed: bool,
}

impl Follower {
    /// What the store held when it was looked at last.
    pub fn set(&self) -> &RuleSet {
        &self.set
    }

    /// What cannot be used of it.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        let files = self.known.iter().filter_map(|(place, known)| {
            Some(Quarantined {
                tenant: place.tenant.clone(),
                file: place.file.clone(),
                reason: known.problem.clone()?,
                keeps: known.good.is_some(),
            })
        });
        let foreign = self.foreign.iter().map(|key| Quarantined {
            tenant: String::new(),
            file: key.clone(),
            reason: "it is no file of a tenant: rules lie at metrics/rules/TENANT/FILE.yaml".into(),
            keeps: false,
        });
        files.chain(foreign).collect()
    }

    /// Looks at the files of a tenant, or of all, and reads what changed. A file that cannot be read
    /// or used stays as it was, and costs the others nothing.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be listed; the set stays as it was.
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
        let listed: BTreeMap<Place, String> = listed.into_iter().collect();
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
        let is_new = |(place, stamp): &(&Place, &String)| {
            self.known
                .get(*place)
                .is_none_or(|known| known.stamp != **stamp)
        };
        let places: Vec<Place> = listed
            .iter()
            .filter(is_new)
            .map(|(place, _)| place.clone())
            .collect();
        refreshed.read = places.len();
        for (place, read) in read_all(store, checks, places) {
            touched.insert(place.tenant.clone(), ());
            let stamp = listed.get(&place).cloned().unwrap_or_default();
            let known = self.known.entry(place).or_default();
            match read {
                Read::Good(file) => {
                    (known.stamp, known.good, known.problem) = (stamp, Some(file), None);
                }
                Read::Bad(problem) => {
                    (known.stamp, known.problem) = (stamp, Some(problem));
                }
                // Gone since it was listed, which the next look tells.
                Read::Gone => {}
                // Read again next time.
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

    /// Has the set hold what is known of a tenant.
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

/// What a file in the store is.
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
            Err(error) => return Self::Failed(error.to_string()),
        };
        match RuleFile::parse(&text.text, checks) {
            Ok(parsed) => Self::Good(Arc::new(StoredFile::new(parsed.file))),
            Err(problems) => {
                let told = problems.iter().take(MAX_TOLD).map(ToString::to_string);
                Self::Bad(told.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Reads files, many of them on several threads.
fn read_all(store: &Store, checks: &Checks<'_>, places: Vec<Place>) -> Vec<(Place, Read)> {
    let read = |place: Place| {
        let read = Read::of(store, checks, &place);
        (place, read)
    };
    if places.len() < WORTH_THREADS {
        return places.into_iter().map(read).collect();
    }
    let threads = store.objects.readers().max(1);
    let share = places.len().div_ceil(threads);
    let mut shares: Vec<Vec<Place>> = Vec::new();
    let mut left = places.into_iter().peekable();
    while left.peek().is_some() {
        shares.push(left.by_ref().take(share).collect());
    }
    thread::scope(|scope| {
        let work = |share: Vec<Place>| scope.spawn(move || share.into_iter().map(read).collect());
        let threads: Vec<thread::ScopedJoinHandle<'_, Vec<_>>> =
            shares.into_iter().map(work).collect();
        // A panic is the caller's, who would have had it without threads as well.
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    })
}
