//! Metrifold: a config-driven gateway for Prometheus metrics.
#![forbid(unsafe_code)]
#![allow(dead_code, unused)]

pub mod component;
pub mod config;
pub mod http;
pub mod promql;
pub mod protocol;
pub mod queue;
pub mod relabel;
pub mod signal;
pub mod telemetry;
pub mod topology;
pub mod transforms;
