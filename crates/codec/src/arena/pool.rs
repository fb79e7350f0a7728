//! Reuses the memory of dropped batches: without it every batch would make the operating system map
//! and clear a megabyte.

use std::sync::{Mutex, PoisonError};

use super::{Label, Series};

/// A decompressed request; its memory goes back to a pool.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    bytes: Vec<u8>,
    /// Length of the request in `bytes`: the pool keeps longer buffers initialised.
    len: usize,
}

impl Raw {
    /// A buffer of `len` bytes with unspecified contents, to be decompressed into.
    pub(crate) fn with_len(len: usize) -> Self {
        let mut bytes = Pool::take_raw(len);
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Self { bytes, len }
    }

    /// Memory of the buffer, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<Vec<u8>> for Raw {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self { bytes, len }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        Pool::give_raw(std::mem::take(&mut self.bytes));
    }
}

/// Memory of dropped arenas, reused by new ones: without it every batch would make the operating
/// system map and clear a megabyte.
static POOL: Mutex<Pool> = Mutex::new(Pool {
    raw: Vec::new(),
    lists: Vec::new(),
});

/// Buffers kept, and the largest that is worth keeping, in bytes.
const POOL_BUFFERS: usize = 8;
const POOL_LARGEST: usize = 2 << 20;

/// Largest reused buffer, as a multiple of the batch's decoded size, and the least size assumed for
/// a batch. Bounded because a batch that waits in a queue keeps its buffers.
const POOL_RAW: usize = 4;
const POOL_LISTS: usize = 16;
const POOL_SMALLEST: usize = 256;

/// The memory of the lists of an arena, in bytes.
pub(super) fn size_of_lists(labels: &Vec<Label>, series: &Vec<Series>) -> usize {
    labels.capacity() * size_of::<Label>() + series.capacity() * size_of::<Series>()
}

#[derive(Default)]
pub(super) struct Pool {
    raw: Vec<Vec<u8>>,
    lists: Vec<(Vec<Label>, Vec<Series>)>,
}

impl Pool {
    /// Locks the pool, poisoned or not: it has no invariant that a panic elsewhere could have
    /// broken.
    fn lock() -> std::sync::MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_raw(len: usize) -> Vec<u8> {
        let mut pool = Self::lock();
        let fits = |raw: &Vec<u8>| raw.capacity() <= POOL_RAW * len.max(POOL_SMALLEST);
        let found = pool.raw.iter().rposition(fits);
        found.map_or_else(Vec::new, |place| pool.raw.swap_remove(place))
    }

    fn give_raw(buffer: Vec<u8>) {
        if (1..=POOL_LARGEST).contains(&buffer.capacity()) {
            let mut pool = Self::lock();
            if pool.raw.len() < POOL_BUFFERS {
                pool.raw.push(buffer);
            }
        }
    }

    pub(super) fn take_lists(raw_len: usize) -> (Vec<Label>, Vec<Series>) {
        let mut pool = Self::lock();
        let most = POOL_LISTS * raw_len.max(POOL_SMALLEST);
        let fits =
            |(labels, series): &(Vec<Label>, Vec<Series>)| size_of_lists(labels, series) <= most;
        let found = pool.lists.iter().rposition(fits);
        found.map_or_else(Default::default, |place| pool.lists.swap_remove(place))
    }

    pub(super) fn give_lists(mut labels: Vec<Label>, mut series: Vec<Series>) {
        if (1..=POOL_LARGEST).contains(&size_of_lists(&labels, &series)) {
            labels.clear();
            series.clear();
            let mut pool = Self::lock();
            if pool.lists.len() < POOL_BUFFERS {
                pool.lists.push((labels, series));
            }
        }
    }
}
