//! Pauses between attempts: exponential, with jitter, so that senders do not come back in step.

use std::time::Duration;

/// Pauses that double from `min` to `max`; each is drawn from the upper fifth of its range, so that none is
/// much shorter than the one before.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    max: Duration,
    seed: u64,
}

impl Backoff {
    /// Starts at `min`, with a random seed.
    pub fn new(min: Duration, max: Duration) -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self::with_seed(min, max, RandomState::new().hash_one(0))
    }

    /// Starts at `min` with a given seed, for tests.
    pub(crate) fn with_seed(min: Duration, max: Duration, seed: u64) -> Self {
        Self {
            next: min,
            max,
            seed,
        }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let full = self.next.min(self.max);
        self.next = full.saturating_mul(2);
        // splitmix64
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let fraction = (x >> 11) as f64 / (1u64 << 53) as f64;
        full.mul_f64(0.8 + fraction / 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_stay_in_their_upper_fifth() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::with_seed(ms(100), ms(1000), 7);
        for full in [100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.next_pause();
            assert!(pause >= ms(full) * 4 / 5 && pause <= ms(full), "{pause:?}");
        }
    }

    #[test]
    fn two_senders_do_not_pause_alike() {
        let pause = |seed| {
            Backoff::with_seed(Duration::from_secs(1), Duration::from_secs(9), seed).next_pause()
        };
        assert_ne!(pause(1), pause(2));
    }
}
