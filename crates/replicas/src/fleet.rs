//! The replicas, what is known of each, and which one a query goes to: a state machine over instants
//! that it is given.

mod member;
mod view;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::affinity::Key;
use crate::health::HealthOptions;
use crate::replica::Replica;
use crate::signals::Signals;
use crate::strategy::{Candidate, Kind, Selected, Strategy, WhenNone, select};

use member::Member;

pub use member::Counts;
pub(crate) use view::ago;
pub use view::{View, ViewOf};

/// How replicas are chosen.
#[derive(Clone, Copy, Debug)]
pub struct FleetOptions {
    /// How a replica is chosen.
    pub strategy: Strategy,
    /// When one counts as available.
    pub health: HealthOptions,
    /// What happens when none is worth asking.
    pub when_none: WhenNone,
}

/// The replicas.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    members: Vec<Member>,
    /// The names of those that were last worth asking.
    selection: Vec<Arc<str>>,
    remark: Option<&'static str>,
    /// Whether none is worth asking, and the selection is an old one.
    stale: bool,
    selections: u64,
    events: VecDeque<Event>,
}

/// The most events that are remembered.
const MOST_EVENTS: usize = 50;

/// A change of what is worth asking.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

/// Where a query goes.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The replica.
    pub replica: Arc<Replica>,
    /// Whether it follows from what the query has in common with others.
    pub by_affinity: bool,
    /// Whether others are as good.
    pub has_equals: bool,
}

/// Why a query goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoReplica {
    /// Each replica with the reason why it is not asked.
    pub reasons: Vec<(Arc<str>, String)>,
}

/// What became of a request to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// It failed by the replica's fault.
    Failed,
    /// Whoever asked gave it up.
    Cancelled,
}

/// What matters of a query for the choice of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// What it has in common with others.
    pub(crate) key: Option<Key>,
    /// The replica that it was sent to before, if it belongs to one.
    pub(crate) bound: Option<&'a str>,
    /// The time that it reads, in milliseconds since the epoch.
    pub(crate) range: Option<(i64, i64)>,
    /// Those that have failed it.
    pub(crate) tried: &'a [Arc<str>],
    /// A random number.
    pub(crate) draw: u64,
    /// Now, in milliseconds since the epoch.
    pub(crate) wall: i64,
}

impl Fleet {
    /// A fleet without replicas.
    pub fn new(options: FleetOptions) -> Self {
        Self {
            options,
            members: Vec::new(),
            selection: Vec::new(),
            remark: None,
            stale: false,
            selections: 0,
            events: VecDeque::new(),
        }
    }

    /// Takes these replicas, in their order. What is known of those that stay is kept. A name that
    /// is there twice is one replica.
    pub fn set(&mut self, replicas: Vec<Replica>, wall: i64, now: Instant) {
        let mut old = std::mem::take(&mut self.members);
        for replica in replicas {
            if self
                .members
                .iter()
                .any(|it| it.replica.name == replica.name)
            {
                continue;
            }
            let known = old.iter().position(|it| it.replica.name == replica.name);
            let replica = Arc::new(replica);
            let member = match known.map(|at| old.swap_remove(at)) {
                Some(known) => Member { replica, ..known },
                None => Member::new(replica, self.options.health, now),
            };
            self.members.push(member);
        }
        self.select(wall, now);
    }

