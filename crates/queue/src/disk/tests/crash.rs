//! Random operations and crashes: completed records survive, and the accounts balance.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use proptest::prelude::*;

use super::simulated::{Crash, Fault, Simulated};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Tenant, samples and length of the body of each record.
    Append(Vec<(u8, u8, u16)>),
    /// Index of a queued record, counted from the oldest, and its fate.
    Done(u8, u8),
    Flush,
    SyncAcks,
    Sync,
    Seal,
    Fold,
    /// An operation fails after this number of others.
    Fault(u8, bool),
    /// The process crashes after this number of operations.
    CrashAt(u8),
    /// The process crashes, and the next one after this number of operations of its opening.
    CrashOpening(u8),
    Reopen,
    Crash(Option<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    let one = (0..4u8, any::<u8>(), 0..6000u16);
    prop_oneof![
        8 => prop::collection::vec(one, 1..6).prop_map(Step::Append),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(which, fate)| Step::Done(which, fate)),
        2 => Just(Step::Flush),
        1 => Just(Step::SyncAcks),
        1 => Just(Step::Sync),
        1 => Just(Step::Seal),
        1 => Just(Step::Fold),
        1 => (1..20u8, any::<bool>()).prop_map(|(after, full)| Step::Fault(after, full)),
        2 => (1..20u8).prop_map(Step::CrashAt),
        1 => (1..30u8).prop_map(Step::CrashOpening),
        1 => Just(Step::Reopen),
        1 => prop::option::of(any::<u64>()).prop_map(Step::Crash),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Queued,
    /// Fate of the record, and whether its ack is written and durable.
    Done(Fate, bool, bool),
}

struct Model {
    fs: Simulated,
    options: Options,
    queue: Driven,
    /// Records by the time of acceptance, which is unique.
    records: BTreeMap<u64, (Append, Known)>,
    /// Incomplete appends, which may or may not exist after a crash.
    unknown: BTreeMap<u64, Append>,
    /// Completed records that a loss of power may lose.
    unsynced: BTreeSet<u64>,
    clock: u64,
    faulted: bool,
    /// Appends cut short by a loss of power: the records behind them show gaps, which look like
    /// damage.
    gaps: u64,
}

impl Model {
    fn new(options: Options) -> Self {
        let fs = Simulated::default();
        Self {
            queue: Driven::open(Arc::new(fs.clone()), options).unwrap(),
            fs,
            options,
            records: BTreeMap::new(),
            unknown: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            clock: 0,
            faulted: false,
            gaps: 0,
        }
    }

    fn append(&mut self, batch: &[(u8, u8, u16)]) {
        let results = Arc::new(Mutex::new(Vec::new()));
        let mut jobs = VecDeque::new();
        for (tenant, samples, length) in batch {
            self.clock += 1;
            let mut append = append(&format!("t{tenant}"), u64::from(*samples), *length as usize);
            append.accepted_at = self.clock;
            if *samples == 0 {
                append.counts = None;
            }
            let (id, results) = (self.clock, results.clone());
            let complete = Box::new(move |result: Result<Entry, _>| {
                results.lock().unwrap().push((id, result.is_ok()));
            });
            match admit(&self.queue.shared, append.clone(), complete) {
                Ok((_, job)) => jobs.push_back(job),
                Err(Refused::Full(..)) => continue,
                Err(refused) => panic!("{refused}"),
            }
            self.unknown.insert(id, append);
        }
        self.queue.engine.commit(&mut jobs);
        for (id, ok) in std::mem::take(&mut *results.lock().unwrap()) {
            if ok {
                let append = self.unknown.remove(&id).unwrap();
                self.records.insert(id, (append, Known::Queued));
                self.unsynced.insert(id);
            }
        }
        if self.options.sync == SyncPolicy::Batch {
            self.unsynced.clear();
        }
        if self.options.drop_oldest {
            self.note_dropped();
        }
    }

    /// Notes dropped records; they may reappear after a crash until their segment is removed.
    fn note_dropped(&mut self) {
        if self.fs.is_crashed() {
            return;
        }
        let there: BTreeSet<u64> = self.positions().into_keys().collect();
        for (id, (_, known)) in &mut self.records {
            if *known == Known::Queued && !there.contains(id) {
                *known = Known::Done(Fate::Dropped(Reason::QueueFull), false, false);
            }
        }
    }

    fn positions(&self) -> BTreeMap<u64, Record> {
        let mut last = None;
        let records = self.fs.observe(|| self.queue.read_all());
        for record in &records {
            assert!(Some(record.entry.position) > last, "in order");
            last = Some(record.entry.position);
        }
        let by_id = |record: Record| (record.entry.accepted_at, record);
        records.into_iter().map(by_id).collect()
    }

