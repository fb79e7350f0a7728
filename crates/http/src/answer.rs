//! Small answers in plain text, as listeners and sources give them, and answers that go on.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use super::events::{Event, Events};
use super::{Body, Response};

/// Says why an answer refuses a request. It travels beside the answer, and not on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Reason(pub(crate) Arc<str>);

/// An answer in plain text. The text ends with a newline, so that it reads well in a terminal.
pub fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if status.is_client_error() {
        response.extensions_mut().insert(Reason(text.into()));
    }
    response
}

/// An error in the form of Prometheus' API.
pub fn json_error(status: StatusCode, error_type: &str, error: &str) -> Response {
    let text = json!({ "status": "error", "errorType": error_type, "error": error }).to_string();
    let mut response = self::text(status, error);
    *response.body_mut() = Body::from(format!("{text}\n"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// An answer in plain text that says when to come again.
pub fn retry_after(status: StatusCode, secs: u64, message: &str) -> Response {
    let mut response = text(status, message);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(secs));
    response
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// An answer that sends events as they come, until the channel ends, the caller goes away or the
/// listener closes. Whoever feeds the channel must not wait for it: a caller that is slow is cut
/// off by dropping its sender.
pub fn events(events: mpsc::Receiver<Event>) -> Response {
    let mut response = Response::new(Body::stream(Events::new(events)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(Endless);
    response
}

/// Marks an answer that has no end of its own, and must not keep a listener from closing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endless;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_text_answer_ends_with_a_newline_and_says_when_to_retry() {
        let response = retry_after(StatusCode::SERVICE_UNAVAILABLE, 7, "queue is full");
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "queue is full\n");
        assert_eq!(empty(StatusCode::NO_CONTENT).status(), 204);
    }
}
