//! Metrics of the process as the operating system reports them, named as in Prometheus' client
//! libraries.
//!
//! They are read from `/proc`, which is no file system on a disk: reading it does not block. On
//! systems without `/proc` these metrics are left out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use metrifold_base::read_text;
use rustix::time::{ClockId, clock_gettime};

use super::Metric;

/// The resident memory of the process in bytes; `None` if the system does not report it. `statm`
/// would be shorter, but counts in pages of a size that only the system knows.
pub fn resident_bytes() -> Option<u64> {
    kib(&status()?, "VmRSS:")
}

/// All values that the system reports now.
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
    // The listing itself holds one descriptor.
    let open = fs::read_dir("/proc/self/fd").map(|entries| entries.count() as u64 - 1);
    add(Metric::ProcessOpenFds, open.ok());
    add(Metric::ProcessMaxFds, max_fds());
    readings
}

/// Processor time of all threads, in user and in kernel mode.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or_default());
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or_default())
}

/// Maximum size of a text of the system, in bytes.
const MAX_TEXT: u64 = 64 << 10;

fn status() -> Option<String> {
    read_text(Path::new("/proc/self/status"), MAX_TEXT).ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    number(status, name).map(|kib| kib << 10)
}

/// The first number behind a line's leading `name`.
fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit on open descriptors; `None` if it is unlimited.
fn max_fds() -> Option<u64> {
    let limits = read_text(Path::new("/proc/self/limits"), MAX_TEXT).ok()?;
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
