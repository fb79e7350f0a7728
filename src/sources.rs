//! Sources: one file per component.

pub mod aiven_scrape;
pub mod cf_scrape;
pub mod internal_metrics;
pub mod prometheus_api;
pub mod remote_write;
pub mod rules_api;
pub mod rules_file;
pub mod rules_poll;
pub mod scrape;
