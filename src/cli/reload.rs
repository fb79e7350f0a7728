//! `reload`: asks a running process for a reload, and waits for the outcome.

use clap::Args;
use reqwest::{Method, StatusCode};

use metrifold_base::Period;

use crate::api::RELOAD;

use super::admin::{self, AdminArgs};
use super::{EXIT_CONFIG, EXIT_FAILURE, Global, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold reload
  metrifold reload -c /etc/metrifold
  metrifold reload --address 10.0.0.7:8686

The admin address is that of the configuration (--config), unless --address names it. An edit \
that moves the admin address has to be applied with the old one. Exits with 0 when the \
configuration runs, with 78 when it is wrong, and with 1 when it could not be applied, such as for \
a port that is taken, or nobody answered.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    admin: AdminArgs,

    /// Longest time to wait for the outcome
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    timeout: Period,
}

pub(super) fn execute(global: &Global, args: &ReloadArgs) -> u8 {
    let process = match args.admin.find(global) {
        Ok(process) => process,
        Err(code) => return code,
    };
    match admin::ask(&process, Method::POST, RELOAD, String::new(), args.timeout) {
        Ok((StatusCode::OK, told)) => report::print(&told),
        Ok((status, told)) => {
            report::tell(&told);
            match status {
                StatusCode::UNPROCESSABLE_ENTITY => EXIT_CONFIG,
                StatusCode::CONFLICT => EXIT_FAILURE,
                status => {
                    report::complain(&format!("{process} answered {status}"));
                    EXIT_FAILURE
                }
            }
        }
        Err(error) => {
            report::complain(&format!("cannot reach {process}: {error}"));
            EXIT_FAILURE
        }
    }
}
