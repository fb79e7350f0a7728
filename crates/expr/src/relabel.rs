//! Relabelling as Prometheus does it: rules that keep, drop, rename and rewrite, on raw bytes.
//!
//! [`RuleConfig`] is what users write, [`Program`] is what runs. Both follow Prometheus 3; what
//! differs is named at [`regex`] and in the reference page of the `relabel` transform.

pub mod file;
pub mod template;

mod case;
mod memo;
mod program;
mod rule;

#[cfg(test)]
pub(crate) mod tests;

pub use program::{Program, Scratch};
pub use rule::{Action, RuleConfig, Validation};
