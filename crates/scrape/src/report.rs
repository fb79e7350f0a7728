//! The series that a scrape reports on itself. They bear the target's labels and no rule is applied to
//! them.

use std::time::Duration;

use metrifold_codec::ArenaBuilder;
use metrifold_codec::remote_write::STALE;

use crate::settings::Settings;
use crate::target::ScrapeTarget;

/// What a scrape came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) up: bool,
    pub(crate) duration: Duration,
    /// Samples on the page.
    pub(crate) scraped: usize,
    /// Those that are left after rules.
    pub(crate) kept: usize,
    /// Series that were not there before.
    pub(crate) added: usize,
    /// Bytes of the page, uncompressed; -1 for one that is too large.
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

/// Adds what a scrape came to.
pub(crate) fn put(
    report: &Report,
    settings: &Settings,
    target: &ScrapeTarget,
    timestamp: i64,
    batch: &mut ArenaBuilder,
) {
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
    if settings.keys.extra_scrape_metrics {
        let values = [
            target.timeout.as_secs_f64(),
            settings.keys.sample_limit as f64,
            report.bytes as f64,
        ];
        for (name, value) in EXTRA.into_iter().zip(values) {
            series(name, target, value, timestamp, batch);
        }
    }
    if let Some(gauges) = &target.own.gauges {
        for (place, value) in gauges.values() {
            if let Some(name) = gauges.names().get(place) {
                series(name, target, value, timestamp, batch);
            }
        }
    }
}

/// Ends all of them, since the target has gone.
pub(crate) fn end(
    settings: &Settings,
    target: &ScrapeTarget,
    timestamp: i64,
    batch: &mut ArenaBuilder,
) {
    let extra = match settings.keys.extra_scrape_metrics {
        true => &EXTRA[..],
        false => &[],
    };
    let gauges = target.own.gauges.as_ref();
    let gauges = gauges.map_or(&[][..], |gauges| gauges.names());
    for name in NAMES.iter().chain(extra).chain(gauges) {
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
    // Its labels are valid, and there is room beside the page.
    let _ = batch.finish_series();
}
