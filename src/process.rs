//! The life of the process: build, run, wait for a signal, drain.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::api::BoundApi;
use crate::config::{Config, Size};
use crate::http::Listeners;
use crate::telemetry::{Metric, Telemetry, UPKEEP};
use crate::topology::Built;

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was delivered.
    Drained,
    /// Something could not be built, and nothing was started.
    NotStarted,
    /// There was data left when the time for shutting down was over.
    LeftData,
    /// A second signal ended it at once.
    AtOnce,
}

/// Runs a configuration until a signal says to stop.
pub async fn run(config: Config, shutdown_limit: Duration) -> Ended {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot listen for signals");
            return Ended::NotStarted;
        }
    };
    let config = Arc::new(config);
    let telemetry = Telemetry::new();
    let started = SystemTime::now().duration_since(UNIX_EPOCH);
    telemetry
        .gauge(Metric::StartTime, Vec::new())
        .set(started.map_or(0.0, |since| since.as_secs_f64()));
    let listeners = Listeners::new();

    let mut sound = true;
    let api = config.api.as_ref().and_then(|api| {
        let bound = BoundApi::bind(api, &listeners);
        bound
            .inspect_err(|error| {
                sound = false;
                error!(%error, "cannot build the api");
            })
            .ok()
    });
    let built = match Built::build(config.clone(), telemetry.clone(), listeners.clone()) {
        Ok(built) if sound => built,
        Ok(_) => return Ended::NotStarted,
        Err(errors) => {
            for (component, error) in errors {
                error!(%component, %error, "cannot build a component");
            }
            return Ended::NotStarted;
        }
    };
    let api = api.map(|api| {
        if let Some(address) = api.local_addr() {
            info!(%address, "api is served");
        }
        api.serve(config.clone(), telemetry.clone())
    });
    let running = built.start();
    info!(
        sources = config.sources.len(),
        transforms = config.transforms.len(),
        sinks = config.sinks.len(),
        "metrifold runs"
    );

    let upkeep = tokio::spawn(upkeep(telemetry));
    signals.first().await;
    info!(limit = ?shutdown_limit, "shutting down; a second signal ends it at once");
    let left = tokio::select! {
        left = running.stop(shutdown_limit) => left,
        () = signals.first() => {
            warn!("second signal: ended at once");
            return Ended::AtOnce;
        }
    };
    drop(api);
    upkeep.abort();
    for sink in &left {
        let size = Size(sink.bytes as u64);
        error!(sink = %sink.sink, batches = sink.batches, %size, "left undelivered");
    }
    if left.is_empty() {
        info!("everything was delivered");
        Ended::Drained
    } else {
        Ended::LeftData
    }
}

async fn upkeep(telemetry: Telemetry) {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        telemetry.upkeep();
    }
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn first(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
