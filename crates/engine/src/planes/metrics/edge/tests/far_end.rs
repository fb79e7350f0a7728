//! The ledger, compared with an endpoint that counts for itself, under every fault at once.

use metrifold_model::Counts;
use metrifold_model::ledger::Reason;

use super::*;

/// The most samples of a request that the endpoint accepts; larger ones are refused as too large.
const AT_ONCE: u64 = 6;

/// The samples of a batch, or of a part of one.
#[derive(Clone, Copy, Debug)]
struct Part {
    sender: u8,
    number: u64,
    from: u64,
    to: u64,
}

impl Part {
    fn batch(self, bytes: usize) -> Batch {
        let mut body = vec![self.sender];
        for value in [self.number, self.from, self.to] {
            body.extend(value.to_le_bytes());
        }
        body.resize(bytes.max(25), 0);
        let origin = Origin {
            peer: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.sender))),
            ..Origin::internal("a".into())
        };
        let tenant = ["", "", "acme", "other"][usize::from(self.sender)];
        let counts = Counts {
            series: self.to - self.from,
            samples: self.to - self.from,
            ..Counts::default()
        };
        let counts = (Some(counts), true);
        let (tenant, origin) = (tenant.into(), Arc::new(origin));
        Batch::from_record(Version::V1, body.into(), counts, &tenant, origin)
    }

    fn of(batch: &Batch) -> Self {
        let body = batch.clone().body(Version::V1).unwrap();
        let value = |at| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
        Self {
            sender: body[0],
            number: value(1),
            from: value(9),
            to: value(17),
        }
    }

    fn samples(self) -> impl Iterator<Item = (u8, u64, u64)> {
        (self.from..self.to).map(move |sample| (self.sender, self.number, sample))
    }

    /// Whether the endpoint refuses some of the samples for good.
    fn is_poisoned(self) -> bool {
        self.samples()
            .any(|(_, number, at)| (number * 31 + at).is_multiple_of(23))
    }
}

struct FarEnd {
    random: u64,
    accepted: BTreeSet<(u8, u64, u64)>,
    /// Samples that it refused for their content, or accepted without storing them.
    refused: BTreeSet<(u8, u64, u64)>,
    partial: u64,
}

impl FarEnd {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Delivers a batch, in parts if necessary, or returns it to the queue.
    fn deliver(&mut self, mut delivery: Delivery, well: bool) {
        loop {
            let part = Part::of(&delivery.batch);
            let counts = delivery.batch.counts();
            let size = part.to - part.from;
            let bytes = delivery.batch.body_len() / 2;
            if !well && self.below(3) == 0 {
                let until = Instant::now() + Duration::from_millis(self.below(20));
                match self.below(4) {
                    0 => delivery.put_back(),
                    _ => delivery.retry(Trouble {
                        everybody: self.below(3) == 0,
                        tenant: (self.below(2) == 0).then_some(until),
                    }),
                }
                return;
            }
            if size > AT_ONCE || (part.is_poisoned() && size > 1) {
                let middle = part.from + size / 2;
                let first = Part { to: middle, ..part };
                let second = Part {
                    from: middle,
                    ..part
                };
                delivery.split(first.batch(bytes), second.batch(bytes));
                continue;
            }
            let outcome = if part.is_poisoned() {
                delivery.count_lost(Reason::Refused, counts);
                self.refused.extend(part.samples());
                Outcome::rejected("no")
            } else if !well && self.below(10) == 0 && size > 1 {
                delivery.count_sent(counts, bytes);
                delivery.count_lost_samples(Reason::Partial, 1);
                self.accepted.extend(part.samples().skip(1));
                self.partial += 1;
                Outcome::rejected("one is missing")
            } else {
                delivery.count_sent(counts, bytes);
                self.accepted.extend(part.samples());
                Outcome::Delivered
            };
            if !delivery.finish_part(outcome) {
                delivery.finish(Outcome::Delivered);
                return;
            }
        }
    }
}

