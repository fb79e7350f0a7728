//! `aiven plan`: prints the changes to make at Aiven, and why. Changes nothing.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tokio::runtime::Builder;

use metrifold_aiven::{Accounts, PlanStatus, Step};
use metrifold_base::{Period, Shared};
use metrifold_discovery::Slot;
use metrifold_engine::config::{LoadOptions, ProviderTable};

use super::discover::{ask, parse_timeout};
use super::report::{self, count};
use super::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, Global};

const AFTER_HELP: &str = "\
Examples:
  metrifold aiven plan
  metrifold aiven plan aiven --format json | jq '.providers[].plan.steps'

Reads projects with the configuration's token, and changes nothing at Aiven, whatever the \
configuration says. See /api/v1/aiven/plans for the plans and changes of the running process. Exits \
with 0 when there is a plan, and with 1 when a project could not be read.";

#[derive(Debug, Args)]
pub(super) struct AivenArgs {
    #[command(subcommand)]
    command: AivenCommand,
}

#[derive(Debug, Subcommand)]
enum AivenCommand {
    /// Print the changes that give services the Prometheus integration, with their reasons
    Plan(PlanArgs),
}

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
struct PlanArgs {
    /// Name of the provider under `[discovery]`; by default, all of type aiven
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,

    /// Longest time to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_timeout)]
    timeout: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One change per line
    Text,
    /// JSON, as on the admin address
    Json,
}

pub(super) fn execute(global: &Global, args: &AivenArgs) -> u8 {
    let AivenCommand::Plan(args) = &args.command;
    let loaded = match report::load(global, LoadOptions::default()) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let ours = |(name, table): &(&str, &ProviderTable)| {
        *table.type_name == *"aiven" && args.name.as_ref().is_none_or(|wanted| wanted == name)
    };
    let providers: Vec<_> = loaded.config.tables.providers().filter(ours).collect();
    if providers.is_empty() {
        let name = args.name.as_deref().unwrap_or("NAME");
        report::complain(&format!(
            "there is no such provider: declare [discovery.{name}] with type = \"aiven\""
        ));
        return EXIT_USAGE;
    }
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            report::complain(&format!("cannot start threads: {error}"));
            return EXIT_FAILURE;
        }
    };
    let mut plans = Vec::new();
    let mut code = EXIT_OK;
    for (name, table) in providers {
        match runtime.block_on(plan(name.into(), table, args.timeout.0)) {
            Ok(status) => {
                if let Some(error) = &status.error {
                    report::complain(&format!("{name}: {error}"));
                    code = EXIT_FAILURE;
                }
                plans.push((name, status));
            }
            Err(error) => {
                report::complain(&format!("{name}: {error}"));
                code = EXIT_FAILURE;
            }
        }
    }
    runtime.shutdown_background();
    let printed = match args.format {
        Format::Json => {
            let plans = plans
                .iter()
                .map(|(name, status)| json!({ "name": name, "plan": status.plan }));
            format!("{:#}\n", json!({ "providers": plans.collect::<Vec<_>>() }))
        }
        Format::Text => plans
            .iter()
            .map(|(name, status)| text(name, status))
            .collect(),
    };
    match report::print(&printed) {
        EXIT_OK => code,
        failed => failed,
    }
}

/// The plan after the provider's first attempt.
async fn plan(
    name: Arc<str>,
    table: &ProviderTable,
    limit: Duration,
) -> Result<PlanStatus, String> {
    let shared = Shared::default();
    let accounts: Arc<Accounts> = shared.get();
    let planned = async |_: &Slot| accounts.planned(&name).await;
    ask(name.clone(), table, limit, shared, planned).await
}

fn text(name: &str, status: &PlanStatus) -> String {
    let mut text = String::new();
    for step in &status.plan.steps {
        let what = step.what();
        // Writing to a `String` cannot fail.
        let _ = match step {
            Step::CreateEndpoint { endpoint, why, .. } => {
                writeln!(text, "+ {what}: create the endpoint {endpoint}: {why}")
            }
            Step::Integrate { why, .. } => writeln!(text, "+ {what}: integrate: {why}"),
            Step::Remove {
                integration, why, ..
            } => {
                writeln!(
                    text,
                    "- {what}: remove the integration {integration}: {why}"
                )
            }
        };
    }
    for left in &status.plan.left {
        let _ = writeln!(text, "  {}: left: {}", left.what, left.why);
    }
    let more = status.left_count - status.plan.left.len();
    if more > 0 {
        let _ = writeln!(text, "  {more} more are left");
    }
    let _ = writeln!(
        text,
        "{name}: {}, {} integrated, {} left",
        count(status.plan.steps.len(), "change"),
        status.plan.integrated,
        status.left_count
    );
    text
}
