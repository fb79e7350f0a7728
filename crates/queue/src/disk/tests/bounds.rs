//! A queue at its bound that drops its oldest segments.

use super::simulated::Simulated;
use super::*;

fn dropping() -> Options {
    Options {
        drop_oldest: true,
        ..options()
    }
}

/// Fills the queue until it has dropped something.
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
            // Meanwhile others append, for which old segments are given up.
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
    // One that is gone, and one whose segment may be there.
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
    // It stays so.
    driven.engine.close();
    drop(driven);
    let driven = Driven::open(Arc::new(fs), dropping()).unwrap();
    let again = driven.snapshot().total;
    assert_eq!(again.delivered.samples, 2);
    assert_eq!(again.dropped, after.dropped);
}
