//! Errors in the form of Prometheus' API.

use http::StatusCode;
use http::header::{ALLOW, HeaderValue};

use metrifold_http::{Methods, Response, answer};

/// The answer to a method that an endpoint does not accept.
pub(super) fn method_not_allowed(allowed: Methods) -> Response {
    let reason = format!("this endpoint takes {allowed}");
    let mut answer = answer::json_error(StatusCode::METHOD_NOT_ALLOWED, &reason);
    if let Ok(value) = HeaderValue::from_str(&allowed.to_string()) {
        answer.headers_mut().insert(ALLOW, value);
    }
    answer
}
