//! An edge with a queue on disk: what its senders are told must be what the endpoint gets.

mod far_end;
mod lanes;
mod restarts;
mod wakes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use serde::Deserialize;

use metrifold_codec::remote_write::Limits;
use metrifold_model::{Ack, Kind, Origin, Until, Version, Waiter};
use metrifold_queue::RunBound;
use metrifold_telemetry::Telemetry;
use tokio::time::timeout;

use super::*;

/// Configuration of a sink's edge.
#[derive(Clone, Debug, Deserialize)]
struct Declared {
    queue: QueueConfig,
    required: bool,
}

/// The edge into a sink of this configuration.
pub(super) fn edge(text: &str, folder: Option<&Path>, telemetry: &Telemetry) -> Arc<Edge> {
    let declared: Declared = toml::from_str(text).unwrap();
    let config = EdgeConfig {
        required: declared.required,
        queue: declared.queue,
        form: Form::AsReceived,
        checks_series: false,
        companions: CompanionBounds::NOTHING,
    };
    let metrics = telemetry.component("z", Kind::Sink, "test");
    let edge = Edge::new("z".into(), config, None, metrics, None, folder).unwrap();
    edge.take_over(None);
    edge
}

fn open(folder: &Path, telemetry: &Telemetry) -> Arc<Edge> {
    let text = "required = true\nqueue = { type = \"disk\", memory_bytes = \"2KiB\", store_after = \"20ms\" }";
    edge(text, Some(folder), telemetry)
}

/// A batch whose body holds its lane and number.
fn batch(lane: u8, number: u64) -> Batch {
    let mut body = vec![lane];
    body.extend(number.to_le_bytes());
    let origin = Origin {
        peer: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, lane))),
        ..Origin::internal("a".into())
    };
    let (body, limits) = (Bytes::from(body), Limits::default());
    let mut batch = Batch::from_body(Version::V1, body, limits, Arc::new(origin));
    // Two lanes without a tenant, and two with one.
    if lane >= 2 {
        batch.set_tenant("acme".into());
    }
    batch
}

fn name(delivery: &mut Delivery) -> (u8, u64) {
    let body = delivery.batch.body(Version::V1).unwrap();
    (body[0], u64::from_le_bytes(body[1..].try_into().unwrap()))
}

/// A batch that is not acknowledged yet, and the sender's waiter.
struct Asked {
    number: u64,
    waiter: Option<Waiter>,
}

struct Model {
    random: u64,
    /// Next number, by lane.
    next: BTreeMap<u8, u64>,
    asked: BTreeMap<u8, Asked>,
    acknowledged: BTreeSet<(u8, u64)>,
    delivered: BTreeMap<u8, Vec<u64>>,
}

impl Model {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// A sender that does not wait sends its next batch, or again one that failed.
    fn send(&mut self, edge: &Edge) {
        let lane = self.below(4) as u8;
        if self.asked.contains_key(&lane) {
            return;
        }
        let number = *self.next.entry(lane).or_default();
        let (ack, waiter) = Ack::new(match self.below(4) {
            0 => Until::Delivered,
            _ => Until::Stored,
        });
        let ticket = ack.ticket("z".into());
        drop(ack);
        if let Some(blocked) = edge.push(batch(lane, number), Some(ticket)) {
            // The sender is told that there is no room.
            drop(blocked);
            return;
        }
        let waiter = Some(waiter);
        self.asked.insert(lane, Asked { number, waiter });
    }

    /// Senders collect their answers.
    async fn listen(&mut self) {
        for lane in 0..4 {
            let Some(asked) = self.asked.get_mut(&lane) else {
                continue;
            };
            let Some(waiter) = &mut asked.waiter else {
                continue;
            };
            let Ok(outcome) = timeout(Duration::ZERO, waiter.verdict()).await else {
                continue;
            };
            if outcome == Outcome::Delivered {
                self.acknowledged.insert((lane, asked.number));
                self.next.insert(lane, asked.number + 1);
            }
            self.asked.remove(&lane);
        }
    }

    async fn take(&mut self, edge: &Arc<Edge>) -> Option<Run> {
        let most = RunBound {
            weight: [0, 1000][self.below(2) as usize],
            turns: [1, 3][self.below(2) as usize],
        };
        timeout(
            Duration::from_millis(1),
            Input(edge.clone()).recv_run(|| most),
        )
        .await
        .ok()
        .flatten()
    }

