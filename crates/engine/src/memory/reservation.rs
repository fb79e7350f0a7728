//! The most memory that the program and its queues need, and the rest of a limit that is left to
//! requests.

use metrifold_base::Size;

/// Memory of the program without load: code, threads, connections and what the allocator keeps.
const PROGRAM: u64 = 48 << 20;
/// Memory of a queue on disk besides its configured memory: records that wait for its writer, and
/// those being written.
const DISK_QUEUE: u64 = 32 << 20;
/// Memory that a compressed body takes while it is read, as a multiple of its size.
pub(super) const BODY: u64 = 2;
/// Memory that a request takes while it is worked on, as a multiple of its decoded size: decoded,
/// with its list of labels, and encoded again.
pub(super) const DECODED: u64 = 4;

/// Shares of a memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Memory of all queues.
    queues: u64,
    /// Memory of the largest request that a source accepts.
    request: u64,
}

/// Size of the largest request that a source accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Compressed bytes.
    pub body: u64,
    /// Decoded bytes.
    pub decoded: u64,
}

impl Sizes {
    /// Bytes of `max_in_flight_bytes` that a request of this size takes.
    pub fn in_flight(self) -> u64 {
        self.body.saturating_add(self.decoded)
    }

    fn memory(self) -> u64 {
        let body = self.body.saturating_mul(BODY);
        body.saturating_add(self.decoded.saturating_mul(DECODED))
    }
}

impl Reservation {
    /// Computes the shares from the queues, each with its memory and whether it is on disk, and the
    /// sources, each with its largest request.
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

    /// The smallest limit that holds all shares.
    pub fn least(&self) -> Size {
        let fixed = PROGRAM.saturating_add(self.queues);
        Size(fixed.saturating_add(self.request))
    }

    /// The part of a limit that is left to requests; `None` if the limit is too small.
    pub fn left(&self, limit: Size) -> Option<u64> {
        (limit >= self.least()).then(|| limit.0 - PROGRAM - self.queues)
    }

    /// A sentence for people that states the size of each share.
    pub fn describe(&self) -> String {
        format!(
            "the program takes {}, the queues of sinks {}, and the largest request {}",
            Size(PROGRAM),
            Size(self.queues),
            Size(self.request)
        )
    }
}
