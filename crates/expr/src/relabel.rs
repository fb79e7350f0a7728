//! Relabelling as Prometheus does it: rules that keep, drop, rename and rewrite, on raw bytes.
//!
//! [`RuleConfig`] is a rule as configured, [`Program`] the compiled rules. Both follow Prometheus
//! 3; differences are listed at [`metrifold_regex`] and on the reference page of the `relabel` transform.

pub mod file;

mod case;
mod memo;
mod program;
mod rule;

#[cfg(test)]
pub(crate) mod tests;

pub use program::{Program, Scratch};
pub use rule::{Action, RuleConfig, Validation};
