//! Expiry of the certificates, authorities and revocation lists in the files that the configuration names, as
//! metrics: those of listeners, of tenants, and of connections to servers.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Label;
use tokio::time::{MissedTickBehavior, interval};

use metrifold_base::read_file;
use metrifold_engine::config::Config;
use metrifold_engine::reload::Board;
use metrifold_http::tls::{self, Expiring};
use metrifold_telemetry::{Meters, Metric, Telemetry, UPKEEP};

/// Maximum number of files with a metric: those that expire first.
const MOST: usize = 100;

/// Largest file that is looked into, as that of files for TLS.
const MAX_FILE: u64 = 4 << 20;

/// Interval at which the files are looked into again, so that an authority that has expired gives way to its
/// successor in the same file.
const AGAIN: Duration = Duration::from_secs(3600);

type Expiry = (Arc<Path>, Expiring, SystemTime);

/// Keeps the metrics up to date; never returns while the runtime lives.
pub(super) async fn show(board: Arc<Board>, telemetry: Telemetry) {
    let mut seen: Option<(Arc<Config>, SystemTime)> = None;
    let mut shown = Vec::new();
    // Holds the series; dropping it removes them.
    let mut _meters: Option<Meters> = None;
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (config, now) = (board.config(), SystemTime::now());
        if seen.as_ref().is_some_and(|(before, at)| {
            let same = Arc::ptr_eq(before, &config);
            same && now.duration_since(*at).is_ok_and(|age| age < AGAIN)
        }) {
            continue;
        }
        seen = Some((config.clone(), now));
        let look = move || expiries(config.files().keys(), now);
        // Fails only when the runtime shuts down.
        let Ok(found) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        if found == shown {
            continue;
        }
        let meters = telemetry.meters();
        for (file, content, time) in &found {
            let file = file.display().to_string();
            let labels = vec![
                Label::new("file", file),
                Label::new("content", content.as_str()),
            ];
            let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let gauge = meters.gauge(Metric::FileExpiry, labels);
            gauge.set(time.as_secs_f64());
        }
        _meters = Some(meters);
        shown = found;
    }
}

/// What expires first.
fn expiries<'a>(files: impl Iterator<Item = &'a Arc<Path>>, now: SystemTime) -> Vec<Expiry> {
    let mut found: Vec<Expiry> = files
        .filter_map(|file| {
            // A file that cannot be read is a fault of its own, which is reported elsewhere.
            let text = read_file(file, MAX_FILE).ok()?;
            let (content, time) = tls::expiry(&text, now)?;
            Some((file.clone(), content, time))
        })
        .collect();
    found.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
    found.truncate(MOST);
    found
}
