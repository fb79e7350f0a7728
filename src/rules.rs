//! Checks the expressions of rules, and finds questionable ones.

mod asker;
mod backend;
mod bucket;
mod conflicts;
mod side_by_side;
mod store;

use std::sync::Arc;

use clap::ValueEnum;

use metrifold_base::words;
use metrifold_promql::{Expr, MatchOp, Matcher, NodeKind, Options, Selector, parse};
use metrifold_rules::{CheckedExpr, Lint};

use crate::promql;

pub(crate) use asker::Asker;
pub(crate) use backend::BackendKeys;
pub(crate) use conflicts::Conflicts;
pub(crate) use side_by_side::{Requests, side_by_side};
pub(crate) use store::StoreKeys;

/// Functions that are meaningful for counters only.
const OF_COUNTERS: [&str; 3] = ["rate", "irate", "increase"];
/// Suffixes of gauges that no counter has.
const GAUGES: [&str; 14] = [
    "_avail_bytes",
    "_celsius",
    "_free_bytes",
    "_goroutines",
    "_in_use",
    "_info",
    "_limit",
    "_open_fds",
    "_percent",
    "_ratio",
    "_resident_memory_bytes",
    "_size_bytes",
    "_timestamp_seconds",
    "_usage_bytes",
];
/// Regular expressions that match every value, the empty one included.
const ALL: [&str; 4] = [".*", "(.*)", "^.*$", ".*?"];

words! {
    /// Feature flag of Prometheus that decides which expressions it accepts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
    pub(crate) enum Feature {
        /// Functions such as info and mad_over_time, and the aggregations limitk and limit_ratio
        PromqlExperimentalFunctions = "promql-experimental-functions",
        /// fill, fill_left and fill_right between vectors
        PromqlBinopFillModifiers = "promql-binop-fill-modifiers",
        /// Names with dots and letters beyond ASCII without quotes
        PromqlUnquotedUtf8Names = "promql-unquoted-utf8-names",
        /// Decides about no expression
        PromqlDelayedNameRemoval = "promql-delayed-name-removal",
        /// Decides about no expression: every Prometheus of 3.16 has it
        PromqlDurationExpr = "promql-duration-expr",
        /// Decides about no expression: every Prometheus of 3.16 has it
        PromqlExtendedRangeSelectors = "promql-extended-range-selectors",
    }
}

/// Checks expressions as [`check_with`] does, with options of its own.
pub(crate) type Checker = Arc<dyn Fn(&str) -> Result<CheckedExpr, String> + Send + Sync>;

/// Checks expressions as a ruler does that has these features enabled.
pub(crate) fn checker(features: &[Feature]) -> Checker {
    let options = Options {
        experimental_functions: features.contains(&Feature::PromqlExperimentalFunctions),
        fill_modifiers: features.contains(&Feature::PromqlBinopFillModifiers),
        unquoted_names: features.contains(&Feature::PromqlUnquotedUtf8Names),
        ..promql::options()
    };
    Arc::new(move |expr| check_with(expr, &options))
}

/// Checks an expression, and returns its lints and the places at which a matcher can be inserted.
fn check_with(text: &str, options: &Options) -> Result<CheckedExpr, String> {
    let expr = parse(text, options).map_err(|error| error.to_string())?;
    let mut odd = Vec::new();
    for (_, node) in expr.nodes() {
        match &node.kind {
            NodeKind::Call(call) if OF_COUNTERS.contains(&call.function.name) => {
                let argument = call.arguments.first().copied();
                let metric = argument.and_then(|id| match &expr[id].kind {
                    NodeKind::Range(range) => metric(&expr, range.selector),
                    _ => None,
                });
                if let Some(metric) = metric.filter(|metric| is_gauge(metric)) {
                    let function = call.function.name;
                    let message = format!(
                        "{function}() of {metric:?}, a gauge by its name: use delta() or deriv(), or a counter"
                    );
                    odd.push((Lint::RateOfGauge, message));
                }
            }
            NodeKind::Selector(selector) => {
                odd.extend(selector.matchers.iter().filter_map(matches_all));
            }
            _ => {}
        }
    }
    Ok(CheckedExpr {
        lints: odd,
        places: expr.places(text).map(Vec::into_boxed_slice),
    })
}

fn metric(expr: &Expr, selector: metrifold_promql::NodeId) -> Option<&str> {
    match &expr[selector].kind {
        NodeKind::Selector(Selector { name, .. }) => name.as_ref()?.to_str(),
        _ => None,
    }
}

fn is_gauge(metric: &str) -> bool {
    metric == "up" || GAUGES.iter().any(|end| metric.ends_with(end))
}

fn matches_all(matcher: &Matcher) -> Option<(Lint, String)> {
    if matches!(matcher.op, MatchOp::Equal | MatchOp::NotEqual) {
        return None;
    }
    let (name, value) = (matcher.name.to_str()?, matcher.value.to_str()?);
    let message = match matcher.op {
        _ if !ALL.contains(&value) => return None,
        MatchOp::Regex => format!("{name}=~{value:?} is true of every series: remove it"),
        MatchOp::NotRegex => format!("{name}!~{value:?} is true of no series"),
        _ => return None,
    };
    Some((Lint::MatchesAll, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_expr(expr: &str) -> Result<CheckedExpr, String> {
        checker(&[])(expr)
    }

    fn lints(expr: &str) -> Vec<Lint> {
        let odd = check_expr(expr).unwrap().lints;
        odd.into_iter().map(|(lint, _)| lint).collect()
    }

    #[test]
    fn an_expression_is_checked_with_its_regular_expressions() {
        assert_eq!(lints("sum(rate(up_total{job=~\"a.*\"}[5m])) by (job)"), []);
        assert!(check_expr("sum(rate(up))").is_err());
        assert!(check_expr("up{job=~\"(\"}").is_err());
    }

    #[test]
    fn what_rulers_have_switched_off_is_refused_until_it_is_enabled() {
        use Feature::{
            PromqlBinopFillModifiers, PromqlDelayedNameRemoval, PromqlExperimentalFunctions,
            PromqlUnquotedUtf8Names,
        };
        for (expr, feature) in [
            ("limitk(3, up)", PromqlExperimentalFunctions),
            ("sort_by_label(up, \"job\")", PromqlExperimentalFunctions),
            ("up + fill(0) up", PromqlBinopFillModifiers),
            ("http.requests", PromqlUnquotedUtf8Names),
        ] {
            assert!(check_expr(expr).is_err(), "{expr}");
            assert!(
                checker(&[PromqlDelayedNameRemoval])(expr).is_err(),
                "{expr}"
            );
            let enabled = checker(&[PromqlDelayedNameRemoval, feature])(expr);
            assert!(enabled.is_ok(), "{expr}: {enabled:?}");
        }
        // Prometheus 3.16 has these without a flag.
        for expr in ["rate(up_total[5m + 1m])", "increase(up_total[5m] smoothed)"] {
            assert!(check_expr(expr).is_ok(), "{expr}");
        }
    }

    #[test]
    fn what_is_odd_about_an_expression_is_told() {
        assert_eq!(lints("rate(up[5m])"), [Lint::RateOfGauge]);
        assert_eq!(
            lints("sum(increase(go_memstats_free_bytes{a=~\".*\"}[1h]) > 1)"),
            [Lint::MatchesAll, Lint::RateOfGauge]
        );
        assert_eq!(lints("rate(read_bytes_total[5m]) + deriv(x_ratio[5m])"), []);
        assert_eq!(lints("up{a=~\".+\", b!~\".*\"}"), [Lint::MatchesAll]);
    }
}
