//! The kinds of providers. Each registers itself.

mod consul;
#[cfg(feature = "dns")]
mod dns;
mod file;
mod http;
mod marathon;
mod static_list;

#[cfg(feature = "dns")]
pub use dns::NameServers;
pub use file::Format;

/// Kinds that a build may leave out, each named after its cargo feature.
pub const BY_FEATURE: &[&str] = &["dns", "kubernetes"];
