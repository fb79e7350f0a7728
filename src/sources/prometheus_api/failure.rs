//! Errors in the form of Prometheus' API.

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::json;

use metrifold_http::{Methods, Response, rejection};
use metrifold_model::{Rejection, RejectionKind};

/// The answer to a query that was not asked, or got no answer.
pub(super) fn answer(rejection: &Rejection) -> Response {
    let status = rejection::status(rejection.kind);
    let mut answer = error(status, error_type(rejection.kind), &rejection.reason);
    if let Some(secs) = rejection::retry_after(rejection) {
        answer.headers_mut().insert(RETRY_AFTER, secs.into());
    }
    answer
}

/// The answer to a method that an endpoint does not have.
pub(super) fn method_not_allowed(allowed: Methods) -> Response {
    let reason = format!("this endpoint takes {allowed}");
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "bad_data", &reason);
    let known = [Method::GET, Method::HEAD, Method::POST];
    let names = known.iter().filter(|method| allowed.contains(method));
    let names: Vec<&str> = names.map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        answer.headers_mut().insert(ALLOW, value);
    }
    answer
}

/// The word of Prometheus' API for a kind of failure.
fn error_type(kind: RejectionKind) -> &'static str {
    match kind {
        RejectionKind::Invalid | RejectionKind::TooLarge => "bad_data",
        RejectionKind::NotFound => "not_found",
        RejectionKind::TimedOut => "timeout",
        RejectionKind::Internal => "internal",
        RejectionKind::Unauthenticated | RejectionKind::Forbidden => "forbidden",
        RejectionKind::Limited | RejectionKind::Unavailable | RejectionKind::Unreachable => {
            "unavailable"
        }
    }
}

fn error(status: StatusCode, error_type: &str, error: &str) -> Response {
    let text = json!({ "status": "error", "errorType": error_type, "error": error }).to_string();
    let mut answer = Response::new(text.into());
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
