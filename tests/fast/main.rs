//! Everything that needs the program and loopback, and nothing else.

mod acknowledge;
mod bad_input;
mod components;
mod config;
mod dead_letters;
mod disk_faults;
mod disk_queue;
mod docs;
mod draining;
mod engine;
mod examples;
mod fairness;
mod fidelity;
mod in_process;
mod isolation;
mod ledger;
mod memory;
mod promql;
mod reload;
mod reload_graphs;
mod reload_leaks;
mod reload_requests;
mod reload_sinks;
mod reload_storm;
mod watch;
