//! Runs a batch through the transforms of a stage. Neighbours that edit series by series share one
//! walk over the batch, a sink's own transform included.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use metrifold_codec::remote_write::{DecodeError, Invalid};
use metrifold_codec::{Batch, SeriesMut};
use metrifold_model::{Counts, Rejection, SeriesCounts, Version};
use metrifold_telemetry::ComponentMetrics;

use crate::planes::metrics::{Emitter, Needs, Pass, Plan, Split, Transform};

use super::arrival::Arrival;
use super::{Seen, SendError, Stage, Target};

/// Result of a walk.
enum Walked<'a> {
    /// The batch has passed all transforms up to this node.
    Node(usize, Batch),
    /// The batch has passed a sink's own transform.
    Edge(Arrival),
    /// All series were dropped.
    Nothing,
    /// The first transform needs the batch as a whole.
    Split(Batch, Split<'a>),
}

/// A transform that shares a walk, and the counts of what it has dropped.
struct Fused<'a> {
    target: Target,
    metrics: &'a ComponentMetrics,
    /// `None` if the transform edits no series.
    pass: Option<Box<dyn Pass + 'a>>,
    dropped: Counts,
    /// The dropped samples, by reason.
    reasons: Vec<(&'static str, u64)>,
}

impl Fused<'_> {
    /// Counts a series that the pass dropped.
    fn drop_series(&mut self, reason: &'static str, series: SeriesCounts) {
        self.dropped.add(series);
        let samples = u64::from(series.samples) + u64::from(series.histograms);
        match self.reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += samples,
            None => self.reasons.push((reason, samples)),
        }
    }
}

/// Batches within the stage: first in, first out, so that the order in which a transform emits them is
/// kept.
struct Work<'a> {
    stage: &'a Stage,
    waiting: VecDeque<(Target, Batch)>,
    arrived: Vec<Arrival>,
}

impl Work<'_> {
    fn dispatch(&mut self, targets: &[Target], batch: Batch) {
        if let Some((last, others)) = targets.split_last() {
            for &target in others {
                self.go(target, batch.clone());
            }
            self.go(*last, batch);
        }
    }

    fn go(&mut self, target: Target, batch: Batch) {
        match target {
            Target::Edge(edge) if self.stage.edges[edge].before.is_none() => {
                self.arrived.push(Arrival::of(edge, batch));
            }
            target => self.waiting.push_back((target, batch)),
        }
    }
}

impl Stage {
    /// Runs a batch through all transforms. Nothing has been delivered if it is refused.
    pub(super) fn run(
        &self,
        batch: Batch,
        needs: Needs,
        seen: &mut Seen,
    ) -> Result<Vec<Arrival>, SendError> {
        let mut work = Work {
            stage: self,
            waiting: VecDeque::with_capacity(self.nodes.len() + 1),
            arrived: Vec::with_capacity(self.edges.len()),
        };
        match self.active_guard() {
            Some(guard) => work.go(Target::Node(guard), batch),
            None => work.dispatch(&self.entry, batch),
        }
        while let Some((target, batch)) = work.waiting.pop_front() {
            let counts = batch.counts();
            let walked = self.walk(target, batch, needs, seen);
            let done = walked.and_then(|walked| self.go_on(target, walked, seen, &mut work));
            let Err(error) = done else {
                continue;
            };
            match target {
                // An error of an optional sink affects no other sink, unless the batch itself is
                // malformed.
                Target::Edge(edge)
                    if !self.edges[edge].required && !matches!(error, SendError::Malformed(_)) =>
                {
                    work.arrived.push(Arrival::failed(edge, counts, error));
                }
                _ => return Err(error),
            }
        }
        Ok(work.arrived)
    }

