//! `rules`: rule files of Prometheus and Thanos, in files and at an API.

mod check;
mod remote;

use clap::{Args, Subcommand};

const AFTER_HELP: &str = "\
Examples:
  metrifold rules check alerts.yaml recording/*.yaml
  metrifold rules check --lint-fatal - < rules.yaml

  # At the API of a `rules_api`
  export METRIFOLD_RULES_URL=http://127.0.0.1:8080/api/metrics/v1/team-a
  metrifold rules diff alerts alerts.yaml || metrifold rules put alerts alerts.yaml
  metrifold rules list
  metrifold rules history alerts
  metrifold rules get alerts --version 001763719441123-000000
  metrifold rules rollback alerts 001763719441123-000000 --dry-run

  # With TLS and credentials, which are read from files
  metrifold rules list --ca-file ca.crt --token-file token
  metrifold rules list --cert-file team-a.crt --key-file team-a.key

Exits with 0 when all is well, and with 1 when not: a file is wrong, the API refused or did not \
answer, or, for diff, something differs.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RulesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Report all errors of rule files, with promtool's verdict
    Check(check::CheckArgs),
    /// List a tenant's files and groups, with their state at the rulers
    List(remote::ApiArgs),
    /// Print a file, a version of it, or all files as one document
    Get(remote::GetArgs),
    /// Write a file
    Put(remote::PutArgs),
    /// Show the differences between a file and the one at the API
    Diff(remote::DiffArgs),
    /// Remove a file; its history stays
    Delete(remote::DeleteArgs),
    /// List the versions of a file: who changed it, and when
    History(remote::NamedArgs),
    /// Restore an earlier version of a file
    Rollback(remote::RollbackArgs),
}

pub(super) fn execute(args: &RulesArgs) -> u8 {
    let done = match &args.action {
        Action::Check(args) => Ok(check::execute(args)),
        Action::List(args) => remote::list(args),
        Action::Get(args) => remote::get(args),
        Action::Put(args) => remote::put(args),
        Action::Diff(args) => remote::diff(args),
        Action::Delete(args) => remote::delete(args),
        Action::History(args) => remote::history(args),
        Action::Rollback(args) => remote::rollback(args),
    };
    done.unwrap_or_else(|code| code)
}
