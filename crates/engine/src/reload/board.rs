//! State of the running configuration and of the last reloads, for the admin API, metrics and logs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use metrics::{Counter, Gauge, Label};
use tokio::sync::broadcast;
use tracing::{error, info, warn};

use metrifold_telemetry::{Metric, Telemetry};

use crate::config::Config;

use super::outcome::{Outcome, Refusal, Report, Trigger};

/// The bits of a hash that a gauge can show exactly, since its value is a 64-bit float.
const GAUGE_BITS: u64 = (1 << 48) - 1;

/// Reports that are buffered for a follower; one that falls further behind misses the oldest.
const FOLLOWED: usize = 16;

/// Time for which a manual reload that changes nothing mentions that a file change was applied
/// before.
const NOTICED: Duration = Duration::from_secs(60);

/// Publishes the running configuration and the reports of reloads.
pub struct Board {
    config: ArcSwap<Config>,
    last: ArcSwapOption<Report>,
    refused: ArcSwapOption<Report>,
    applied: ArcSwapOption<Report>,
    followers: broadcast::Sender<Arc<Report>>,
    successful: Gauge,
    time: Gauge,
    hash: Gauge,
    outcomes: [(&'static str, Counter); 3],
}

impl Board {
    /// A board that shows the configuration that the process began with.
    pub fn new(config: Arc<Config>, telemetry: &Telemetry) -> Self {
        let outcome = |name| {
            let labels = vec![Label::new("outcome", name)];
            let counter = telemetry.counter(Metric::Reloads, labels);
            counter.increment(0);
            (name, counter)
        };
        let board = Self {
            config: ArcSwap::new(config.clone()),
            last: ArcSwapOption::empty(),
            refused: ArcSwapOption::empty(),
            applied: ArcSwapOption::empty(),
            followers: broadcast::Sender::new(FOLLOWED),
            successful: telemetry.gauge(Metric::ReloadSuccessful, Vec::new()),
            time: telemetry.gauge(Metric::ReloadTime, Vec::new()),
            hash: telemetry.gauge(Metric::ConfigHash, Vec::new()),
            outcomes: Outcome::NAMES.map(outcome),
        };
        board.runs(config);
        board.succeeded(SystemTime::now());
        board
    }

    /// The configuration that runs.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The last reload.
    pub fn last(&self) -> Option<Arc<Report>> {
        self.last.load_full()
    }

    /// The last reload that was refused.
    pub fn last_refused(&self) -> Option<Arc<Report>> {
        self.refused.load_full()
    }

    /// The last reload that changed something, if a file triggered it within `NOTICED`.
    pub(super) fn noticed(&self) -> Option<Arc<Report>> {
        let report = self.applied.load_full()?;
        let age = report.time.elapsed().unwrap_or_default();
        (report.trigger == Trigger::File && age <= NOTICED).then_some(report)
    }

    /// Subscribes to the reports of future reloads. A follower that falls behind misses the oldest.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Report>> {
        self.followers.subscribe()
    }

    /// Publishes a configuration as the running one.
    pub(super) fn runs(&self, config: Arc<Config>) {
        self.hash.set((config.hash & GAUGE_BITS) as f64);
        self.config.store(config);
    }

    /// Publishes the report of a reload in the log, in metrics and to followers.
    pub(super) fn tell(&self, report: Arc<Report>) {
        let name = report.outcome.name();
        for (outcome, counter) in &self.outcomes {
            counter.increment(u64::from(*outcome == name));
        }
        for finding in report.outcome.warnings() {
            warn!(place = finding.place.as_deref(), "{}", finding.message);
        }
        let trigger = report.trigger.as_str();
        let hash = format!("{:016x}", self.config().hash);
        match &report.outcome {
            Outcome::Applied { changes, .. } => {
                info!(
                    trigger,
                    config_hash = hash,
                    "configuration reloaded: {changes}"
                );
            }
            Outcome::Unchanged { .. } => {
                info!(
                    trigger,
                    config_hash = hash,
                    "configuration reloaded: nothing to change"
                );
            }
            Outcome::Refused(refusal) => log_refusal(trigger, &hash, refusal),
        }
        match &report.outcome {
            Outcome::Refused(_) => {
                self.successful.set(0.0);
                self.refused.store(Some(report.clone()));
            }
            Outcome::Applied { .. } => {
                self.succeeded(report.time);
                self.applied.store(Some(report.clone()));
            }
            Outcome::Unchanged { .. } => self.succeeded(report.time),
        }
        self.last.store(Some(report.clone()));
        // Sending fails if there are no followers.
        let _ = self.followers.send(report);
    }

    fn succeeded(&self, time: SystemTime) {
        self.successful.set(1.0);
        let since = time.duration_since(UNIX_EPOCH);
        self.time
            .set(since.map_or(0.0, |since| since.as_secs_f64()));
    }
}

fn log_refusal(trigger: &str, hash: &str, refusal: &Refusal) {
    for finding in refusal.errors() {
        error!(place = finding.place.as_deref(), "{}", finding.message);
    }
    let errors = refusal.errors;
    error!(
        trigger,
        errors,
        config_hash = hash,
        "configuration not reloaded, nothing was changed"
    );
}
