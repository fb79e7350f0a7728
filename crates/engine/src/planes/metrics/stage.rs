//! The stage between a source and its sinks: fused transforms, and the fan-out.

mod arrival;
mod walk;

use std::sync::Arc;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::block_in_place;

use metrifold_codec::Batch;
use metrifold_codec::remote_write::{DecodeError, Invalid};
use metrifold_model::{Counts, Rejection, RejectionKind, Version};
use metrifold_queue::Incoming;
use metrifold_telemetry::ComponentMetrics;

use crate::memory::{Budget, Refused};
use crate::planes::{Node, Target};

use super::edge::Edge;
use super::{Metrics, Needs, Told};

/// Decompressed bytes from which the walk over a batch may take tens of milliseconds: the thread's
/// other tasks are moved to another thread for that time.
const LONG_WALK: usize = 4 << 20;

/// Batches that wait for room in a sink's queue.
type Blocked = Vec<(Arc<Edge>, Incoming)>;

/// A graph of transforms that ends at sinks, through which a source sends. Built and replaced as a
/// whole.
#[derive(Debug, Default)]
pub struct Stage {
    pub(crate) entry: Vec<Target>,
    pub(crate) nodes: Vec<Node<Metrics>>,
    pub(crate) edges: Vec<Arc<Edge>>,
    /// Index of the node in front of the entry that holds senders to the limits of their tenants.
    pub(crate) guard: Option<usize>,
    /// Tells when memory is too short for the queues of optional sinks to grow.
    pub(crate) memory: Budget,
    /// Closes when the stage is dropped: nobody sends through it any more.
    pub(crate) _in_use: Option<watch::Receiver<()>>,
}

/// Findings about a batch on its way through the stage.
#[derive(Debug, Default)]
pub struct Seen {
    /// Counts of the batch when it arrived; `None` if nothing on the way counted it.
    pub counts: Option<Counts>,
    /// Series that were left out as invalid.
    pub invalid: Invalid,
    /// Series that transforms left out and that the sender must be told of.
    pub told: Told,
    /// Bytes of the batch when it arrived.
    bytes: usize,
    /// Counts of the batch that were known when it arrived.
    known: Option<Counts>,
}

impl Seen {
    /// The bytes of the arrived batch that a part of it stands for, by its share of the samples. A
    /// batch within the stage has no size of its own: it is encoded in front of each sink, or not at
    /// all.
    fn share(&self, part: Option<Counts>) -> usize {
        let (Some(whole), Some(part)) = (self.counts.or(self.known), part) else {
            return self.bytes;
        };
        let (whole, part) = (whole.all_samples(), part.all_samples());
        if part >= whole {
            return self.bytes;
        }
        // The part has fewer samples than the whole.
        (self.bytes as u128 * u128::from(part) / u128::from(whole)) as usize
    }

    /// Decodes a batch unless it is decoded already.
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
    /// The work that transforms and sinks need on a batch of this version.
    fn needs(&self, version: Version) -> Needs {
        // The guard decodes or rewrites the batch itself when it reads it.
        let nodes = self.nodes.iter().enumerate();
        let mut behind = nodes.filter(|(node, _)| self.guard != Some(*node));
        if behind.any(|(_, node)| node.transform.reads_labels()) {
            return Needs::Decode;
        }
        let edges = self.edges.iter().map(|edge| edge.needs(version));
        edges.max().unwrap_or(Needs::Nothing)
    }

    /// The guard, if any tenant has limits that require reading batches.
    fn active_guard(&self) -> Option<usize> {
        let guard = self.guard?;
        self.nodes[guard].transform.reads_labels().then_some(guard)
    }

    /// Whether the batch meets exactly one transform first, a component or a sink's own, which then
    /// decodes it.
    fn has_one_entry(&self) -> bool {
        if self.active_guard().is_some() {
            return true;
        }
        match self.entry[..] {
            [Target::Node(_)] => true,
            [Target::Edge(edge)] => self.edges[edge].before.is_some(),
            _ => false,
        }
    }
}

/// The handle with which a source sends into its stage.
#[derive(Clone, Debug)]
pub struct Output {
    pub(crate) stage: Arc<ArcSwap<Stage>>,
    pub(crate) metrics: ComponentMetrics,
}

/// Reason why a batch reached no sink.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The body is malformed.
    #[error(transparent)]
    Malformed(DecodeError),
    /// A transform, or a sink that cannot encode the batch in its form, refuses it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A transform panicked on the batch, which is a fault of Metrifold's.
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

impl SendError {
    /// Counts and logs the error for a component.
    fn note(&self, metrics: &ComponentMetrics) {
        match self {
            Self::Malformed(_) | Self::Rejected(_) => metrics.error("rejected", self),
            Self::Panicked => metrics.error("panicked", "panicked on a batch"),
        }
    }
}

impl Output {
    /// Whether a required sink will answer for errors in a batch. Without one, only the source can.
    pub fn answers(&self) -> bool {
        self.stage.load().edges.iter().any(|edge| edge.required)
    }

