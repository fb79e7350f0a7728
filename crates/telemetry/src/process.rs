//! What the system tells of the process, under the names that Prometheus' own clients use.
//!
//! Read from `/proc`, which is no file on a disk: reading it does not block. Where a system does
//! not have it, what would come from there is left out.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Metric;

/// The resident memory of the process in bytes; none if the system does not tell. `statm` would be
/// shorter, but counts in pages of a size that only the system knows.
pub fn resident_bytes() -> Option<u64> {
    kib(&status()?, "VmRSS:")
}

/// All that is known at this moment.
pub(super) fn readings() -> Vec<(Metric, f64)> {
    let mut readings = vec![(Metric::ProcessCpu, cpu_time().as_secs_f64())];
    let mut add = |metric, value: Option<u64>| {
        readings.extend(value.map(|value| (metric, value as f64)));
    };
    if let Some(status) = status() {
        add(Metric::ProcessResident, kib(&status, "VmRSS:"));
        add(Metric::ProcessVirtual, kib(&status, "VmSize:"));
        add(Metric::ProcessThreads, number(&status, "Threads:"));
    }
    // The listing itself has one open.
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64 - 1);
    add(Metric::ProcessOpenFds, open.ok());
    add(Metric::ProcessMaxFds, max_fds());
    readings
}

/// The time that all threads have had a processor, in user and in kernel mode.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or_default());
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or_default())
}

fn status() -> Option<String> {
    fs::read_to_string("/proc/self/status").ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    number(status, name).map(|kib| kib << 10)
}

/// The first number behind a name at the beginning of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit; none if there is no limit.
fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    number(&limits, "Max open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_all_of_it() {
        let readings = readings();
        let of = |metric| readings.iter().find(|(it, _)| *it == metric).unwrap().1;
        for metric in [
            Metric::ProcessCpu,
            Metric::ProcessResident,
            Metric::ProcessVirtual,
            Metric::ProcessThreads,
            Metric::ProcessOpenFds,
            Metric::ProcessMaxFds,
        ] {
            assert!(of(metric) > 0.0, "{metric:?}");
        }
        assert!(of(Metric::ProcessOpenFds) < of(Metric::ProcessMaxFds));
        assert!(of(Metric::ProcessResident) <= of(Metric::ProcessVirtual));
    }
}
