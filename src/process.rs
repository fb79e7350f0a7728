//! The life of the process: build, run, reload when asked to, wait for a signal, drain.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use metrifold_base::Size;
use metrifold_engine::config::Config;
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::reload;
use metrifold_engine::reload::{Board, Follower, Hangup, Reloader};
use metrifold_engine::topology::Built;
use metrifold_http::Listeners;
use metrifold_telemetry::{Metric, Telemetry, UPKEEP};

use crate::api::Admin;

/// How long the last dead letters may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

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

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long sinks may go on delivering after a signal to stop.
    pub shutdown_limit: Duration,
    /// How to reload.
    pub reload: reload::Options,
}

/// Runs a configuration, and what takes its place later, until a signal says to stop.
pub async fn run(config: Config, hangup: Hangup, options: Options) -> Ended {
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
    let board = Arc::new(Board::new(config.clone(), &telemetry));
    let (mut reloader, requests) = Reloader::new(options.reload, hangup, board.clone());
    let letters = Stores::new(config.data_dir.as_deref());
    let mut admin = Admin::new(
        listeners.clone(),
        board,
        requests,
        telemetry.clone(),
        letters.clone(),
    );

    let api = admin
        .prepare(&config)
        .inspect_err(|error| error!(%error, "cannot build the api"));
    let built = Built::build(
        config.clone(),
        telemetry.clone(),
        listeners,
        letters.clone(),
    );
    for (component, error) in built.as_ref().err().into_iter().flatten() {
        error!(%component, %error, "cannot build a component");
    }
    let (Ok(api), Ok(built)) = (api, built) else {
        return Ended::NotStarted;
    };
    let mut running = built.start();
    admin.commit(api);
    info!(
        sources = config.sources.len(),
        transforms = config.transforms.len(),
        sinks = config.sinks.len(),
        "metrifold runs"
    );

    let upkeep = tokio::spawn(upkeep(telemetry));
    tokio::select! {
        biased;
        () = signals.first() => {}
        never = reloader.run(&mut running, &mut admin) => match never {},
    }
    // Whoever waits for a reload is told that there will be none.
    drop(reloader);
    info!(limit = ?options.shutdown_limit, "shutting down; a second signal ends it at once");
    let left = tokio::select! {
        left = running.stop(options.shutdown_limit) => left,
        () = signals.first() => {
            warn!("second signal: ended at once");
            return Ended::AtOnce;
        }
    };
    drop(admin);
    upkeep.abort();
    let flush = move || letters.flush(FLUSH_LIMIT);
    if !tokio::task::spawn_blocking(flush).await.unwrap_or(false) {
        error!("dead letters were left unwritten");
    }
    for sink in &left {
        let size = Size(sink.bytes as u64);
        error!(sink = %sink.sink, batches = sink.batches, %size, "left undelivered");
    }
    if left.is_empty() {
        info!("everything was delivered or is on disk");
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