    /// Seconds after which a retry is worthwhile, as far as the queues of required sinks can tell.
    pub fn retry_after(&self) -> Option<u64> {
        let stage = self.stage.load();
        let required = stage.edges.iter().filter(|edge| edge.required);
        required.filter_map(|edge| edge.retry_after()).max()
    }

    /// Seconds until the queues of required sinks have drained that keep requests in memory, for a
    /// request that found no room. `None` if there are no such queues.
    pub fn room_after(&self) -> Option<u64> {
        let stage = self.stage.load();
        let required = stage.edges.iter().filter(|edge| edge.required);
        required.filter_map(|edge| edge.holds_up()).max()
    }

    /// Sends a batch through the transforms and into the queues of the sinks. Waits while the queue
    /// of a required sink is full; an optional sink is never waited for. The batch gets the most
    /// thorough treatment of those that transforms, sinks and `asks` require.
    ///
    /// # Errors
    ///
    /// Fails when the batch is refused as a whole, before it reaches any sink.
    pub async fn send(&self, batch: Batch, asks: Needs) -> Result<Seen, SendError> {
        let (seen, blocked) = match batch.declared_len() >= LONG_WALK && may_block() {
            true => {
                let memory = self.stage.load().memory.clone();
                let _turn = memory.long_walk().await;
                block_in_place(|| self.walk(batch, asks))?
            }
            false => self.walk(batch, asks)?,
        };
        wait_for_room(blocked).await;
        Ok(seen)
    }

    /// The part of `send` that does not wait. Returns the findings, and the batches that wait for
    /// room.
    fn walk(&self, mut batch: Batch, asks: Needs) -> Result<(Seen, Blocked), SendError> {
        let received = match batch.body_len() {
            // Built in this process and not encoded yet.
            0 => batch.weight(),
            length => length,
        };
        let peer = batch.origin().peer;
        let expansion = peer.and_then(|peer| self.stage.load().memory.expansion(peer));
        if let Some(expansion) = &expansion {
            batch.set_room(expansion.clone());
        }
        let walked = self.walk_within(batch, received, asks);
        if let Some(expansion) = expansion {
            expansion.end();
        }
        match walked {
            Err(SendError::Malformed(DecodeError::NoRoom)) => {
                self.metrics.refused(Refused::Memory.as_str());
                Err(SendError::Rejected(DecodeError::NoRoom.into()))
            }
            walked => walked,
        }
    }

    fn walk_within(
        &self,
        mut batch: Batch,
        received: usize,
        asks: Needs,
    ) -> Result<(Seen, Blocked), SendError> {
        let mut seen = Seen {
            bytes: received,
            ..Seen::default()
        };
        let stage = self.stage.load();
        let needs = asks.max(stage.needs(batch.version()));
        match needs {
            Needs::Nothing => {}
            // The guard may have to decode the batch, which counts it.
            Needs::Count if stage.active_guard().is_some() => {}
            Needs::Count => batch.count().map_err(SendError::Malformed)?,
            Needs::Check if batch.is_checked() => {}
            Needs::Check | Needs::Decode if stage.has_one_entry() => {}
            Needs::Check | Needs::Decode => seen.decode(&mut batch)?,
        }
        seen.known = batch.counts();
        let arrived = stage.run(batch, needs, &mut seen);
        seen.counts = seen.counts.or(seen.known);
        if !matches!(arrived, Err(SendError::Malformed(_))) {
            self.metrics.received().batch(seen.counts, received);
            for (reason, samples) in seen.invalid.by_reason() {
                self.metrics.discarded_samples(reason.as_str(), samples);
            }
        }
        let mut arrived = arrived?;
        for arrival in &mut arrived {
            arrival.prepare(&stage.edges[arrival.edge])?;
        }
        // Nothing below refuses the batch.
        self.metrics.sent().batch(seen.counts, received);
        for arrival in &arrived {
            let bytes = seen.share(arrival.received);
            arrival.count(&stage.edges[arrival.edge].metrics, bytes);
        }
        // All sinks get the batch at once; only then the full ones are waited for.
        let mut blocked = Vec::new();
        let short = stage.memory.is_short();
        for arrival in arrived {
            let edge = &stage.edges[arrival.edge];
            for mut batch in arrival.batches {
                let ack = batch.take_ack();
                let ticket = ack
                    .filter(|_| edge.required)
                    .map(|ack| ack.ticket(edge.id.clone()));
                let grows = edge.required || !short;
                if let Some(waiting) = edge.push_within(batch, ticket, grows) {
                    blocked.push((edge.clone(), waiting));
                }
            }
        }
        Ok((seen, blocked))
    }
}

/// Whether this thread can hand its other tasks over: a single-threaded runtime, as in tests, cannot.
fn may_block() -> bool {
    let runtime = Handle::try_current().map(|handle| handle.runtime_flavor());
    runtime.is_ok_and(|flavor| flavor == RuntimeFlavor::MultiThread)
}

async fn wait_for_room(blocked: Blocked) {
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

#[cfg(test)]
mod tests;
