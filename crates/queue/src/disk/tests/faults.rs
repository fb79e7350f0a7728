//! Disks that are full or fail, and queues that are full.

use std::io;
use std::time::Duration;

use super::simulated::{Crash, Fault, Simulated};
use super::*;

fn open(fs: &Simulated, options: Options) -> Driven {
    Driven::open(Arc::new(fs.clone()), options).unwrap()
}

fn small() -> Options {
    Options {
        max_bytes: MIN_BYTES,
        ..options()
    }
}

/// A short run: appends over several segments, fates, folding.
fn live(queue: &mut Driven) -> (Vec<Entry>, u64) {
    let mut completed = Vec::new();
    let mut delivered = 0;
    for round in 0..8 {
        let appends = (0..3).map(|i| append("a", 1 + round * 3 + i, 3000));
        completed.extend(queue.append_all(appends.collect()).into_iter().flatten());
        let mut reader = Reader::new(queue.shared.clone());
        if let Ok(Some(record)) = reader.next(0)
            && queue.shared.done(&record.entry, Fate::Delivered)
        {
            completed.retain(|entry| *entry != record.entry);
            delivered += record.entry.tally().samples;
        }
        queue.engine.flush_acks();
        queue.engine.sync_acks();
        queue.engine.tend();
    }
    (completed, delivered)
}

#[test]
fn every_operation_may_fail_once_and_nothing_completed_is_lost() {
    let healthy = Simulated::default();
    live(&mut open(&healthy, small()));
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        for operation in 1..healthy.operations() {
            let fs = Simulated::default();
            fs.fault(operation, Fault::Fail(kind));
            let Ok(mut queue) = Driven::open(Arc::new(fs.clone()), small()) else {
                // The second attempt must be able to open the directory.
                open(&fs, small()).check_balance();
                continue;
            };
            let (queued, delivered) = live(&mut queue);
            queue.check_balance();
            let read: Vec<_> = queue.read_all().into_iter().map(|it| it.entry).collect();
            assert_eq!(read, queued, "operation {operation}");
            // The queue works again.
            assert!(
                queue.append(append("a", 1, 10)).is_ok(),
                "operation {operation}"
            );
            assert_eq!(queue.snapshot().total.delivered.samples, delivered);
            // The durable state is the same.
            let again = open(&fs.reboot(Crash::Power(operation)), small());
            again.check_balance();
            let there: Vec<_> = again.read_all().into_iter().map(|it| it.entry).collect();
            assert!(
                queued.iter().all(|entry| there.contains(entry)),
                "operation {operation}"
            );
        }
    }
}

#[test]
fn every_operation_of_an_opening_may_fail_and_the_next_opening_finds_all() {
    let fs = Simulated::default();
    let (queued, _) = live(&mut open(&fs, small()));
    let fs = fs.reboot(Crash::Process);
    let files = fs.files();
    let before = fs.operations();
    open(&fs, small());
    for operation in 1..=fs.operations() - before {
        let fs = Simulated::with_files(&files);
        fs.fault(operation, Fault::Fail(io::ErrorKind::Other));
        let failed = Driven::open(Arc::new(fs.clone()), small());
        drop(failed);
        let again = open(&fs, small());
        again.check_balance();
        let read: Vec<_> = again.read_all().into_iter().map(|it| it.entry).collect();
        assert_eq!(read, queued, "operation {operation}");
    }
}

#[test]
fn a_full_disk_fails_appends_and_works_again_once_there_is_space() {
    let fs = Simulated::default();
    let mut queue = open(&fs, small());
    queue.engine.put_aside();
    assert!(queue.append(append("a", 1, 1000)).is_ok());
    fs.set_full(true);
    for _ in 0..3 {
        let failed = queue.append(append("a", 2, 1000));
        assert!(matches!(failed, Err(AppendError::NoSpace)));
    }
    // Finishing a record works on a full disk, and makes room for the next one.
    let record = queue.read_all().remove(0);
    queue.shared.done(&record.entry, Fate::Delivered);
    let failed = queue.append(append("a", 2, 1000));
    assert!(matches!(failed, Err(AppendError::NoSpace)));
    assert!(queue.shared.state().segments.is_empty());
    assert!(fs.files().iter().all(|(name, _)| !name.ends_with(".log")));
    fs.set_full(false);
    assert!(queue.append(append("a", 4, 1000)).is_ok());
    queue.check_balance();
    let total = queue.snapshot().total;
    assert_eq!(total.received.samples, 5);
    assert_eq!(total.delivered.samples, 1);
}

