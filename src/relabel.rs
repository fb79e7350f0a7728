//! Relabelling as Prometheus does it: rules that keep, drop, rename and rewrite, on raw bytes.

pub mod regex;
pub mod template;

mod case;
