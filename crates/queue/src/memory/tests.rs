use super::*;

fn queue(max: usize, when_full: WhenFull) -> Arc<Queue<u32>> {
    Arc::new(Queue::new(max, when_full))
}

/// A lane that no item holds.
const FREE: Lane = Lane {
    tenant: None,
    id: 0,
    holds: false,
};

impl<T> Queue<T> {
    async fn pop(self: &Arc<Self>, turn: u64) -> Option<(T, Held<T>)> {
        self.pop_run(turn, || RunBound::ONE).await?.pop()
    }
}

/// Adds an item, waiting for room if that is the policy.
async fn push_wait(queue: &Queue<u32>, item: u32, weight: usize, lane: Lane) -> Pushed<u32> {
    let mut item = item;
    loop {
        let drained = queue.drained();
        tokio::pin!(drained);
        drained.as_mut().enable();
        match queue.push(item, weight, lane.clone()) {
            Pushed::Full(again) => item = again,
            done => return done,
        }
        drained.await;
    }
}

fn holding(id: u64) -> Lane {
    Lane {
        tenant: None,
        id,
        holds: true,
    }
}

#[tokio::test]
async fn items_leave_in_the_order_in_which_they_came() {
    let queue = queue(100, WhenFull::Block);
    for i in 0..3 {
        assert!(matches!(queue.push(i, 10, FREE), Pushed::Stored(old) if old.is_empty()));
    }
    queue.close();
    for i in 0..3 {
        assert_eq!(queue.pop(0).await.unwrap().0, i);
    }
    assert!(queue.pop(0).await.is_none());
    assert!(matches!(queue.push(9, 1, FREE), Pushed::Closed(9)));
}

#[tokio::test]
async fn bytes_count_until_the_item_is_done() {
    let queue = queue(100, WhenFull::Block);
    let _ = queue.push(1, 80, FREE);
    let (_, held) = queue.pop(0).await.unwrap();
    assert_eq!(queue.bytes(), 80);
    assert!(matches!(queue.push(2, 30, FREE), Pushed::Full(2)));
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { push_wait(&queue, 2, 30, FREE).await }
    });
    drop(held);
    assert!(matches!(waiting.await.unwrap(), Pushed::Stored(_)));
    assert_eq!(queue.bytes(), 30);
}

#[tokio::test]
async fn an_item_above_the_bound_passes_when_the_queue_is_empty() {
    let queue = queue(10, WhenFull::Block);
    assert!(matches!(queue.push(1, 1000, FREE), Pushed::Stored(_)));
    assert!(matches!(queue.push(2, 1, FREE), Pushed::Full(_)));
}

#[tokio::test]
async fn the_oldest_make_room_but_not_what_is_being_sent() {
    let queue = queue(30, WhenFull::DropOldest);
    for i in 0..3 {
        let _ = queue.push(i, 10, FREE);
    }
    let (sending, _held) = queue.pop(0).await.unwrap();
    assert_eq!(sending, 0);
    assert!(matches!(queue.push(3, 20, FREE), Pushed::Stored(old) if old == [1, 2]));
    assert!(matches!(queue.push(4, 30, FREE), Pushed::Dropped(4)));
    assert_eq!(queue.end(), [3]);
}

#[tokio::test]
async fn of_a_lane_one_item_is_under_way_and_others_may_pass() {
    let queue = queue(100, WhenFull::Block);
    for (item, lane) in [(1, 7), (2, 7), (3, 8)] {
        let _ = queue.push(item, 10, holding(lane));
    }
    let (first, held) = queue.pop(0).await.unwrap();
    let (second, _other) = queue.pop(0).await.unwrap();
    assert_eq!((first, second), (1, 3));
    let third = tokio::spawn({
        let queue = queue.clone();
        async move { queue.pop(0).await.map(|(item, _)| item) }
    });
    tokio::task::yield_now().await;
    assert!(!third.is_finished());
    drop(held);
    assert_eq!(third.await.unwrap(), Some(2));
}

