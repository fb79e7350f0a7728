//! `run`: loads a configuration and runs the process until a signal stops it.

use std::io;
use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

use metrifold_base::{Period, scrub};
use metrifold_engine::config::LoadOptions;
use metrifold_engine::reload;
use metrifold_engine::reload::Hangup;
use metrifold_files::Look;
use metrifold_http::descriptors;

use crate::process;
use crate::process::Ended;

use super::{EXIT_FAILURE, EXIT_OK, Global, LogFormat, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold run
  metrifold run -c /etc/metrifold --shutdown-limit 25s
  metrifold run --no-watch
  METRIFOLD_LOG=debug metrifold run --log-format json

The configuration is reloaded when its files change, on SIGHUP, and by `metrifold reload`. One \
with errors is refused, and what runs goes on.

SIGTERM and SIGINT stop the sources and let the sinks deliver what they hold, for as long as \
--shutdown-limit at most; a second signal ends the process at once. Exits with 0 when all was delivered, with 1 when a component could not be built or data was left, and with 78 when the configuration is wrong.";

#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RunArgs {
    /// Longest time for sinks to deliver after a signal to stop, such as 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    shutdown_limit: Period,

    /// Reload when files of the configuration, or files that it names, change (default)
    #[arg(long, overrides_with = "no_watch")]
    watch: bool,

    /// Do not watch files: reload on SIGHUP and by `metrifold reload` only
    #[arg(long)]
    no_watch: bool,

    /// Interval of checking files for changes that the file system does not report
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_interval)]
    watch_interval: Period,

    /// Longest time for removed or replaced sinks to deliver after a reload
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    drain_limit: Period,

    /// Number of worker threads; by default, one per processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Default for RunArgs {
    fn default() -> Self {
        Self {
            shutdown_limit: Period::secs(20),
            watch: true,
            no_watch: false,
            watch_interval: Period::secs(30),
            drain_limit: Period::secs(60),
            threads: None,
        }
    }
}

fn parse_interval(text: &str) -> Result<Period, String> {
    match text.parse()? {
        Period(interval) if interval.is_zero() => Err("must be longer than 0s".to_owned()),
        interval => Ok(interval),
    }
}

pub(super) fn execute(global: &Global, args: &RunArgs, hangup: io::Result<Hangup>) -> u8 {
    descriptors::raise();
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(threads.get());
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report::complain(&format!("cannot start threads: {error}"));
            return EXIT_FAILURE;
        }
    };
    let hangup = match hangup {
        Ok(hangup) => hangup,
        Err(error) => {
            report::complain(&format!("cannot listen for signals: {error}"));
            return EXIT_FAILURE;
        }
    };
    // Taken before the files are read, so that a change in between is noticed later.
    let seen = Look::first(&global.config);
    // Nothing else of what is loaded stays in memory while the process runs.
    let config = match report::load(global, LoadOptions::default()) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    start_logging(global);
    let options = process::Options {
        shutdown_limit: args.shutdown_limit.0,
        reload: reload::Options {
            seen,
            watch: (!args.no_watch).then_some(args.watch_interval.0),
            drain_limit: args.drain_limit.0,
        },
    };
    // The command line hands over to the process here, and nowhere else.
    let ended = runtime.block_on(process::run(config, hangup, options));
    // Remaining tasks have had their time to finish.
    runtime.shutdown_background();
    match ended {
        Ended::Drained => EXIT_OK,
        Ended::NotStarted | Ended::LeftData | Ended::AtOnce => EXIT_FAILURE,
    }
}

/// `notify` warns of every watch whose folder was removed, as with each generation of a ConfigMap.
/// The watch itself logs what matters.
const QUIET: &str = "notify=off";

/// Standard error, scrubbed of known secrets.
struct ScrubbedStderr;

impl Write for ScrubbedStderr {
    /// Writes a whole log line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = scrub(&String::from_utf8_lossy(line));
        io::stderr().lock().write_all(text.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Sends log lines to stderr.
fn start_logging(global: &Global) {
    // The filter was checked with the arguments. A directive for `notify` in it overrides `QUIET`.
    let filter = format!("{QUIET},{}", global.log_level);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_writer(|| ScrubbedStderr)
        .with_ansi(report::in_color())
        .with_env_filter(filter);
    let started = match global.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        report::complain(&format!("cannot start logging: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubelet kills 30 seconds after it has asked a process to end.
    #[test]
    fn a_process_ends_before_it_is_killed_unless_it_is_told_otherwise() {
        assert!(RunArgs::default().shutdown_limit < Period::secs(30));
    }
}
