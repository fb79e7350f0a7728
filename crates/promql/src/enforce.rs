//! Restriction of expressions: adds matchers to every selector, written or implied.

use crate::ast::{Expr, METRIC_NAME, Matcher, NodeKind, Selector};
use crate::function::ValueType;

/// Treatment of calls of `info` without a selector, which read `target_info`.
///
/// For these, Prometheus adds all labels of `target_info` to the series of the first argument; with
/// a selector, it adds only the labels that the selector names. So the same call cannot be written
/// for a part of the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImplicitInfo {
    /// The call gets a selector of the matchers, and adds only the labels that they name.
    #[default]
    Narrow,
    /// The expression is refused.
    Refuse,
}

/// Reason for not restricting an expression, which is left unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnforceError {
    /// No matchers were given.
    #[error("no matchers to enforce: give one at least")]
    NoMatchers,
    /// A matcher has no name, or is for the metric's name.
    #[error("a matcher of label {0:?} cannot be enforced: name another label")]
    Label(String),
    /// A matcher would select series without the label.
    #[error("matcher of label {0:?} selects series without that label: give a value")]
    MatchesEmpty(String),
    /// A call of `info` has no selector.
    #[error("info() without a second argument reads every target_info: name the labels to add")]
    ImplicitInfo,
}

/// Adds matchers to every selector of an expression, and to the implied selectors of `info`.
///
/// The selector's own matchers stay: series must meet all. The regular expressions of the added
/// matchers are assumed to be valid.
///
/// # Errors
///
/// Returns an [`EnforceError`] if the matchers do not restrict anything, or the expression cannot
/// be restricted.
pub fn enforce(
    expr: &mut Expr,
    matchers: &[Matcher],
    implicit: ImplicitInfo,
) -> Result<(), EnforceError> {
    check(matchers)?;
    let calls: Vec<_> = expr.implicit_info().collect();
    if implicit == ImplicitInfo::Refuse && !calls.is_empty() {
        return Err(EnforceError::ImplicitInfo);
    }
    // The list holds every node, so that no selector is missed.
    for selector in expr.selectors_mut() {
        add(selector, matchers);
    }
    for id in calls {
        let selector = Selector {
            matchers: matchers.to_vec(),
            ..Selector::default()
        };
        let span = expr[id].span;
        let kind = NodeKind::Selector(selector);
        let argument = expr.push(span, ValueType::Vector, kind);
        if let NodeKind::Call(call) = &mut expr.node_mut(id).kind {
            call.arguments.push(argument);
        }
    }
    Ok(())
}

fn check(matchers: &[Matcher]) -> Result<(), EnforceError> {
    if matchers.is_empty() {
        return Err(EnforceError::NoMatchers);
    }
    for matcher in matchers {
        let name = matcher.name.to_string();
        if matcher.name.is_empty() || matcher.name == METRIC_NAME {
            return Err(EnforceError::Label(name));
        }
        if matcher.matches_empty() {
            return Err(EnforceError::MatchesEmpty(name));
        }
    }
    Ok(())
}

fn add(selector: &mut Selector, matchers: &[Matcher]) {
    for matcher in matchers {
        if !selector.matchers.contains(matcher) {
            selector.matchers.push(matcher.clone());
        }
    }
}
