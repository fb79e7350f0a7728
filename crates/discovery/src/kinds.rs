//! The kinds of providers. Each registers itself.

mod dns;
mod file;
mod http;
mod static_list;

pub(crate) use file::Format;
