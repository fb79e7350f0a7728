//! The queue on file systems that fail, forget and lie.

mod bounds;
mod crash;
mod damage;
mod faults;
mod simulated;
mod system;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::commit::{Engine, Job};
use super::fs::Fs;
use super::queue::{admit, open, read_ledger, snapshot};
use super::state::DiskShared;
use super::*;

const MIB: u64 = 1 << 20;

fn options() -> Options {
    Options {
        max_bytes: MIB,
        max_age: None,
        drop_oldest: false,
        sync: SyncPolicy::Batch,
    }
}

/// A record with `samples` samples and a body that differs from others.
fn append(tenant: &str, samples: u64, length: usize) -> Append {
    Append {
        tenant: Arc::from(tenant),
        lane: samples % 3,
        accepted_at: 1_000 + samples,
        version: Version::V1,
        counts: Some(Counts {
            series: 1,
            samples,
            ..Counts::default()
        }),
        checked: samples.is_multiple_of(2),
        body: Bytes::from(vec![samples as u8; length]),
    }
}

/// A queue without its writer thread, driven step by step.
struct Driven {
    shared: Arc<DiskShared>,
    engine: Engine,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Driven {
    fn open(fs: Arc<dyn Fs>, options: Options) -> Result<Self, OpenError> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = events.clone();
        let listener = Arc::new(move |event| heard.lock().unwrap().push(event));
        let (shared, engine, _) = open(fs, options, listener)?;
        Ok(Self {
            shared,
            engine,
            events,
        })
    }

    /// Appends all records in one commit; returns the results in order.
    fn append_all(&mut self, appends: Vec<Append>) -> Vec<Result<Entry, AppendError>> {
        let results = Arc::new(Mutex::new(Vec::new()));
        let mut jobs: VecDeque<Job> = VecDeque::new();
        for append in appends {
            let results = results.clone();
            let complete = Box::new(move |result| results.lock().unwrap().push(result));
            jobs.push_back(admit(&self.shared, append, complete).unwrap().1);
        }
        self.engine.commit(&mut jobs);
        Arc::into_inner(results).unwrap().into_inner().unwrap()
    }

    fn append(&mut self, append: Append) -> Result<Entry, AppendError> {
        self.append_all(vec![append]).remove(0)
    }

    fn read_all(&self) -> Vec<Record> {
        let mut reader = Reader::new(self.shared.clone());
        std::iter::from_fn(|| reader.next(0).unwrap()).collect()
    }

    fn snapshot(&self) -> Snapshot {
        snapshot(&self.shared)
    }

    fn events(&self) -> String {
        let events = self.events.lock().unwrap();
        events.iter().map(|event| format!("{event}\n")).collect()
    }

    /// Checks that the accounts agree with the records that can be read.
    fn check_balance(&self) {
        let records = self.read_all();
        let snapshot = self.snapshot();
        let mut queued = Tally::default();
        for record in &records {
            queued += record.entry.tally();
        }
        let mut total = snapshot.rest.clone();
        for (_, account) in &snapshot.tenants {
            total.add(account);
        }
        assert_eq!(total, snapshot.total);
        let lost = Tally {
            bytes: snapshot.total.queued().bytes,
            ..queued
        };
        assert_eq!(snapshot.total.queued(), lost, "{}", self.events());
        let mut sum = queued;
        sum += snapshot.total.delivered;
        for dropped in snapshot.total.dropped.values() {
            sum += *dropped;
        }
        let received = snapshot.total.received;
        assert_eq!(
            (sum.batches, sum.samples, sum.uncounted),
            (received.batches, received.samples, received.uncounted),
            "{}",
            self.events()
        );
        self.check_held(queued);
    }

    /// Checks that the held records, counted by line, agree with the accounts.
    fn check_held(&self, queued: Tally) {
        let reading = read_ledger(&self.shared);
        let mut held = Tally::default();
        for line in reading.tenants.iter().chain([&reading.rest]) {
            assert_eq!(line.held, line.account.queued(), "{:?}", line.tenant);
            held += line.held;
        }
        assert_eq!(held, queued, "{}", self.events());
        assert_eq!(reading.records, queued.batches, "{}", self.events());
    }
}
