//! The ledger of an edge, compared with a model that knows every batch, and with planted faults.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use metrifold_codec::Batch;
use metrifold_model::ledger::{Difference, Reason, Tally};
use metrifold_model::{Counts, Origin, Outcome, Version};
use metrifold_queue::{Lane, Pushed, Queued, RunBound};
use metrifold_telemetry::Telemetry;

use super::super::tests::edge;
use super::super::{Delivery, Edge, Input};
use super::*;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn counts(samples: u64) -> Counts {
    Counts {
        series: 1,
        samples,
        ..Counts::default()
    }
}

/// A batch whose body holds its number. Each batch has a lane of its own.
fn batch(number: u32, tenant: &str, counts: Option<Counts>) -> Batch {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(1000, 0);
    let origin = Origin {
        peer: Some(IpAddr::V4(Ipv4Addr::from_bits(number))),
        ..Origin::internal("a".into())
    };
    Batch::from_record(
        Version::V1,
        body.into(),
        (counts, counts.is_some()),
        &tenant.into(),
        Arc::new(origin),
    )
}

fn number(batch: &Batch) -> u32 {
    let body: Bytes = batch.clone().body(Version::V1).unwrap();
    u32::from_le_bytes(body[..4].try_into().unwrap())
}

#[derive(Clone, Debug)]
enum Op {
    Push(&'static str, Option<u64>),
    Take,
    Deliver(usize),
    Refuse(usize),
    /// This number of the batch's samples is not stored.
    Partly(usize, u64),
    /// The batch is halved, and the first half is delivered or refused.
    Halve(usize, bool),
    Drop(usize),
    TakeOver,
}

fn op() -> impl Strategy<Value = Op> {
    let tenant = prop::sample::select(vec!["", "a", "b", "c"]);
    prop_oneof![
        6 => (tenant, prop::option::of(0..100u64)).prop_map(|(t, n)| Op::Push(t, n)),
        4 => Just(Op::Take),
        2 => (0..4usize).prop_map(Op::Deliver),
        1 => (0..4usize).prop_map(Op::Refuse),
        1 => (0..4usize, 0..100u64).prop_map(|(at, n)| Op::Partly(at, n)),
        1 => (0..4usize, any::<bool>()).prop_map(|(at, sent)| Op::Halve(at, sent)),
        1 => (0..4usize).prop_map(Op::Drop),
        1 => Just(Op::TakeOver),
    ]
}

/// A batch, or a part of one that came back to the queue.
struct Known {
    tenant: &'static str,
    tally: Tally,
    /// Whether it is queued or in flight.
    open: bool,
}

struct Taken {
    number: u32,
    delivery: Delivery,
    old: bool,
    /// Outcome of the first half, if the batch was halved: its samples, and whether it was sent.
    half: Option<(u64, bool)>,
}

#[derive(Default)]
struct Model {
    known: Vec<Known>,
    taken: Vec<Taken>,
    delivered: Vec<(&'static str, Tally)>,
    dropped: Vec<(&'static str, Reason, Tally)>,
    received: Vec<(&'static str, Tally)>,
}

fn samples(samples: u64) -> Tally {
    Tally {
        samples,
        ..Tally::default()
    }
}

impl Model {
    fn add(&mut self, tenant: &'static str, tally: Tally) -> u32 {
        let open = true;
        self.known.push(Known {
            tenant,
            tally,
            open,
        });
        self.known.len() as u32 - 1
    }

    /// Settles the rest of a batch: `lost` samples are dropped for the reason, and the others
    /// delivered or, unless `sent`, dropped too.
    fn settle(&mut self, number: u32, sent: bool, lost: u64, reason: Option<Reason>) {
        let known = &mut self.known[number as usize];
        known.open = false;
        let (tenant, tally) = (known.tenant, known.tally);
        match reason {
            None => self.delivered.push((tenant, tally)),
            Some(reason) if !sent => self.dropped.push((tenant, reason, tally)),
            Some(reason) => {
                let lost = samples(lost.min(tally.samples));
                let mut delivered = tally;
                delivered -= lost;
                self.delivered.push((tenant, delivered));
                self.dropped.push((tenant, reason, lost));
            }
        }
    }

    fn apply(&mut self, edge: &Arc<Edge>, runtime: &Runtime, op: &Op) {
        let at = |at: usize| (at < self.taken.len()).then_some(at);
        match *op {
            Op::Push(tenant, number_of) => {
                let counts = number_of.map(counts);
                let tally = Tally::of(counts, 1000);
                let number = self.add(tenant, tally);
                match edge.push(batch(number, tenant, counts), None) {
                    None => self.received.push((tenant, tally)),
                    Some(_) => self.known[number as usize].open = false,
                }
                self.miss(edge);
            }
            Op::Take => {
                let input = Input(edge.clone());
                let take = async {
                    let wait = std::time::Duration::ZERO;
                    tokio::time::timeout(wait, input.recv())
                        .await
                        .ok()
                        .flatten()
                };
                if let Some(delivery) = runtime.block_on(take) {
                    self.taken.push(Taken {
                        number: number(&delivery.batch),
                        delivery,
                        old: false,
                        half: None,
                    });
                }
            }
            Op::Deliver(place) if at(place).is_some() => {
                let taken = self.taken.swap_remove(place);
                let (lost, reason) = match taken.half {
                    Some((lost, false)) => (lost, Some(Reason::Refused)),
                    _ => (0, None),
                };
                self.settle(taken.number, true, lost, reason);
                taken.delivery.delivered();
            }
            Op::Refuse(place) if at(place).is_some() => {
                let mut taken = self.taken.swap_remove(place);
                let tally = self.known[taken.number as usize].tally;
                let sent = matches!(taken.half, Some((_, true)));
                let before = taken.half.map_or(0, |(samples, _)| samples);
                let lost = tally.samples - before;
                self.settle(taken.number, sent, lost, Some(Reason::Refused));
                let counts = taken.delivery.batch.counts();
                taken.delivery.count_lost(Reason::Refused, counts);
                taken.delivery.finish(Outcome::rejected("no"));
            }
            Op::Partly(place, lost) if at(place).is_some() => {
                let mut taken = self.taken.swap_remove(place);
                let before = match taken.half {
                    Some((lost, false)) => (lost, Some(Reason::Refused)),
                    _ => (0, None),
                };
                let reason = before.1.or((lost > 0).then_some(Reason::Partial));
                self.settle(taken.number, true, before.0 + lost, reason);
                taken.delivery.count_lost_samples(Reason::Partial, lost);
                taken.delivery.delivered();
            }
            Op::Halve(place, sent) if at(place).is_some() => {
                let taken = &mut self.taken[place];
                let known = &self.known[taken.number as usize];
                let (None, Some(whole)) = (taken.half, taken.delivery.batch.counts()) else {
                    return;
                };
                let first = whole.samples / 2;
                let part = |samples| batch(taken.number, known.tenant, Some(counts(samples)));
                let delivery = &mut taken.delivery;
                delivery.split(part(first), part(whole.samples - first));
                let outcome = if sent {
                    delivery.count_sent(Some(counts(first)), 0);
                    Outcome::Delivered
                } else {
                    delivery.count_lost(Reason::Refused, Some(counts(first)));
                    Outcome::rejected("no")
                };
                assert!(delivery.finish_part(outcome));
                taken.half = Some((first, sent));
            }
            Op::Drop(place) if at(place).is_some() => {
                let taken = self.taken.swap_remove(place);
                let known = &mut self.known[taken.number as usize];
                if let Some((first, sent)) = taken.half {
                    known.tally.samples -= first;
                    match sent {
                        true => self.delivered.push((known.tenant, samples(first))),
                        false => self
                            .dropped
                            .push((known.tenant, Reason::Refused, samples(first))),
                    }
                }
                if !taken.old {
                    self.settle(taken.number, false, 0, Some(Reason::SinkDied));
                }
                drop(taken.delivery);
            }
            Op::TakeOver => {
                edge.take_over(None);
                for taken in &mut self.taken {
                    taken.old = true;
                }
            }
            _ => {}
        }
    }

    /// A batch that is neither queued nor in flight was dropped to make room.
    fn miss(&mut self, edge: &Edge) {
        let mut there: BTreeSet<u32> = self.taken.iter().map(|taken| taken.number).collect();
        edge.pipe.queue.for_each(|waiting, _| {
            there.insert(number(&waiting.batch));
        });
        for number in 0..self.known.len() as u32 {
            if self.known[number as usize].open && !there.contains(&number) {
                self.settle(number, false, 0, Some(Reason::QueueFull));
            }
        }
    }

    /// The expected lines, each summed up from the beginning.
    fn lines(&self) -> BTreeMap<Arc<str>, Line> {
        let mut lines: BTreeMap<Arc<str>, Line> = BTreeMap::new();
        for (tenant, tally) in &self.received {
            lines.entry((*tenant).into()).or_default().account.received += *tally;
        }
        for (tenant, tally) in &self.delivered {
            lines.entry((*tenant).into()).or_default().account.delivered += *tally;
        }
        for (tenant, reason, tally) in &self.dropped {
            let line = lines.entry((*tenant).into()).or_default();
            if !tally.is_zero() {
                *line.account.dropped.entry(*reason).or_default() += *tally;
            }
        }
        for known in self.known.iter().filter(|known| known.open) {
            lines.entry(known.tenant.into()).or_default().queued += known.tally;
        }
        lines
    }
}

fn memory(when_full: &str, telemetry: &Telemetry) -> Arc<Edge> {
    let required = when_full == "block";
    let queue = format!("{{ max_bytes = \"6KiB\", when_full = \"{when_full}\" }}");
    edge(
        &format!("required = {required}\nqueue = {queue}"),
        None,
        telemetry,
    )
}

proptest! {
    #[test]
    fn after_every_step_the_ledger_is_what_a_model_of_all_batches_says(
        when_full in prop::sample::select(vec!["block", "drop_oldest", "drop_newest"]),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let (runtime, telemetry) = (runtime(), Telemetry::new());
        let _inside = runtime.enter();
        let edge = memory(when_full, &telemetry);
        let mut model = Model::default();
        for op in &ops {
            model.apply(&edge, &runtime, op);
            let ledger = edge.pipe.ledger();
            prop_assert_eq!(&ledger.tenants, &model.lines(), "after {:?}", op);
            prop_assert!(ledger.balances(), "after {:?}: {:?}", op, ledger);
        }
    }
}

#[test]
fn a_batch_that_got_into_the_queue_past_the_accounts_is_there_too_much() {
    let telemetry = Telemetry::new();
    let edge = memory("block", &telemetry);
    assert!(edge.push(batch(1, "a", Some(counts(5))), None).is_none());
    assert!(edge.pipe.ledger().balances());
    let smuggled = batch(2, "b", Some(counts(7)));
    let waiting = Queued {
        tally: metrifold_queue::tally(&smuggled),
        batch: smuggled,
        ticket: None,
        since: tokio::time::Instant::now(),
        attempts: 0,
        tracked: None,
    };
    let lane = Lane {
        tenant: Some("b".into()),
        id: 1,
        holds: false,
    };
    let pushed = edge.pipe.queue.push_within(waiting, 100, lane, true);
    assert!(matches!(pushed, Pushed::Stored(_)));
    let ledger = edge.pipe.ledger();
    assert!(!ledger.balances());
    assert!(ledger.tenants["a"].balances());
    let expected = Difference {
        batches: -1,
        samples: -7,
        uncounted: 0,
        bytes: -1000,
    };
    assert_eq!(ledger.tenants["b"].difference(), expected);
    assert_eq!(ledger.total.difference(), expected);
    assert!(edge.pipe.ledger().lacks_the_same(&ledger));
}

#[test]
fn a_batch_that_is_lost_without_a_word_is_missing() {
    let (runtime, telemetry) = (runtime(), Telemetry::new());
    let edge = memory("block", &telemetry);
    for number in [1, 2] {
        assert!(edge.push(batch(number, "a", None), None).is_none());
    }
    let taken = runtime.block_on(edge.pipe.queue.pop_run(edge.turn(), || RunBound::ONE));
    drop(taken);
    let ledger = edge.pipe.ledger();
    let expected = Difference {
        batches: 1,
        samples: 0,
        uncounted: 1,
        bytes: 1000,
    };
    assert_eq!(ledger.total.difference(), expected);
    // A change in between means that the batch may have been moving.
    assert!(edge.push(batch(3, "a", None), None).is_none());
    assert!(!edge.pipe.ledger().lacks_the_same(&ledger));
}

#[test]
fn tenants_beyond_those_that_are_known_by_name_share_a_line() {
    let telemetry = Telemetry::new();
    let queue = "required = true\nqueue = { max_bytes = \"64MiB\" }";
    let edge = edge(queue, None, &telemetry);
    for number in 0..1100 {
        let tenant = format!("t{number}");
        assert!(
            edge.push(batch(number, &tenant, Some(counts(1))), None)
                .is_none()
        );
    }
    let ledger = edge.pipe.ledger();
    assert!(ledger.balances());
    assert_eq!(ledger.tenants.len(), 1000);
    assert_eq!(ledger.rest.queued.samples, 100);
    assert_eq!(ledger.total.account.received.samples, 1100);
}
