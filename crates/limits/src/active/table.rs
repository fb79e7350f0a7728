//! The table of hashes: open addressing over single numbers that threads read and write at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A slot that has held nothing yet: whoever looks for a hash looks no further.
const EMPTY: u64 = 0;

/// A slot whose hash is idle: whoever looks for another one looks further.
const IDLE: u64 = 1;

/// The bits of a slot that say when its hash was last seen; above them stands the hash.
const PART: u64 = 0xff;

/// The least slots.
const LEAST: u64 = 16;

/// Hashes, and when each was last seen.
#[derive(Debug)]
pub(super) struct Table {
    slots: Box<[AtomicU64]>,
    /// How many slots are not empty.
    filled: AtomicU64,
    /// How long a part of the idle timeout is.
    granule: Duration,
}

/// What was found in the place of a hash.
pub(super) enum Found {
    /// It, which counts as seen now.
    Known,
    /// Room for it: a slot, and what is in it.
    Room((usize, u64)),
}

impl Table {
    /// A table with room for so many before it is full.
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

    /// Whether it takes no more hashes: with more, looking for one would take too long.
    pub(super) fn is_full(&self) -> bool {
        let slots = self.slots.len() as u64;
        self.filled() >= slots - slots / 4
    }

    /// Whether a table with these alone would be much smaller, or is worth making anew.
    pub(super) fn is_wasteful(&self, live: u64) -> bool {
        let slots = self.slots.len() as u64;
        let idle = self.filled().saturating_sub(live);
        (slots > LEAST && live < slots / 8) || idle > slots / 4
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u64>()
    }

    /// What of a hash is kept, where it is put in a slot: never that of an empty or an idle slot.
    fn kept(hash: u64) -> u64 {
        let kept = hash & !PART;
        if kept == 0 { PART + 1 } else { kept }
    }

    fn first(&self, kept: u64) -> usize {
        (kept >> 8) as usize & (self.slots.len() - 1)
    }

    /// Looks for a hash. Ends, since a table is never full.
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

    /// Puts a hash where there was room; false if somebody else was there first.
    pub(super) fn put(&self, (index, was): (usize, u64), hash: u64, part: u8) -> bool {
        let value = Self::kept(hash) | u64::from(part);
        let (slot, order) = (&self.slots[index], Ordering::Relaxed);
        let put = slot.compare_exchange(was, value, order, order).is_ok();
        if put && was == EMPTY {
            self.filled.fetch_add(1, Ordering::Relaxed);
        }
        put
    }

    /// Leaves those out that were last seen longer ago than so many parts. Returns how many are left.
    pub(super) fn sweep(&self, part: u8, parts: u8) -> u64 {
        let mut live = 0;
        for slot in &self.slots {
            let value = slot.load(Ordering::Relaxed);
            if value <= IDLE {
                continue;
            }
            let age = part.wrapping_sub(value as u8);
            // A thread with an older view may have seen it at the part before, and one with a newer
            // view at the part behind.
            let is_idle = age > parts && age < u8::MAX;
            let (idle, order) = (IDLE, Ordering::Relaxed);
            if !is_idle || slot.compare_exchange(value, idle, order, order).is_err() {
                live += 1;
            }
        }
        live
    }

    /// The hashes of this one in a table with room for so many.
    pub(super) fn copy(&self, live: u64) -> Self {
        let copy = Self::new(live.max(self.live()), self.granule);
        copy.fill(self, None);
        copy
    }

    /// The same in a table whose parts are of another length.
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
