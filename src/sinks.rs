//! Sinks: one file per component.

pub mod blackhole;
pub mod console;
pub mod prometheus;
pub mod prometheus_exporter;
pub mod remote_write;
pub mod replica_router;
pub mod ruler;
pub mod rules_directory;
mod tenant_header;
pub mod thanos;
