//! `promql`: checks, formats and narrows expressions, without a configuration and without a server.

use std::io::{self, Read};

use clap::{Args, Subcommand};

use metrifold_promql::{
    Expr, ImplicitInfo, Matcher, Options, ParseError, enforce, parse, parse_selector,
};

use super::{EXIT_FAILURE, EXIT_USAGE, report};

const AFTER_HELP: &str = "\
Examples:
  metrifold promql check 'sum(rate(http_requests_total[5m])) by (job)'
  metrifold promql format - < query.promql
  metrifold promql enforce --label tenant_id --value team-a 'up / on (job) x'

  # What is sent for somebody who may see two tenants, and for match[] of the interface
  metrifold promql enforce --label tenant_id --value team-a --value team-b up
  metrifold promql enforce --selector --label tenant_id --value team-a '{__name__=~\".+\"}'

The language is that of Prometheus 3.16. Exits with 0, and with 1 when the expression is wrong.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PromqlArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the type of an expression, or its errors with line and column
    Check(ExpressionArgs),
    /// Format an expression, over several lines if it is long
    Format(ExpressionArgs),
    /// Add a label matcher to every selector of an expression
    Enforce(EnforceArgs),
}

#[derive(Debug, Args)]
struct ExpressionArgs {
    /// Expression, or - to read it from stdin
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    expression: String,

    /// Accept only a selector, as match[] of the API does
    #[arg(long)]
    selector: bool,

    /// Refuse experimental functions, aggregations and fill modifiers, as Prometheus does unless
    /// they are enabled
    #[arg(long)]
    no_experimental: bool,

    /// Allow names with dots and letters beyond ASCII without quotes, as Prometheus does with
    /// promql-unquoted-utf8-names
    #[arg(long)]
    unquoted_names: bool,
}

#[derive(Debug, Args)]
struct EnforceArgs {
    /// Label of the matcher
    #[arg(long, value_name = "LABEL")]
    label: String,

    /// Value of the label; repeat it for alternatives
    #[arg(long = "value", value_name = "VALUE", required = true)]
    values: Vec<String>,

    /// Refuse calls of info() that name no labels, instead of limiting them to this one
    #[arg(long)]
    refuse_implicit_info: bool,

    #[command(flatten)]
    expression: ExpressionArgs,
}

pub(super) fn execute(args: &PromqlArgs) -> u8 {
    let done = match &args.action {
        Action::Check(args) => read(args).map(|expr| describe(&expr)),
        Action::Format(args) => read(args).map(|expr| expr.format_query()),
        Action::Enforce(args) => narrow(args),
    };
    match done {
        Ok(text) => report::print(&format!("{text}\n")),
        Err(code) => code,
    }
}

fn describe(expr: &Expr) -> String {
    let selectors = expr.selectors().count() + expr.implicit_info().count();
    let value_type = expr.value_type();
    format!(
        "valid: {value_type}, {}",
        report::count(selectors, "selector")
    )
}

fn narrow(args: &EnforceArgs) -> Result<String, u8> {
    let values: Vec<_> = args.values.iter().map(String::as_str).collect();
    let matcher = Matcher::one_of(&args.label, &values);
    let implicit = match args.refuse_implicit_info {
        true => ImplicitInfo::Refuse,
        false => ImplicitInfo::Narrow,
    };
    let mut expr = read(&args.expression)?;
    match enforce(&mut expr, &[matcher], implicit) {
        Ok(()) => Ok(expr.to_query()),
        Err(error) => {
            report::complain(&error.to_string());
            match error {
                metrifold_promql::EnforceError::ImplicitInfo => Err(EXIT_FAILURE),
                _ => Err(EXIT_USAGE),
            }
        }
    }
}

/// Parses the expression of the arguments; prints an error and returns the exit code if it is
/// invalid.
fn read(args: &ExpressionArgs) -> Result<Expr, u8> {
    let options = Options {
        experimental_functions: !args.no_experimental,
        fill_modifiers: !args.no_experimental,
        unquoted_names: args.unquoted_names,
        ..crate::promql::options()
    };
    let text = match args.expression.as_str() {
        "-" => standard_input(options.max_length).map_err(|message| {
            report::complain(&message);
            EXIT_FAILURE
        })?,
        expression => expression.to_owned(),
    };
    let parsed = match args.selector {
        true => parse_selector(&text, &options),
        false => parse(&text, &options),
    };
    parsed.map_err(|error| refuse(&error, &text))
}

fn refuse(error: &ParseError, text: &str) -> u8 {
    report::complain(&error.excerpt(text));
    EXIT_FAILURE
}

/// Reads up to one byte beyond the limit, so that the parser reports a text that is too long.
fn standard_input(most: usize) -> Result<String, String> {
    let mut text = String::new();
    let limit = u64::try_from(most).map_or(u64::MAX, |most| most.saturating_add(1));
    match io::stdin().lock().take(limit).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read the expression from stdin: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(expression: &str) -> ExpressionArgs {
        ExpressionArgs {
            expression: expression.to_owned(),
            selector: false,
            no_experimental: false,
            unquoted_names: false,
        }
    }

    fn narrowed(label: &str, values: &[&str], expression: ExpressionArgs) -> Result<String, u8> {
        narrow(&EnforceArgs {
            label: label.to_owned(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            refuse_implicit_info: false,
            expression,
        })
    }

    #[test]
    fn an_expression_is_described_by_its_type_and_its_selectors() {
        let described = |text| read(&arguments(text)).map(|expr| describe(&expr));
        assert_eq!(
            described("-info(up)").as_deref(),
            Ok("valid: instant vector, 2 selectors")
        );
        assert_eq!(
            described("1 + 1").as_deref(),
            Ok("valid: scalar, 0 selectors")
        );
        for wrong in ["1 +", "sum(1)", "up{a=~\"(\"}", ""] {
            assert_eq!(described(wrong), Err(EXIT_FAILURE), "{wrong}");
        }
    }

    #[test]
    fn what_is_experimental_can_be_refused() {
        for expression in ["limitk(1, up)", "mad_over_time(up[5m])", "a + fill(0) b"] {
            let args = arguments(expression);
            assert!(read(&args).is_ok());
            let refusing = ExpressionArgs {
                no_experimental: true,
                ..args
            };
            assert_eq!(read(&refusing).map(drop), Err(EXIT_FAILURE), "{expression}");
        }
    }

    #[test]
    fn several_values_are_alternatives_and_a_selector_may_select_everything() {
        let one = narrowed("tenant_id", &["a"], arguments("up + down"));
        assert_eq!(
            one.as_deref(),
            Ok(r#"up{tenant_id="a"} + down{tenant_id="a"}"#)
        );
        let selector = ExpressionArgs {
            selector: true,
            ..arguments("{}")
        };
        let two = narrowed("tenant_id", &["a", "b.c"], selector);
        assert_eq!(two.as_deref(), Ok(r#"{tenant_id=~"a|b\\.c"}"#));
    }

    #[test]
    fn a_label_that_narrows_nothing_is_wrong_use() {
        for (label, values) in [("__name__", ["a"]), ("", ["a"]), ("tenant_id", [""])] {
            let refused = narrowed(label, &values, arguments("up"));
            assert_eq!(refused, Err(EXIT_USAGE), "{label}={values:?}");
        }
    }
}
