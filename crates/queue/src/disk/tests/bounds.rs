//! A full queue that drops its oldest segments.

use super::simulated::Simulated;
use super::*;

fn dropping() -> Options {
    Options {
        drop_oldest: true,
        ..options()
    }
}

/// Fills the queue until it has dropped records.
fn fill(driven: &mut Driven) {
    for number in 0..60 {
        driven.append(append("a", number, 30_000)).unwrap();
    }
    let dropped = driven.snapshot().total.dropped;
    assert!(dropped.contains_key(&Reason::QueueFull), "{dropped:?}");
}

#[test]
fn what_is_admitted_while_a_group_is_written_does_not_cost_the_groups_behind_it() {
    let mut driven = Driven::open(Arc::new(Simulated::default()), dropping()).unwrap();
    fill(&mut driven);
    let results = Arc::new(Mutex::new(Vec::new()));
    let admitted = Arc::new(Mutex::new(VecDeque::new()));
    let mut jobs = VecDeque::new();
    for number in 0..6 {
        let (shared, results, admitted) =
            (driven.shared.clone(), results.clone(), admitted.clone());
        let complete = Box::new(move |result: Result<Entry, AppendError>| {
            results.lock().unwrap().push(result.map(drop));
            // Meanwhile others append, for which old segments are dropped.
            for number in 0..4 {
                let append = append("b", number, 30_000);
                let job = admit(&shared, append, Box::new(|result| drop(result.unwrap())));
                admitted.lock().unwrap().push_back(job.unwrap().1);
            }
        });
        let job = admit(&driven.shared, append("a", number, 30_000), complete);
        jobs.push_back(job.unwrap().1);
    }
    driven.engine.commit(&mut jobs);
    let results = results.lock().unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let mut later = std::mem::take(&mut *admitted.lock().unwrap());
    driven.engine.commit(&mut later);
    driven.check_balance();
}

#[test]
fn what_had_to_make_room_while_it_was_sent_is_booked_as_what_became_of_it() {
    let fs = Simulated::default();
    let mut driven = Driven::open(Arc::new(fs.clone()), dropping()).unwrap();
    let mut entries = Vec::new();
    for number in 0..60 {
        entries.push(driven.append(append("a", number, 30_000)).unwrap());
    }
    let before = driven.snapshot().total;
    let full = before.dropped[&Reason::QueueFull];
    // One whose segment is removed, and one whose segment may still exist.
    let fates = [
        (&entries[2], Fate::Delivered),
        (&entries[5], Fate::Dropped(Reason::Refused)),
    ];
    for (entry, fate) in fates {
        assert!(driven.shared.done(entry, fate));
    }
    let after = driven.snapshot().total;
    assert_eq!(after.received, before.received);
    assert_eq!(after.delivered.samples, 2);
    assert_eq!(after.dropped[&Reason::Refused].samples, 5);
    assert_eq!(after.dropped[&Reason::QueueFull].samples, full.samples - 7);
    assert_eq!(after.dropped[&Reason::QueueFull].batches, full.batches - 2);
    driven.check_balance();
    // The accounts are the same after a restart.
    driven.engine.close();
    drop(driven);
    let driven = Driven::open(Arc::new(fs), dropping()).unwrap();
    let again = driven.snapshot().total;
    assert_eq!(again.delivered.samples, 2);
    assert_eq!(again.dropped, after.dropped);
}

#[test]
fn a_segment_that_is_done_behind_one_that_is_not_is_no_room() {
    let mut driven = Driven::open(Arc::new(Simulated::default()), dropping()).unwrap();
    let mut entries = Vec::new();
    for number in 0..28 {
        entries.push(driven.append(append("a", number, 30_000)).unwrap());
    }
    // The oldest record stays undone.
    for entry in &entries[1..20] {
        assert!(driven.shared.done(entry, Fate::Delivered));
    }
    for number in 0..40 {
        let result = driven.append(append("b", number, 30_000));
        assert!(result.is_ok(), "{number}: {result:?}");
    }
    driven.check_balance();
}

/// Admits records until one is refused.
fn admit_all(driven: &Driven, jobs: &mut VecDeque<Job>) -> Refused {
    for number in 0.. {
        let append = append("a", number % 50, 30_000);
        match admit(&driven.shared, append, Box::new(|_| ())) {
            Ok((_, job)) => jobs.push_back(job),
            Err(refused) => return refused,
        }
    }
    unreachable!("a queue has a bound")
}

#[test]
fn a_newer_record_waits_while_the_oldest_cannot_be_given_up_yet() {
    let mut driven = Driven::open(Arc::new(Simulated::default()), dropping()).unwrap();
    // Records that are not written yet cannot be dropped.
    let mut jobs = VecDeque::new();
    let refused = admit_all(&driven, &mut jobs);
    assert!(matches!(refused, Refused::Busy(..)), "{refused:?}");
    driven.engine.commit(&mut jobs);
    // Neither can records in the active segment, until it is sealed.
    while driven.shared.state().drop_oldest() {}
    driven.engine.fold();
    let refused = admit_all(&driven, &mut jobs);
    assert!(matches!(refused, Refused::Busy(..)), "{refused:?}");
    driven.engine.tend();
    driven.append(append("a", 1, 30_000)).unwrap();
    for job in jobs {
        let mut state = driven.shared.state();
        state.unreserve(&job.append.tenant, job.cost);
    }
    driven.check_balance();
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_hangs_is_not_waited_for() {
    let mut driven = Driven::open(Arc::new(Simulated::default()), dropping()).unwrap();
    let mut jobs = VecDeque::new();
    let refused = admit_all(&driven, &mut jobs);
    assert!(matches!(refused, Refused::Busy(..)), "{refused:?}");
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    let refused = admit_all(&driven, &mut jobs);
    assert!(matches!(refused, Refused::Full(..)), "{refused:?}");
    // The writer works again.
    driven.engine.commit(&mut jobs);
    driven.append(append("a", 1, 30_000)).unwrap();
    driven.check_balance();
}
