//! `completion`: scripts for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold completion bash > /etc/bash_completion.d/metrifold
  metrifold completion zsh > ~/.zfunc/_metrifold
  metrifold completion fish > ~/.config/fish/completions/metrifold.fish";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn execute(args: &CompletionArgs) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "metrifold", &mut script);
    report::print(&String::from_utf8_lossy(&script))
}