#[tokio::test]
async fn all_takers_learn_that_a_closed_queue_has_run_empty() {
    let queue = queue(100, WhenFull::Block);
    let _ = queue.push(1, 10, holding(7));
    let _ = queue.push(2, 10, holding(7));
    let (_, held) = queue.pop(0).await.unwrap();
    let takers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.pop(0).await.map(|(item, _)| item) })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    drop(held);
    let mut got = Vec::new();
    for taker in takers {
        got.extend(taker.await.unwrap());
    }
    assert_eq!(got, [2]);
}

#[tokio::test]
async fn the_newest_is_dropped_if_that_is_the_policy() {
    let queue = queue(10, WhenFull::DropNewest);
    let _ = queue.push(1, 10, FREE);
    assert!(matches!(queue.push(2, 1, FREE), Pushed::Dropped(2)));
}

#[tokio::test]
async fn a_successor_takes_what_its_predecessor_has_not_taken() {
    let queue = queue(100, WhenFull::Block);
    for i in 0..3 {
        let _ = queue.push(i, 10, FREE);
    }
    let (first, held) = queue.pop(0).await.unwrap();
    let turn = queue.take_over(100, WhenFull::Block);
    assert!(queue.pop(0).await.is_none());
    assert_eq!(queue.pop(turn).await.unwrap().0, 1);
    assert!(held.give_back(vec![(first, 10)], false).is_ok());
    assert_eq!(queue.pop(turn).await.unwrap().0, 0);
    assert_eq!(queue.pop(turn).await.unwrap().0, 2);
    assert_eq!(queue.bytes(), 0);
}

#[tokio::test]
async fn what_is_given_back_comes_before_what_is_behind_it_in_its_lane() {
    let queue = queue(100, WhenFull::Block);
    for i in 0..3 {
        let _ = queue.push(i, 10, holding(7));
    }
    let (_, held) = queue.pop(0).await.unwrap();
    let turn = queue.take_over(100, WhenFull::Block);
    let taker = tokio::spawn({
        let queue = queue.clone();
        async move {
            let mut taken = Vec::new();
            while let Some((item, _held)) = queue.pop(turn).await {
                taken.push(item);
            }
            taken
        }
    });
    tokio::task::yield_now().await;
    assert_eq!(queue.waiting(), 2, "the lane is not free");
    // The item returns in two parts.
    assert!(held.give_back(vec![(10, 5), (11, 5)], false).is_ok());
    queue.close();
    assert_eq!(taker.await.unwrap(), [10, 11, 1, 2]);
    assert_eq!(queue.bytes(), 0);
}

#[tokio::test]
async fn an_item_that_holds_its_lane_is_not_overtaken_by_one_that_does_not() {
    let queue = queue(100, WhenFull::Block);
    let _ = queue.push(1, 10, holding(7));
    let _ = queue.push(2, 10, holding(7));
    let free = Lane { id: 7, ..FREE };
    let _ = queue.push(3, 10, free.clone());
    let _ = queue.push(4, 10, free);
    let (first, held) = queue.pop(0).await.unwrap();
    assert_eq!(first, 1);
    let waiting = queue.pop(0);
    tokio::pin!(waiting);
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)));
    assert!(pending.await.is_pending());
    drop(held);
    let (second, held) = waiting.await.unwrap();
    assert_eq!(second, 2);
    drop(held);
    let (third, _held) = queue.pop(0).await.unwrap();
    let (fourth, _held) = queue.pop(0).await.unwrap();
    assert_eq!((third, fourth), (3, 4));
}

#[tokio::test]
async fn nothing_is_given_back_in_the_turn_in_which_it_was_taken_or_to_an_ended_queue() {
    let queue = queue(100, WhenFull::Block);
    let _ = queue.push(1, 10, FREE);
    let _ = queue.push(2, 10, FREE);
    let (item, held) = queue.pop(0).await.unwrap();
    assert_eq!(held.give_back(vec![(item, 10)], false), Err(vec![1]));
    let (item, held) = queue.pop(0).await.unwrap();
    queue.take_over(100, WhenFull::Block);
    assert!(queue.end().is_empty());
    assert_eq!(held.give_back(vec![(item, 10)], false), Err(vec![2]));
    assert_eq!(queue.bytes(), 0);
}

