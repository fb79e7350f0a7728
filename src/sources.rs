//! Sources: one file per component.

pub mod internal_metrics;
pub mod remote_write;
