//! The lanes of a pool: what scrapes have found leaves in batches, many scrapes in one, so that
//! sinks send few large requests in place of many small ones.
//!
//! Each target belongs to one lane, and its scraper waits until what it sent has left, so the
//! samples of a series leave in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use metrifold_base::locked;
use metrifold_codec::remote_write::encode_v1;
use metrifold_codec::{Arena, Batch, snappy};
use metrifold_engine::planes::metrics::{Needs, Output};
use metrifold_model::{Counts, Origin};
use metrifold_telemetry::ComponentMetrics;

/// Number of lanes: as many requests of a pool may be under way at a sink at the same time.
const LANES: usize = 4;
/// Bytes from which on a batch no longer waits, however few series it has.
const MOST_BYTES: usize = 4 << 20;

/// The lanes of a pool.
pub(crate) struct Lanes {
    out: Output,
    metrics: ComponentMetrics,
    /// Number of series from which on a batch no longer waits.
    most_series: u64,
    lanes: Vec<Lane>,
    /// Number of the next group.
    next: AtomicU64,
    /// True when the pool stops: nothing waits any more.
    hurried: watch::Sender<bool>,
}

/// Series that a scrape has found.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Series in encoded form: compressed bodies of 1.0, with what they count.
    pub(crate) bodies: Vec<Bytes>,
    pub(crate) counts: Counts,
    /// Further series, which do not exceed 1.0 if there are bodies.
    pub(crate) arena: Arena,
}

struct Lane {
    origin: Arc<Origin>,
    groups: Mutex<HashMap<Kind, Group>>,
}

/// Property that the pieces of a group share.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    /// Whether they have bodies: those without keep what 1.0 cannot express.
    encoded: bool,
    /// Interval of their targets: none waits for room longer than it would alone.
    interval: Duration,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All sinks have it.
    Whole,
    /// The sinks with room have it; others were waited for in vain.
    Partly,
    /// No sink has it.
    Not,
}

/// Pieces that leave in one batch.
struct Group {
    /// Tells its leader that it is still the same.
    number: u64,
    piece: Piece,
    /// Time until which the batch waits for room in the queues of required sinks.
    deadline: Instant,
    /// Told the outcome: the scrapers of all pieces but the one that sends the batch. The first is
    /// that of the leader, which began the group and sends it unless another makes it full.
    waiting: Vec<oneshot::Sender<Sent>>,
}

/// Part of a scraper in the group that has its piece.
enum Part {
    /// The scraper waits for the pieces of others first. Comes with the group's number.
    Leads(u64, oneshot::Receiver<Sent>),
    /// The scraper waits for the outcome.
    Follows(oneshot::Receiver<Sent>),
    /// The scraper has made the group full, and sends it.
    Sends(Box<Group>),
}

impl Lanes {
    pub(crate) fn new(
        id: &Arc<str>,
        most_series: usize,
        out: Output,
        metrics: ComponentMetrics,
    ) -> Self {
        let lane = |at| Lane {
            // The same after a restart, as the lane of a target is.
            origin: Arc::new(Origin {
                order: Some(format!("{id}/{at}").into()),
                ..Origin::internal(id.clone())
            }),
            groups: Mutex::default(),
        };
        Self {
            out,
            metrics,
            most_series: most_series as u64,
            lanes: (0..LANES).map(lane).collect(),
            next: AtomicU64::new(0),
            hurried: watch::Sender::new(false),
        }
    }

