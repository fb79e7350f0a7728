//! The kinds of providers. Each registers itself.

#[cfg(feature = "dns")]
mod dns;
mod file;
mod http;
mod static_list;

pub(crate) use file::Format;

/// The kinds that this build does without: each is called as the feature that brings it.
pub const LEFT_OUT: &[&str] = match cfg!(feature = "dns") {
    true => &[],
    false => &["dns"],
};