    fn done(&mut self, which: u8, fate: u8) {
        if self.fs.is_crashed() {
            return;
        }
        let records = self.positions();
        let Some((id, record)) = records.iter().nth(which as usize % records.len().max(1)) else {
            return;
        };
        let samples = record.entry.tally().samples;
        let fate = match fate % 4 {
            0 => Fate::Dropped(Reason::Refused),
            1 if samples > 0 => Fate::Partly {
                dropped: samples.min(u64::from(fate)),
                reason: Reason::Unauthorized,
            },
            _ => Fate::Delivered,
        };
        assert!(self.queue.shared.done(&record.entry, fate));
        assert!(!self.queue.shared.done(&record.entry, Fate::Delivered));
        self.records.get_mut(id).unwrap().1 = Known::Done(fate, false, false);
    }

    fn each_done(&mut self, change: impl Fn(&mut bool, &mut bool)) {
        for (_, known) in self.records.values_mut() {
            match known {
                // The queue writes no acks for these; they end when their segment is removed.
                Known::Done(Fate::Dropped(Reason::QueueFull), ..) | Known::Queued => {}
                Known::Done(_, written, durable) => change(written, durable),
            }
        }
    }

    fn flush(&mut self) {
        self.queue.engine.flush_acks();
        if self.queue.shared.state().acks() == 0 {
            self.each_done(|written, _| *written = true);
        }
    }

    fn sync_acks(&mut self) {
        self.queue.engine.sync_acks();
        if !self.faulted {
            self.each_done(|written, durable| *durable = *written);
        }
    }

    fn seal(&mut self) {
        self.queue.shared.state().starved = true;
        self.queue.engine.tend();
    }

    /// Crashes and restarts the process; `power` is the seed for the unsynced data that the disk
    /// loses. Returns false if the totals are not predictable any more.
    fn crash(&mut self, power: Option<u64>) -> bool {
        let crash = power.map_or(Crash::Process, Crash::Power);
        self.fs = self.fs.reboot(crash);
        self.faulted = false;
        self.queue = Driven::open(Arc::new(self.fs.clone()), self.options).unwrap();
        let there = self.positions();
        let vanishes = power.is_some() && !self.unsynced.is_empty();
        for (id, (append, known)) in &mut self.records {
            match (there.get(id), *known) {
                (Some(record), known_before) => {
                    same(append, record);
                    if let Known::Done(_, written, durable) = known_before {
                        let kept = if power.is_some() { durable } else { written };
                        assert!(!kept, "{id} was done\n{}", self.queue.events());
                        *known = Known::Queued;
                    }
                }
                (None, Known::Queued) => {
                    let may_go = power.is_some() && self.unsynced.contains(id);
                    assert!(may_go, "{id} is lost\n{}", self.queue.events());
                }
                (None, Known::Done(..)) => {}
            }
        }
        for (id, record) in there {
            if let Some(append) = self.unknown.remove(&id) {
                same(&append, &record);
                self.records.insert(id, (append, Known::Queued));
            }
            assert!(self.records.contains_key(&id));
        }
        if !vanishes {
            if power.is_some() {
                self.gaps += self.unknown.len() as u64;
            }
            self.check();
        } else {
            self.fs.observe(|| self.queue.check_balance());
        }
        self.unknown.clear();
        self.unsynced.clear();
        !vanishes
    }

    fn close(&mut self) {
        self.queue.engine.close();
        self.each_done(|written, durable| (*written, *durable) = (true, true));
    }

    /// Compares the accounts with the model. Appends that were never completed are in neither,
    /// unless a loss of power left parts of them that look like damage.
    fn check(&self) {
        self.fs.observe(|| self.queue.check_balance());
        let mut expected: BTreeMap<&str, Account> = BTreeMap::new();
        for (append, known) in self.records.values() {
            let account = expected.entry(&append.tenant).or_default();
            let tally = Tally::of(append.counts, append.body.len() as u32);
            account.received += tally;
            let (reason, dropped) = match *known {
                Known::Queued => continue,
                Known::Done(Fate::Dropped(reason), ..) => (reason, tally),
                Known::Done(Fate::Delivered, ..) => {
                    account.delivered += tally;
                    continue;
                }
                Known::Done(Fate::Partly { dropped, reason }, ..) => {
                    let samples = tally.samples - dropped;
                    account.delivered += Tally { samples, ..tally };
                    let samples = dropped;
                    let dropped = Tally {
                        samples,
                        ..Tally::default()
                    };
                    (reason, dropped)
                }
            };
            *account.dropped.entry(reason).or_default() += dropped;
        }
        let snapshot = self.queue.snapshot();
        assert!(snapshot.bytes <= self.options.max_bytes);
        let corrupt = snapshot.rest.dropped.get(&Reason::Corrupt);
        let lost = corrupt.map_or(0, |tally| tally.batches);
        assert!(lost <= self.gaps, "{}", self.queue.events());
        assert_eq!(snapshot.rest.received.batches, lost);
        let found: BTreeMap<&str, Account> = snapshot
            .tenants
            .iter()
            .filter(|(_, account)| account.received.batches > 0)
            .map(|(tenant, account)| (&**tenant, account.clone()))
            .collect();
        assert_eq!(found, expected, "{}", self.queue.events());
    }
}