#[tokio::test]
async fn a_closed_queue_has_not_run_empty_while_something_may_come_back() {
    let queue = queue(100, WhenFull::Block);
    let _ = queue.push(1, 10, FREE);
    let (item, held) = queue.pop(0).await.unwrap();
    let turn = queue.take_over(100, WhenFull::Block);
    queue.close();
    let taker = tokio::spawn({
        let queue = queue.clone();
        async move {
            let first = queue.pop(turn).await.map(|(item, _)| item);
            (first, queue.pop(turn).await.map(|(item, _)| item))
        }
    });
    tokio::task::yield_now().await;
    assert!(!taker.is_finished());
    assert!(held.give_back(vec![(item, 10)], false).is_ok());
    assert_eq!(taker.await.unwrap(), (Some(1), None));
}

#[tokio::test]
async fn whoever_waits_for_room_goes_by_the_bounds_of_the_successor() {
    let queue = queue(10, WhenFull::Block);
    let _ = queue.push(1, 10, FREE);
    let push = |item| {
        let queue = queue.clone();
        tokio::spawn(async move { push_wait(&queue, item, 10, FREE).await })
    };
    let larger = push(2);
    tokio::task::yield_now().await;
    assert!(!larger.is_finished());
    queue.take_over(20, WhenFull::Block);
    assert!(matches!(larger.await.unwrap(), Pushed::Stored(_)));
    let other = push(3);
    tokio::task::yield_now().await;
    queue.take_over(20, WhenFull::DropOldest);
    assert!(matches!(other.await.unwrap(), Pushed::Stored(old) if old == [1]));
}

#[tokio::test]
async fn no_wake_up_is_lost_to_a_taker_whose_turn_is_over() {
    let queue = queue(100, WhenFull::Block);
    let take = |turn| {
        let queue = queue.clone();
        tokio::spawn(async move { queue.pop(turn).await.map(|(item, _)| item) })
    };
    let old = take(0);
    tokio::task::yield_now().await;
    // Wakes the old receiver, which does not run before its turn is over.
    let _ = queue.push(1, 10, FREE);
    let turn = queue.take_over(100, WhenFull::Block);
    let new = take(turn);
    assert_eq!(old.await.unwrap(), None);
    assert_eq!(new.await.unwrap(), Some(1));
}

fn of(tenant: &str, id: u64) -> Lane {
    Lane {
        tenant: Some(tenant.into()),
        id,
        holds: true,
    }
}

fn tenant(name: &str) -> Option<Tenant> {
    Some(name.into())
}

#[tokio::test]
async fn tenants_take_turns_and_so_do_the_lanes_of_each() {
    let queue = queue(1000, WhenFull::Block);
    for i in 0..4 {
        let _ = queue.push(10 + i, 1, of("a", i as u64 % 2));
    }
    let _ = queue.push(20, 1, of("b", 7));
    let _ = queue.push(21, 1, of("b", 7));
    let _ = queue.push(30, 1, of("c", 8));
    let mut taken = Vec::new();
    while queue.waiting() > 0 {
        let (item, held) = queue.pop(0).await.unwrap();
        drop(held);
        taken.push(item);
    }
    assert_eq!(taken, [10, 20, 30, 11, 21, 12, 13]);
}

