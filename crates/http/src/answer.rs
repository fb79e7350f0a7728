//! Small answers in plain text, as listeners and sources give them.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use super::{Body, Response};

/// An answer in plain text. The text ends with a newline, so that it reads well in a terminal.
pub fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
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
