//! Keeps a component running: reports its death, builds it anew after a pause, and never lets it
//! take the others along.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use metrifold_base::{Backoff, BoxFuture, BuildError, RunError, Shutdown};
use metrifold_model::Kind;
use metrifold_telemetry::{ComponentMetrics, Reporter, State};

/// The pauses between attempts to bring a dead component back.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A component that ran for this long is taken to have recovered.
const RECOVERED: Duration = Duration::from_secs(120);

/// A component that has been built and waits to be run.
pub(super) type Run = Box<dyn FnOnce() -> BoxFuture<Result<(), RunError>> + Send>;

/// Builds a component anew.
pub(super) type Rebuild = Box<dyn Fn() -> Result<Run, BuildError> + Send>;

/// Who is supervised.
pub(super) struct Supervised {
    pub(super) id: Arc<str>,
    pub(super) kind: Kind,
    pub(super) metrics: ComponentMetrics,
    pub(super) first: Option<Run>,
    pub(super) rebuild: Rebuild,
    /// When it is set, an end is an end.
    pub(super) shutdown: Shutdown,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Task<T> {
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }
}

/// Runs a component until it ends after `shutdown`.
pub(super) fn spawn(mut supervised: Supervised) -> Task<()> {
    let reporter = supervised.metrics.reporter();
    // Called here and not in the task: what a component attaches when it is run is attached when
    // this returns, so that nobody is turned away by a listener that starts next.
    let first = supervised.first.take().map(|run| run());
    reporter.set(State::Running);
    Task(tokio::spawn(supervise(supervised, reporter, first)))
}

async fn supervise(
    component: Supervised,
    reporter: Reporter,
    first: Option<BoxFuture<Result<(), RunError>>>,
) {
    let Supervised {
        id,
        kind,
        metrics,
        rebuild,
        mut shutdown,
        ..
    } = component;
    let kind = kind.as_str();
    let mut next = first;
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    loop {
        if let Some(run) = next.take() {
            reporter.set(State::Running);
            let started = tokio::time::Instant::now();
            // A task of its own, so that a panic ends nothing else.
            let mut task = Task(tokio::spawn(run));
            let ended = task.ended().await;
            let reason = match ended {
                Ok(Ok(())) if shutdown.is_set() => {
                    reporter.set(State::Ended);
                    return;
                }
                Ok(Ok(())) => "ended by itself".to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(error) if error.is_panic() => "panicked".to_string(),
                Err(_) => return, // the runtime is going
            };
            if started.elapsed() > RECOVERED {
                backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
            }
            metrics.failed("died", &reason);
            error!(component = %id, kind, reason, "component died, will be built anew");
        }
        if shutdown.is_set() {
            reporter.set(State::Ended);
            return;
        }
        reporter.set(State::Restarting);
        tokio::select! {
            () = tokio::time::sleep(backoff.next_pause()) => {}
            () = shutdown.wait() => continue,
        }
        match rebuild() {
            // A successor may have taken its place meanwhile, which it must not take back.
            Ok(_) if shutdown.is_set() => {}
            Ok(run) => {
                info!(component = %id, kind, "component was built anew");
                next = Some(run());
            }
            Err(error) => {
                metrics.failed("build", &error);
                warn!(component = %id, kind, %error, "component cannot be built");
            }
        }
    }
}
