//! All that lies between a source and the sinks: transforms, fused, and the fan-out.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::watch;

use metrifold_codec::remote_write::{DecodeError, Invalid};
use metrifold_codec::{Batch, SeriesMut};
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Rejection, RejectionKind, Version};
use metrifold_telemetry::ComponentMetrics;

use crate::memory::Budget;
use crate::planes::{Node, Target};

use super::edge::{Edge, Incoming};
use super::{Emitter, Metrics, Pass, Transform};

/// What a source sends through: a graph of transforms that ends at sinks. It is built whole and
/// replaced whole.
#[derive(Debug, Default)]
pub struct Stage {
    pub(crate) entry: Vec<Target>,
    pub(crate) nodes: Vec<Node<Metrics>>,
    pub(crate) edges: Vec<Arc<Edge>>,
    /// Says when memory is too short for queues of optional sinks to grow.
    pub(crate) memory: Budget,
    /// Tells, by going away, that nobody sends through it any more.
    pub(crate) _in_use: Option<watch::Receiver<()>>,
}

/// What was found when a batch was looked into on its way.
#[derive(Debug, Default)]
pub struct Seen {
    /// What it carried when it came, if anybody looked.
    pub counts: Option<Counts>,
    /// The series that were left out.
    pub invalid: Invalid,
}

impl Seen {
    /// Decodes a batch, unless that has been done.
    fn decode(&mut self, batch: &mut Batch) -> Result<(), SendError> {
        let invalid = batch.decode().map_err(SendError::Malformed)?;
        if self.counts.is_none() {
            self.counts = batch.counts();
            self.invalid = invalid;
        }
        Ok(())
    }
}

impl Stage {
    /// Runs a batch through all transforms. Nothing has been delivered when it is refused.
    fn run(
        &self,
        batch: Batch,
        looks: bool,
        seen: &mut Seen,
    ) -> Result<Vec<(usize, Batch)>, SendError> {
        // First in, first out: what a transform emits first must not be overtaken.
        let mut work = VecDeque::with_capacity(self.nodes.len() + 1);
        let mut arrived = Vec::with_capacity(self.edges.len());
        let mut failed = None;
        dispatch(&self.entry, batch, &mut work, &mut arrived);
        while let Some((node, batch)) = work.pop_front() {
            let (node, batch) = match self.walk(node, batch, looks, seen) {
                // The last of those that were fused, and what is left of the batch.
                Ok(Walked::Fused(node, batch)) => {
                    let node = &self.nodes[node];
                    node.metrics.sent().batch(batch.counts(), 0);
                    dispatch(&node.outputs[0], batch, &mut work, &mut arrived);
                    continue;
                }
                Ok(Walked::Nothing) => continue,
                Ok(Walked::Apart(batch)) => (&self.nodes[node], batch),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            node.metrics.received().batch(batch.counts(), 0);
            let mut emit = |output: usize, batch: Batch| {
                node.metrics.sent().batch(batch.counts(), 0);
                if let Some(targets) = node.outputs.get(output) {
                    dispatch(targets, batch, &mut work, &mut arrived);
                }
            };
            let mut dropped = |reason: &'static str, samples| {
                node.metrics.discarded_samples(reason, samples);
            };
            let mut out = Emitter::new(&mut emit, &mut dropped);
            let Err(error) = apply(&*node.transform, &node.metrics, batch, &mut out) else {
                continue;
            };
            failed = Some(error);
            break;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(arrived),
        }
    }

