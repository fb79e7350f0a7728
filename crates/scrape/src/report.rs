//! The series that report on a scrape itself. They have the target's labels, and no rules apply to
//! them.

use std::time::Duration;

use metrifold_codec::ArenaBuilder;
use metrifold_codec::remote_write::STALE;

use crate::settings::Settings;
use crate::target::ScrapeTarget;

/// Result of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) up: bool,
    pub(crate) duration: Duration,
    /// Samples on the page.
    pub(crate) scraped: usize,
    /// Samples left after the rules.
    pub(crate) kept: usize,
    /// Series that were not on the page before.
    pub(crate) added: usize,
    /// Bytes of the page, uncompressed; -1 if it is too large.
    pub(crate) bytes: i64,
}

const NAMES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

const EXTRA: [&str; 3] = [
    "scrape_timeout_seconds",
    "scrape_sample_limit",
    "scrape_body_size_bytes",
];

/// Adds the series that report on a scrape. Returns the names of those that not every scrape has;
/// those in `before`, which the previous one had, get staleness markers if this one lacks them.
pub(crate) fn put(
    report: &Report,
    settings: &Settings,
    target: &ScrapeTarget,
    timestamp: i64,
    before: &[&'static str],
    batch: &mut ArenaBuilder,
) -> Vec<&'static str> {
    let values = [
        f64::from(u8::from(report.up)),
        report.duration.as_secs_f64(),
        report.scraped as f64,
        report.kept as f64,
        report.added as f64,
    ];
    for (name, value) in NAMES.into_iter().zip(values) {
        series(name, target, value, timestamp, batch);
    }
    let mut others: Vec<(&'static str, f64)> = Vec::new();
    if settings.keys.extra_scrape_metrics {
        let values = [
            target.timeout.as_secs_f64(),
            settings.keys.sample_limit as f64,
            report.bytes as f64,
        ];
        others.extend(EXTRA.into_iter().zip(values));
    }
    if let Some(gauges) = &target.own.gauges {
        others.extend(gauges.values());
    }
    for (name, value) in &others {
        series(name, target, *value, timestamp, batch);
    }
    let names: Vec<_> = others.into_iter().map(|(name, _)| name).collect();
    for name in before.iter().filter(|name| !names.contains(name)) {
        series(name, target, f64::from_bits(STALE), timestamp, batch);
    }
    names
}

/// Adds staleness markers for the reporting series of a target that has gone: those of every scrape,
/// and these others.
pub(crate) fn end(
    target: &ScrapeTarget,
    timestamp: i64,
    others: &[&'static str],
    batch: &mut ArenaBuilder,
) {
    for name in NAMES.iter().chain(others) {
        series(name, target, f64::from_bits(STALE), timestamp, batch);
    }
}

fn series(name: &str, target: &ScrapeTarget, value: f64, timestamp: i64, batch: &mut ArenaBuilder) {
    batch.start_series();
    batch.push_label("__name__", name);
    for (name, value) in target.labels.iter() {
        batch.push_label(name, value);
    }
    batch.push_sample(value, timestamp);
    // Cannot fail: the labels are valid, and the arena has room beyond the page.
    let _ = batch.finish_series();
}