    /// Passes the result of a walk on to the next targets.
    fn go_on(
        &self,
        first: Target,
        walked: Walked<'_>,
        seen: &Seen,
        work: &mut Work<'_>,
    ) -> Result<(), SendError> {
        match (walked, first) {
            (Walked::Nothing, _) => {}
            (Walked::Node(node, batch), _) => {
                let counts = batch.counts();
                self.count_sent(node, counts, seen);
                work.dispatch(&self.nodes[node].outputs[0], batch);
            }
            (Walked::Edge(arrival), _) => work.arrived.push(arrival),
            (Walked::Split(batch, split), Target::Node(node)) => {
                let node = &self.nodes[node];
                let counts = batch.counts();
                node.metrics.received().batch(counts, seen.share(counts));
                let mut emit = |output: usize, batch: Batch| {
                    let counts = batch.counts();
                    node.metrics.sent().batch(counts, seen.share(counts));
                    if let Some(targets) = node.outputs.get(output) {
                        work.dispatch(targets, batch);
                    }
                };
                let mut dropped = |reason: &'static str, lost: Counts| {
                    node.metrics.discarded_samples(reason, lost.all_samples());
                    node.metrics.discarded_metadata(reason, lost.metadata);
                };
                let mut out = Emitter::new(&mut emit, &mut dropped);
                let done = guarded(|| split(batch, &mut out));
                done.inspect_err(|error| error.note(&node.metrics))?;
            }
            (Walked::Split(batch, split), Target::Edge(edge)) => {
                let received = batch.counts();
                let (mut batches, mut losses) = (Vec::new(), Vec::new());
                let mut emit = |_, batch| batches.push(batch);
                let mut dropped = |reason, lost: Counts| losses.push((reason, lost.all_samples()));
                let mut out = Emitter::new(&mut emit, &mut dropped);
                let done = guarded(|| split(batch, &mut out));
                done.inspect_err(|error| self.note(first, error))?;
                work.arrived.push(Arrival {
                    edge,
                    received,
                    batches,
                    dropped: losses,
                    lost_exemplars: 0,
                    failure: None,
                });
            }
        }
        Ok(())
    }

    /// Counts the batches that a transform received. The guard is part of the source, which counts for
    /// itself.
    fn count_received(&self, node: usize, counts: Option<Counts>, seen: &Seen) {
        if self.guard != Some(node) {
            let flow = self.nodes[node].metrics.received();
            flow.batch(counts, seen.share(counts));
        }
    }

    /// Counts the batches that a transform sent.
    fn count_sent(&self, node: usize, counts: Option<Counts>, seen: &Seen) {
        if self.guard != Some(node) {
            let flow = self.nodes[node].metrics.sent();
            flow.batch(counts, seen.share(counts));
        }
    }

    /// The transform at a target: a node's, or a sink's own, if it has one.
    fn transform(&self, target: Target) -> Option<(&dyn Transform, &ComponentMetrics)> {
        match target {
            Target::Node(node) => {
                let node = &self.nodes[node];
                Some((&*node.transform, &node.metrics))
            }
            Target::Edge(edge) => {
                let edge = &self.edges[edge];
                Some((&**edge.before.as_ref()?, &edge.metrics))
            }
        }
    }

    /// The target behind a node's only output, if there is exactly one and it may share the walk. An
    /// optional sink may not, so that its errors do not affect others.
    fn next(&self, target: Target) -> Option<Target> {
        let Target::Node(node) = target else {
            return None;
        };
        let [only] = &self.nodes[node].outputs[..] else {
            return None;
        };
        match only[..] {
            [Target::Edge(edge)] if !self.edges[edge].required => None,
            [next] => Some(next),
            _ => None,
        }
    }

    /// The transforms from `first` on that share a walk, or the split of the first one.
    fn chain(
        &self,
        first: Target,
        batch: &mut Batch,
    ) -> Result<(Vec<Fused<'_>>, Option<Split<'_>>), SendError> {
        let mut chain: Vec<Fused<'_>> = Vec::new();
        let mut next = Some(first);
        while let Some(target) = next {
            let Some((transform, metrics)) = self.transform(target) else {
                break;
            };
            let plan = guarded(|| transform.plan(batch));
            let pass = match plan.inspect_err(|error| self.note(target, error))? {
                Plan::Keep => None,
                Plan::Pass(pass) => Some(pass),
                Plan::Split(split) if chain.is_empty() => return Ok((chain, Some(split))),
                // This transform is planned again when the batch gets there.
                Plan::Split(_) => break,
            };
            chain.push(Fused {
                target,
                metrics,
                pass,
                dropped: Counts::default(),
                reasons: Vec::new(),
            });
            next = self.next(target);
        }
        Ok((chain, None))
    }

    /// Runs a batch through a transform and those behind it, as long as they edit series by series and
    /// the path does not branch.
    fn walk(
        &self,
        first: Target,
        mut batch: Batch,
        needs: Needs,
        seen: &mut Seen,
    ) -> Result<Walked<'_>, SendError> {
        let (mut chain, split) = self.chain(first, &mut batch)?;
        let edits = chain.iter().any(|fused| fused.pass.is_some());
        if !edits && needs >= Needs::Check && !batch.is_checked() {
            seen.decode(&mut batch)?;
        }
        if !edits && needs == Needs::Count {
            batch.count().map_err(SendError::Malformed)?;
            seen.known = seen.known.or(batch.counts());
        }
        if let Some(split) = split {
            return Ok(Walked::Split(batch, split));
        }
        let Some(last) = chain.last().map(|fused| fused.target) else {
            return Ok(Walked::Nothing); // never: the first target is a transform
        };
        let arrived = match edits {
            true => Some(self.edit(&mut chain, last, &mut batch, seen)?),
            false => batch.counts(),
        };
        let mut left = arrived;
        for fused in &chain {
            let received = left;
            if let Some(left) = &mut left {
                *left -= fused.dropped;
            }
            let node = match fused.target {
                Target::Edge(edge) => {
                    return Ok(Walked::Edge(Arrival {
                        edge,
                        received,
                        batches: vec![batch],
                        dropped: fused.reasons.clone(),
                        lost_exemplars: 0,
                        failure: None,
                    }));
                }
                Target::Node(node) => node,
            };
            self.count_received(node, received, seen);
            for (reason, samples) in &fused.reasons {
                fused.metrics.discarded_samples(reason, *samples);
            }
            if fused.target != last {
                self.count_sent(node, left, seen);
            }
        }
        // A batch whose series were all dropped ends here.
        let was_empty = arrived.is_none_or(|counts| counts.is_empty());
        match last {
            Target::Node(_) if left.is_some_and(|left| left.is_empty()) && !was_empty => {
                Ok(Walked::Nothing)
            }
            Target::Node(node) => Ok(Walked::Node(node, batch)),
            Target::Edge(_) => Ok(Walked::Nothing), // never: it has returned above
        }
    }

    /// Walks over the series of a batch, rewriting the body directly if the sinks behind it send
    /// bodies. Returns the counts of the batch before the walk.
    fn edit(
        &self,
        chain: &mut [Fused<'_>],
        last: Target,
        batch: &mut Batch,
        seen: &mut Seen,
    ) -> Result<Counts, SendError> {
        let rewrites = batch.is_rewritable() && self.ends_as_bodies(last, batch.body_version());
        if !rewrites {
            seen.decode(batch)?;
        }
        let before = batch.counts().filter(|_| batch.is_checked());
        let mut edit = |series: &mut SeriesMut<'_>| {
            for fused in &mut *chain {
                if let Some(pass) = &mut fused.pass
                    && !pass.series(series)
                {
                    let reason = pass.reason();
                    fused.drop_series(reason, series.counts());
                    return false;
                }
            }
            true
        };
        let edited = guarded(|| {
            let edited = if rewrites {
                batch.rewrite(&mut edit)
            } else {
                let edited = batch.edit(|arena| arena.retain(&mut edit));
                edited.map(|()| Invalid::default())
            };
            match edited {
                Err(error @ DecodeError::GrewTooLarge) => Err(Rejection::from(error)),
                edited => Ok(edited),
            }
        });
        // Attributed to the last transform of the chain: which one failed is not known.
        let edited = edited.inspect_err(|error| self.note(last, error))?;
        let invalid = edited.map_err(SendError::Malformed)?;
        for fused in &mut *chain {
            if let Some(pass) = &mut fused.pass {
                let told = guarded(|| pass.finish());
                seen.told
                    .join(told.inspect_err(|error| self.note(fused.target, error))?);
            }
        }
        let arrived = before.unwrap_or_else(|| {
            let dropped = chain.iter().map(|fused| fused.dropped);
            dropped.fold(batch.counts().unwrap_or_default(), |sum, counts| {
                sum + counts
            })
        });
        if rewrites && seen.counts.is_none() {
            seen.counts = Some(arrived);
            seen.invalid = invalid;
        }
        Ok(arrived)
    }

    /// Whether everything behind a transform goes to sinks that send bodies of this version unchanged.
    fn ends_as_bodies(&self, last: Target, version: Version) -> bool {
        let outputs = match last {
            Target::Edge(edge) => return self.edges[edge].takes_bodies(version),
            Target::Node(node) => self.nodes[node].outputs.iter().flatten(),
        };
        outputs.into_iter().all(|target| match *target {
            Target::Edge(edge) => {
                let edge = &self.edges[edge];
                edge.before.is_none() && edge.takes_bodies(version)
            }
            Target::Node(_) => false,
        })
    }

    /// Logs and counts a transform's error. An error of an optional sink is reported later, once it is
    /// certain that the other sinks get the batch.
    fn note(&self, target: Target, error: &SendError) {
        match target {
            Target::Node(node) => error.note(&self.nodes[node].metrics),
            Target::Edge(edge) if self.edges[edge].required => {
                error.note(&self.edges[edge].metrics);
            }
            Target::Edge(_) => {}
        }
    }
}

/// Runs a transform. A panic becomes an error of the batch.
fn guarded<R>(work: impl FnOnce() -> Result<R, Rejection>) -> Result<R, SendError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => Ok(result?),
        Err(_) => Err(SendError::Panicked),
    }
}
