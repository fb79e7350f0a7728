//! The program beside real peers, and what takes long.

mod backlog;
mod cache;
mod caddy;
mod cloud_foundry;
mod crash;
mod discovery;
mod discovery_scale;
mod every_fault;
mod issuer_real;
mod kill;
mod kubernetes;
mod outage;
mod peers;
mod poison;
mod queries;
mod real;
mod reload_footprint;
mod reload_live;
mod replicas;
mod rules;
mod rules_api;
mod scrape;