#[tokio::test]
async fn a_run_is_of_one_lane_and_no_heavier_than_asked_for() {
    let queue = queue(1000, WhenFull::Block);
    for i in 0..5 {
        let _ = queue.push(i, 10, of("a", 1));
        let _ = queue.push(10 + i, 10, of("a", 2));
    }
    let items = |run: &[(u32, Held<u32>)]| run.iter().map(|(item, _)| *item).collect::<Vec<_>>();
    let first = queue.pop_run(0, || up_to(39)).await.unwrap();
    assert_eq!(items(&first), [0, 1, 2]);
    let second = queue.pop_run(0, || up_to(1000)).await.unwrap();
    assert_eq!(items(&second), [10, 11, 12, 13, 14]);
    // The lane is free once the whole run is done.
    let mut first = first.into_iter();
    drop((first.next(), first.next()));
    assert_eq!(queue.waiting(), 2);
    let waiting = queue.pop_run(0, || up_to(5));
    tokio::pin!(waiting);
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx)));
    assert!(pending.await.is_pending());
    drop(first);
    assert_eq!(items(&waiting.await.unwrap()), [3], "one at least");
}

/// A run of one lane.
fn up_to(weight: usize) -> RunBound {
    RunBound { weight, turns: 1 }
}

#[tokio::test]
async fn a_run_of_several_lanes_holds_all_of_them() {
    let queue = queue(1000, WhenFull::Block);
    for (item, weight, lane) in [
        (10, 10, of("a", 1)),
        (11, 10, of("a", 1)),
        (20, 50, of("a", 2)),
        (30, 10, of("a", 3)),
        (40, 10, of("b", 1)),
        (12, 10, of("a", 1)),
    ] {
        let _ = queue.push(item, weight, lane);
    }
    let items = |run: &[(u32, Held<u32>)]| run.iter().map(|(item, _)| *item).collect::<Vec<_>>();
    let most = RunBound {
        weight: 79,
        turns: 3,
    };
    // The large item keeps its turn.
    let first = queue.pop_run(0, || most).await.unwrap();
    assert_eq!(items(&first), [10, 11, 12]);
    let second = queue.pop_run(0, || most).await.unwrap();
    assert_eq!(
        items(&second),
        [40],
        "tenants take turns, and are not mixed"
    );
    let third = queue.pop_run(0, || most).await.unwrap();
    assert_eq!(items(&third), [20, 30]);
    for (item, id) in [(13, 1), (21, 2), (31, 3), (50, 4)] {
        let _ = queue.push(item, 10, of("a", id));
    }
    let fourth = queue.pop_run(0, || most).await.unwrap();
    assert_eq!(items(&fourth), [50], "all other lanes are held");
    drop(third);
    let fifth = queue.pop_run(0, || RunBound { turns: 1, ..most }).await;
    assert_eq!(items(&fifth.unwrap()), [21]);
}

#[tokio::test]
async fn several_whose_senders_wait_are_of_several_turns() {
    let queue = queue(1000, WhenFull::Block);
    for item in 0..5 {
        let _ = queue.push(item, 10, FREE);
    }
    for expected in [&[0, 1, 2][..], &[3, 4]] {
        let most = RunBound {
            weight: 1000,
            turns: 3,
        };
        let run = queue.pop_run(0, || most).await.unwrap();
        assert!(run.iter().map(|(item, _)| item).eq(expected));
    }
}

