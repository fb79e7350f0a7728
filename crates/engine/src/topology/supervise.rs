//! Keeps a component running: reports its death, rebuilds it after a pause, and isolates the others
//! from its panics.

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

/// A built component that waits to be run.
pub(super) type Run = Box<dyn FnOnce() -> BoxFuture<Result<(), RunError>> + Send>;

/// Builds a component again.
pub(super) type Rebuild = Box<dyn Fn() -> Result<Run, BuildError> + Send>;

/// Receives the states and failures of a supervised task.
pub(super) trait Subject: Send + 'static {
    /// Kind of the task, in logs.
    fn kind(&self) -> &'static str;

    /// Reports whether the task runs.
    fn set(&self, state: State);

    /// Reports that the task died (`died`) or could not be rebuilt (`build`), and why.
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

/// The subject for a component, which reports to its metrics.
pub(super) fn component(kind: Kind, metrics: ComponentMetrics) -> Box<dyn Subject> {
    let reporter = metrics.reporter();
    Box::new(Component {
        kind,
        metrics,
        reporter,
    })
}

/// A task to supervise.
pub(super) struct Supervised {
    pub(super) id: Arc<str>,
    pub(super) subject: Box<dyn Subject>,
    pub(super) first: Option<Run>,
    pub(super) rebuild: Rebuild,
    /// Starts the listener again, if the component was the only one at its address.
    pub(super) listeners: Listeners,
    /// Once it is set, the task's end is intended.
    pub(super) shutdown: Shutdown,
}

/// Handle of a task; dropping it aborts the task.
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

    /// Waits until the task has ended.
    pub(super) async fn ended(&mut self) -> Result<T, JoinError> {
        (&mut self.0).await
    }
}

/// Runs a component until it ends after `shutdown`.
pub(super) fn spawn(mut supervised: Supervised) -> Task<()> {
    // Called here and not in the task: whatever the component attaches when it is run, such as
    // routes, is attached when this returns, so that a listener started next turns nobody away.
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
                Ok(Ok(())) => "ended unexpectedly".to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(error) if error.is_panic() => "panicked".to_string(),
                Err(_) => return, // the runtime shuts down
            };
            if started.elapsed() > RECOVERED {
                backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX);
            }
            subject.failed("died", &reason);
            error!(component = %id, kind, reason, "component died, will be rebuilt");
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
            // A successor may have taken over meanwhile; this build must not displace it.
            Ok(_) if shutdown.is_set() => {}
            Ok(run) => {
                info!(component = %id, kind, "component was rebuilt");
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
