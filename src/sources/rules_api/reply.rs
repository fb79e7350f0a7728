//! Answers of the API, as JSON or YAML.

use http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use metrifold_http::{Body, Response, rejection};
use metrifold_model::{Rejection, RejectionKind};
use metrifold_rules::store::{ObjectError, StoreError};
use metrifold_rules::{Problem, Version};

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A failure that other HTTP endpoints have as well.
    Rejected(Rejection),
    /// The body is invalid, with a position for each problem.
    Problems(Vec<Problem>),
    /// A precondition does not hold.
    Changed(String),
    /// The store failed. The reason is for those who run it, since it may tell where it is.
    Store(String),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Precondition { .. } => return Self::Changed(error.to_string()),
            StoreError::Absent(_) => RejectionKind::NotFound,
            // The store works, and says what is wrong with the request.
            StoreError::Objects(ObjectError::Refused(reason)) => return invalid(reason),
            StoreError::Name(_) => RejectionKind::Invalid,
            StoreError::Objects(ObjectError::TooLarge { .. }) => RejectionKind::Internal,
            StoreError::Contended => RejectionKind::Unavailable,
            StoreError::Objects(_) => return Self::Store(error.to_string()),
        };
        Self::Rejected(Rejection::new(kind, error.to_string()))
    }
}

/// A failure for an invalid request.
pub(super) fn invalid(reason: impl Into<String>) -> Failure {
    Rejection::invalid(reason).into()
}

/// A failure for a resource that does not exist.
pub(super) fn absent(reason: impl Into<String>) -> Failure {
    Rejection::new(RejectionKind::NotFound, reason).into()
}

impl Failure {
    pub(super) fn answer(&self) -> Response {
        match self {
            Self::Rejected(rejected) => {
                let status = rejection::status(rejected.kind);
                let mut answer = error(status, &rejected.reason, None);
                if let Some(secs) = rejection::retry_after(rejected) {
                    answer.headers_mut().insert(RETRY_AFTER, secs.into());
                }
                answer
            }
            Self::Problems(problems) => {
                let first = problems
                    .first()
                    .map_or_else(String::new, ToString::to_string);
                let reason = match problems.len() {
                    1 => first,
                    count => format!("{first} (the first of {count} problems)"),
                };
                let listed = problems.iter().map(|problem| {
                    json!({
                        "line": problem.line,
                        "column": problem.column,
                        "key": problem.key,
                        "message": problem.message,
                    })
                });
                let listed = listed.collect();
                error(StatusCode::BAD_REQUEST, &reason, Some(listed))
            }
            Self::Changed(reason) => error(StatusCode::PRECONDITION_FAILED, reason, None),
            Self::Store(_) => {
                let reason = "the store of rules failed: try again";
                Self::Rejected(Rejection::unavailable(reason)).answer()
            }
        }
    }
}

fn error(status: StatusCode, reason: &str, problems: Option<Value>) -> Response {
    let mut body = json!({ "status": "error", "errorType": error_type(status), "error": reason });
    if let Some(problems) = problems {
        body["problems"] = problems;
    }
    json(status, &body)
}

fn error_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 => "not_found",
        412 => "precondition_failed",
        400 | 413 => "bad_data",
        401 | 403 => "forbidden",
        500 => "internal",
        _ => "unavailable",
    }
}

/// An answer of JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Response {
    answer(status, "application/json", format!("{value}\n"))
}

/// An answer of YAML.
pub(super) fn yaml(text: impl Into<Body>) -> Response {
    answer(StatusCode::OK, "application/yaml", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// Adds an `ETag` to an answer.
pub(super) fn tagged(mut answer: Response, version: Version) -> Response {
    // Hexadecimal digits are valid in a header.
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}
