//! Log messages that could come with every batch or request: at most one per topic and interval,
//! with the sum of those held back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::locked;

/// A sum of several messages on one topic.
pub trait Sum {
    /// Adds a later message.
    fn add(&mut self, later: Self);
}

/// Lets one message per topic and interval pass and sums up the others. No message is lost:
/// [`Limited::held`] returns the sums that are due. The number of topics must be small.
#[derive(Debug)]
pub struct Limited<K, S> {
    every: Duration,
    topics: Mutex<BTreeMap<K, Held<S>>>,
}

/// Time of the last message on a topic, and the sum of those held back since.
#[derive(Debug)]
struct Held<S> {
    told: Instant,
    sum: Option<S>,
}

impl<K: Ord + Clone, S: Sum> Limited<K, S> {
    /// Lets messages on one topic pass at least `every` apart.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            topics: Mutex::default(),
        }
    }

    fn topics(&self) -> MutexGuard<'_, BTreeMap<K, Held<S>>> {
        locked(&self.topics)
    }

    /// Adds a message; returns the sum to log now, if one is due.
    pub fn note(&self, topic: K, sum: S) -> Option<S> {
        let now = Instant::now();
        let mut topics = self.topics();
        let Some(held) = topics.get_mut(&topic) else {
            let (told, none) = (now, None);
            topics.insert(topic, Held { told, sum: none });
            return Some(sum);
        };
        match &mut held.sum {
            Some(before) => before.add(sum),
            None => held.sum = Some(sum),
        }
        if now < held.told + self.every {
            return None;
        }
        held.told = now;
        held.sum.take()
    }

    /// The sum held back on one topic, however short.
    pub fn release(&self, topic: &K) -> Option<S> {
        let mut topics = self.topics();
        let held = topics.get_mut(topic)?;
        let sum = held.sum.take()?;
        held.told = Instant::now();
        Some(sum)
    }

    /// Sums held back for longer than the interval, or all of them.
    pub fn held(&self, all: bool) -> Vec<(K, S)> {
        let now = Instant::now();
        let mut topics = self.topics();
        let due = topics
            .iter_mut()
            .filter(|(_, held)| all || now >= held.told + self.every);
        let take = |(topic, held): (&K, &mut Held<S>)| {
            let sum = held.sum.take()?;
            held.told = now;
            Some((topic.clone(), sum))
        };
        due.filter_map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(10);

    impl Sum for u64 {
        fn add(&mut self, later: Self) {
            *self += later;
        }
    }

    fn limited() -> Limited<&'static str, u64> {
        Limited::new(EVERY)
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_is_told_now_and_then_and_all_of_it_in_the_end() {
        let limited = limited();
        assert_eq!(limited.note("lost", 2), Some(2));
        for _ in 0..5 {
            assert_eq!(limited.note("lost", 2), None);
        }
        assert_eq!(limited.held(false), [], "not yet");
        tokio::time::advance(EVERY).await;
        assert_eq!(limited.note("lost", 1), Some(11));
        assert_eq!(limited.note("lost", 7), None);
        assert_eq!(limited.held(true), [("lost", 7)]);
        assert_eq!(limited.held(true), [], "once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_back_is_told_though_nothing_more_happens() {
        let limited = limited();
        limited.note("lost", 1);
        limited.note("lost", 2);
        tokio::time::advance(EVERY).await;
        assert_eq!(limited.held(false), [("lost", 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_on_a_topic_can_be_told_before_its_time() {
        let limited = limited();
        limited.note("retried", 1);
        assert_eq!(limited.release(&"retried"), None);
        limited.note("retried", 2);
        limited.note("lost", 1);
        limited.note("lost", 3);
        assert_eq!(limited.release(&"retried"), Some(2));
        assert_eq!(limited.held(true), [("lost", 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_topic_holds_another_back() {
        let limited = limited();
        for topic in ["lost", "retried", "recovered"] {
            assert_eq!(limited.note(topic, 1), Some(1), "{topic}");
        }
    }
}
