//! One request to a control plane and its whole answer, within bounds.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use tokio::time::Instant;

use metrifold_http::{BodyError, Client, body, place};

use crate::answer::{Failure, Reason};

/// Client of a control plane. A clone shares the connections.
#[derive(Clone, Debug)]
pub struct Exchange {
    client: Client,
    timeout: Duration,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status. Redirects are not followed.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Exchange {
    /// An exchange whose requests take at most `timeout`, answer included.
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout }
    }

    /// Sends a request and reads at most `most` bytes of its answer. Redirects are not followed.
    ///
    /// # Errors
    ///
    /// Fails when the whole answer does not arrive in time, or is larger.
    pub async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: HeaderMap,
        content: impl Into<Bytes>,
        most: usize,
    ) -> Result<Answered, Failure> {
        self.send_within(method, uri, headers, content, most, self.timeout)
            .await
    }

    /// Like [`send`](Self::send), with another time limit.
    ///
    /// # Errors
    ///
    /// Fails when the whole answer does not arrive in time, or is larger.
    pub(crate) async fn send_within(
        &self,
        method: Method,
        uri: &Uri,
        mut headers: HeaderMap,
        content: impl Into<Bytes>,
        most: usize,
        timeout: Duration,
    ) -> Result<Answered, Failure> {
        let deadline = Instant::now() + timeout;
        let agent = concat!("metrifold/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let content: Bytes = content.into();
        let answer = self
            .client
            .request(method, uri, headers, content, timeout)
            .await
            .map_err(|error| Failure::new(Reason::Unreachable, error))?;
        let (head, body) = answer.into_parts();
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = deadline.saturating_duration_since(Instant::now());
        let body = body::read(body, length, most, left).await;
        let body = body.map_err(|error| match error {
            BodyError::TooLarge { .. } => {
                let text = format!("{} answers more than {most} bytes", place(uri));
                Failure::new(Reason::TooLarge, format!("{text}: see max_answer_bytes"))
            }
            error => Failure::new(Reason::Unreachable, format!("{}: {error}", place(uri))),
        })?;
        Ok(Answered {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}

/// Percent-encodes a text for use in a path, a query or a form.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte.into());
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Joins a host and a port into an address; an IPv6 address gets brackets.
pub fn join(host: &str, port: u32) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A name as part of a label's name, as Prometheus makes it: other characters than letters, digits
/// and underscores become underscores.
pub fn label_part(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect()
}