#[tokio::test]
async fn a_run_ends_where_a_sender_waits() {
    let queue = queue(1000, WhenFull::Block);
    for (item, holds) in [(1, true), (2, true), (3, false), (4, false)] {
        let lane = Lane {
            holds,
            ..holding(7)
        };
        let _ = queue.push(item, 10, lane);
    }
    for expected in [&[1, 2][..], &[3], &[4]] {
        let run = queue.pop_run(0, || up_to(1000)).await.unwrap();
        assert!(run.iter().map(|(item, _)| item).eq(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_who_is_left_alone_keeps_nobody_waiting() {
    let queue = queue(1000, WhenFull::Block);
    for i in 0..3 {
        let _ = queue.push(10 + i, 1, of("a", i as u64));
        let _ = queue.push(20 + i, 1, of("b", 5));
    }
    let start = Instant::now();
    let pause = std::time::Duration::from_secs(30);
    let (first, held) = queue.pop(0).await.unwrap();
    queue.pause(tenant("a"), start + pause);
    assert!(held.give_back(vec![(first, 1)], true).is_ok());
    for expected in 20..23 {
        let (item, held) = queue.pop(0).await.unwrap();
        drop(held);
        assert_eq!(item, expected);
    }
    assert_eq!(start.elapsed(), std::time::Duration::ZERO);
    // At the end of the pause, all lanes of the tenant are ready for several receivers.
    let takers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.pop(0).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    let mut holds = Vec::new();
    for taker in takers {
        let (item, held) = taker.await.unwrap();
        taken.push(item);
        holds.push(held);
    }
    taken.sort_unstable();
    assert_eq!(taken, [10, 11, 12]);
    assert!(start.elapsed() >= pause);
    drop(holds);
    assert_eq!(queue.bytes(), 0);
}

#[tokio::test]
async fn there_is_always_room_for_a_tenant_who_has_nothing_here() {
    for when_full in [WhenFull::Block, WhenFull::DropNewest] {
        let queue = queue(900, when_full);
        let flood = |name| {
            let mut some = 0;
            while matches!(queue.push(0, 10, of(name, 1)), Pushed::Stored(_)) {
                some += 10;
            }
            some
        };
        assert_eq!(flood("a"), 800, "eight ninths");
        assert_eq!(flood("b"), 80, "eight times what is free then");
        assert_eq!(flood("c"), 10);
        // Each tenant may have one item, as long as there is any room at all.
        assert!(matches!(queue.push(0, 10, of("d", 1)), Pushed::Stored(_)));
        assert_eq!(queue.bytes(), 900);
        assert!(!matches!(queue.push(0, 10, of("e", 1)), Pushed::Stored(_)));
    }
}

#[tokio::test]
async fn room_is_made_at_the_cost_of_who_has_most() {
    let queue = queue(900, WhenFull::DropOldest);
    for i in 0..60 {
        let _ = queue.push(i, 10, of("a", i as u64 % 3));
    }
    for i in 100..125 {
        let _ = queue.push(i, 10, of("b", 1));
    }
    assert_eq!(queue.bytes(), 850);
    let mut evicted = Vec::new();
    for i in 200..210 {
        match queue.push(i, 10, of("c", 1)) {
            Pushed::Stored(old) => evicted.extend(old),
            other => panic!("{other:?}"),
        }
    }
    // The oldest items of the largest tenant, whatever their lane.
    assert_eq!(evicted, [0, 1, 2, 3, 4]);
    assert!(matches!(queue.push(60, 10, of("a", 0)), Pushed::Stored(old) if old == [5]));
}

#[tokio::test]
async fn what_is_withdrawn_comes_from_the_backs_of_a_tenants_lanes() {
    let queue = queue(1000, WhenFull::Block);
    for i in 0..4 {
        let _ = queue.push(i, 10, of("a", 1));
        let _ = queue.push(10 + i, 10, of("b", 2));
    }
    let withdrawn = queue.withdraw(&tenant("a"), |item| *item != 1);
    assert_eq!(withdrawn, [(1, 3), (1, 2)]);
    assert_eq!((queue.waiting(), queue.bytes()), (6, 60));
    let left = queue.end();
    assert_eq!(left, [0, 10, 1, 11, 12, 13]);
}

/// Tenant and lane, number and hold of an item in flight.
type Taken = ((u64, u64), u32, Held<u32>);

#[tokio::test]
async fn whatever_happens_lanes_stay_in_order_and_nothing_is_lost() {
    use std::collections::{BTreeMap, BTreeSet};
    for seed in 1..200u64 {
        let mut random = seed * 0x9e37_79b9;
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let queue = queue(500, WhenFull::Block);
        let mut inside: BTreeSet<u32> = BTreeSet::new();
        let mut last: BTreeMap<(u64, u64), u32> = BTreeMap::new();
        let mut under_way: Vec<Vec<Taken>> = Vec::new();
        let lane_of = |item: u32| ((u64::from(item) >> 1) & 3, u64::from(item) & 1);
        for number in 0..400u32 {
            match below(8) {
                0..3 => {
                    let (name, id) = (below(4), below(2));
                    let item = number << 3 | (name as u32) << 1 | id as u32;
                    let weight = 1 + below(30) as usize;
                    let lane = of(["a", "b", "c", "d"][name as usize], id);
                    if let Pushed::Stored(_) = queue.push(item, weight, lane) {
                        inside.insert(item);
                    }
                }
                3..5 => {
                    let most = RunBound {
                        weight: below(60) as usize,
                        turns: 1 + below(3) as usize,
                    };
                    let run = queue.pop_run(0, || most);
                    tokio::pin!(run);
                    let polled =
                        std::future::poll_fn(|cx| std::task::Poll::Ready(run.as_mut().poll(cx)));
                    if let std::task::Poll::Ready(Some(run)) = polled.await {
                        let lanes: BTreeSet<_> =
                            run.iter().map(|(item, _)| lane_of(*item)).collect();
                        assert!(lanes.len() <= most.turns, "seed {seed}: {lanes:?}");
                        let tenants = lanes.iter().map(|(tenant, _)| tenant);
                        assert_eq!(tenants.collect::<BTreeSet<_>>().len(), 1, "seed {seed}");
                        let busy = under_way
                            .iter()
                            .flatten()
                            .find(|(lane, ..)| lanes.contains(lane));
                        assert!(busy.is_none(), "seed {seed}: {busy:?} is held");
                        let weight: usize = run.iter().map(|(_, held)| held.weight).sum();
                        assert!(run.len() == 1 || weight <= most.weight, "seed {seed}");
                        let entry = |(item, held)| (lane_of(item), item, held);
                        under_way.push(run.into_iter().map(entry).collect());
                    }
                }
                5 if !under_way.is_empty() => {
                    let run = under_way.swap_remove(below(under_way.len() as u64) as usize);
                    for (lane, item, held) in run {
                        assert!(last.insert(lane, item) < Some(item), "seed {seed}");
                        assert!(inside.remove(&item));
                        drop(held);
                    }
                }
                6 if !under_way.is_empty() => {
                    let run = under_way.swap_remove(below(under_way.len() as u64) as usize);
                    let mut run = run;
                    while !run.is_empty() {
                        // In any order, as when a receiver is cut off.
                        let (_, item, held) = run.swap_remove(below(run.len() as u64) as usize);
                        let weight = held.weight;
                        held.give_back(vec![(item, weight)], true).unwrap();
                    }
                }
                _ => {
                    let name = ["a", "b", "c", "d"][below(4) as usize];
                    queue.pause(tenant(name), Instant::now());
                }
            }
        }
        for (_, item, _) in under_way.drain(..).flatten() {
            inside.remove(&item);
        }
        let mut left = queue.end();
        left.sort_unstable();
        assert!(left.iter().eq(&inside), "seed {seed}");
        assert_eq!(queue.bytes(), 0, "seed {seed}");
    }
}

#[test]
fn a_queue_that_must_not_grow_makes_do_with_what_it_holds() {
    let oldest = queue(100, WhenFull::DropOldest);
    let push = |queue: &Queue<u32>, item| queue.push_within(item, 10, FREE, false);
    // The first item passes: otherwise nothing would.
    assert!(matches!(push(&oldest, 0), Pushed::Stored(old) if old.is_empty()));
    assert!(matches!(oldest.push(1, 10, FREE), Pushed::Stored(old) if old.is_empty()));
    assert!(matches!(push(&oldest, 2), Pushed::Stored(old) if old == [0]));
    assert_eq!(oldest.bytes(), 20);
    let newest = queue(100, WhenFull::DropNewest);
    assert!(matches!(newest.push(1, 10, FREE), Pushed::Stored(_)));
    assert!(matches!(push(&newest, 2), Pushed::Dropped(2)));
    assert!(matches!(newest.push(3, 10, FREE), Pushed::Stored(_)));
}
