//! Requests for small JSON documents of issuers, API servers and policy agents.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde_json::Value;
use tokio::time::Instant;

use metrifold_base::BuildError;
use metrifold_http::{Client, ClientConfig, ClientTls, body, place};

/// Maximum size of a document, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Maximum number of pooled connections.
const CONNECTIONS: usize = 4;

/// Maximum age of a connection, so that changed DNS records take effect.
const MAX_AGE: Duration = Duration::from_secs(300);

/// An HTTP client with the given TLS settings.
///
/// # Errors
///
/// Fails when a certificate cannot be used.
pub(crate) fn client(tls: &ClientTls) -> Result<Client, BuildError> {
    Client::new(&ClientConfig {
        tls: tls.clone(),
        proxy_url: None,
        proxy_basic_auth: None,
        connections: CONNECTIONS,
        connect_timeout: Duration::from_secs(5),
        max_age: MAX_AGE,
    })
}

/// Sends a request and parses the JSON document of a successful answer.
///
/// # Errors
///
/// Fails with the reason when no usable answer arrived in time.
pub(crate) async fn json(
    client: &Client,
    method: Method,
    uri: &Uri,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
) -> Result<Value, String> {
    let (status, document) = answer(client, method, uri, headers, body, timeout).await?;
    match status.is_success() {
        true => Ok(document),
        false => Err(format!("{} answered {}", place(uri), status.as_u16())),
    }
}

/// Sends a request and returns its status and document, whatever the status. A body that is not JSON
/// becomes `null` if the status is an error, and an error itself otherwise.
///
/// # Errors
///
/// Fails with the reason when no usable answer arrived in time.
pub(crate) async fn answer(
    client: &Client,
    method: Method,
    uri: &Uri,
    mut headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
) -> Result<(StatusCode, Value), String> {
    let deadline = Instant::now() + timeout;
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let agent = concat!("metrifold/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    let answer = client.request(method, uri, headers, body, timeout).await;
    let (head, answer) = answer.map_err(|error| error.to_string())?.into_parts();
    let left = deadline.saturating_duration_since(Instant::now());
    let text = body::read(answer, None, MAX_ANSWER, left).await;
    let text = text.map_err(|error| format!("{}: {error}", place(uri)))?;
    match serde_json::from_slice(&text) {
        Ok(document) => Ok((head.status, document)),
        Err(_) if !head.status.is_success() => Ok((head.status, Value::Null)),
        Err(_) => Err(format!(
            "{} answered with something other than JSON",
            place(uri)
        )),
    }
}

/// Parses a URL that is safe to fetch keys from: `https`, or `http` on this machine.
///
/// # Errors
///
/// Fails with the reason for any other URL.
pub(crate) fn url(text: &str, allow_http: bool) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    let host = uri.host().ok_or("is not a URL with a host")?;
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("must not contain a user");
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    let local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if local || allow_http => Ok(uri),
        Some("http") => Err(
            "must be https, as anyone on the network path could forge keys otherwise (allow_http = true permits it)",
        ),
        _ => Err("is not an https URL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_by_tls_or_from_this_machine() {
        for (text, allow_http, good) in [
            ("https://login.example/realm", false, true),
            ("http://127.0.0.1:80", false, true),
            ("http://[::1]:80/x", false, true),
            ("http://localhost", false, true),
            ("http://login.example", false, false),
            ("http://login.example", true, true),
            ("http://localhost.example", false, false),
            ("http://127.0.0.1@login.example", false, false),
            ("ftp://login.example", true, false),
            ("login.example", true, false),
            ("", true, false),
        ] {
            assert_eq!(url(text, allow_http).is_ok(), good, "{text}");
        }
    }
}
