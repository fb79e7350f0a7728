//! Keeps a component running: reports its death, builds it anew after a pause, and never lets it
//! take the others along.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info, warn};

use metrifold_base::{Backoff, BoxFuture, BuildError, RunError, Shutdown};
use metrifold_http::Listeners;
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

/// Where the states and failures of a supervised task are told.
pub(super) trait Subject: Send + 'static {
    /// What it is, in logs.
    fn kind(&self) -> &'static str;

    /// Says whether it runs.
    fn set(&self, state: State);

    /// Says that it died (`died`), or could not be built anew (`build`), and why.
    fn failed(&self, kind: &'static str, reason: &str);
}

/// A component under supervision.
struct Component {
    kind: Kind,
    metrics: ComponentMetrics,
    reporter: Reporter,
}

impl Subject for Component {
    fn kind(&self) -> &'static str {
        self.kind.as_str()
    }

    fn set(&self, state: State) {
        self.reporter.set(state);
    }

    fn failed(&self, kind: &'static str, reason: &str) {
        self.metrics.failed(kind, reason);
    }
}

/// The subject that a component is.
pub(super) fn component(kind: Kind, metrics: ComponentMetrics) -> Box<dyn Subject> {
    let reporter = metrics.reporter();
    Box::new(Component {
        kind,
        metrics,
        reporter,
    })
}

/// The task that is supervised.
pub(super) struct Supervised {
    pub(super) id: Arc<str>,
    pub(super) subject: Box<dyn Subject>,
    pub(super) first: Option<Run>,
    pub(super) rebuild: Rebuild,
    /// On which it listens anew, if it was the only one at its address.
    pub(super) listeners: Listeners,
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
    // Called here and not in the task: what a component attaches when it is run is attached when
    // this returns, so that nobody is turned away by a listener that starts next.
    let first = supervised.first.take().map(|run| run());
    supervised.subject.set(State::Running);
    Task(tokio::spawn(supervise(supervised, first)))
}

async fn supervise(component: Supervised, first: Option<BoxFuture<Result<(), RunError>>>) {
    let Supervised {
        id,
        subject,
        rebuild,
        listeners,
        mut shutdown,
        ..
    } = component;
    let kind = subject.kind();
    let mut next = first;
    let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
    loop {
        if let Some(run) = next.take() {
            subject.set(State::Running);
            let started = tokio::time::Instant::now();
            // A task of its own, so that a panic ends nothing else.
            let mut task = Task(tokio::spawn(run));
            let ended = task.ended().await;
            let reason = match ended {
                Ok(Ok(())) if shutdown.is_set() => {
                    subject.set(State::Ended);
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
            subject.failed("died", &reason);
            error!(component = %id, kind, reason, "component died, will be built anew");
        }
        if shutdown.is_set() {
            subject.set(State::Ended);
            return;
        }
        subject.set(State::Restarting);
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
                listeners.start_served();
            }
            Err(error) => {
                subject.failed("build", &error.to_string());
                warn!(component = %id, kind, %error, "component cannot be built");
            }
        }
    }
}