#[test]
fn after_a_failed_fsync_the_segment_is_left() {
    let fs = Simulated::default();
    let mut queue = open(&fs, small());
    assert!(queue.append(append("a", 1, 100)).is_ok());
    // The write is the first operation, the fsync the second.
    fs.fault(2, Fault::Fail(io::ErrorKind::Other));
    let failed = queue.append(append("a", 2, 100));
    assert!(matches!(failed, Err(AppendError::Io(_))));
    assert!(queue.append(append("a", 4, 100)).is_ok());
    let samples = |queue: &Driven| -> Vec<_> {
        let records = queue.read_all().into_iter();
        records.map(|it| it.entry.tally().samples).collect()
    };
    assert_eq!(samples(&queue), [1, 4]);
    assert_eq!(queue.shared.state().segments.len(), 2);
    for seed in 0..50 {
        let again = open(&fs.reboot(Crash::Power(seed)), small());
        assert_eq!(samples(&again), [1, 4]);
        again.check_balance();
    }
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_something_is_done() {
    let fs = Simulated::default();
    let mut queue = open(&fs, small());
    let mut entries = Vec::new();
    let refused = loop {
        let complete = Box::new(|_| {});
        match admit(&queue.shared, append("a", 1, 5000), complete) {
            Ok((state, job)) => {
                drop(state);
                queue.engine.commit(&mut VecDeque::from([job]));
            }
            Err(refused) => break refused,
        }
        entries = queue.read_all();
        assert!(queue.snapshot().bytes <= MIN_BYTES);
        let there: usize = fs.files().iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(there as u64 <= MIN_BYTES);
    };
    assert!(matches!(refused, Refused::Full(..)));
    assert!(entries.len() > 30);
    for record in &entries[..5] {
        queue.shared.done(&record.entry, Fate::Delivered);
    }
    queue.engine.tend();
    assert!(queue.append(append("a", 1, 5000)).is_ok());
    queue.check_balance();
}

#[test]
fn a_full_queue_drops_its_oldest_segment_if_that_is_the_policy() {
    let fs = Simulated::default();
    let options = Options {
        drop_oldest: true,
        ..small()
    };
    let mut queue = open(&fs, options);
    for _ in 0..201 {
        assert!(queue.append(append("a", 1, 5000)).is_ok());
    }
    queue.check_balance();
    let total = queue.snapshot().total;
    let dropped = total.dropped[&Reason::QueueFull];
    assert!(dropped.samples > 100);
    assert_eq!(total.received.samples, 201);
    let again = open(&fs.reboot(Crash::Process), options);
    assert_eq!(again.snapshot().total.dropped[&Reason::QueueFull], dropped);
    again.check_balance();
}

#[test]
fn records_too_old_are_dropped_when_they_are_met() {
    let fs = Simulated::default();
    let mut queue = open(
        &fs,
        Options {
            max_age: Some(Duration::from_millis(10)),
            ..small()
        },
    );
    let appends = (1..=20).map(|samples| append("a", samples, 10));
    queue.append_all(appends.collect());
    let mut reader = Reader::new(queue.shared.clone());
    // The record of n samples was accepted at 1,000 + n.
    let record = reader.next(1_020).unwrap().unwrap();
    assert_eq!(record.entry.tally().samples, 10);
    let total = queue.snapshot().total;
    assert_eq!(total.dropped[&Reason::TooOld].samples, 45);
}

#[test]
fn what_cannot_be_read_stays_until_it_is_given_up() {
    let fs = Simulated::default();
    let mut queue = open(&fs, small());
    queue.append_all(vec![append("a", 1, 10), append("b", 2, 10)]);
    let mut reader = Reader::new(queue.shared.clone());
    for _ in 0..2 {
        fs.fault(2, Fault::Fail(io::ErrorKind::Other));
        let error = reader.next(0).unwrap_err();
        assert_eq!(error.position, Position(0));
    }
    queue.shared.lose(0);
    assert_eq!(reader.next(0).unwrap().unwrap().entry.position, Position(1));
    let record = queue.read_all().remove(0);
    queue.shared.done(&record.entry, Fate::Delivered);
    let snapshot = queue.snapshot();
    assert_eq!(snapshot.total.dropped[&Reason::Corrupt].samples, 1);
    assert_eq!(snapshot.total.queued(), Tally::default());
}

#[test]
fn tenants_beyond_the_bound_share_a_line_and_nothing_is_lost_of_it() {
    let fs = Simulated::default();
    let mut queue = open(&fs, small());
    let tenants = small().tenants() as u64;
    for round in 0..3 {
        for tenant in 0..tenants + 20 {
            let name = format!("t{}", tenant + round * 30);
            queue.append(append(&name, 1 + tenant, 10)).unwrap();
        }
        for record in queue.read_all() {
            queue.shared.done(&record.entry, Fate::Delivered);
        }
        queue.shared.state().starved = true;
        queue.engine.tend();
        queue.check_balance();
    }
    let snapshot = queue.snapshot();
    assert_eq!(snapshot.tenants.len() as u64, tenants);
    let sum: u64 = (0..tenants + 20).map(|tenant| 1 + tenant).sum();
    assert_eq!(snapshot.total.delivered.samples, 3 * sum);
    let again = open(&fs.reboot(Crash::Process), small());
    assert_eq!(again.snapshot().total, snapshot.total);
}
