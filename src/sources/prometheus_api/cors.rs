//! Queries by scripts of web pages from other origins (CORS), as Grafana and Perses send them in a
//! browser.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, HeaderName, HeaderValue, ORIGIN,
    VARY,
};
use http::{HeaderMap, StatusCode};

use metrifold_base::BoxFuture;
use metrifold_http::{Handler, Request, Response, answer};
use metrifold_regex::Regex;

/// Origins whose pages may query.
#[derive(Debug)]
pub(super) struct Cors(Regex);

/// Beginning of the headers' names with which a server allows origins.
const OF_SERVERS: &str = "access-control-";

/// Headers that a page may send if it does not ask for any; Prometheus allows these.
const ALLOWED: HeaderValue =
    HeaderValue::from_static("Accept, Authorization, Content-Type, Origin");

impl Cors {
    /// Reads the expression for whole origins.
    pub(super) fn new(origin: &str) -> Result<Self, String> {
        Regex::new(origin)
            .map(Self)
            .map_err(|error| error.to_string())
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        origin
            .to_str()
            .is_ok_and(|it| self.0.is_match(it.as_bytes()))
    }

    /// Sets the headers of an answer, in place of the server's.
    pub(super) fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let theirs = headers.keys();
        let theirs = theirs.filter(|name| name.as_str().starts_with(OF_SERVERS));
        let theirs: Vec<HeaderName> = theirs.cloned().collect();
        for name in theirs {
            headers.remove(name);
        }
        // Caches keep an answer for one origin apart from those for others.
        let varies = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"origin");
        if !headers.get_all(VARY).iter().any(varies) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = origin.filter(|it| self.allows(it)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let exposed = HeaderValue::from_static("Date");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
    }
}

/// Answers the requests by which a browser asks whether a page may query. They come without
/// credentials.
pub(super) struct Preflight(pub(super) Arc<Cors>);

impl Handler for Preflight {
    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        let mut response = answer::empty(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        self.0.mark(request.headers.get(ORIGIN), headers);
        if headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            let methods = HeaderValue::from_static("GET, POST, OPTIONS");
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            // Whatever the page wants to send: headers like `X-Dashboard-Uid` are not secret.
            let wanted = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
            let wanted = wanted.cloned().unwrap_or(ALLOWED);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
        Box::pin(std::future::ready(response))
    }
}
