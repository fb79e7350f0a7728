//! Sinks: one file per component.

pub mod blackhole;
pub mod console;
pub mod prometheus_exporter;
pub mod remote_write;
pub mod thanos;
