//! The command line: subcommands, global options, exit codes.

mod admin;
mod aiven;
mod completion;
mod convert;
mod dead_letters;
mod discover;
mod generate;
mod graph;
mod ledger;
mod list;
mod panics;
mod promql;
mod queues;
mod reload;
mod report;
mod rules;
mod run;
mod schema;
mod validate;

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use metrifold_engine::config;
use metrifold_engine::reload::Hangup;

/// Success.
pub const EXIT_OK: u8 = 0;
/// Failure while running.
pub const EXIT_FAILURE: u8 = 1;
/// No verdict yet, ask again (`EX_TEMPFAIL` of sysexits).
pub const EXIT_MOVING: u8 = 75;
/// Wrong command line (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;
/// Wrong configuration (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

const LONG_ABOUT: &str = "\
A config-driven gateway for Prometheus metrics: one pipe in, many out.

The configuration is TOML. It declares sources, which take metrics in, transforms, which change \
them, and sinks, which deliver them; each transform and sink names its inputs. Without a \
subcommand, the configuration is run.";

const AFTER_HELP: &str = "\
Examples:
  # Write a first configuration, check it, run it
  metrifold generate remote_write:sinks.remote_write > metrifold.toml
  metrifold validate
  metrifold

  # See which components there are, and all keys of one
  metrifold list
  metrifold list sources.remote_write

  # Merge a file and all *.toml of a directory
  metrifold -c /etc/metrifold/main.toml -c /etc/metrifold/tenants.d run

  # Apply an edit, and see what it changed or what is wrong with it
  metrifold reload

  # See what an endpoint has refused
  metrifold dead-letters list

  # See what came to each sink and what became of it
  metrifold ledger

  # See which queues on disk there are, and whether a sink reads them
  metrifold queues list

  # See which targets a provider finds
  metrifold discover instances

  # See which of Aiven's services would be integrated with Prometheus
  metrifold aiven plan

  # Take over from Promregator
  metrifold convert promregator promregator.yml > cf.toml

  # See what a tenant's query becomes
  metrifold promql enforce --label tenant_id --value team-a 'sum(rate(x[5m]))'

  # Check rule files as Prometheus reads them
  metrifold rules check rules/*.yaml

  # Take the place of mpp
  metrifold convert mpp --endpoints-file endpoints > metrifold.toml

  # Draw the graph
  metrifold graph --format dot | dot -Tsvg > graph.svg

Exit codes:
  0   success
  1   failure while running
  3   for rules check with --lint-fatal: the files are valid, but have lint warnings
  64  wrong use of the command line
  75  there is too much traffic to say whether the ledger balances
  78  wrong configuration";

/// The arguments.
#[derive(Debug, Parser)]
#[command(
    name = "metrifold",
    version,
    about = "A config-driven gateway for Prometheus metrics",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP
)]
struct Arguments {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What every subcommand takes.
#[derive(Clone, Debug, Args)]
struct Global {
    /// A configuration file, a directory (all its *.toml) or a glob; may be repeated
    ///
    /// All files are merged into one configuration. A name that two files declare is an error.
    #[arg(
        short,
        long,
        global = true,
        env = "METRIFOLD_CONFIG",
        value_name = "PATH",
        value_delimiter = ',',
        default_value = "metrifold.toml"
    )]
    config: Vec<String>,

    /// Format of log lines
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Verbosity of the log: a level, or levels by module
    ///
    /// Levels are error, warn, info, debug and trace. "info,metrifold::http=debug" sets another
    /// level for one module.
    #[arg(
        long,
        global = true,
        env = "METRIFOLD_LOG",
        value_name = "FILTER",
        default_value = "info",
        value_parser = parse_filter
    )]
    log_level: String,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Text
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the configuration (the default)
    Run(run::RunArgs),
    /// Make the running metrifold reload its configuration, and print the outcome
    Reload(reload::ReloadArgs),
    /// List batches that endpoints have refused, send them again, or discard them
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Show what each sink received, delivered, dropped and has queued
    Ledger(ledger::LedgerArgs),
    /// List the queues on disk; move or remove one that no sink reads
    Queues(queues::QueuesArgs),
    /// Check the configuration and report all errors
    Validate(validate::ValidateArgs),
    /// Draw the graph of the configuration
    Graph(graph::GraphArgs),
    /// List the component types and their keys
    List(list::ListArgs),
    /// Query a provider of targets once, and print its targets
    Discover(discover::DiscoverArgs),
    /// Print the changes that are due at Aiven, with their reasons
    Aiven(aiven::AivenArgs),
    /// Check, format and narrow PromQL expressions
    Promql(promql::PromqlArgs),
    /// Check rule files; read and change a tenant's rules at an API
    Rules(rules::RulesArgs),
    /// Write a JSON Schema of the configuration, for editors
    Schema(schema::SchemaArgs),
    /// Write a commented configuration to start from
    Generate(generate::GenerateArgs),
    /// Convert another program's configuration
    Convert(convert::ConvertArgs),
    /// Write a completion script for a shell
    Completion(completion::CompletionArgs),
}

/// Levels of log lines, and the word that silences them.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

fn parse_filter(text: &str) -> Result<String, String> {
    for directive in text.split(',').map(str::trim) {
        // Each directive must end in a level: `EnvFilter` takes any other word for a module, and
        // silences all other modules.
        let level = directive.rsplit('=').next().unwrap_or_default();
        if !LEVELS.contains(&&*level.to_ascii_lowercase()) {
            let near = config::nearest(level, LEVELS);
            let help = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("levels are {}", LEVELS.join(", ")),
            };
            return Err(format!("{level:?} is not a level: {help}"));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}: write a level, such as info")),
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    // First: a SIGHUP kills a process that has no handler for it.
    let hangup = Hangup::listen();
    panics::scrub_messages();
    ExitCode::from(execute(std::env::args_os(), hangup))
}

/// Runs the program and returns its exit code.
fn execute(arguments: impl IntoIterator<Item = OsString>, hangup: io::Result<Hangup>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap returns help and version as errors, and prints them to the right stream.
            let code = match error.use_stderr() {
                true => EXIT_USAGE,
                false => EXIT_OK,
            };
            return match error.print() {
                Ok(()) => code,
                Err(_) => EXIT_FAILURE,
            };
        }
    };
    let global = &arguments.global;
    match arguments.command {
        None => run::execute(global, &run::RunArgs::default(), hangup),
        Some(Command::Run(args)) => run::execute(global, &args, hangup),
        Some(Command::Reload(args)) => reload::execute(global, &args),
        Some(Command::DeadLetters(args)) => dead_letters::execute(global, &args),
        Some(Command::Ledger(args)) => ledger::execute(global, &args),
        Some(Command::Queues(args)) => queues::execute(global, &args),
        Some(Command::Validate(args)) => validate::execute(global, &args),
        Some(Command::Graph(args)) => graph::execute(global, &args),
        Some(Command::List(args)) => list::execute(&args),
        Some(Command::Discover(args)) => discover::execute(global, &args),
        Some(Command::Aiven(args)) => aiven::execute(global, &args),
        Some(Command::Promql(args)) => promql::execute(&args),
        Some(Command::Rules(args)) => rules::execute(&args),
        Some(Command::Schema(args)) => schema::execute(&args),
        Some(Command::Generate(args)) => generate::execute(&args),
        Some(Command::Convert(args)) => convert::execute(&args),
        Some(Command::Completion(args)) => completion::execute(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_arguments_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere_and_repeat() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap();
        let arguments = parse("metrifold -c a.toml validate --config b.toml --no-environment");
        assert_eq!(arguments.global.config, ["b.toml"]);
        let arguments = parse("metrifold graph -c a.toml -c b.toml,c.toml");
        assert_eq!(arguments.global.config, ["a.toml", "b.toml", "c.toml"]);
        assert!(parse("metrifold").command.is_none());
    }

    #[test]
    fn a_misspelt_level_is_told_of_the_right_one() {
        let error = parse_filter("wran").unwrap_err();
        assert_eq!(error, "\"wran\" is not a level: did you mean warn?");
        for good in ["info", "WARN", "off", "info,metrifold::http=debug"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn wrong_use_has_its_own_exit_code() {
        for line in [
            "metrifold --colour",
            "metrifold graph --format svg",
            "metrifold run --shutdown-limit 60",
            "metrifold run --threads 0",
            "metrifold run --watch-interval 0s",
            "metrifold reload --address 8686",
            "metrifold dead-letters",
            "metrifold queues",
            "metrifold queues adopt old",
            "metrifold queues discard",
            "metrifold ledger --tenants all",
            "metrifold ledger --format csv",
            "metrifold dead-letters resend",
            "metrifold dead-letters discard a/1 --all",
            "metrifold dead-letters discard a/1 --tenant t",
            "metrifold discover",
            "metrifold discover a --timeout 0s",
            "metrifold promql",
            "metrifold promql check",
            "metrifold promql enforce --label a up",
            "metrifold rules",
            "metrifold rules check --lint some",
            "metrifold rules put alerts",
            "metrifold rules list --url nowhere",
            "metrifold rules check --enable-feature all",
            "metrifold promql enforce --label __name__ --value a up",
            "metrifold --log-level =,",
            "metrifold --log-level wran",
            "metrifold --log-level info,metrifold::http=debgu",
            "metrifold generate nothing_of_this_name",
            "metrifold convert",
            "metrifold convert mpp",
            "metrifold convert promregator no-such-file.yml",
        ] {
            let code = execute(line.split(' ').map(OsString::from), Hangup::listen());
            assert_eq!(code, EXIT_USAGE, "{line}");
        }
    }
}
