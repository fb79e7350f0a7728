//! The sink's run: takes deliveries as connections allow, and sees each to its end.

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
use super::reports::{self, Reports};
use super::stuck::StuckLanes;
use super::transport::Transport;
use super::versions::Versions;
use merge::MergeBound;

/// How a sink delivers, whatever carries it.
#[derive(Debug)]
pub struct Terms {
    /// The sink's name.
    pub id: Arc<str>,
    /// The version to send.
    pub protocol: Protocol,
    /// How long an endpoint that does not take 2.0 is sent 1.0 before 2.0 is tried again.
    pub probe_after: Duration,
    /// The fewest requests that may be under way at once.
    pub min_connections: usize,
    /// The most.
    pub connections: usize,
    /// The most bytes before compression of a request that is made of several batches.
    pub merge_bytes: usize,
    /// When to try again.
    pub retry: Retry,
    /// How long an endpoint may fail on something with server errors, before it is looked for what
    /// that is; zero for ever.
    pub isolate_after: Duration,
    /// Where what is refused is kept, and how much of it.
    pub letters: Option<(Arc<Store>, Bounds)>,
    /// The sink's meters.
    pub metrics: ComponentMetrics,
}

/// A sink that sends remote write.
pub struct Sender<T>(Arc<Shared<T>>);

/// What all deliveries of a sink share.
struct Shared<T> {
    pub(super) terms: Terms,
    pub(super) transport: T,
    pub(super) versions: Versions,
    pub(super) reports: Reports,
    pub(super) pace: Pace,
    pub(super) stuck: StuckLanes,
    /// [`Terms::merge_bytes`], or less if the endpoint does not take so much.
    pub(super) merge_bound: MergeBound,
}

impl<T: Transport> Sender<T> {
    /// Makes the sink; starts nothing.
    pub fn new(terms: Terms, transport: T) -> Self {
        let (least, most) = (terms.min_connections, terms.connections);
        Self(Arc::new(Shared {
            pace: Pace::new(least, most, terms.retry, terms.metrics.connections()),
            stuck: StuckLanes::new(terms.isolate_after),
            merge_bound: MergeBound::new(terms.merge_bytes),
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

/// One task per connection takes deliveries and sees each to its end.
async fn run<T: Transport>(shared: Arc<Shared<T>>, input: Input) -> Result<(), RunError> {
    // Dropping it, as when the sink has to end, ends what is under way.
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
            () = sleep(reports::EVERY) => shared.reports.flush(),
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
            // What is merged has to fit before compression, so more than that is never of use.
            let most = shared.merge_bound.bytes();
            let Some(run) = input.recv_run(most).await else {
                return;
            };
            // The permit may have been withdrawn while there was nothing to send.
            if permit.holds() {
                shared.deliver_run(run, &permit, &input).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