fn same(append: &Append, record: &Record) {
    assert_eq!(append.body, record.body);
    assert_eq!(append.tenant, record.entry.tenant);
    assert_eq!(append.counts, record.entry.counts);
    let checked = append.checked && append.counts.is_some();
    assert_eq!(checked, record.entry.checked);
    assert_eq!(append.lane, record.entry.lane);
}

fn run(steps: Vec<Step>, options: Options) {
    let mut model = Model::new(options);
    let mut power = None;
    for step in steps {
        match step {
            Step::Append(batch) => model.append(&batch),
            Step::Done(which, fate) => model.done(which, fate),
            Step::Flush => model.flush(),
            Step::SyncAcks => model.sync_acks(),
            Step::Sync => {
                model.queue.engine.sync();
                if !model.faulted {
                    model.unsynced.clear();
                }
            }
            Step::Seal => model.seal(),
            Step::Fold => model.queue.engine.fold(),
            Step::Fault(after, full) => {
                let kind = match full {
                    true => io::ErrorKind::StorageFull,
                    false => io::ErrorKind::Other,
                };
                model.faulted = true;
                model.fs.fault(u64::from(after), Fault::Fail(kind));
            }
            Step::CrashAt(after) => {
                model.faulted = true;
                power = Some(u64::from(after));
                model.fs.fault(u64::from(after), Fault::Crash);
            }
            Step::CrashOpening(after) => {
                model.fs = model.fs.reboot(Crash::Process);
                model.fs.fault(u64::from(after), Fault::Crash);
                drop(Driven::open(Arc::new(model.fs.clone()), model.options));
                model.faulted = true;
                if !model.crash(power.take()) {
                    return;
                }
            }
            Step::Reopen if !model.faulted => {
                model.close();
                model.unsynced.clear();
                assert!(model.crash(None));
            }
            Step::Reopen => {
                if !model.crash(power.take()) {
                    return;
                }
            }
            Step::Crash(seed) => {
                if !model.crash(seed) {
                    return;
                }
            }
        }
        if !model.fs.is_crashed() && !model.faulted {
            model.check();
        }
    }
    model.crash(None);
}

/// Kills one process after another, each at any operation of its first append. The segment that the
/// first process created is created again by the next.
#[test]
fn an_append_that_kills_cut_short_is_never_booked_as_lost() {
    let killed = |fs: &Simulated, after: u64| {
        let fs = fs.reboot(Crash::Process);
        let mut queue = Driven::open(Arc::new(fs.clone()), options()).unwrap();
        fs.fault(after, Fault::Crash);
        let acknowledged = queue.append(append("t", 1, 100)).is_ok();
        (fs, acknowledged)
    };
    let mut kills = 0;
    for first in 1.. {
        // A record in front keeps the queue from removing the segment while it is empty.
        let fs = Simulated::default();
        let mut queue = Driven::open(Arc::new(fs.clone()), options()).unwrap();
        queue.append(append("t", 1, 100)).unwrap();
        let (once, one) = killed(&fs, first);
        for second in 1.. {
            let (twice, two) = killed(&once, second);
            let queue = Driven::open(Arc::new(twice.reboot(Crash::Process)), options()).unwrap();
            let total = queue.snapshot().total;
            assert_eq!(total.dropped, BTreeMap::new(), "{first}, {second}");
            let acknowledged = 1 + u64::from(one) + u64::from(two);
            assert!(total.received.batches >= acknowledged, "{first}, {second}");
            kills += 1;
            if two {
                break;
            }
        }
        if one {
            break;
        }
    }
    assert!(kills > 25, "{kills} pairs of kills");
}

fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.max(300),
        ..usual
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_was_completed_survives_whatever_happens(
        steps in prop::collection::vec(step(), 1..60),
        drop_oldest in any::<bool>(),
        interval in any::<bool>(),
    ) {
        let sync = match interval {
            true => SyncPolicy::Interval(std::time::Duration::from_secs(1)),
            false => SyncPolicy::Batch,
        };
        run(steps, Options { max_bytes: MIN_BYTES, max_age: None, drop_oldest, sync });
    }
}
