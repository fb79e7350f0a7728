//! Errors in the form of Prometheus' API.

use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};

use metrifold_http::{Methods, Response, answer};

/// The answer to a method that an endpoint does not accept.
pub(super) fn method_not_allowed(allowed: Methods) -> Response {
    let reason = format!("this endpoint takes {allowed}");
    let mut answer = answer::json_error(StatusCode::METHOD_NOT_ALLOWED, &reason);
    let known = [Method::GET, Method::HEAD, Method::POST];
    let names = known.iter().filter(|method| allowed.contains(method));
    let names: Vec<&str> = names.map(Method::as_str).collect();
    if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
        answer.headers_mut().insert(ALLOW, value);
    }
    answer
}
