//! Metrifold: a config-driven gateway for Prometheus metrics.
#![forbid(unsafe_code)]
#![allow(dead_code, unused)]

pub mod api;
pub mod backoff;
pub mod cli;
pub mod component;
pub mod config;
pub mod delivery;
pub mod http;
pub mod process;
pub mod promql;
pub mod protocol;
pub mod queue;
pub mod relabel;
pub mod signal;
pub mod sinks;
pub mod sources;
pub mod telemetry;
pub mod topology;
pub mod transforms;
