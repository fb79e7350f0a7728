//! Expressions of rules, which the caller's function checks.

use std::fmt;
use std::ops::Deref;

use super::Lint;

/// A PromQL expression as it was written.
#[derive(Clone, Debug)]
pub struct Expr {
    text: Box<str>,
    places: Option<Box<[u32]>>,
}

/// Findings about a valid expression.
#[derive(Clone, Debug, Default)]
pub struct CheckedExpr {
    /// Lints, each with how to resolve it.
    pub lints: Vec<(Lint, String)>,
    /// Offsets in the text that the checker wants to be kept with the rule, for whoever changes the
    /// expression afterwards.
    pub places: Option<Box<[u32]>>,
}

/// Check of an expression, which fails with the error of an invalid one.
pub type ExprCheck<'a> = &'a (dyn Fn(&str) -> Result<CheckedExpr, String> + Sync);

/// A check that accepts every expression.
pub fn any_expr(_: &str) -> Result<CheckedExpr, String> {
    Ok(CheckedExpr::default())
}

impl Expr {
    pub(super) fn new(text: &str, places: Option<Box<[u32]>>) -> Self {
        let text = text.into();
        Self { text, places }
    }

    /// The offsets that the check of the expression found.
    pub fn places(&self) -> Option<&[u32]> {
        self.places.as_deref()
    }
}

impl From<String> for Expr {
    fn from(text: String) -> Self {
        let text = text.into();
        Self { text, places: None }
    }
}

impl Deref for Expr {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Expressions are equal if their texts are, whoever checked them.
impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expr {}
