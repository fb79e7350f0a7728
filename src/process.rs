//! The life of the process: builds, runs and reloads the configuration, waits for a signal, drains.

mod expiry;
mod orphans;
mod refusals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Label;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use metrifold_access::Gate;
use metrifold_base::Size;
use metrifold_engine::config::Config;
use metrifold_engine::dead_letters::Stores;
use metrifold_engine::reload;
use metrifold_engine::reload::{Board, Follower, Hangup, Reloader};
use metrifold_engine::topology::{Built, Leftover};
use metrifold_http::Listeners;
use metrifold_limits::Limit;
use metrifold_model::ledger::{Reason, Tally};
use metrifold_targets::Directory;
use metrifold_telemetry::{Meters, Metric, Telemetry, UPKEEP};

use crate::api::Admin;

use self::refusals::Refusals;

/// Longest time for writing the last dead letters.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Result of running the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was delivered.
    Drained,
    /// Building the configuration failed; nothing was started.
    NotStarted,
    /// Data was left when the time to shut down was over.
    LeftData,
    /// A second signal stopped the process at once.
    AtOnce,
}

/// Options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest time that sinks deliver after a signal to stop.
    pub shutdown_limit: Duration,
    /// Options of reloads.
    pub reload: reload::Options,
}

/// Runs a configuration, and its successors after reloads, until a signal stops the process.
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
    for metric in [Metric::StartTime, Metric::ProcessStartTime] {
        let gauge = telemetry.gauge(metric, Vec::new());
        gauge.set(started.as_ref().map_or(0.0, Duration::as_secs_f64));
    }
    let listeners = Listeners::new();
    let refusals = Arc::new(Refusals::new(telemetry.clone()));
    let noted = refusals.clone();
    listeners.watch_refusals(move |turned_away| noted.note(turned_away));
    let board = Arc::new(Board::new(config.clone(), &telemetry));
    let watched = board.clone();
    let (mut reloader, requests) = Reloader::new(options.reload, hangup, board.clone());
    let letters = Stores::new(config.data_dir.as_deref());
    let directory = Directory::new();
    let gate = counting_gate(&telemetry);
    let guard = gate.clone();
    let mut admin = Admin::new(
        listeners.clone(),
        board,
        requests,
        telemetry.clone(),
        letters.clone(),
        directory.clone(),
        gate.clone(),
    );

    let api = admin
        .prepare(&config)
        .inspect_err(|error| error!(%error, "cannot build the api"));
    let shown = listeners.clone();
    let built = Built::build(
        config.clone(),
        telemetry.clone(),
        listeners,
        letters.clone(),
        directory,
        gate,
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

    let orphans = tokio::spawn(orphans::show(watched.clone(), telemetry.clone()));
    let expiry = tokio::spawn(expiry::show(watched, telemetry.clone()));
    let upkeep = tokio::spawn(upkeep(telemetry, refusals.clone(), shown, guard));
    tokio::select! {
        biased;
        () = signals.first() => {}
        never = reloader.run(&mut running, &mut admin) => match never {},
    }
    // From here on load balancers should send elsewhere.
    admin.end();
    // Waiting requests for a reload are answered with a refusal.
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
    orphans.abort();
    expiry.abort();
    refusals.flush(true);
    let flush = move || letters.flush(FLUSH_LIMIT);
    // The task does not panic.
    let unwritten = tokio::task::spawn_blocking(flush).await.unwrap_or_default();
    for (sink, letters) in unwritten {
        error!(
            %sink, letters,
            advice = "check the disk of data_dir, which does not answer; only the log and the ledger know of these refused series",
            "dead letters were left unwritten"
        );
    }
    tell(&left)
}

/// Logs undelivered data, and returns the result that it leads to.
fn tell(left: &[Leftover]) -> Ended {
    for Leftover {
        sink,
        queued,
        dropped,
    } in left
    {
        for (reason, tally) in dropped {
            let Tally {
                batches, samples, ..
            } = *tally;
            let reason = reason.as_str();
            warn!(%sink, reason, batches, samples, "dropped during the shutdown");
        }
        let Tally {
            batches,
            samples,
            uncounted,
            bytes,
        } = *queued;
        let size = Size(bytes);
        if batches > 0 {
            error!(
                %sink, reason = Reason::Shutdown.as_str(), batches, samples, uncounted_batches = uncounted, %size,
                advice = "give the sink a queue on disk, or raise --shutdown-limit",
                "left undelivered"
            );
        }
    }
    if left.iter().any(|sink| sink.queued.batches > 0) {
        return Ended::LeftData;
    }
    match left.is_empty() {
        true => info!("everything was delivered or is on disk"),
        false => info!("no batch is left; those dropped during the shutdown were not delivered"),
    }
    Ended::Drained
}

async fn upkeep(telemetry: Telemetry, refusals: Arc<Refusals>, listeners: Listeners, gate: Gate) {
    let mut certificates = Certificates::default();
    let gauge = |metric| telemetry.gauge(metric, Vec::new());
    let aside = gauge(Metric::TenantsSetAside);
    let failing = gauge(Metric::IssuersFailing);
    let age = gauge(Metric::IssuerKeysAge);
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        telemetry.upkeep();
        refusals.flush(false);
        certificates.show(&telemetry, listeners.certificates());
        let trouble = gate.tenants().trouble();
        aside.set(trouble.aside as f64);
        failing.set(trouble.failing as f64);
        let ages = trouble.issuers.iter().map(|issuer| issuer.keys_age_seconds);
        age.set(
            ages.map(|age| age.unwrap_or(f64::INFINITY))
                .fold(0.0, f64::max),
        );
    }
}

/// Expiry times of listeners' certificates, as metrics.
#[derive(Default)]
struct Certificates {
    shown: Vec<(SocketAddr, SystemTime)>,
    /// Hold the series of the certificates; dropping them removes the series.
    meters: Vec<Meters>,
}

impl Certificates {
    fn show(&mut self, telemetry: &Telemetry, found: Vec<(SocketAddr, SystemTime)>) {
        if found == self.shown {
            return;
        }
        self.meters.clear();
        for (address, expires) in &found {
            let meters = telemetry.meters();
            let labels = vec![Label::new("address", address.to_string())];
            let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
            let gauge = meters.gauge(Metric::CertificateExpiry, labels);
            gauge.set(expires.as_secs_f64());
            self.meters.push(meters);
        }
        self.shown = found;
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

/// A gate that counts exceeded limits in the metrics of the process.
fn counting_gate(telemetry: &Telemetry) -> Gate {
    let counters = Limit::ALL.map(|limit| {
        let labels = vec![Label::new("limit", limit.as_str())];
        telemetry.counter(Metric::TenantsOverLimit, labels)
    });
    Gate::counting(move |limit, times| counters[limit as usize].increment(times))
}
