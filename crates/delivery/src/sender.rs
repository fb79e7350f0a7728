//! The sink's run: takes deliveries as connections allow, and sees each to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Uri};
use tokio::task::JoinSet;

use metrifold_base::{BoxFuture, RunError, Shutdown};
use metrifold_engine::dead_letters::{Bounds, Store};
use metrifold_engine::planes::Sink;
use metrifold_engine::planes::metrics::{Input, Metrics};
use metrifold_http::{Client, Credentials};
use metrifold_telemetry::ComponentMetrics;

use super::config::{Flavour, Protocol, RetryConfig};
use super::merge::MergeBound;
use super::pace::Pace;

/// Where and how to deliver.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: Arc<str>,
    pub(super) endpoints: Vec<Uri>,
    pub(super) client: Client,
    pub(super) credentials: Credentials,
    pub(super) headers: HeaderMap,
    pub(super) tenant_header: Option<HeaderName>,
    pub(super) protocol: Protocol,
    pub(super) flavour: Flavour,
    pub(super) timeout: Duration,
    pub(super) min_connections: usize,
    pub(super) connections: usize,
    /// The most bytes before compression of a request that is made of several batches.
    pub(super) merge_bytes: usize,
    pub(super) retry: RetryConfig,
    /// Where what is refused is kept, and how much of it.
    pub(super) letters: Option<(Arc<Store>, Bounds)>,
    pub(super) metrics: ComponentMetrics,
}

/// A sink that sends remote write.
pub(super) struct Sender(Arc<Shared>);

/// What all deliveries of a sink share.
pub(super) struct Shared {
    pub(super) target: Target,
    /// Which endpoint is used now.
    pub(super) current: AtomicUsize,
    /// Whether the endpoint has shown that it does not take 2.0.
    pub(super) fell_back: AtomicBool,
    pub(super) log: metrifold_base::LogLimit,
    pub(super) pace: Pace,
    /// [`Target::merge_bytes`], or less if the endpoint does not take so much.
    pub(super) merge_bound: MergeBound,
}

impl Sender {
    pub(super) fn new(target: Target) -> Self {
        let (least, most) = (target.min_connections, target.connections);
        Self(Arc::new(Shared {
            pace: Pace::new(least, most, target.retry, target.metrics.connections()),
            merge_bound: MergeBound::new(target.merge_bytes),
            target,
            current: AtomicUsize::new(0),
            fell_back: AtomicBool::new(false),
            log: Default::default(),
        }))
    }
}

impl Sink<Metrics> for Sender {
    fn run(self: Box<Self>, input: Input, _shutdown: Shutdown) -> BoxFuture<Result<(), RunError>> {
        if let Some((store, bounds)) = &self.0.target.letters {
            store.attach(*bounds, input.clone());
        }
        Box::pin(run(self.0, input))
    }
}

/// One task per connection takes deliveries and sees each to its end.
async fn run(shared: Arc<Shared>, input: Input) -> Result<(), RunError> {
    // Dropping it, as when the sink has to end, ends what is under way.
    let mut tasks = JoinSet::new();
    for _ in 0..shared.target.connections {
        tasks.spawn(work(shared.clone(), input.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| RunError(format!("a delivery panicked: {error}")))?;
    }
    Ok(())
}

async fn work(shared: Arc<Shared>, input: Input) {
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
            // It may have come to that while there was nothing to send.
            if permit.holds() {
                shared.deliver_run(run, &permit, &input).await;
            }
        }
    }
}
