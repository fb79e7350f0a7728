//! Narrows expressions: adds matchers to every selector, whether it is written or implied.

use crate::ast::{Expr, METRIC_NAME, Matcher, NodeKind, Selector};
use crate::function::ValueType;

/// What happens to calls of `info` that name no series and therefore read `target_info`.
///
/// Prometheus adds all labels of `target_info` to the first argument's series then; with a
/// selector, only the labels that the selector names. So there is no way to write the same call
/// for some of the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImplicitInfo {
    /// The call gets a selector of the matchers, and adds no other labels than theirs.
    #[default]
    Narrow,
    /// The expression is refused.
    Refuse,
}

/// Why an expression is not narrowed; it is left as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnforceError {
    /// No matchers were given.
    #[error("no matchers to enforce: give one at least")]
    NoMatchers,
    /// A matcher has no name, or the metric's.
    #[error("a matcher of label {0:?} cannot be enforced: name another label")]
    Label(String),
    /// A matcher would select series without the label.
    #[error("matcher of label {0:?} selects series without that label: give a value")]
    MatchesEmpty(String),
    /// There is a call of `info` without a selector.
    #[error("info() without a second argument reads every target_info: name the labels to add")]
    ImplicitInfo,
}

/// Adds matchers to every selector of an expression, and to the implied ones of `info`.
///
/// Matchers that a selector has stay: series have to fulfil all. The matchers' regular expressions
/// are taken to be valid.
///
/// # Errors
///
/// An [`EnforceError`], if the matchers do not narrow or the expression cannot be.
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
    // Whatever is in the list of nodes is narrowed: none can be missed.
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
