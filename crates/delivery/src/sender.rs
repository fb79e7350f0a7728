//! Runs a sink: receives deliveries as connections allow, and brings each to its outcome.

mod attempt;
mod books;
mod merge;
mod search;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use metrifold_base::{BoxFuture, RunError, Shutdown};
use metrifold_engine::dead_letters::{Bounds, Store};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Input, Metrics};
use metrifold_telemetry::ComponentMetrics;

use super::pace::{Pace, Retry};
use super::protocol::Protocol;
use super::reports::Reports;
use super::stuck::StuckLanes;
use super::transport::Transport;
use super::versions::Versions;
use merge::MergeBound;

/// Interval at which messages that were held back are looked at.
const FLUSH: Duration = Duration::from_secs(1);

/// Settings of a sink's deliveries, independent of the transport.
#[derive(Debug)]
pub struct Terms {
    /// Name of the sink.
    pub id: Arc<str>,
    /// Version of remote write to send.
    pub protocol: Protocol,
    /// Time for which an endpoint that does not accept 2.0 is sent 1.0 before 2.0 is tried again.
    pub probe_after: Duration,
    /// The fewest requests that may be in flight at once.
    pub min_connections: usize,
    /// The most requests in flight at once.
    pub connections: usize,
    /// The most bytes, before compression, of a request that is merged from several batches.
    pub merge_bytes: usize,
    /// Whether such a request may hold the data of several senders: if it is refused, their batches
    /// are sent again, each alone.
    pub merges_senders: bool,
    /// Settings of retries.
    pub retry: Retry,
    /// Time for which an endpoint may answer a batch with server errors before the series at fault
    /// is searched; zero disables the search.
    pub isolate_after: Duration,
    /// Store of dead letters and its bounds; `None` if no letters are kept.
    pub letters: Option<(Arc<Store>, Bounds)>,
    /// Metrics of the sink.
    pub metrics: ComponentMetrics,
}

/// A sink that sends remote write.
pub struct Sender<T>(Arc<Shared<T>>);

/// State that all deliveries of a sink share.
struct Shared<T> {
    pub(super) terms: Terms,
    pub(super) transport: T,
    pub(super) versions: Versions,
    pub(super) reports: Reports,
    pub(super) pace: Pace,
    pub(super) stuck: StuckLanes,
    /// [`Terms::merge_bytes`], or less if the endpoint refuses requests of that size.
    pub(super) merge_bound: MergeBound,
}

impl<T: Transport> Sender<T> {
    /// Makes the sink; starts nothing.
    pub fn new(terms: Terms, transport: T) -> Self {
        let (least, most) = (terms.min_connections, terms.connections);
        Self(Arc::new(Shared {
            pace: Pace::new(least, most, terms.retry, terms.metrics.connections()),
            stuck: StuckLanes::new(terms.isolate_after),
            merge_bound: MergeBound::new(terms.merge_bytes, terms.merges_senders),
            versions: Versions::new(terms.protocol, terms.probe_after),
            reports: Reports::new(terms.id.clone()),
            terms,
            transport,
        }))
    }
}

impl<T: Transport> Sink<Metrics> for Sender<T> {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        if let Some((store, bounds)) = &self.0.terms.letters {
            store.attach(*bounds, input.clone());
        }
        Box::pin(run(self.0, input))
    }
}

/// Runs one task per connection, each of which receives deliveries and brings them to their
/// outcome.
async fn run<T: Transport>(shared: Arc<Shared<T>>, input: Input) -> Result<(), RunError> {
    // Dropping the set, when the sink has to end, aborts the requests in flight.
    let mut tasks = JoinSet::new();
    for _ in 0..shared.terms.connections {
        tasks.spawn(work(shared.clone(), input.clone()));
    }
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(ended) => {
                    ended.map_err(|error| RunError(format!("a delivery panicked: {error}")))?;
                }
            },
            () = sleep(FLUSH) => shared.reports.flush(),
        }
    }
}

async fn work<T: Transport>(shared: Arc<Shared<T>>, input: Input) {
    loop {
        let permit = tokio::select! {
            permit = shared.pace.permit() => permit,
            () = input.wait_superseded() => return,
        };
        while permit.holds() {
            let Some(run) = input.recv_run(|| shared.merge_bound.run()).await else {
                return;
            };
            // The permit may have become invalid while there was nothing to send.
            if permit.holds() {
                shared.deliver_run(run, &permit, &input).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
