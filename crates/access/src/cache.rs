//! A cache of verdicts on credentials, bounded in time and in entries.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;

use metrifold_base::locked;

use crate::digest::Digest;

/// Values by the digest of the credentials that they are about.
///
/// Entries live in two generations. When the younger is full, the older is dropped and the younger
/// takes its place. A hit in the older generation moves the entry to the younger, so that entries in
/// use survive.
pub(crate) struct Cache<V> {
    generations: Mutex<Generations<V>>,
    /// Maximum number of entries per generation.
    capacity: usize,
}

struct Generations<V> {
    young: HashMap<Digest, Entry<V>>,
    old: HashMap<Digest, Entry<V>>,
}

struct Entry<V> {
    value: V,
    until: Instant,
}

impl<V: Clone> Cache<V> {
    /// An empty cache of at most `2 * capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
            }),
            capacity: capacity.max(1),
        }
    }

    /// The value of a key, unless it has expired.
    pub(crate) fn get(&self, key: &Digest) -> Option<V> {
        let now = Instant::now();
        let mut generations = locked(&self.generations);
        if let Some(entry) = generations.young.get(key) {
            return (entry.until > now).then(|| entry.value.clone());
        }
        let entry = generations.old.remove(key)?;
        if entry.until <= now {
            return None;
        }
        let value = entry.value.clone();
        generations.add(*key, entry, self.capacity);
        Some(value)
    }

    /// Stores a value that expires at `until`.
    pub(crate) fn put(&self, key: Digest, value: V, until: Instant) {
        let mut generations = locked(&self.generations);
        generations.add(key, Entry { value, until }, self.capacity);
    }
}

impl<V> Generations<V> {
    fn add(&mut self, key: Digest, entry: Entry<V>, capacity: usize) {
        if self.young.len() >= capacity && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::digest;

    fn key(number: u32) -> Digest {
        digest::plain(&number.to_be_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_is_known_until_its_time_is_over() {
        let cache = Cache::new(10);
        cache.put(key(1), "one", Instant::now() + Duration::from_secs(5));
        assert_eq!(cache.get(&key(1)), Some("one"));
        assert_eq!(cache.get(&key(2)), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(cache.get(&key(1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_stays_while_others_come_and_go() {
        let cache = Cache::new(10);
        let until = Instant::now() + Duration::from_secs(60);
        cache.put(key(0), 0, until);
        for number in 1..1000 {
            cache.put(key(number), number, until);
            assert_eq!(cache.get(&key(0)), Some(0), "{number}");
            let generations = locked(&cache.generations);
            assert!(generations.young.len() <= 10 && generations.old.len() <= 10);
        }
        assert_eq!(cache.get(&key(1)), None, "forgotten");
    }
}
