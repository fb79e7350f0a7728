//! `convert`: prints the configuration that takes the place of another program's.

mod mpp;
mod promregator;

use clap::{Args, Subcommand};

use super::report;

const AFTER_HELP: &str = "\
Examples:
  metrifold convert mpp --endpoints-file /etc/mpp/endpoints > metrifold.toml
  metrifold convert mpp --endpoints-file endpoints --routing-strategy minimum-history:1h

The flags are those of the other program, and so are its environment variables. Exits with 0, and with \
64 when it would not have started with them.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ConvertArgs {
    #[command(subcommand)]
    program: Program,
}

#[derive(Debug, Subcommand)]
enum Program {
    /// What takes the place of mpp, the proxy in front of several Prometheis
    Mpp(mpp::MppArgs),
    /// What takes the place of Promregator, which finds instances of Cloud Foundry
    Promregator(promregator::PromregatorArgs),
}

pub(super) fn execute(args: &ConvertArgs) -> u8 {
    let done = match &args.program {
        Program::Mpp(args) => mpp::convert(args),
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
            super::EXIT_USAGE
        }
    }
}
