//! Joins the series of several answers while they arrive, without a clock and without I/O.
//!
//! Prometheus sorts the series of a range query by their labels, and so are names. As long as a
//! replica keeps this order, a series that it is past will not come from it any more: a series is
//! complete as soon as each replica has delivered it or is past it, and next to nothing is held. Once a
//! replica does not keep the order, none is expected to: its peers are most likely of the same kind. A
//! series is held then until each replica has delivered it, or has ended.
//!
//! The order of an instant query's series may have a meaning, as that of `sort` and `topk` has. They
//! are taken from one replica after the other, each series from the first that has it.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::Arc;

use super::reader::{Item, Key, Shape};

/// Most keys of series that are remembered: 32 MiB.
const MANY: usize = 1 << 20;

/// Estimated bytes of a held series besides its text.
const OVERHEAD: usize = 512;

/// A complete series: for each replica that has delivered it, its index and its text.
pub(crate) type Parts = Vec<(usize, Box<str>)>;

pub(crate) struct Join {
    in_turn: bool,
    /// Whether an item that went out lacks nothing, since it has no points.
    bare: bool,
    replicas: Vec<Course>,
    /// Whether a replica does not sort its series.
    unsorted: bool,
    /// Series that a replica may still deliver.
    pending: BTreeMap<Arc<Key>, Parts>,
    /// Most bytes of a replica that are held.
    most: usize,
    /// Hashes of series that went out before a replica had delivered them, at most `many`.
    early: HashSet<(u64, u64)>,
    pub(super) many: usize,
    /// Whether not all of those are remembered.
    forgot: bool,
    /// Whether series went out that a replica may still deliver in order.
    flushed: bool,
    hashers: [RandomState; 2],
}

/// Progress of a replica's answer.
#[derive(Default)]
struct Course {
    over: bool,
    /// The last series, while all are in order.
    last: Option<Arc<Key>>,
    /// Bytes that are held.
    held: usize,
    /// Series that came after they had gone out.
    late: usize,
}

impl Join {
    pub(crate) fn new(shape: &Shape, replicas: usize, most: usize) -> Self {
        Self {
            in_turn: *shape == Shape::Vector,
            bare: *shape == Shape::List,
            replicas: (0..replicas).map(|_| Course::default()).collect(),
            unsorted: false,
            pending: BTreeMap::new(),
            most,
            early: HashSet::new(),
            many: MANY,
            forgot: false,
            flushed: false,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// The replica whose next series is needed. `None` when all answers are over.
    pub(crate) fn next(&self) -> Option<usize> {
        let mut left = self
            .replicas
            .iter()
            .enumerate()
            .filter(|(_, it)| !it.over)
            .map(|(at, it)| (it.held, at));
        let next = match self.in_turn {
            true => left.next(),
            // The one that is furthest behind in the common order holds nothing.
            false => left.min(),
        };
        next.map(|(_, at)| at)
    }

    /// Series of a replica that are missing in the merged answer since they came too late.
    pub(crate) fn late(&self, replica: usize) -> usize {
        self.replicas[replica].late
    }

    /// Takes the next series of a replica. Returns the series that are complete now.
    pub(crate) fn deliver(&mut self, replica: usize, item: Item) -> Vec<Parts> {
        let Item { key, text } = item;
        let hash = self.hashers.each_ref().map(|it| it.hash_one(&*key));
        let hash = (hash[0], hash[1]);
        let course = &mut self.replicas[replica];
        if self.in_turn {
            if self.early.contains(&hash) {
                return Vec::new();
            }
            if self.forgot && replica > 0 {
                course.late += 1;
                return Vec::new();
            }
            self.remember(hash);
            return vec![vec![(replica, text)]];
        }
        self.unsorted |= course.last.as_ref().is_some_and(|last| *last >= key);
        if self.early.contains(&hash) {
            course.late += usize::from(!self.bare);
            return Vec::new();
        }
        // It may have gone out.
        if self.forgot && (self.unsorted || self.flushed) {
            course.late += 1;
            return Vec::new();
        }
        course.held += text.len() + OVERHEAD;
        let held = course.held;
        self.pending
            .entry(key.clone())
            .or_default()
            .push((replica, text));
        let first = match (&course.last, self.unsorted) {
            (_, true) => Bound::Included(key.clone()),
            (Some(last), false) => Bound::Excluded(last.clone()),
            (None, false) => Bound::Unbounded,
        };
        let range = (first, Bound::Included(key.clone()));
        if !self.unsorted {
            course.last = Some(key);
        }
        if held > self.most {
            self.flushed = true;
            return self.complete(|_, _| true, (Bound::Unbounded, Bound::Unbounded));
        }
        self.complete(Self::is_complete, range)
    }

    /// Notes that nothing more comes from a replica. Returns the series that are complete now.
    pub(crate) fn over(&mut self, replica: usize) -> Vec<Parts> {
        self.replicas[replica].over = true;
        self.complete(Self::is_complete, (Bound::Unbounded, Bound::Unbounded))
    }

    fn is_complete(&self, key: &Arc<Key>) -> bool {
        let parts = self.pending.get(key);
        let delivered = |at: usize| parts.is_some_and(|it| it.iter().any(|(by, _)| *by == at));
        let is_past = |it: &Course| it.last.as_ref().is_some_and(|last| last >= key);
        let mut replicas = self.replicas.iter().enumerate();
        replicas.all(|(at, it)| it.over || delivered(at) || !self.unsorted && is_past(it))
    }

    /// Takes the series within a range that go out.
    fn complete(
        &mut self,
        goes: fn(&Self, &Arc<Key>) -> bool,
        range: (Bound<Arc<Key>>, Bound<Arc<Key>>),
    ) -> Vec<Parts> {
        let within = self.pending.range(range).map(|(key, _)| key);
        let keys: Vec<Arc<Key>> = within.filter(|key| goes(self, key)).cloned().collect();
        let mut all = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(mut parts) = self.pending.remove(&key) else {
                continue;
            };
            for (replica, text) in &parts {
                let course = &mut self.replicas[*replica];
                course.held = course.held.saturating_sub(text.len() + OVERHEAD);
            }
            let mut replicas = self.replicas.iter().enumerate();
            if replicas.any(|(at, it)| !it.over && parts.iter().all(|(by, _)| *by != at)) {
                let hash = self.hashers.each_ref().map(|it| it.hash_one(&*key));
                self.remember((hash[0], hash[1]));
            }
            parts.sort_by_key(|(replica, _)| *replica);
            all.push(parts);
        }
        all
    }

    fn remember(&mut self, hash: (u64, u64)) {
        match self.early.len() < self.many {
            true => {
                self.early.insert(hash);
            }
            false => self.forgot = true,
        }
    }
}
