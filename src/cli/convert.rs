//! `convert`: prints a configuration that replaces another program.

mod mpp;
mod observatorium;
mod promregator;

use clap::{Args, Subcommand};

use super::{EXIT_CONFIG, EXIT_USAGE, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold convert mpp --endpoints-file /etc/mpp/endpoints > metrifold.toml
  metrifold convert mpp --endpoints-file endpoints --routing-strategy minimum-history:1h
  metrifold convert promregator promregator.yml > metrifold.toml
  metrifold convert observatorium --tenants.config tenants.yaml --rbac.config rbac.yaml \\
    --metrics.write.endpoint http://receive:19291 --metrics.read.endpoint http://query:9090 \\
    --metrics.additional.write.endpoint.config additional.yaml > metrifold.toml

The flags are those of the other program, as they stand in its manifest, and so are its environment \
variables. Secrets of the Observatorium API are not copied: variables take their places, which are named \
on stderr. Exits with 0, with 64 when mpp would not have started with its flags, and with 78 when a file \
of the other program is wrong.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ConvertArgs {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// mpp, the proxy in front of several Prometheis
    Mpp(mpp::MppArgs),
    /// The Observatorium API, with its tenants, roles and additional endpoints
    Observatorium(observatorium::ObservatoriumArgs),
    /// Promregator, which discovers and scrapes instances of Cloud Foundry
    Promregator(promregator::PromregatorArgs),
}

/// A configuration, and notes on what could not be converted.
#[derive(Debug)]
struct Converted {
    text: String,
    notes: Vec<String>,
}

pub(super) fn execute(args: &ConvertArgs) -> u8 {
    let (done, failed) = match &args.program {
        Program::Mpp(args) => (mpp::convert(args), EXIT_USAGE),
        Program::Observatorium(args) => (observatorium::convert(args), EXIT_CONFIG),
        Program::Promregator(args) => return promregator::execute(args),
    };
    match done {
        Ok(converted) => {
            for note in converted.notes {
                report::tell(&format!("note: {note}"));
            }
            report::print(&converted.text)
        }
        Err(error) => {
            report::complain(&error);
            failed
        }
    }
}