    /// The replicas.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.members.iter().map(|it| &it.replica)
    }

    /// Notes what a probe found.
    pub fn probed(
        &mut self,
        name: &str,
        result: Result<Option<Signals>, String>,
        took: Duration,
        wall: i64,
        now: Instant,
    ) {
        let Some(member) = self.members.iter_mut().find(|it| *it.replica.name == *name) else {
            return;
        };
        if let Some(text) = member.probed(result, took, wall, now) {
            let text = format!("{name} {text}");
            self.tell(text, now);
        }
        self.select(wall, now);
    }

    /// Whether a replica's probes say that it can be asked; not so of one that is there no more.
    pub fn is_up(&self, name: &str) -> bool {
        let member = self.members.iter().find(|it| *it.replica.name == *name);
        member.is_some_and(|it| it.health.up())
    }

    /// The replicas whose last probe contradicted those before.
    pub(crate) fn in_doubt(&self) -> impl Iterator<Item = &Arc<Replica>> {
        let doubtful = self.members.iter().filter(|it| it.health.in_doubt());
        doubtful.map(|it| &it.replica)
    }

    /// Notes that a request is sent to a replica.
    pub fn sent(&mut self, name: &str, now: Instant) {
        if let Some(member) = self.members.iter_mut().find(|it| *it.replica.name == *name) {
            member.health.sent(now);
            member.counts.requests += 1;
            member.counts.in_flight += 1;
        }
    }

    /// Notes how long a replica took for the head of an answer.
    pub(crate) fn head_after(
        &mut self,
        name: &str,
        time: Duration,
        outcome: Outcome,
        now: Instant,
    ) {
        if let Some(member) = self.members.iter_mut().find(|it| *it.replica.name == *name) {
            match outcome {
                Outcome::Cancelled => member.health.cancelled(now),
                Outcome::Answered | Outcome::Failed => {
                    let failed = outcome == Outcome::Failed;
                    member.health.answered(failed, now);
                    member.counts.failures += u64::from(failed);
                    member.counts.milliseconds += time.as_millis() as u64;
                }
            }
        }
    }

    /// Notes that a request to a replica is over, with so many bytes of an answer.
    pub(crate) fn over(&mut self, name: &str, bytes: u64) {
        if let Some(member) = self.members.iter_mut().find(|it| *it.replica.name == *name) {
            member.counts.in_flight = member.counts.in_flight.saturating_sub(1);
            member.counts.bytes += bytes;
        }
    }

    /// Notes that a query was sent again, or besides, since this replica failed or was slow.
    pub(crate) fn again(&mut self, name: &str, hedge: bool) {
        if let Some(member) = self.members.iter_mut().find(|it| *it.replica.name == *name) {
            match hedge {
                true => member.counts.hedges += 1,
                false => member.counts.retries += 1,
            }
        }
    }

    /// Chooses a replica for a query.
    ///
    /// # Errors
    ///
    /// Fails with the reasons when there is none.
    pub(crate) fn choose(&mut self, wish: &Wish<'_>, now: Instant) -> Result<Choice, NoReplica> {
        let selected = self.selected(wish.range, wish.wall, now);
        let kind = self.options.strategy.kind;
        // Caddy's policy asks the first again and again, until it is not available.
        let tried = |index: &usize| {
            kind != Kind::First && wish.tried.contains(&self.members[*index].replica.name)
        };
        let (best, others) = selected.ranked.split_at(selected.equal);
        let left = |list: &[usize]| -> Vec<usize> {
            list.iter().copied().filter(|index| !tried(index)).collect()
        };
        let mut candidates = left(best);
        if candidates.is_empty() {
            candidates = left(others);
            // What is behind the best is in the order of merit.
            candidates.truncate(1);
        }
        if candidates.is_empty() && self.options.when_none == WhenNone::LastSelection {
            let last = |index: &usize| self.selection.contains(&self.members[*index].replica.name);
            let all = (0..self.members.len()).filter(last).collect::<Vec<_>>();
            candidates = left(&all);
        }
        let bound = wish.bound.and_then(|name| {
            let mut bound = candidates.iter().copied();
            bound.find(|index| *self.members[*index].replica.name == *name)
        });
        let affine = bound.or_else(|| self.owner(&candidates, wish.key?));
        let Some(index) = affine.or_else(|| self.pick(&candidates, wish.draw, now)) else {
            return Err(self.no_replica(wish.tried, now));
        };
        self.note_current(kind, index, now);
        Ok(Choice {
            replica: self.members[index].replica.clone(),
            by_affinity: affine.is_some() && candidates.len() > 1,
            has_equals: candidates.len() > 1,
        })
    }

    /// The best of several for a key.
    fn owner(&self, candidates: &[usize], key: Key) -> Option<usize> {
        let score = |index: &usize| {
            let replica = &self.members[*index].replica;
            key.score(&replica.name, replica.weight)
        };
        let best = candidates
            .iter()
            .max_by(|a, b| score(a).total_cmp(&score(b)));
        best.copied()
    }

    /// One of several that are as good as each other.
    fn pick(&self, candidates: &[usize], draw: u64, now: Instant) -> Option<usize> {
        let kind = self.options.strategy.kind;
        let share = |index: &usize| {
            let member = &self.members[*index];
            f64::from(member.replica.weight) * member.health.share(now)
        };
        match kind {
            Kind::First | Kind::MostData => candidates.first().copied(),
            Kind::LeastLoaded => {
                // By what it would be with this query, so that weights count when all are idle.
                let load = |index: &usize| {
                    let in_flight = self.members[*index].counts.in_flight;
                    (in_flight as f64 + 1.0) / share(index).max(f64::MIN_POSITIVE)
                };
                let least = candidates.iter().map(load).fold(f64::INFINITY, f64::min);
                let equal = candidates.iter().filter(|index| load(index) <= least);
                let equal: Vec<usize> = equal.copied().collect();
                equal.get(draw as usize % equal.len().max(1)).copied()
            }
            Kind::Random | Kind::MinimumHistory | Kind::Covering | Kind::Merge => {
                let whole: f64 = candidates.iter().map(share).sum();
                let mut left = whole * ((draw >> 11) as f64 / (1u64 << 53) as f64);
                let found = candidates.iter().find(|index| {
                    left -= share(index);
                    left < 0.0
                });
                found.or(candidates.last()).copied()
            }
        }
    }

    /// All that are worth asking for a range, best first, with those that are behind them.
    pub(crate) fn all(
        &self,
        range: Option<(i64, i64)>,
        wall: i64,
        now: Instant,
    ) -> Vec<Arc<Replica>> {
        let ranked = self.selected(range, wall, now).ranked.into_iter();
        ranked
            .map(|index| self.members[index].replica.clone())
            .collect()
    }

    fn selected(&self, range: Option<(i64, i64)>, wall: i64, now: Instant) -> Selected {
        let available = self.members.iter().enumerate();
        let available =
            available.filter(|(_, it)| it.replica.weight > 0 && it.health.available(now));
        let candidates = available.map(|(index, it)| Candidate {
            current: self.selection.contains(&it.replica.name),
            ..it.candidate(index, range, wall, now)
        });
        select(&self.options.strategy, candidates.collect(), wall)
    }

    /// Notes which ones are worth asking now.
    fn select(&mut self, wall: i64, now: Instant) {
        let selected = self.selected(None, wall, now);
        let best = &selected.ranked[..selected.equal];
        let names: Vec<Arc<str>> = best
            .iter()
            .map(|index| self.members[*index].replica.name.clone())
            .collect();
        self.selections += 1;
        self.stale = names.is_empty() && !self.members.is_empty();
        self.remark = selected.remark;
        match names.is_empty() {
            // The last one stays known, for `last_selection` and for whoever looks.
            true => self.selection.retain(|name| {
                let mut members = self.members.iter();
                members.any(|it| it.replica.name == *name)
            }),
            false if names != self.selection => {
                let text = format!("selected {}", names.join(", "));
                self.selection = names;
                self.tell(text, now);
            }
            false => {}
        }
    }

    /// With `first`, the one that is asked is the one that keeps its place; requests that fail move
    /// it between two probes.
    fn note_current(&mut self, kind: Kind, index: usize, now: Instant) {
        if kind != Kind::First {
            return;
        }
        let name = &self.members[index].replica.name;
        if self.selection.first() != Some(name) {
            let text = format!("selected {name}");
            self.selection = vec![name.clone()];
            self.tell(text, now);
        }
    }

    fn no_replica(&self, tried: &[Arc<str>], now: Instant) -> NoReplica {
        let reason = |it: &Member| {
            let why = it
                .health
                .why_not(now)
                .unwrap_or_else(|| match it.replica.weight {
                    0 => "has the weight 0".to_owned(),
                    _ if tried.contains(&it.replica.name) => "has failed the query".to_owned(),
                    _ => "is not selected".to_owned(),
                });
            (it.replica.name.clone(), why)
        };
        NoReplica {
            reasons: self.members.iter().map(reason).collect(),
        }
    }

    fn tell(&mut self, text: String, now: Instant) {
        tracing::info!(replicas = self.members.len(), "{text}");
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { at: now, text });
    }
}

impl fmt::Display for NoReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reasons.is_empty() {
            return f.write_str("no replica is known");
        }
        f.write_str("no replica can be asked: ")?;
        for (at, (name, reason)) in self.reasons.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
