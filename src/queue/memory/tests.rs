use super::*;

fn queue(max: usize, when_full: WhenFull) -> Arc<Queue<u32>> {
    Arc::new(Queue::new(max, when_full))
}

/// Nobody waits for such an item.
const FREE: Lane = Lane {
    tenant: None,
    id: 0,
    holds: false,
};

impl<T> Queue<T> {
    async fn pop(self: &Arc<Self>, turn: u64) -> Option<(T, Held<T>)> {
        self.pop_run(turn, 0).await?.pop()
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
    assert_eq!(queue.len(), 2, "the lane is not free");
    // It came back in two parts.
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
    // Wakes the old taker, which does not run before its turn is over.
    let _ = queue.push(1, 10, FREE);
    let turn = queue.take_over(100, WhenFull::Block);
    let new = take(turn);
    assert_eq!(old.await.unwrap(), None);
    assert_eq!(new.await.unwrap(), Some(1));
}
