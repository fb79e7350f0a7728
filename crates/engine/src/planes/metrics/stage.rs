//! All that lies between a source and the sinks: transforms, fused, and the fan-out.

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

use crate::memory::Budget;
use crate::planes::{Node, Target};

use super::edge::Edge;
use super::{Metrics, Needs, Told};

/// From so many decompressed bytes on, the walk over a batch may take tens of milliseconds: the
/// other tasks of its thread are handed to another thread for that time.
const LONG_WALK: usize = 4 << 20;

/// What has to wait for room in a sink's queue.
type Blocked = Vec<(Arc<Edge>, Incoming)>;

/// What a source sends through: a graph of transforms that ends at sinks. It is built whole and
/// replaced whole.
#[derive(Debug, Default)]
pub struct Stage {
    pub(crate) entry: Vec<Target>,
    pub(crate) nodes: Vec<Node<Metrics>>,
    pub(crate) edges: Vec<Arc<Edge>>,
    /// The node in front of the entry that holds senders to the limits of their tenants.
    pub(crate) guard: Option<usize>,
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
    /// What its sender is to be told of what transforms left out.
    pub told: Told,
    /// The bytes that came.
    bytes: usize,
    /// What was known of it when it came.
    known: Option<Counts>,
}

impl Seen {
    /// The bytes of what came that a part of it stands for, by its samples. A batch on its way has no
    /// size of its own: it is encoded in front of each sink, or not at all.
    fn share(&self, part: Option<Counts>) -> usize {
        let (Some(whole), Some(part)) = (self.counts.or(self.known), part) else {
            return self.bytes;
        };
        let (whole, part) = (whole.all_samples(), part.all_samples());
        if part >= whole {
            return self.bytes;
        }
        // Less than all of them.
        (self.bytes as u128 * u128::from(part) / u128::from(whole)) as usize
    }

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
    /// What transforms and sinks need of a batch of this version.
    fn needs(&self, version: Version) -> Needs {
        // What the guard looks into is decoded, or rewritten, when it does.
        let nodes = self.nodes.iter().enumerate();
        let mut behind = nodes.filter(|(node, _)| self.guard != Some(*node));
        if behind.any(|(_, node)| node.transform.reads_labels()) {
            return Needs::Decode;
        }
        let edges = self.edges.iter().map(|edge| edge.needs(version));
        edges.max().unwrap_or(Needs::Nothing)
    }

    /// The node that holds senders to their limits, if there are any that look into a batch.
    fn active_guard(&self) -> Option<usize> {
        let guard = self.guard?;
        self.nodes[guard].transform.reads_labels().then_some(guard)
    }

    /// Whether a batch meets one transform first, a component or a sink's own, which is then the
    /// first to decode it.
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

impl SendError {
    /// Counts and reports it as an error of a component.
    fn note(&self, metrics: &ComponentMetrics) {
        match self {
            Self::Malformed(_) | Self::Rejected(_) => metrics.error("rejected", self),
            Self::Panicked => metrics.error("panicked", "panicked on a batch"),
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
    /// looked into as closely as somebody on the way has to, or as `asks` says if that is closer.
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

    /// All of that which needs no waiting. Returns what was seen, and what has to wait for room.
    fn walk(&self, mut batch: Batch, asks: Needs) -> Result<(Seen, Blocked), SendError> {
        let received = match batch.body_len() {
            // It was made here, and has not been encoded.
            0 => batch.weight(),
            length => length,
        };
        let mut seen = Seen {
            bytes: received,
            ..Seen::default()
        };
        let stage = self.stage.load();
        let needs = asks.max(stage.needs(batch.version()));
        match needs {
            Needs::Nothing => {}
            // It may have to be decoded, which counts it.
            Needs::Count if stage.active_guard().is_some() => {}
            Needs::Count => batch.count().map_err(SendError::Malformed)?,
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
        // From here on nobody refuses the batch.
        self.metrics.sent().batch(seen.counts, received);
        for arrival in &arrived {
            let bytes = seen.share(arrival.received);
            arrival.count(&stage.edges[arrival.edge].metrics, bytes);
        }
        // All sinks get the batch at once; then those that are full are waited for.
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

/// Whether this thread may be taken out of its runtime's rotation: tests run on a single one.
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
