//! Pauses and rate-limited messages. Knows nothing of HTTP, batches or components.
pub mod backoff;
pub mod log_limit;

pub use backoff::Backoff;
pub use log_limit::LogLimit;
