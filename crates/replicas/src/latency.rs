//! A quantile of recent response times, after which a query is hedged.

use std::time::Duration;

/// Number of response times that are kept.
const KEPT: usize = 512;

/// Fewest response times that give a quantile.
const ENOUGH: usize = 20;

/// Number of answers after which the quantile is computed again: sorting costs more than recording.
const EVERY: usize = 32;

/// Response times of the last answers.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    quantile: f64,
    times: Vec<Duration>,
    next: usize,
    known: Option<Duration>,
}

impl Latency {
    pub(crate) fn new(quantile: f64) -> Self {
        Self {
            quantile,
            times: Vec::new(),
            next: 0,
            known: None,
        }
    }

    /// Records a response time.
    pub(crate) fn note(&mut self, time: Duration) {
        if self.times.len() < KEPT {
            self.times.push(time);
        } else {
            self.times[self.next % KEPT] = time;
        }
        self.next = self.next.wrapping_add(1);
        let due = self.next.is_multiple_of(EVERY) || self.known.is_none();
        if due && self.times.len() >= ENOUGH {
            let mut sorted = self.times.clone();
            let at = ((sorted.len() as f64 * self.quantile) as usize).min(sorted.len() - 1);
            let (_, found, _) = sorted.select_nth_unstable(at);
            self.known = Some(*found);
        }
    }

    /// The quantile. `None` until there are enough answers.
    pub(crate) fn quantile(&self) -> Option<Duration> {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_follows_what_came_of_late() {
        let mut latency = Latency::new(0.9);
        let ms = Duration::from_millis;
        for n in 0..19 {
            latency.note(ms(n));
            assert_eq!(latency.quantile(), None);
        }
        for n in 0..1000 {
            latency.note(ms(n % 100));
        }
        let found = latency.quantile().unwrap();
        assert!(found >= ms(85) && found <= ms(95), "{found:?}");
        for _ in 0..KEPT {
            latency.note(ms(7));
        }
        assert_eq!(latency.quantile(), Some(ms(7)));
        assert_eq!(latency.times.len(), KEPT);
    }
}
