//! What a request holds of the bounds on memory: of its source's and of the process's.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use metrifold_engine::memory::{Amount, Budget, Permit, Refused};

/// What the requests of a source draw on.
pub(super) struct Bounds {
    in_flight: Arc<Semaphore>,
    /// The permits of `in_flight`.
    max: usize,
    /// What all sources share.
    process: Budget,
}

/// A request's part; dropping it gives all of it back.
pub(super) struct Reserved<'a> {
    bounds: &'a Bounds,
    source: Option<OwnedSemaphorePermit>,
    process: Permit,
}

/// Why there is no room for a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoRoom {
    /// `max_in_flight_bytes` of the source is reached.
    Source,
    /// The process says so.
    Process(Refused),
}

impl NoRoom {
    /// In metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Process(refused) => refused.as_str(),
        }
    }

    /// For the sender.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Source | Self::Process(Refused::InFlight) => {
                "too many bytes in flight: try again"
            }
            Self::Process(Refused::Share) => {
                "memory is short, and your requests have most of it: try again"
            }
            Self::Process(Refused::Memory | Refused::Resident) => "memory is short: try again",
        }
    }
}

impl Bounds {
    /// At most `max` bytes in flight.
    pub(super) fn new(max: usize, process: Budget) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(max)),
            max,
            process,
        }
    }

    /// Lets a request in; `lesser` ones are refused before others.
    pub(super) fn enter(&self, peer: IpAddr, lesser: bool) -> Result<Reserved<'_>, NoRoom> {
        let process = self.process.enter(peer, lesser).map_err(NoRoom::Process)?;
        Ok(Reserved {
            bounds: self,
            source: None,
            process,
        })
    }
}

impl Reserved<'_> {
    /// Takes so many bytes of the body that have arrived.
    pub(super) fn body(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.take(bytes, Amount::body(bytes))
    }

    /// Takes what the body has when it is decoded.
    pub(super) fn decoded(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.take(bytes, Amount::decoded(bytes))
    }

    fn take(&mut self, bytes: usize, amount: Amount) -> Result<(), NoRoom> {
        let bytes = bytes.min(self.bounds.max);
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let in_flight = self.bounds.in_flight.clone();
        let more = in_flight.try_acquire_many_owned(permits);
        let more = more.map_err(|_| NoRoom::Source)?;
        self.process.take(amount).map_err(NoRoom::Process)?;
        match &mut self.source {
            Some(source) => source.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// The batch is in the queues, which are counted for themselves.
    pub(super) fn worked(&mut self) {
        self.process.worked();
    }
}