    /// Sends what a scrape has found, in the lane of its target, after a wait for what others find.
    /// If the queues of required sinks have no room until the deadline, or the latest deadline of
    /// those that leave together, it is dropped there and counted.
    pub(crate) async fn send(
        &self,
        target: u64,
        interval: Duration,
        piece: Piece,
        wait: Duration,
        deadline: Instant,
    ) -> Sent {
        // Not the bits by which targets are divided among processes.
        let lane = &self.lanes[((target >> 32) % LANES as u64) as usize];
        if wait.is_zero() || self.is_full(&piece) {
            return self.deliver(piece.batch(&lane.origin), deadline).await;
        }
        let kind = Kind {
            encoded: !piece.bodies.is_empty(),
            interval,
        };
        let group = match self.add(lane, kind, piece, deadline) {
            Part::Sends(group) => *group,
            // Whoever panicked over the group has sent nothing.
            Part::Follows(outcome) => return outcome.await.unwrap_or(Sent::Not),
            Part::Leads(number, mut outcome) => {
                let mut hurried = self.hurried.subscribe();
                tokio::select! {
                    sent = &mut outcome => return sent.unwrap_or(Sent::Not),
                    () = sleep(wait) => {}
                    _ = hurried.wait_for(|hurried| *hurried) => {}
                }
                match lane.take_led(kind, number) {
                    Some(group) => group,
                    None => return outcome.await.unwrap_or(Sent::Not),
                }
            }
        };
        let sent = self.deliver(group.piece.batch(&lane.origin), group.deadline);
        let sent = sent.await;
        for waiting in group.waiting {
            // The leader itself, and scrapers that were stopped, do not listen.
            let _ = waiting.send(sent);
        }
        sent
    }

    /// Lets everything that waits leave at once, and what comes after.
    pub(crate) fn hurry(&self) {
        self.hurried.send_replace(true);
    }

    fn add(&self, lane: &Lane, kind: Kind, piece: Piece, deadline: Instant) -> Part {
        let mut groups = locked(&lane.groups);
        let (told, outcome) = oneshot::channel();
        match groups.remove(&kind) {
            None => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let group = Group {
                    number,
                    piece,
                    deadline,
                    waiting: vec![told],
                };
                groups.insert(kind, group);
                Part::Leads(number, outcome)
            }
            Some(mut group) => {
                group.add(piece, deadline);
                if self.is_full(&group.piece) {
                    return Part::Sends(Box::new(group));
                }
                group.waiting.push(told);
                groups.insert(kind, group);
                Part::Follows(outcome)
            }
        }
    }

    fn is_full(&self, piece: &Piece) -> bool {
        piece.series() >= self.most_series || piece.bytes() >= MOST_BYTES
    }

    async fn deliver(&self, batch: Batch, deadline: Instant) -> Sent {
        let samples = batch.counts().unwrap_or_default().all_samples();
        match timeout_at(deadline, self.out.send(batch, Needs::Check)).await {
            Ok(Ok(_)) => Sent::Whole,
            Ok(Err(error)) => {
                self.metrics.error("rejected", &error);
                self.metrics.discarded("rejected", Some(samples));
                Sent::Not
            }
            Err(_) => {
                self.metrics.discarded("queue_full", Some(samples));
                Sent::Partly
            }
        }
    }
}

impl Lane {
    /// Takes the group with this number, unless another has made it full and taken it: then the
    /// next one of its kind is another's to lead.
    fn take_led(&self, kind: Kind, number: u64) -> Option<Group> {
        let mut groups = locked(&self.groups);
        match groups.get(&kind)?.number == number {
            true => groups.remove(&kind),
            false => None,
        }
    }
}

impl Group {
    fn add(&mut self, piece: Piece, deadline: Instant) {
        self.piece.bodies.extend(piece.bodies);
        self.piece.counts += piece.counts;
        self.piece.arena.append(&piece.arena);
        self.deadline = self.deadline.max(deadline);
    }
}

impl Piece {
    /// A piece that has not been encoded.
    pub(crate) fn decoded(arena: Arena) -> Self {
        Self {
            bodies: Vec::new(),
            counts: Counts::default(),
            arena,
        }
    }

    pub(crate) fn series(&self) -> u64 {
        self.counts.series + self.arena.counts().series
    }

    fn bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum::<usize>() + self.arena.weight()
    }

    pub(crate) fn batch(self, origin: &Arc<Origin>) -> Batch {
        let Self {
            mut bodies,
            mut counts,
            arena,
        } = self;
        if bodies.is_empty() {
            return Batch::from_arena(arena, origin.clone());
        }
        counts += arena.counts();
        bodies.push(encode_v1(&arena, None));
        // Fails only beyond 4 GiB, which is more than a group can have.
        let body = snappy::join(&bodies).unwrap_or_default().concat();
        Batch::from_made(body.into(), counts, origin.clone())
    }
}
