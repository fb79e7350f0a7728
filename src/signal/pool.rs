//! Memory of batches that are gone, for batches to come: without it every batch would have the
//! operating system map and clear a megabyte.

use std::sync::{Mutex, PoisonError};

use super::arena::{Label, Series};

/// A decompressed request; its memory goes back to a pool.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    bytes: Vec<u8>,
    /// How much of `bytes` is the request: the pool keeps longer buffers initialised.
    len: usize,
}

impl Raw {
    /// A buffer of `len` bytes with unspecified contents, to be decompressed into.
    pub(crate) fn with_len(len: usize) -> Self {
        let mut bytes = Pool::take_raw();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        Self { bytes, len }
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

/// Memory of arenas that are gone, for arenas to come: without it every batch would have the
/// operating system map and clear a megabyte.
static POOL: Mutex<Pool> = Mutex::new(Pool {
    raw: Vec::new(),
    lists: Vec::new(),
});

/// Buffers kept, and the largest that is worth keeping, in bytes.
const POOL_BUFFERS: usize = 8;
const POOL_LARGEST: usize = 2 << 20;

#[derive(Default)]
pub(super) struct Pool {
    raw: Vec<Vec<u8>>,
    lists: Vec<(Vec<Label>, Vec<Series>)>,
}

impl Pool {
    /// The pool holds no invariant that a panic elsewhere could have broken.
    fn lock() -> std::sync::MutexGuard<'static, Self> {
        POOL.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_raw() -> Vec<u8> {
        Self::lock().raw.pop().unwrap_or_default()
    }

    fn give_raw(buffer: Vec<u8>) {
        if (1..=POOL_LARGEST).contains(&buffer.capacity()) {
            let mut pool = Self::lock();
            if pool.raw.len() < POOL_BUFFERS {
                pool.raw.push(buffer);
            }
        }
    }

    pub(super) fn take_lists() -> (Vec<Label>, Vec<Series>) {
        Self::lock().lists.pop().unwrap_or_default()
    }

    pub(super) fn give_lists(mut labels: Vec<Label>, mut series: Vec<Series>) {
        let size = labels.capacity() * size_of::<Label>() + series.capacity() * size_of::<Series>();
        if (1..=POOL_LARGEST).contains(&size) {
            labels.clear();
            series.clear();
            let mut pool = Self::lock();
            if pool.lists.len() < POOL_BUFFERS {
                pool.lists.push((labels, series));
            }
        }
    }
}
