//! The active series of a tenant, in bounded memory. A series is active if it had a sample within
//! the idle timeout.
//!
//! A series is represented by 56 bits of a hash with a secret key, in a table that grows with the
//! number of series up to the limit: 12 to 23 bytes for each active series, and nothing for a
//! tenant whose series are not tracked. Beside the hash the table holds when the series was last
//! seen, in twentieths of the idle timeout, so that a series is removed up to a twentieth later
//! than configured. Two series share a hash with a probability of `n / 2^56` each: among a million
//! active ones, once in seventy billion new ones. Series that threads add while the table grows may
//! be counted twice until the next count, which happens every twentieth of the timeout.
//!
//! Looking up a series reads and writes single numbers, without a lock.

mod table;

use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;
use tokio::time::Instant;

use metrifold_base::locked;
use metrifold_codec::SeriesMut;

use table::{Found, Table};

/// Number of parts that the idle timeout is divided into.
const PARTS: u32 = 20;

/// The set of active series.
#[derive(Debug, Default)]
pub struct ActiveSeries {
    table: ArcSwapOption<Table>,
    /// Held while the table is replaced.
    replacing: Mutex<()>,
    /// Number of active series.
    count: AtomicU64,
    /// One more than the part of the timeout in which idle series were last removed; 0 if they
    /// never were.
    swept: AtomicU64,
    /// Time of the first batch; parts are counted from it.
    epoch: OnceLock<Instant>,
    hasher: RandomState,
}

/// The table at the time of one batch.
#[derive(Debug)]
pub struct View {
    table: Arc<Table>,
    /// The current part of the timeout, modulo 256.
    part: u8,
}

impl ActiveSeries {
    /// Number of active series, as of the last batch.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The table for a batch that came at `now`, with idle series removed.
    pub fn view(&self, now: Instant, idle: Duration) -> View {
        let granule = idle / PARTS;
        let epoch = *self.epoch.get_or_init(|| now);
        let passed = now.saturating_duration_since(epoch).as_nanos();
        let at = (passed / granule.as_nanos().max(1)) as u64;
        let part = at as u8;
        let known = self.table.load_full();
        let known = known.filter(|table| table.granule() == granule);
        let table = known.unwrap_or_else(|| self.renew(granule, part));
        let before = self.swept.load(Ordering::Relaxed);
        let due = before <= at;
        let mine = due
            && self
                .swept
                .compare_exchange(before, at + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !mine {
            return View { table, part };
        }
        if at + 1 - before > u64::from(PARTS) && before > 0 {
            // No batch came for longer than the idle timeout, so that every series is idle.
            let table = self.replace(&table, |_| Table::new(0, granule));
            return View { table, part };
        }
        let live = table.sweep(part, PARTS as u8);
        self.count.store(live, Ordering::Relaxed);
        if table.is_wasteful(live) {
            let table = self.replace(&table, |table| table.copy(live));
            return View { table, part };
        }
        View { table, part }
    }

    /// Whether a series is active, or may become active: false if `most` others are.
    pub fn admit(&self, view: &mut View, series: &SeriesMut<'_>, most: u64) -> bool {
        let mut hasher = self.hasher.build_hasher();
        for index in 0..series.len() {
            // A byte that never occurs in UTF-8 separates the texts.
            hasher.write(series.name_at(index));
            hasher.write_u8(0xff);
            hasher.write(series.value_at(index));
            hasher.write_u8(0xff);
        }
        self.admit_hash(view, hasher.finish(), most)
    }

    fn admit_hash(&self, view: &mut View, hash: u64, most: u64) -> bool {
        loop {
            match view.table.find(hash, view.part) {
                Found::Known => return true,
                Found::Room(room) => {
                    if view.table.is_full() {
                        let live = self.count();
                        view.table = self.replace(&view.table, |table| table.copy(live + 1));
                        continue;
                    }
                    if self.count.fetch_add(1, Ordering::Relaxed) >= most {
                        self.count.fetch_sub(1, Ordering::Relaxed);
                        return false;
                    }
                    if view.table.put(room, hash, view.part) {
                        return true;
                    }
                    // Another thread has taken the slot.
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Frees the table if all series are idle.
    pub fn trim(&self, now: Instant, idle: Duration) {
        if self.table.load().is_some() {
            self.view(now, idle);
            if self.count() == 0 {
                let _replacing = locked(&self.replacing);
                self.table.store(None);
            }
        }
    }

    /// Replaces the table `old` by one made from it, unless another thread has replaced it already.
    fn replace(&self, old: &Arc<Table>, make: impl FnOnce(&Table) -> Table) -> Arc<Table> {
        let _replacing = locked(&self.replacing);
        if let Some(table) = self.table.load_full()
            && !Arc::ptr_eq(&table, old)
            && table.granule() == old.granule()
        {
            return table;
        }
        let table = Arc::new(make(old));
        self.count.store(table.filled(), Ordering::Relaxed);
        self.table.store(Some(Arc::clone(&table)));
        table
    }

    /// Replaces the table after the idle timeout has changed. All active series count as seen now.
    fn renew(&self, granule: Duration, part: u8) -> Arc<Table> {
        let _replacing = locked(&self.replacing);
        let old = self.table.load_full();
        let table = match old {
            Some(table) if table.granule() == granule => return table,
            Some(old) => old.rejuvenated(granule, part),
            None => Table::new(0, granule),
        };
        let table = Arc::new(table);
        self.swept.store(0, Ordering::Relaxed);
        self.count.store(table.filled(), Ordering::Relaxed);
        self.table.store(Some(Arc::clone(&table)));
        table
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.table.load().as_ref().map_or(0, |table| table.bytes())
    }
}

#[cfg(test)]
mod tests;
