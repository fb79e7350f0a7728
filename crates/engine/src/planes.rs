//! A plane per signal: what flows between components, and what carries it.

pub mod metrics;
