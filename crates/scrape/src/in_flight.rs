//! The room for pages that are being read at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of pages that are being read.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    most: usize,
}

/// A scrape's part of it, given back when it is dropped.
pub(crate) struct Share<'a> {
    in_flight: &'a InFlight,
    bytes: usize,
}

impl InFlight {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            most,
        }
    }
}

impl<'a> Share<'a> {
    /// Nothing yet.
    pub(crate) fn of(in_flight: &'a InFlight) -> Self {
        Self {
            in_flight,
            bytes: 0,
        }
    }

    /// Takes room for so many bytes more. Returns whether there is as much.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let before = self.in_flight.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= self.in_flight.most
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.in_flight
            .bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
