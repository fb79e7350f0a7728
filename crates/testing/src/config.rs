//! Pieces of configurations that many tests put together.

use std::net::SocketAddr;

/// Key that makes a sink optional.
pub const OPTIONAL: &str = "required = false";

/// A source of remote write.
pub fn source(name: &str, address: SocketAddr, keys: &str) -> String {
    format!("[sources.{name}]\ntype = \"remote_write\"\naddress = \"{address}\"\n{keys}\n")
}

/// A source of remote write at the address of the test's [`Metrifold`](crate::Metrifold).
pub fn ingest(keys: &str) -> String {
    format!("[sources.ingest]\ntype = \"remote_write\"\naddress = \"INGEST\"\n{keys}\n")
}

/// A sink of remote write that retries quickly.
pub fn sink(name: &str, inputs: &str, url: &str, keys: &str) -> String {
    let retry = match keys.contains("retry") {
        true => "",
        false => "retry = { min_backoff = \"5ms\", max_backoff = \"20ms\" }",
    };
    format!(
        "[sinks.{name}]\ntype = \"remote_write\"\ninputs = [{inputs:?}]\nendpoint = \"{url}\"\n{retry}\n{keys}\n"
    )
}

/// A sink that discards what `ingest` receives.
pub fn blackhole(name: &str) -> String {
    format!("[sinks.{name}]\ntype = \"blackhole\"\ninputs = [\"ingest\"]\n")
}

/// The smallest pipe, followed by `more`.
pub fn smallest(more: &str) -> String {
    format!("{}{}{more}\n", ingest(""), blackhole("out"))
}