    /// Runs a batch through a transform, and through those behind it, for as long as they work
    /// series by series and nothing branches off.
    fn walk(
        &self,
        first: usize,
        mut batch: Batch,
        looks: bool,
        seen: &mut Seen,
    ) -> Result<Walked, SendError> {
        let mut chain: Vec<Fused<'_>> = Vec::new();
        let mut next = Some(first);
        while let Some(index) = next {
            let node = &self.nodes[index];
            let Some(pass) = guarded(&node.metrics, || node.transform.begin(&mut batch))? else {
                break;
            };
            chain.push(Fused {
                index,
                pass,
                counts: Counts::default(),
            });
            next = match &node.outputs[..] {
                [only] => match only[..] {
                    [Target::Node(next)] => Some(next),
                    _ => None,
                },
                _ => None,
            };
        }
        let Some(last) = chain.last().map(|fused| fused.index) else {
            if looks && !batch.is_checked() {
                seen.decode(&mut batch)?;
            }
            return Ok(Walked::Apart(batch));
        };
        let rewrites = self.ends_as_bodies(last) && batch.is_rewritable();
        if !rewrites {
            seen.decode(&mut batch)?;
        }
        let before = batch.counts().filter(|_| batch.is_checked());
        let mut edit = |series: &mut SeriesMut<'_>| {
            for fused in &mut chain {
                if !fused.pass.series(series) {
                    fused.counts.add(series.counts());
                    return false;
                }
            }
            true
        };
        // A panic is laid to the chain's last transform: which one it was cannot be told.
        let edited = guarded(&self.nodes[last].metrics, || {
            Ok(if rewrites {
                batch.rewrite(&mut edit)
            } else {
                let edited = batch.edit(|arena| arena.retain(&mut edit));
                edited.map(|()| Invalid::default())
            })
        })?;
        let invalid = edited.map_err(|error| match error {
            DecodeError::GrewTooLarge => Rejection::from(error).into(),
            _ => SendError::Malformed(error),
        })?;
        let arrived = before.unwrap_or_else(|| {
            let dropped = chain.iter().map(|fused| fused.counts);
            dropped.fold(batch.counts().unwrap_or_default(), |sum, counts| {
                sum + counts
            })
        });
        if rewrites && seen.counts.is_none() {
            seen.counts = Some(arrived);
            seen.invalid = invalid;
        }
        let mut left = arrived;
        for fused in &chain {
            let metrics = &self.nodes[fused.index].metrics;
            metrics.received().batch(Some(left), 0);
            let reason = fused.pass.reason();
            metrics.discarded_samples(reason, fused.counts.all_samples());
            left -= fused.counts;
            if fused.index != last {
                metrics.sent().batch(Some(left), 0);
            }
        }
        // A batch of which nothing is left ends here.
        if left.is_empty() && !arrived.is_empty() {
            return Ok(Walked::Nothing);
        }
        Ok(Walked::Fused(last, batch))
    }

    /// Whether all that a transform emits goes to sinks that send bodies of 1.0 as they are.
    fn ends_as_bodies(&self, node: usize) -> bool {
        let mut targets = self.nodes[node].outputs.iter().flatten();
        targets.all(|target| match *target {
            Target::Edge(edge) => self.edges[edge].takes_bodies(Version::V1),
            Target::Node(_) => false,
        })
    }

    /// Whether a batch meets one transform first, which is then the first to decode it.
    fn has_one_entry(&self) -> bool {
        matches!(self.entry[..], [Target::Node(_)])
    }

    /// Whether somebody on the way will look at the series of a batch of this version.
    fn decodes(&self, version: Version) -> bool {
        self.nodes.iter().any(|node| node.transform.reads_labels())
            || self.edges.iter().any(|edge| edge.decodes(version))
    }
}

/// What became of a batch that was to be walked through.
enum Walked {
    /// It has been through all transforms up to this one.
    Fused(usize, Batch),
    /// Nothing is left of it.
    Nothing,
    /// The first transform wants it as a whole.
    Apart(Batch),
}

/// A transform that shares a walk, and what it has dropped.
struct Fused<'a> {
    index: usize,
    pass: Box<dyn Pass + 'a>,
    counts: Counts,
}

/// Applies a transform.
fn apply(
    transform: &dyn Transform,
    metrics: &ComponentMetrics,
    batch: Batch,
    out: &mut Emitter<'_>,
) -> Result<(), SendError> {
    guarded(metrics, || transform.apply(batch, out))
}

/// Lets a transform work, whose panic costs nothing but the batch.
fn guarded<R>(
    metrics: &ComponentMetrics,
    work: impl FnOnce() -> Result<R, Rejection>,
) -> Result<R, SendError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(rejection)) => {
            metrics.error("rejected", &rejection);
            Err(SendError::Rejected(rejection))
        }
        Err(_) => {
            metrics.error("panicked", "panicked on a batch");
            Err(SendError::Panicked)
        }
    }
}

fn dispatch(
    targets: &[Target],
    batch: Batch,
    work: &mut VecDeque<(usize, Batch)>,
    arrived: &mut Vec<(usize, Batch)>,
) {
    let mut go = |target: Target, batch: Batch| match target {
        Target::Node(node) => work.push_back((node, batch)),
        Target::Edge(edge) => arrived.push((edge, batch)),
    };
    if let Some((last, others)) = targets.split_last() {
        for &target in others {
            go(target, batch.clone());
        }
        go(*last, batch);
    }
}

/// A source's end of its stage.
#[derive(Clone, Debug)]
pub struct Output {
    pub(crate) stage: Arc<ArcSwap<Stage>>,
    pub(crate) metrics: ComponentMetrics,
}

/// Why a batch went to no sink.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// It is not what it claims to be.
    #[error(transparent)]
    Malformed(DecodeError),
    /// A transform or a sink's form refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A transform panicked on it, which is Metrifold's fault.
    #[error("a transform panicked on the batch")]
    Panicked,
}

impl From<SendError> for Rejection {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Malformed(error) => error.into(),
            SendError::Rejected(rejection) => rejection,
            SendError::Panicked => Self::new(RejectionKind::Internal, error.to_string()),
        }
    }
}

impl Output {
    /// Whether some sink will answer for what is wrong with a batch: without a required one, only
    /// the source can.
    pub fn answers(&self) -> bool {
        self.stage.load().edges.iter().any(|edge| edge.required)
    }

    /// After how many seconds it is worth trying again, as far as the queues of required sinks
    /// know.
    pub fn retry_after(&self) -> Option<u64> {
        let stage = self.stage.load();
        let required = stage.edges.iter().filter(|edge| edge.required);
        required.filter_map(|edge| edge.retry_after()).max()
    }