async fn run(seed: u64, queue: &str, required: bool) {
    let folder = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::new();
    let text = format!("required = {required}\nqueue = {queue}");
    let edge = edge(&text, Some(folder.path()), &telemetry);
    let mut far_end = FarEnd {
        random: seed,
        accepted: BTreeSet::new(),
        refused: BTreeSet::new(),
        partial: 0,
    };
    let (mut pushed, mut waiters) = (0, Vec::new());
    for number in 0..400 {
        if far_end.below(3) > 0 {
            let part = Part {
                sender: far_end.below(4) as u8,
                number,
                from: 0,
                to: 1 + far_end.below(20),
            };
            let (ack, waiter) = Ack::new(Until::Stored);
            let ticket = (required && far_end.below(2) == 0).then(|| ack.ticket("z".into()));
            drop(ack);
            if far_end.below(10) > 0 {
                waiters.push(waiter);
            }
            let bytes = 25 + far_end.below(8000) as usize;
            if edge.push(part.batch(bytes), ticket).is_none() {
                pushed += part.to;
            }
        }
        if far_end.below(2) == 0 {
            let most = RunBound {
                weight: [0, 20_000][far_end.below(2) as usize],
                turns: [1, 3][far_end.below(2) as usize],
            };
            let soon = Duration::from_millis(1);
            let run = timeout(soon, Input(edge.clone()).recv_run(|| most)).await;
            if let Ok(Some(mut run)) = run {
                while let Some(delivery) = run.take_first() {
                    far_end.deliver(delivery, false);
                    if far_end.below(3) == 0 {
                        break;
                    }
                }
            }
        }
        let ledger = edge.pipe.ledger();
        let balances = ledger.balances() || !ledger.steady;
        assert!(balances, "seed {seed}, {queue}: {ledger:?}");
        if far_end.below(40) == 0 {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    // Runs until nothing is left, however slow the disk is; batches that never arrive fail the
    // checks below.
    let (mut quiet, input) = (0, Input(edge.clone()));
    while quiet < 100 && (quiet == 0 || edge.pipe.ledger().total.queued.batches > 0) {
        match timeout(Duration::from_millis(100), input.recv()).await {
            Ok(Some(delivery)) => {
                far_end.deliver(delivery, true);
                quiet = 0;
            }
            _ => quiet += 1,
        }
    }
    let what = format!("seed {seed}, {queue}");
    let ledger = edge.pipe.ledger();
    assert!(ledger.balances(), "{what}: {ledger:?}");
    let account = &ledger.total.account;
    let dropped = |reason| {
        account
            .dropped
            .get(&reason)
            .map_or(0, |tally| tally.samples)
    };
    assert_eq!(ledger.total.queued.samples, 0, "{what}: {ledger:?}");
    assert_eq!(account.received.samples, pushed, "{what}: {ledger:?}");
    let accepted = far_end.accepted.len() as u64;
    assert_eq!(account.delivered.samples, accepted, "{what}: {ledger:?}");
    assert_eq!(dropped(Reason::DiskFailed), 0, "{what}: {ledger:?}");
    let lost = dropped(Reason::Refused) + dropped(Reason::Partial);
    let expected = far_end.refused.len() as u64 + far_end.partial;
    assert_eq!(lost, expected, "{what}: {ledger:?}");
    end(&edge, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_says_what_the_far_end_has_whatever_the_queue() {
    let queues = [
        ("{ type = \"memory\", max_bytes = \"64KiB\" }", true),
        (
            "{ type = \"memory\", max_bytes = \"64KiB\", when_full = \"drop_oldest\" }",
            false,
        ),
        (
            "{ type = \"memory\", max_bytes = \"64KiB\", when_full = \"drop_newest\" }",
            false,
        ),
        (
            "{ type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\", store_after = \"5ms\" }",
            true,
        ),
        (
            "{ type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\", store_after = \"5ms\" }",
            false,
        ),
        (
            "{ type = \"disk\", max_bytes = \"256KiB\", memory_bytes = \"64KiB\", store_after = \"5ms\", when_full = \"drop_newest\" }",
            false,
        ),
        ("{ type = \"disk\", memory_bytes = \"8KiB\" }", true),
    ];
    for (queue, required) in queues {
        let seeds = (1..=6).map(|seed| tokio::spawn(run(seed * 0x9e37_79b9, queue, required)));
        for seed in seeds.collect::<Vec<_>>() {
            seed.await.unwrap();
        }
    }
}