    /// Delivers the first batch of some run in flight.
    fn deliver_one(&mut self, under_way: &mut Vec<Run>) {
        let place = self.below(under_way.len() as u64) as usize;
        match under_way[place].take_first() {
            Some(delivery) => self.deliver(delivery),
            None => drop(under_way.swap_remove(place)),
        }
    }

    /// Fails the attempt to deliver a run.
    fn fail(&mut self, mut run: Run) {
        let until = Instant::now() + Duration::from_millis(self.below(20));
        let trouble = Trouble {
            everybody: self.below(3) == 0,
            tenant: (self.below(2) == 0).then_some(until),
        };
        if let Some(first) = run.leave_first() {
            first.retry(trouble);
        }
    }

    fn deliver(&mut self, mut delivery: Delivery) {
        let (lane, number) = name(&mut delivery);
        self.delivered.entry(lane).or_default().push(number);
        delivery.delivered();
    }
}

/// A batch that has left the queue and is not yet noted as in flight is still the edge's: a shutdown
/// at that moment tells its loss.
#[tokio::test]
async fn a_batch_on_its_way_out_of_the_queue_is_left() {
    let text = "required = false\nqueue = { type = \"memory\" }";
    let edge = edge(text, None, &Telemetry::new());
    for number in 0..3 {
        assert!(edge.push(batch(0, number), None).is_none());
    }
    let all = RunBound {
        weight: usize::MAX,
        turns: 1,
    };
    let taken = edge.pipe.queue.pop_run(edge.turn(), || all).await;
    assert_eq!(taken.map(|taken| taken.len()), Some(3));
    assert_eq!(edge.left().batches, 3);
}

/// Ends an edge as at a shutdown; without time, as at a crash.
async fn end(edge: &Edge, in_time: bool) {
    edge.close(Ending::Shutdown);
    if in_time {
        edge.secure(Instant::now() + Duration::from_secs(10)).await;
    }
    edge.abandon();
    edge.shut().await;
}

async fn walk(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let mut model = Model {
        random: seed,
        next: BTreeMap::new(),
        asked: BTreeMap::new(),
        acknowledged: BTreeSet::new(),
        delivered: BTreeMap::new(),
    };
    let mut edge = open(folder.path(), &telemetry);
    let mut under_way: Vec<Run> = Vec::new();
    for _ in 0..300 {
        match model.below(20) {
            0..8 => model.send(&edge),
            8..12 if under_way.len() < 4 => under_way.extend(model.take(&edge).await),
            12..15 if !under_way.is_empty() => model.deliver_one(&mut under_way),
            15 => {
                if let Some(run) = under_way.pop() {
                    model.fail(run);
                }
            }
            // The sink dies with a run in flight.
            16 => {
                if let Some(mut run) = under_way.pop() {
                    drop(run.leave_first());
                }
            }
            17 => tokio::time::sleep(Duration::from_millis(25)).await,
            18 if model.below(4) == 0 => {
                let in_time = model.below(2) == 0;
                end(&edge, in_time).await;
                under_way.clear();
                model.listen().await;
                model.asked.clear();
                edge = open(folder.path(), &telemetry);
            }
            _ => model.listen().await,
        }
    }
    under_way.clear();
    let quiet = Duration::from_millis(200);
    while let Ok(Some(delivery)) = timeout(quiet, Input(edge.clone()).recv()).await {
        model.deliver(delivery);
        model.listen().await;
    }
    let ledger = edge.pipe.ledger();
    assert!(ledger.balances(), "seed {seed}: {ledger:?}");
    assert_eq!(ledger.total.queued.batches, 0, "seed {seed}: {ledger:?}");
    end(&edge, true).await;
    for (lane, number) in &model.acknowledged {
        let delivered = model
            .delivered
            .get(lane)
            .is_some_and(|it| it.contains(number));
        assert!(delivered, "seed {seed}: {lane} {number} was acknowledged");
    }
    for (lane, delivered) in &model.delivered {
        let mut seen = BTreeSet::new();
        let first: Vec<_> = delivered.iter().filter(|it| seen.insert(**it)).collect();
        assert!(first.is_sorted(), "seed {seed}: lane {lane}: {delivered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_what_was_acknowledged_arrives_in_order() {
    let walks = (1..=32).map(|seed| tokio::spawn(walk(seed * 0x9e37_79b9)));
    for walk in walks.collect::<Vec<_>>() {
        walk.await.unwrap();
    }
}
