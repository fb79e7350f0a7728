//! The header by which sinks of queries name the tenant to the server.

use std::collections::BTreeMap;

use http::HeaderName;
use http::header;

use metrifold_base::{BuildError, Problems, Secret};

/// Headers with a meaning of their own in HTTP.
const TAKEN: [HeaderName; 12] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::AUTHORIZATION,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::USER_AGENT,
];

/// Reports problems with the key `tenant_header`, beside the fixed `headers` of the sink.
pub(super) fn validate(
    name: Option<&str>,
    headers: &BTreeMap<String, Secret>,
    problems: &mut Problems,
) {
    let Some(name) = name else { return };
    match name.parse::<HeaderName>() {
        Err(_) => drop(problems.at("tenant_header", "is not a valid header name")),
        Ok(name) if TAKEN.contains(&name) => {
            let what = "has another meaning in HTTP: choose another header";
            problems.at("tenant_header", what);
        }
        Ok(_) => {}
    }
    if let Some(fixed) = headers.keys().find(|it| it.eq_ignore_ascii_case(name)) {
        let what = "carries the tenant: it cannot be set to a fixed value";
        problems.at(format!("headers.{fixed}"), what);
    }
}

/// The configured header.
pub(super) fn read(name: Option<&str>) -> Result<Option<HeaderName>, BuildError> {
    let name = name.map(str::parse).transpose();
    name.map_err(|error| BuildError::new("tenant_header", error))
}
