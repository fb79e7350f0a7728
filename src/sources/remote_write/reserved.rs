//! A request's reservations in the memory bounds of its source and of the process.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use metrifold_engine::memory::{Amount, Budget, Permit, Refused};

/// Memory bounds that all requests of a source share.
pub(super) struct Bounds {
    in_flight: Arc<Semaphore>,
    /// Total permits of `in_flight`.
    max: usize,
    /// Budget that all sources share.
    process: Budget,
}

/// A request's reservations, released on drop.
pub(super) struct Reserved<'a> {
    bounds: &'a Bounds,
    source: Option<OwnedSemaphorePermit>,
    process: Permit,
}

/// Bound that a request exceeds.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoRoom {
    /// The source's `max_in_flight_bytes`.
    Source,
    /// The budget of the process.
    Process(Refused),
}

impl NoRoom {
    /// Its name in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Process(refused) => refused.as_str(),
        }
    }

    /// The message to the sender.
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
    /// Bounds with at most `max` bytes in flight for the source.
    pub(super) fn new(max: usize, process: Budget) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(max)),
            max,
            process,
        }
    }

    /// Admits a request; `lesser` ones are refused before others when memory is short.
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
    /// Reserves bytes of the body that have arrived.
    pub(super) fn body(&mut self, bytes: usize) -> Result<(), NoRoom> {
        self.take(bytes, Amount::body(bytes))
    }

    /// Reserves the bytes of the decoded body.
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

    /// Releases the memory for processing: the batch is queued, and the queues count it themselves.
    pub(super) fn worked(&mut self) {
        self.process.worked();
    }
}