    /// The same for a request for which there was no room: after how many seconds the queues of
    /// required sinks, for which others wait, have drained. None if nobody waits for them.
    pub fn room_after(&self) -> Option<u64> {
        let stage = self.stage.load();
        let required = stage.edges.iter().filter(|edge| edge.required);
        required.filter_map(|edge| edge.holds_up()).max()
    }

    /// Sends a batch through the transforms and into the queues of the sinks. Waits while the
    /// queue of a required sink is full; an optional sink is never waited for. The batch is
    /// looked into if somebody on the way has to, or if `looks` asks for it.
    ///
    /// # Errors
    ///
    /// Fails when the batch is refused as a whole, before it reaches any sink.
    pub async fn send(&self, mut batch: Batch, looks: bool) -> Result<Seen, SendError> {
        let mut seen = Seen::default();
        let received = batch.body_len();
        let blocked = {
            let stage = self.stage.load();
            let looks = looks || stage.decodes(batch.version());
            if looks && !stage.has_one_entry() {
                seen.decode(&mut batch)?;
            }
            if batch.is_counting() && !looks {
                batch.count();
            }
            let counted = batch.counts();
            let arrived = stage.run(batch, looks, &mut seen);
            seen.counts = seen.counts.or(counted);
            if !matches!(arrived, Err(SendError::Malformed(_))) {
                self.metrics.received().batch(seen.counts, received);
                for (reason, samples) in seen.invalid.by_reason() {
                    self.metrics.discarded_samples(reason.as_str(), samples);
                }
            }
            let mut prepared = Vec::with_capacity(stage.edges.len());
            for (edge, batch) in arrived? {
                let edge = &stage.edges[edge];
                let (before, samples) = (prepared.len(), batch.counts().map(|c| c.all_samples()));
                if let Err(rejection) = prepare(edge, batch, &mut prepared) {
                    if edge.required {
                        return Err(rejection);
                    }
                    // An optional sink's trouble is its own.
                    prepared.truncate(before);
                    edge.metrics.error("rejected", &rejection);
                    edge.metrics.discarded("rejected", samples);
                }
            }
            self.metrics.sent().batch(seen.counts, received);
            // All sinks get the batch at once; then those that are full are waited for.
            let mut blocked = Vec::new();
            let short = stage.memory.is_short();
            for (edge, mut batch) in prepared {
                let ack = batch.take_ack();
                let ticket = ack
                    .filter(|_| edge.required)
                    .map(|ack| ack.ticket(edge.id.clone()));
                let grows = edge.required || !short;
                if let Some(waiting) = edge.push_within(batch, ticket, grows) {
                    blocked.push((edge, waiting));
                }
            }
            blocked
        };
        wait_for_room(blocked).await;
        Ok(seen)
    }
}

async fn wait_for_room(blocked: Vec<(Arc<Edge>, Incoming)>) {
    if blocked.is_empty() {
        return;
    }
    let pushes = blocked
        .into_iter()
        .map(|(edge, waiting)| Box::pin(async move { edge.push_wait(waiting).await }));
    join_all(pushes.collect()).await;
}

/// Awaits all futures, concurrently.
async fn join_all<F: Future<Output = ()> + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| std::pin::Pin::new(future).poll(cx).is_pending());
        if futures.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Applies the sink's own transform and gives each result the form that the sink wants.
fn prepare(
    edge: &Arc<Edge>,
    mut batch: Batch,
    prepared: &mut Vec<(Arc<Edge>, Batch)>,
) -> Result<(), SendError> {
    if edge.looks_into(&batch) {
        // Before it is counted, so that its samples are.
        batch.decode().map_err(Rejection::from)?;
    }
    edge.metrics
        .received()
        .batch(batch.counts(), batch.body_len());
    let Some(before) = &edge.before else {
        return Ok(finish(edge, batch, prepared)?);
    };
    let mut own = Vec::with_capacity(1);
    let mut emit = |_, batch| own.push(batch);
    let mut dropped = |reason: &'static str, samples| {
        edge.metrics.discarded_samples(reason, samples);
    };
    let mut out = Emitter::new(&mut emit, &mut dropped);
    apply(&**before, &edge.metrics, batch, &mut out)?;
    for batch in own {
        finish(edge, batch, prepared)?;
    }
    Ok(())
}

fn finish(
    edge: &Arc<Edge>,
    mut batch: Batch,
    prepared: &mut Vec<(Arc<Edge>, Batch)>,
) -> Result<(), Rejection> {
    if batch.counts().is_some_and(|counts| counts.is_empty()) {
        return Ok(());
    }
    batch.forget_request();
    if edge.looks_into(&batch) {
        batch.decode()?;
    }
    if let Some(version) = edge.version(&batch) {
        // 2.0 has no place for metadata without series.
        if version == Version::V2 && batch.counts().is_some_and(|counts| counts.series == 0) {
            return Ok(());
        }
        let lost = batch.settle(version)?;
        edge.metrics
            .discarded_samples(Reason::NotInV1.as_str(), lost);
    }
    prepared.push((edge.clone(), batch));
    Ok(())
}
