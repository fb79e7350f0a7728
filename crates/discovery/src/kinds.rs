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
pub(crate) use file::Format;

/// The kinds that a build may do without: each is called as the feature that brings it.
pub const BY_FEATURE: &[&str] = &["dns", "kubernetes"];
