//! The table of hashes: open addressing over atomic integers, without locks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A slot that has never held a hash: ends a search.
const EMPTY: u64 = 0;

/// A slot whose hash is idle and may be replaced: does not end a search.
const IDLE: u64 = 1;

/// Bits of a slot that hold the part in which its hash was last seen; the other bits hold the hash.
const PART: u64 = 0xff;

/// Least number of slots.
const LEAST: u64 = 16;

/// Hashes with the part in which each was last seen.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[AtomicU64]>,
    /// Number of slots that are not `EMPTY`.
    filled: AtomicU64,
    /// Length of a part of the idle timeout.
    granule: Duration,
}

/// Result of a search for a hash.
pub(super) enum Found {
    /// The hash is in the table, and counts as seen now.
    Known,
    /// The hash is not in the table: a free slot, and its value.
    Room((usize, u64)),
}

impl Table {
    /// An empty table with room for `live` hashes.
    pub(super) fn new(live: u64, granule: Duration) -> Self {
        let slots = (live.saturating_mul(2)).max(LEAST).next_power_of_two();
        Self {
            slots: (0..slots).map(|_| AtomicU64::new(EMPTY)).collect(),
            filled: AtomicU64::new(0),
            granule,
        }
    }

    pub(super) fn granule(&self) -> Duration {
        self.granule
    }

    pub(super) fn filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    /// Whether the load factor is reached: with more hashes, searches would take too long.
    pub(super) fn is_full(&self) -> bool {
        let slots = self.slots.len() as u64;
        self.filled() >= slots - slots / 4
    }

    /// Whether copying the `live` hashes pays: the table would be much smaller, or loses many idle
    /// slots.
    pub(super) fn is_wasteful(&self, live: u64) -> bool {
        let slots = self.slots.len() as u64;
        let idle = self.filled().saturating_sub(live);
        (slots > LEAST && live < slots / 8) || idle > slots / 4
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }

    /// The bits of a hash that a slot holds; never equal to `EMPTY` or `IDLE`.
    fn kept(hash: u64) -> u64 {
        let kept = hash & !PART;
        if kept == 0 { PART + 1 } else { kept }
    }

    fn first(&self, kept: u64) -> usize {
        (kept >> 8) as usize & (self.slots.len() - 1)
    }

    /// Searches for a hash. Bounded by the number of slots.
    #[inline]
    pub(super) fn find(&self, hash: u64, part: u8) -> Found {
        let kept = Self::kept(hash);
        let mut index = self.first(kept);
        let mut room = None;
        for _ in 0..self.slots.len() {
            let slot = &self.slots[index];
            let value = slot.load(Ordering::Relaxed);
            if value == EMPTY {
                return Found::Room(room.unwrap_or((index, EMPTY)));
            }
            if value == IDLE {
                room.get_or_insert((index, IDLE));
            } else if value & !PART == kept {
                if value as u8 != part {
                    slot.store(kept | u64::from(part), Ordering::Relaxed);
                }
                return Found::Known;
            }
            index = (index + 1) & (self.slots.len() - 1);
        }
        Found::Room(room.unwrap_or((index, EMPTY)))
    }

    /// Writes a hash into a free slot; returns false if another thread was faster.
    pub(super) fn put(&self, (index, was): (usize, u64), hash: u64, part: u8) -> bool {
        let value = Self::kept(hash) | u64::from(part);
        let (slot, order) = (&self.slots[index], Ordering::Relaxed);
        let put = slot.compare_exchange(was, value, order, order).is_ok();
        if put && was == EMPTY {
            self.filled.fetch_add(1, Ordering::Relaxed);
        }
        put
    }

    /// Marks hashes as idle that were last seen more than `parts` parts ago. Returns the number of
    /// the others.
    pub(super) fn sweep(&self, part: u8, parts: u8) -> u64 {
        let mut live = 0;
        for slot in &self.slots {
            let value = slot.load(Ordering::Relaxed);
            if value <= IDLE {
                continue;
            }
            let age = part.wrapping_sub(value as u8);
            // Threads hold views of neighbouring parts, so that a hash may have been seen at the
            // part behind the current one.
            let is_idle = age > parts && age < u8::MAX;
            let (idle, order) = (IDLE, Ordering::Relaxed);
            if !is_idle || slot.compare_exchange(value, idle, order, order).is_err() {
                live += 1;
            }
        }
        live
    }

    /// A copy with room for `live` hashes.
    pub(super) fn copy(&self, live: u64) -> Self {
        let copy = Self::new(live.max(self.live()), self.granule);
        copy.fill(self, None);
        copy
    }

    /// A copy with parts of another length, in which every hash counts as seen in `part`.
    pub(super) fn rejuvenated(&self, granule: Duration, part: u8) -> Self {
        let copy = Self::new(self.live(), granule);
        copy.fill(self, Some(part));
        copy
    }

    fn live(&self) -> u64 {
        let slots = self.slots.iter();
        let live = slots.filter(|slot| slot.load(Ordering::Relaxed) > IDLE);
        live.count() as u64
    }

    fn fill(&self, from: &Self, part: Option<u8>) {
        for slot in &from.slots {
            let value = slot.load(Ordering::Relaxed);
            if value <= IDLE {
                continue;
            }
            let part = part.unwrap_or(value as u8);
            if let Found::Room(room) = self.find(value, part) {
                self.put(room, value, part);
            }
        }
    }
}
