//! `rules check`: verdict and exit codes of `promtool check rules`, but with all problems at once.

use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::Path;

use clap::{Args, ValueEnum};

use metrifold_base::read_file;
use metrifold_rules::{Checks, Limits, Lint, RuleFile, Warning};

use crate::cli::{EXIT_FAILURE, EXIT_OK, report};
use crate::rules::{Feature, checker};

const AFTER_HELP: &str = "\
Examples:
  metrifold rules check alerts.yaml recording/*.yaml
  metrifold rules check --thanos - < rules.yaml

  # In a pipeline: fail on lint warnings as well
  metrifold rules check --lint all --lint-fatal rules/*.yaml

Exits with 0 when the files are valid, with 1 when not, and with 3 when they are valid but have \
warnings that --lint-fatal treats as failures, as promtool does.";

/// Exit code of --lint-fatal when a lint finds something.
const EXIT_LINT: u8 = 3;
/// Bounds far above any rule set in use; promtool has none.
const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    groups: 1_000_000,
    rules: 1_000_000,
    nodes: 20_000_000,
    problems: 1000,
};

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CheckArgs {
    /// The files; - or none at all reads stdin
    #[arg(value_name = "FILE")]
    files: Vec<String>,

    /// Lint warnings that --lint-fatal treats as failures: all, those of duplicate rules, or none
    ///
    /// All lint warnings are printed, unless this is `none`.
    #[arg(long, value_name = "LINTS", default_value = "duplicate-rules")]
    lint: LintChoice,

    /// Exit with 3 when there are lint warnings of the kind that --lint selects
    #[arg(long)]
    lint_fatal: bool,

    /// Report unknown keys as warnings instead of errors, though Prometheus refuses them
    #[arg(long)]
    ignore_unknown_fields: bool,

    /// Allow partial_response_strategy, which every Thanos Ruler knows and no Prometheus
    #[arg(long)]
    thanos: bool,

    /// Feature that the rulers have enabled; may be repeated, or separated by commas
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    enable_feature: Vec<Feature>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LintChoice {
    All,
    DuplicateRules,
    None,
}

pub(super) fn execute(args: &CheckArgs) -> u8 {
    let expr = checker(&args.enable_feature);
    let checks = Checks {
        thanos: args.thanos,
        ignore_unknown: args.ignore_unknown_fields,
        limits: LIMITS,
        ..Checks::new(&*expr)
    };
    let stdin = ["-".to_owned()];
    let files = match args.files.is_empty() {
        true => &stdin[..],
        false => &args.files,
    };
    let (mut out, mut failed, mut is_odd) = (String::new(), false, false);
    for file in files {
        let name = if file == "-" { "stdin" } else { file };
        let text = match read(file) {
            Ok(text) => text,
            Err(reason) => {
                report::complain(&format!("cannot read {name}: {reason}"));
                failed = true;
                continue;
            }
        };
        match RuleFile::parse(&text, &checks) {
            Ok(parsed) => {
                is_odd |= parsed.warnings.iter().any(|odd| args.names(odd));
                let shown = match args.lint {
                    LintChoice::None => &[][..],
                    _ => &parsed.warnings,
                };
                for warning in shown {
                    report::tell(&format!("{name}:{warning}"));
                }
                let warnings = match shown.len() {
                    0 => String::new(),
                    count => format!(", {}", report::count(count, "warning")),
                };
                let rules = report::count(parsed.file.rules(), "rule");
                // Writing to a `String` cannot fail.
                let _ = writeln!(out, "{name}: valid, {rules}{warnings}");
            }
            Err(problems) => {
                failed = true;
                for problem in &problems {
                    report::tell(&format!("{name}:{problem}"));
                }
                let count = report::count(problems.len(), "problem");
                let _ = writeln!(out, "{name}: invalid, {count}");
            }
        }
    }
    match report::print(&out) {
        EXIT_OK if failed => EXIT_FAILURE,
        EXIT_OK if is_odd && args.lint_fatal => EXIT_LINT,
        code => code,
    }
}

impl CheckArgs {
    /// Whether --lint covers the warning.
    fn names(&self, warning: &Warning) -> bool {
        match self.lint {
            LintChoice::All => true,
            LintChoice::DuplicateRules => warning.lint == Lint::DuplicateRules,
            LintChoice::None => false,
        }
    }
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    let max = LIMITS.bytes as u64;
    if file != "-" {
        return read_file(Path::new(file), max).map_err(|error| error.to_string());
    }
    let mut text = Vec::new();
    // Up to one byte beyond the limit, so that the parser reports a file that is too large.
    let read = io::stdin().lock().take(max + 1).read_to_end(&mut text);
    read.map(|_| text).map_err(|error| error.to_string())
}
