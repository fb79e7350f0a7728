//! Answers of listeners and sources: short ones in plain text, errors of the API, and event
//! streams.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use super::events::{Event, Events};
use super::{Body, Response};

/// Reason why an answer refuses a request. It is an extension of the answer, and not sent.
#[derive(Clone, Debug)]
pub(crate) struct Reason(pub(crate) Arc<str>);

/// An answer in plain text. A newline is added, for terminals.
pub fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if is_error(status) {
        response.extensions_mut().insert(Reason(text.into()));
    }
    response
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// An error in the format of Prometheus' API, in one line.
pub fn json_error(status: StatusCode, error: &str) -> Response {
    in_json(text(status, error))
}

/// An answer with its error in the format of Prometheus' API, if it is one in plain text.
pub fn in_json(mut response: Response) -> Response {
    let status = response.status();
    let Some(Reason(error)) = response.extensions().get() else {
        return response;
    };
    let error = json!({ "status": "error", "errorType": error_type(status), "error": **error });
    *response.body_mut() = Body::from(format!("{error}\n"));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The `errorType` of Prometheus' API for a status.
fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthorized",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::GATEWAY_TIMEOUT => "timeout",
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::BAD_GATEWAY => "unavailable",
        _ if status.is_client_error() => "bad_data",
        _ => "internal",
    }
}

/// An answer in plain text with `Retry-After`.
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

/// An answer that streams events until the channel ends, the caller disconnects or the listener
/// closes. The producer must not block on the channel: it drops the sender of a caller that reads
/// too slowly.
pub fn events(events: mpsc::Receiver<Event>) -> Response {
    let mut response = Response::new(Body::stream(Events::new(events)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.extensions_mut().insert(Endless);
    response
}

/// Marks an answer without an end, which a closing listener does not wait for.
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

    #[tokio::test]
    async fn only_errors_are_put_in_json_and_their_other_headers_stay() {
        let read = async |response: Response| {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            String::from_utf8(body.to_vec()).unwrap()
        };
        for status in [200, 202] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(read(in_json(text(status, "well"))).await, "well\n");
        }
        for (status, error_type) in [
            (400, "bad_data"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (404, "not_found"),
            (405, "bad_data"),
            (413, "bad_data"),
            (415, "bad_data"),
            (429, "unavailable"),
            (500, "internal"),
            (502, "unavailable"),
            (503, "unavailable"),
            (504, "timeout"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = in_json(in_json(retry_after(status, 7, "two\nlines")));
            assert_eq!(answer.headers()[RETRY_AFTER], "7");
            assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
            let text = read(answer).await;
            let error =
                format!(r#"{{"error":"two\nlines","errorType":"{error_type}","status":"error"}}"#);
            assert_eq!(text, format!("{error}\n"));
        }
    }
}
