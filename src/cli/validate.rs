//! `validate`: every error and warning of the configuration.

use clap::Args;

use metrifold_engine::config::LoadOptions;

use super::report::{self, count};
use super::{EXIT_CONFIG, Global};

const AFTER_HELP: &str = "\
Examples:
  metrifold validate
  metrifold validate /etc/metrifold --deny-warnings

  # In a pipeline, where certificates and password files are not at hand
  metrifold validate --no-environment -c config.toml

Exits with 0 when the configuration can be run, and with 78 when not.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ValidateArgs {
    /// Files, directories or globs to check, instead of those of --config
    #[arg(value_name = "FILE")]
    files: Vec<String>,

    /// Do not check files that the configuration names, such as certificates
    #[arg(long)]
    no_environment: bool,

    /// Fail on warnings as well
    #[arg(long)]
    deny_warnings: bool,
}

pub(super) fn execute(global: &Global, args: &ValidateArgs) -> u8 {
    let options = LoadOptions {
        environment: !args.no_environment,
    };
    let mut global = global.clone();
    if !args.files.is_empty() {
        global.config.clone_from(&args.files);
    }
    let loaded = match report::load(&global, options) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let warnings = loaded.warnings.len();
    if args.deny_warnings && warnings > 0 {
        report::complain(&format!(
            "the configuration has {}",
            count(warnings, "warning")
        ));
        return EXIT_CONFIG;
    }
    let config = loaded.config;
    report::print(&format!(
        "valid: {}, {}, {}, {}\n",
        count(config.sources.len(), "source"),
        count(config.transforms.len(), "transform"),
        count(config.sinks.len(), "sink"),
        count(warnings, "warning"),
    ))
}
