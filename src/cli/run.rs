//! `run`: from a configuration to a process that lives until it is told to stop.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use super::{EXIT_FAILURE, EXIT_OK, Global, LogFormat, report};
use crate::config::{Config, LoadOptions, Period};
use crate::http::Listeners;
use crate::telemetry::Telemetry;
use crate::topology::Built;

const AFTER_HELP: &str = "\
Examples:
  metrifold run
  metrifold run -c /etc/metrifold --shutdown-limit 25s
  METRIFOLD_LOG=debug metrifold run --log-format json

SIGTERM and SIGINT stop the sources and let the sinks deliver what they hold, for as long as \
--shutdown-limit at most.";

#[derive(Clone, Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RunArgs {
    /// How long sinks may go on delivering after a signal to stop, such as 30s or 2m
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    shutdown_limit: Period,

    /// How many threads to run on; by default one per processor
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Default for RunArgs {
    fn default() -> Self {
        Self {
            shutdown_limit: Period::secs(60),
            threads: None,
        }
    }
}

pub(super) fn execute(global: &Global, args: &RunArgs) -> u8 {
    let loaded = match report::load(global, LoadOptions::default()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    start_logging(global);
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
    let limit = args.shutdown_limit.0;
    // The one place at which the command line hands over to the topology.
    let outcome = runtime.block_on(run_topology(loaded.config, limit));
    // What is left are connections that were given their time already.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => EXIT_OK,
        Err(()) => EXIT_FAILURE,
    }
}

/// Builds, starts and, upon a signal, stops the topology. Errors are logged.
async fn run_topology(config: Config, limit: Duration) -> Result<(), ()> {
    let (mut terminate, mut interrupt) = match (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            error!(%error, "cannot listen for signals");
            return Err(());
        }
    };
    let built = Built::build(Arc::new(config), Telemetry::new(), Listeners::new());
    let running = match built {
        Ok(built) => built.start(),
        Err(errors) => {
            for (component, error) in errors {
                error!(%component, %error, "cannot build component");
            }
            return Err(());
        }
    };
    info!(version = env!("CARGO_PKG_VERSION"), "running");
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!(signal = name, "stopping");
    for left in running.stop(limit).await {
        warn!(sink = %left.sink, batches = left.batches, bytes = left.bytes, "gave up undelivered batches");
    }
    info!("stopped");
    Ok(())
}

/// Sends log lines to stderr.
fn start_logging(global: &Global) {
    // The filter was checked when the arguments were read.
    let filter = EnvFilter::try_new(&global.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    let started = match global.log_format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        report::complain(&format!("cannot start logging: {error}"));
    }
}
