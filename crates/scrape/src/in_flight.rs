//! Bounds of the work on pages at the same time: bytes of pages, and pages that may take much more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of pages that are being read, or have been read and are not used up.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    most: usize,
    /// As many turns as there are processors, for pages that may take much memory: a compressed page
    /// is small, and up to `body_size_limit` in memory; its batch is larger still.
    turns: Arc<Semaphore>,
}

/// The turn of a page that may take much memory to decompress and to parse.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Returned on drop.
    _permit: OwnedSemaphorePermit,
}

/// A page's share of the budget, returned on drop.
#[derive(Debug)]
pub(crate) struct Share {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            most,
            turns: Arc::new(Semaphore::new(
                available_parallelism().map_or(1, Into::into),
            )),
        }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        // The semaphore is never closed.
        let turn = self.turns.clone().acquire_owned().await;
        turn.ok().map(|permit| Turn { _permit: permit })
    }
}

impl Share {
    /// A share of 0 bytes.
    pub(crate) fn of(in_flight: &Arc<InFlight>) -> Self {
        Self {
            in_flight: in_flight.clone(),
            bytes: 0,
        }
    }

    /// Bytes of the share.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes to the share. Returns whether the total is within the budget.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let before = self.in_flight.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.in_flight.most
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.in_flight
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
