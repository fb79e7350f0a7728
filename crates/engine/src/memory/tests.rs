use super::*;

const MIB: u64 = 1 << 20;

fn peer(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

fn budget(bounds: Bounds) -> Budget {
    let budget = Budget::default();
    budget.set(bounds);
    budget
}

fn in_flight(max: u64) -> Budget {
    budget(Bounds {
        in_flight: Some(max),
        ..Bounds::default()
    })
}

fn limit(limit: u64, requests: u64) -> Budget {
    budget(Bounds {
        limit: Some(limit),
        requests: Some(requests),
        in_flight: None,
    })
}

#[test]
fn without_bounds_nobody_is_refused() {
    let budget = Budget::default();
    budget.measured(u64::MAX);
    let mut permits = Vec::new();
    for n in 0..100 {
        let mut permit = budget.enter(peer(n), true).unwrap();
        permit.take(Amount::decoded(1 << 40)).unwrap();
        permits.push(permit);
    }
}

#[test]
fn what_is_dropped_can_be_taken_again_and_leaves_nothing_behind() {
    let budget = in_flight(100);
    let mut first = budget.enter(peer(1), false).unwrap();
    first.take(Amount::body(60)).unwrap();
    let mut second = budget.enter(peer(2), false).unwrap();
    assert_eq!(second.take(Amount::body(50)), Err(Refused::InFlight));
    drop(first);
    second.take(Amount::body(50)).unwrap();
    drop(second);
    let account = budget.account();
    assert_eq!(account.taken, Amount::default());
    assert_eq!((account.requests, account.by_peer.len()), (0, 0));
}

#[test]
fn the_lesser_are_refused_while_there_is_room_for_others() {
    let budget = in_flight(100);
    let mut other = budget.enter(peer(1), false).unwrap();
    other.take(Amount::body(60)).unwrap();
    let mut lesser = budget.enter(peer(2), true).unwrap();
    assert_eq!(lesser.take(Amount::body(20)), Err(Refused::InFlight));
    let mut equal = budget.enter(peer(2), false).unwrap();
    equal.take(Amount::body(20)).unwrap();
}

#[test]
fn who_has_most_is_refused_while_there_is_room_for_others() {
    let budget = in_flight(100);
    let mut permits = Vec::new();
    let greedy = loop {
        let mut permit = budget.enter(peer(1), false).unwrap();
        match permit.take(Amount::body(5)) {
            Ok(()) => permits.push(permit),
            Err(refused) => break refused,
        }
    };
    assert_eq!(greedy, Refused::Share);
    assert_eq!(budget.account().taken.in_flight, 85);
    let mut modest = budget.enter(peer(2), false).unwrap();
    modest.take(Amount::body(15)).unwrap();
}

#[test]
fn a_request_that_is_alone_may_take_all_there_is() {
    let budget = limit(100 * MIB, 10);
    budget.measured(99 * MIB);
    let mut alone = budget.enter(peer(1), true).unwrap();
    alone.take(Amount::decoded(2)).unwrap();
    assert_eq!(alone.take(Amount::decoded(1)), Err(Refused::Memory));
    assert!(budget.enter(peer(2), false).is_err(), "not a second one");
}

#[test]
fn what_was_worked_on_needs_no_memory_and_is_in_flight_until_it_is_answered() {
    let budget = limit(1000 * MIB, 40);
    let bounds = budget.account().bounds;
    budget.set(Bounds {
        in_flight: Some(20),
        ..bounds
    });
    let mut first = budget.enter(peer(1), false).unwrap();
    first.take(Amount::decoded(10)).unwrap();
    let mut second = budget.enter(peer(2), false).unwrap();
    assert_eq!(second.take(Amount::decoded(10)), Err(Refused::Memory));
    first.worked();
    second.take(Amount::decoded(10)).unwrap();
    second.worked();
    let mut third = budget.enter(peer(3), false).unwrap();
    assert_eq!(third.take(Amount::decoded(1)), Err(Refused::InFlight));
}

#[test]
fn the_nearer_the_limit_the_more_are_refused_and_the_last_first_let_in() {
    let budget = limit(100 * MIB, 50 * MIB);
    // A second request is always under way, so that no request counts as alone.
    let _under_way = budget.enter(peer(9), false).unwrap();
    let reaction = |resident| {
        budget.measured(resident * MIB);
        let refused = |lesser| budget.enter(peer(1), lesser).is_err();
        [budget.is_short(), refused(true), refused(false)]
    };
    assert_eq!(reaction(69), [false, false, false]);
    assert_eq!(reaction(70), [true, false, false]);
    assert_eq!(reaction(75), [true, true, false]);
    assert_eq!(reaction(80), [true, true, true]);
    assert_eq!(reaction(76), [true, true, true]);
    assert_eq!(reaction(74), [true, true, false]);
    assert_eq!(reaction(69), [true, false, false]);
    assert_eq!(reaction(64), [false, false, false]);
}

#[test]
fn what_was_taken_since_the_last_measurement_counts_as_resident() {
    let budget = limit(100 * MIB, 90 * MIB);
    budget.measured(40 * MIB - 1024);
    let mut first = budget.enter(peer(1), false).unwrap();
    first.take(Amount::body(15 << 20)).unwrap();
    let mut second = budget.enter(peer(2), false).unwrap();
    assert_eq!(second.take(Amount::body(6 << 20)), Err(Refused::Resident));
    second.take(Amount::body(5 << 20)).unwrap();
}

#[test]
fn bounds_that_change_hold_at_once() {
    let budget = in_flight(100);
    let mut first = budget.enter(peer(1), false).unwrap();
    first.take(Amount::body(50)).unwrap();
    budget.set(Bounds {
        in_flight: Some(10),
        ..Bounds::default()
    });
    let mut second = budget.enter(peer(2), false).unwrap();
    assert_eq!(second.take(Amount::body(1)), Err(Refused::InFlight));
    budget.set(Bounds::default());
    second.take(Amount::body(1000)).unwrap();
}

#[test]
fn a_limit_leaves_to_requests_what_the_queues_do_not_need() {
    use metrifold_base::Size;

    let sizes = Sizes {
        body: MIB,
        decoded: 4 * MIB,
    };
    let queues = [(Size::mib(10), false), (Size::mib(1), true)];
    let reservation = Reservation::new(queues.into_iter(), [sizes].into_iter());
    let fixed = 48 + 10 + 1 + 32;
    assert_eq!(reservation.least(), Size::mib(fixed + 2 + 16));
    assert_eq!(reservation.left(Size::mib(fixed + 17)), None);
    assert_eq!(reservation.left(Size::mib(fixed + 20)), Some(20 * MIB));
}

#[test]
fn what_a_request_takes_beyond_its_size_is_taken_as_well_and_given_back_once_it_is_queued() {
    assert!(
        Budget::default().expansion(peer(1)).is_none(),
        "nothing is bounded"
    );
    let budget = limit(400 * MIB, 100 * MIB);
    let mut permit = budget.enter(peer(1), false).unwrap();
    permit.take(Amount::decoded(5 << 20)).unwrap();
    let expansion = budget.expansion(peer(1)).unwrap();
    assert!(expansion.take(50 << 20));
    assert!(!expansion.take(31 << 20), "of 100 MiB, 70 are taken");
    assert_eq!(budget.account().taken.memory, 70 * MIB);
    let mut other = budget.enter(peer(2), false).unwrap();
    assert_eq!(other.take(Amount::decoded(8 << 20)), Err(Refused::Memory));
    expansion.end();
    other.take(Amount::decoded(8 << 20)).unwrap();
    assert!(expansion.take(1 << 30), "the queues count it now");
    drop((permit, other, expansion));
    let account = budget.account();
    assert_eq!(account.taken, Amount::default());
    assert_eq!((account.requests, account.by_peer.len()), (0, 0));
}
