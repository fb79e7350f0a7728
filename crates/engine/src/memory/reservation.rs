//! What the program and its queues need at most, and what that leaves of a limit.

use metrifold_base::Size;

/// What the program takes without load: its code, threads, connections and what the allocator
/// keeps.
const PROGRAM: u64 = 48 << 20;
/// What a queue on disk takes besides what it keeps in memory: what waits for its writer, and what
/// is written at a time.
const DISK_QUEUE: u64 = 32 << 20;
/// How many times its size a compressed body takes while it is read.
pub(super) const BODY: u64 = 2;
/// How many times its decoded size a request takes while it is worked on: decoded, with its list
/// of labels, and encoded again.
pub(super) const DECODED: u64 = 4;

/// What a limit is divided into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Of all queues.
    queues: u64,
    /// Of the largest request that a source takes.
    request: u64,
}

/// The largest request that a source takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Compressed.
    pub body: u64,
    /// Decoded.
    pub decoded: u64,
}

impl Sizes {
    /// What it takes of `max_in_flight_bytes`.
    pub fn in_flight(self) -> u64 {
        self.body.saturating_add(self.decoded)
    }

    fn memory(self) -> u64 {
        let body = self.body.saturating_mul(BODY);
        body.saturating_add(self.decoded.saturating_mul(DECODED))
    }
}

impl Reservation {
    /// Of queues, each with what it keeps in memory and whether it is on disk, and sources, each
    /// with its largest request.
    pub fn new(
        queues: impl Iterator<Item = (Size, bool)>,
        sources: impl Iterator<Item = Sizes>,
    ) -> Self {
        let queue = |(memory, disk): (Size, bool)| {
            memory.0.saturating_add(if disk { DISK_QUEUE } else { 0 })
        };
        Self {
            queues: queues.map(queue).fold(0, u64::saturating_add),
            request: sources.map(Sizes::memory).max().unwrap_or(0),
        }
    }

    /// The least limit under which all of it fits.
    pub fn least(&self) -> Size {
        let fixed = PROGRAM.saturating_add(self.queues);
        Size(fixed.saturating_add(self.request))
    }

    /// What a limit leaves to requests; none if it is too little.
    pub fn left(&self, limit: Size) -> Option<u64> {
        (limit >= self.least()).then(|| limit.0 - PROGRAM - self.queues)
    }

    /// What needs how much, in words.
    pub fn describe(&self) -> String {
        format!(
            "the program takes {}, the queues of sinks {}, and the largest request {}",
            Size(PROGRAM),
            Size(self.queues),
            Size(self.request)
        )
    }
}
