//! Expiry of the certificates, authorities and revocation lists in the files that the configuration names, as
//! metrics: those of listeners, of tenants, and of connections to servers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::Label;
use tokio::time::{MissedTickBehavior, interval};

use metrifold_base::read_file;
use metrifold_engine::config::Config;
use metrifold_engine::reload::Board;
use metrifold_files::NamedFiles;
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

/// What the files of a configuration hold that expires.
type Found = HashMap<Arc<Path>, (Expiring, SystemTime)>;

/// Keeps the metrics up to date; never returns while the runtime lives.
pub(super) async fn show(board: Arc<Board>, telemetry: Telemetry) {
    let mut seen: Option<(Arc<Config>, SystemTime)> = None;
    let mut found = Found::new();
    let mut shown = Vec::new();
    // Holds the series; dropping it removes them.
    let mut _meters: Option<Meters> = None;
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (config, now) = (board.config(), SystemTime::now());
        let (mut changed, mut due, mut since) = (true, false, now);
        if let Some((before, at)) = &seen {
            changed = !Arc::ptr_eq(before, &config);
            due = !now.duration_since(*at).is_ok_and(|age| age < AGAIN);
            since = if due { now } else { *at };
        }
        if !changed && !due {
            continue;
        }
        let before = seen.replace((config.clone(), since));
        let look = move || {
            let Some((before, _)) = before else {
                return expiries(config.files().into_keys(), now);
            };
            let found = after(&before.files(), found, &config.files(), now);
            match due {
                true => expiries(found.into_keys(), now),
                false => found,
            }
        };
        // Fails only when the runtime shuts down.
        let Ok(looked) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        found = looked;
        let first = first(&found);
        if first == shown {
            continue;
        }
        let meters = telemetry.meters();
        for (file, content, time) in &first {
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
        shown = first;
    }
}

/// What expires in these files.
fn expiries(files: impl Iterator<Item = Arc<Path>>, now: SystemTime) -> Found {
    let found = files.filter_map(|file| {
        // A file that cannot be read is a fault of its own, which is reported elsewhere.
        let text = read_file(&file, MAX_FILE).ok()?;
        Some((file, tls::expiry(&text, now)?))
    });
    found.collect()
}

/// The expiring content of `files`, given the content `found` in the files `before`. Only files that have
/// changed are read: there may be very many.
fn after(before: &NamedFiles, mut found: Found, files: &NamedFiles, now: SystemTime) -> Found {
    found.retain(|file, _| files.contains_key(file) && before.get(file) == files.get(file));
    let changed = files
        .iter()
        .filter(|(file, print)| before.get(*file) != Some(*print));
    found.extend(expiries(changed.map(|(file, _)| file.clone()), now));
    found
}

/// What expires first.
fn first(found: &Found) -> Vec<Expiry> {
    let all = found.iter();
    let mut all: Vec<Expiry> = all
        .map(|(file, (content, time))| (file.clone(), *content, *time))
        .collect();
    all.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use std::fs;

    use metrifold_files::Fingerprint;
    use metrifold_testing::Authority;

    use super::*;

    #[test]
    fn only_files_that_have_changed_are_read_again() {
        let authority = Authority::new();
        let certificate = fs::read(authority.ca()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path: Arc<Path> = folder.path().join("one").into();
        let named = || NamedFiles::from([(path.clone(), Fingerprint::of_file(&path))]);
        let now = SystemTime::now();
        fs::write(&path, "sha256:0 agent").unwrap();
        let tokens = named();
        let found = expiries(tokens.keys().cloned(), now);
        assert!(found.is_empty());
        fs::write(&path, &certificate).unwrap();
        assert!(
            after(&tokens, found, &tokens, now).is_empty(),
            "it was not read"
        );
        let certificates = named();
        let found = after(&tokens, Found::new(), &certificates, now);
        assert_eq!(first(&found).len(), 1);
        fs::remove_file(&path).unwrap();
        let found = after(&certificates, found, &certificates, now);
        assert_eq!(found.len(), 1, "it is known");
        assert!(after(&certificates, found, &NamedFiles::new(), now).is_empty());
    }
}
