//! A client that sends one request at a time.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    /// Samples, histograms and exemplars that were written, if all three headers are there.
    pub fn written(&self) -> Option<[u64; 3]> {
        let count = |kind: &str| {
            let name = format!("x-prometheus-remote-write-{kind}-written");
            self.header(&name)?.parse().ok()
        };
        Some([count("samples")?, count("histograms")?, count("exemplars")?])
    }

    /// Whether any header speaks of what was written.
    pub fn speaks_of_written(&self) -> bool {
        let mut names = self.headers.keys();
        names.any(|name| name.as_str().ends_with("-written"))
    }
}

/// Sends a request; none when there was no answer.
pub async fn try_send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Option<Reply> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = client.request(request.body(Full::new(body)).unwrap()).await;
    let (head, body) = reply.ok()?.into_parts();
    Some(Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await.ok()?.to_bytes(),
    })
}

/// Sends a request that has to be answered.
pub async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
    let reply = try_send(method, url, headers, body).await;
    reply.unwrap_or_else(|| panic!("{url} did not answer"))
}

pub async fn try_get(url: &str) -> Option<Reply> {
    try_send(Method::GET, url, &[], Bytes::new()).await
}

pub async fn get(url: &str) -> Reply {
    send(Method::GET, url, &[], Bytes::new()).await
}

/// Percent-encodes a query parameter.
pub fn encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
