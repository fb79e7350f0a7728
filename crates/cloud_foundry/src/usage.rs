//! Resource usage of instances, as the platform measures it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use metrifold_base::locked;

use crate::resources::Measured;

/// The names of the gauges, in the order of their values.
const GAUGES: [&str; 7] = [
    "cf_instance_cpu_cores",
    "cf_instance_memory_bytes",
    "cf_instance_memory_quota_bytes",
    "cf_instance_disk_bytes",
    "cf_instance_disk_quota_bytes",
    "cf_instance_log_rate_bytes",
    "cf_instance_uptime_seconds",
];

/// Shortest time for which a measurement is reported when no newer one arrives.
const HOLDS: Duration = Duration::from_secs(300);

/// Usage of instances by process, which a provider shares with sources.
#[derive(Debug)]
pub struct Usages {
    holds: Duration,
    /// For each process, the time of its measurement and its instances, by number.
    by_process: Mutex<HashMap<String, (Instant, Vec<Measured>)>>,
}

impl Usages {
    pub(crate) fn new(interval: Duration) -> Self {
        Self {
            holds: HOLDS.max(3 * interval),
            by_process: Mutex::default(),
        }
    }

    /// Values of an instance's gauges, each with the name of the gauge. Their cost does not depend on
    /// the number of processes, since every scrape asks for them.
    pub fn gauges(&self, process: &str, number: u32) -> Vec<(&'static str, f64)> {
        let by_process = locked(&self.by_process);
        let measured = by_process.get(process);
        let measured = measured.filter(|(at, _)| at.elapsed() < self.holds);
        let found = measured.and_then(|(_, instances)| {
            let place = instances.binary_search_by_key(&number, |it| it.index);
            instances.get(place.ok()?)
        });
        let Some(it) = found else {
            return Vec::new();
        };
        let values = [
            it.usage.cpu,
            it.usage.mem,
            it.mem_quota,
            it.usage.disk,
            it.disk_quota,
            it.usage.log_rate,
            it.uptime,
        ];
        let named = GAUGES.into_iter().zip(values);
        named
            .filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }

    pub(crate) fn put(&self, process: &str, mut instances: Vec<Measured>) {
        instances.sort_unstable_by_key(|it| it.index);
        let measured = (Instant::now(), instances);
        locked(&self.by_process).insert(process.to_owned(), measured);
    }

    /// Drops all processes but these, and returns the times of their measurements.
    pub(crate) fn retain(&self, processes: &HashSet<&str>) -> HashMap<String, Instant> {
        let mut by_process = locked(&self.by_process);
        by_process.retain(|process, _| processes.contains(process.as_str()));
        let times = by_process.iter();
        times
            .map(|(process, (at, _))| (process.clone(), *at))
            .collect()
    }
}
