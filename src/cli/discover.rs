//! `discover`: asks a provider of targets once and prints what it finds.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;
use tokio::runtime::Builder;
use tokio::time::timeout;

use metrifold_base::{Period, Shared};
use metrifold_discovery::{ProviderContext, Slot, SlotOptions, Status, Target};
use metrifold_engine::config::{LoadOptions, ProviderTable};

use super::report::{self, count};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, Global};

const AFTER_HELP: &str = "\
Examples:
  metrifold discover instances
  metrifold discover instances --format json | jq -r '.targets[].__address__'

Stores and publishes nothing, and does not contact a running process: see /api/v1/discovery for the \
targets of that. Exits with 0 when all targets were read, and with 1 when something has failed.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DiscoverArgs {
    /// Name of the provider under `[discovery]`
    #[arg(value_name = "NAME")]
    name: String,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "labels")]
    format: Format,

    /// Longest time to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_timeout)]
    timeout: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The labels of one target per line
    Labels,
    /// JSON: targets and failures
    Json,
}

pub(super) fn parse_timeout(text: &str) -> Result<Period, String> {
    match text.parse()? {
        Period(Duration::ZERO) => Err("must be longer than 0s".to_owned()),
        timeout => Ok(timeout),
    }
}

pub(super) fn execute(global: &Global, args: &DiscoverArgs) -> u8 {
    let loaded = match report::load(global, LoadOptions::default()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut providers = loaded.config.tables.providers();
    let Some((_, table)) = providers.find(|(name, _)| *name == args.name) else {
        report::complain(&format!(
            "there is no provider `{}`: declare [discovery.{}]",
            args.name, args.name
        ));
        return EXIT_USAGE;
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report::complain(&format!("cannot start threads: {error}"));
            return EXIT_FAILURE;
        }
    };
    let found = runtime.block_on(found(args.name.as_str().into(), table, args.timeout.0));
    // A hanging name server or file system must not delay the exit.
    runtime.shutdown_background();
    let (targets, status) = match found {
        Ok(found) => found,
        Err(reason) => {
            report::complain(&reason);
            return EXIT_FAILURE;
        }
    };
    let failed = &status.failing;
    let printed = match args.format {
        Format::Labels => targets.iter().map(|target| format!("{target}\n")).collect(),
        Format::Json => {
            let failed: Vec<_> = failed
                .iter()
                .map(|it| json!({ "source": it.source, "reason": it.reason, "text": it.text }))
                .collect();
            format!(
                "{:#}\n",
                json!({
                    "targets": targets,
                    "failed": failed,
                    "left_out_count": status.left_out_count,
                    "left_out": status.left_out,
                })
            )
        }
    };
    let code = report::print(&printed);
    if args.format == Format::Labels {
        for it in &status.left_out {
            report::tell(&format!("left out: {}: {}", it.what, it.why));
        }
        let more = status.left_out_count - status.left_out.len();
        if more > 0 {
            report::tell(&format!("left out: {more} more"));
        }
    }
    for failure in failed {
        let reason = failure.reason.as_str();
        report::complain(&format!("{}: {} ({reason})", failure.source, failure.text));
    }
    match failed.is_empty() {
        true if code == EXIT_OK && args.format == Format::Labels => {
            report::tell(&format!("{} found", count(targets.len(), "target")));
            EXIT_OK
        }
        true => code,
        false => EXIT_FAILURE,
    }
}

/// The targets after the provider's first attempt.
async fn found(
    name: Arc<str>,
    table: &ProviderTable,
    limit: Duration,
) -> Result<(Vec<Target>, Status), String> {
    let attempted = async |slot: &Slot| {
        let mut attempts = slot.attempts();
        // The slot is alive here, so that this cannot fail.
        let _ = attempts.wait_for(|attempts| *attempts > 0).await;
        (slot.snapshot().targets().to_vec(), slot.status())
    };
    ask(name, table, limit, Shared::default(), attempted).await
}

/// Runs a provider until `until` has what it waits for. Changes nothing.
pub(super) async fn ask<T>(
    name: Arc<str>,
    table: &ProviderTable,
    limit: Duration,
    shared: Shared,
    until: impl AsyncFnOnce(&Slot) -> T,
) -> Result<T, String> {
    let options = SlotOptions {
        type_name: table.type_name.clone(),
        question: table.config.question(),
        limits: table.config.limits(),
        on_empty: table.config.on_empty(),
        folder: None,
    };
    let cx = ProviderContext {
        shared,
        ..ProviderContext::alone(&name)
    };
    let provider = table.config.build(&cx);
    let provider = provider.map_err(|error| error.to_string())?;
    let slot = Slot::new(name, options.clone(), &cx.telemetry);
    let feed = slot.take_over(options);
    let asked = async {
        tokio::select! {
            ended = provider.run(feed) => match ended {
                Ok(()) => Err("the provider ended unexpectedly".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            found = until(&slot) => Ok(found),
        }
    };
    let asked = timeout(limit, asked).await;
    asked.map_err(|_| format!("there was no answer within {limit:?}"))?
}
