//! The replicas, the state of each, and the choice of one for a query: a state machine without a
//! clock, which gets every instant as an argument.

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

/// Options of a fleet.
#[derive(Clone, Copy, Debug)]
pub struct FleetOptions {
    /// Strategy of the choice.
    pub strategy: Strategy,
    /// Conditions of availability.
    pub health: HealthOptions,
    /// Behaviour when no replica is eligible.
    pub when_none: WhenNone,
}

/// Replicas and their state.
#[derive(Debug)]
pub struct Fleet {
    options: FleetOptions,
    members: Vec<Member>,
    /// Names of the replicas that were last selected.
    selection: Vec<Arc<str>>,
    remark: Option<&'static str>,
    /// Whether no replica is eligible, so that the selection is out of date.
    stale: bool,
    selections: u64,
    events: VecDeque<Event>,
}

/// The most events that are kept.
const MOST_EVENTS: usize = 50;

/// A change of the selection or of a replica's state.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) text: String,
}

/// Replica chosen for a query.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The chosen replica.
    pub replica: Arc<Replica>,
    /// Whether the affinity of the query decided.
    pub by_affinity: bool,
    /// Whether other replicas would have been equally good.
    pub has_equals: bool,
}

/// No replica could be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoReplica {
    /// Names of the replicas, each with the reason against it.
    pub reasons: Vec<(Arc<str>, String)>,
}

/// Outcome of a request to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The replica answered.
    Answered,
    /// The request failed through the replica's fault.
    Failed,
    /// The caller cancelled the request.
    Cancelled,
}

/// Properties of a query that matter for the choice of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    /// Key of the query's affinity.
    pub(crate) key: Option<Key>,
    /// Name of the replica that the caller's cookie names.
    pub(crate) bound: Option<&'a str>,
    /// Time range that the query reads, in milliseconds since the epoch.
    pub(crate) range: Option<(i64, i64)>,
    /// Names of the replicas that have failed this query.
    pub(crate) tried: &'a [Arc<str>],
    /// A random number for ties.
    pub(crate) draw: u64,
    /// The current time, in milliseconds since the epoch.
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

    /// Replaces the replicas, keeping the state of those that stay. Of replicas with the same name,
    /// only the first counts.
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

    /// The replicas in their order.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.members.iter().map(|it| &it.replica)
    }

    /// Records the result of a probe.
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

    /// Whether a replica's probes find it up. False for an unknown replica.
    pub fn is_up(&self, name: &str) -> bool {
        let member = self.members.iter().find(|it| *it.replica.name == *name);
        member.is_some_and(|it| it.health.up())
    }

    /// Replicas whose last probe contradicted the earlier ones.
    pub(crate) fn in_doubt(&self) -> impl Iterator<Item = &Arc<Replica>> {
        let doubtful = self.members.iter().filter(|it| it.health.in_doubt());
        doubtful.map(|it| &it.replica)
    }

    /// Records that a request is sent to a replica. Returns the era of the replica's breaker, which
    /// belongs to the request's outcome.
    pub fn sent(&mut self, name: &str, now: Instant) -> u64 {
        let Some(member) = self.member(name) else {
            return 0;
        };
        member.counts.requests += 1;
        member.counts.in_flight += 1;
        member.health.sent(now)
    }

    /// Records the outcome of a request and the time until the head of its answer.
    pub(crate) fn head_after(
        &mut self,
        name: &str,
        era: u64,
        time: Duration,
        outcome: Outcome,
        now: Instant,
    ) {
        let Some(member) = self.member(name) else {
            return;
        };
        match outcome {
            Outcome::Cancelled => member.health.cancelled(era, now),
            Outcome::Answered | Outcome::Failed => {
                let failed = outcome == Outcome::Failed;
                member.health.answered(era, failed, now);
                member.counts.failures += u64::from(failed);
                member.counts.milliseconds += time.as_millis() as u64;
            }
        }
    }

    /// Records that an answer broke off after its head had been recorded.
    pub(crate) fn broke(&mut self, name: &str, era: u64, now: Instant) {
        if let Some(member) = self.member(name) {
            member.health.broke(era, now);
            member.counts.failures += 1;
        }
    }

    fn member(&mut self, name: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|it| *it.replica.name == *name)
    }

    /// Records the end of a request and the bytes of its answer's body.
    pub(crate) fn over(&mut self, name: &str, bytes: u64) {
        if let Some(member) = self.member(name) {
            member.counts.in_flight = member.counts.in_flight.saturating_sub(1);
            member.counts.bytes += bytes;
        }
    }

    /// Records that a query went to another replica because this one failed, or, with `hedge`, was
    /// slow.
    pub(crate) fn again(&mut self, name: &str, hedge: bool) {
        if let Some(member) = self.member(name) {
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
    /// Fails when no replica is eligible, with the reason for each.
    pub(crate) fn choose(&mut self, wish: &Wish<'_>, now: Instant) -> Result<Choice, NoReplica> {
        let selected = self.selected(wish.range, wish.wall, now);
        let kind = self.options.strategy.kind;
        // Caddy's policy tries the first one again until it becomes unavailable.
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
            // The replicas behind the best are ordered: only the first of them is a candidate.
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

    /// The candidate with the highest score for a key.
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

    /// One of several equally good candidates.
    fn pick(&self, candidates: &[usize], draw: u64, now: Instant) -> Option<usize> {
        let kind = self.options.strategy.kind;
        let share = |index: &usize| {
            let member = &self.members[*index];
            f64::from(member.replica.weight) * member.health.share(now)
        };
        match kind {
            Kind::First | Kind::MostData => candidates.first().copied(),
            Kind::LeastLoaded => {
                // The load including this query, so that weights count even when all are idle.
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

    /// All eligible replicas for a range, best first, followed by those that lag behind.
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

    /// Updates the selection.
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
            // The last selection stays, for `last_selection` and the status page.
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

    /// With `first`, the replica that gets the query becomes the selection: failed requests can
    /// move it between two probes.
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
        f.write_str("no replica can be queried: ")?;
        for (at, (name, reason)) in self.reasons.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
