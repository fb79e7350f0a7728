//! Answers for a [`Rejection`]: the only place that maps its kinds to statuses.

use http::StatusCode;

use metrifold_model::{Rejection, RejectionKind, Retry};

use super::{Response, answer};

/// Seconds after which a caller should retry if nothing better is known.
pub const RETRY_AFTER: u64 = 1;

/// The status of a kind.
pub fn status(kind: RejectionKind) -> StatusCode {
    match kind {
        RejectionKind::Invalid => StatusCode::BAD_REQUEST,
        RejectionKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        RejectionKind::Forbidden => StatusCode::FORBIDDEN,
        RejectionKind::NotFound => StatusCode::NOT_FOUND,
        RejectionKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RejectionKind::Limited => StatusCode::TOO_MANY_REQUESTS,
        RejectionKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        RejectionKind::Unreachable => StatusCode::BAD_GATEWAY,
        RejectionKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RejectionKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Seconds for `Retry-After`, if the answer has one: 429 and 503 always do, unless a retry is
/// useless.
pub fn retry_after(rejection: &Rejection) -> Option<u64> {
    let status = status(rejection.kind);
    let customary = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    match rejection.retry {
        // A caller that returns before the pause is over would be refused again.
        Retry::After(pause) => Some(pause.as_secs_f64().ceil().max(1.0) as u64),
        Retry::Backoff if customary => Some(RETRY_AFTER),
        Retry::Backoff | Retry::Never => None,
    }
}

/// The answer in plain text, with `Retry-After` where it is known or customary.
pub fn answer(rejection: &Rejection) -> Response {
    let status = status(rejection.kind);
    match retry_after(rejection) {
        Some(secs) => answer::retry_after(status, secs, &rejection.reason),
        None => answer::text(status, &rejection.reason),
    }
}

/// The answer in the format of Prometheus' API.
pub fn json(rejection: &Rejection) -> Response {
    answer::in_json(answer(rejection))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_status_and_retry_after_follow_from_the_value() {
        use RejectionKind as Kind;
        let f = |rejection: Rejection, status: u16, retry_after: Option<&str>| {
            let response = answer(&rejection);
            assert_eq!(response.status(), status, "{rejection:?}");
            let header = response.headers().get(http::header::RETRY_AFTER);
            let header = header.map(|value| value.to_str().unwrap());
            assert_eq!(header, retry_after, "{rejection:?}");
        };
        for (kind, status, retry_after) in [
            (Kind::Invalid, 400, None),
            (Kind::Unauthenticated, 401, None),
            (Kind::Forbidden, 403, None),
            (Kind::NotFound, 404, None),
            (Kind::TooLarge, 413, None),
            (Kind::Limited, 429, Some("1")),
            (Kind::Internal, 500, None),
            (Kind::Unreachable, 502, None),
            (Kind::Unavailable, 503, Some("1")),
            (Kind::TimedOut, 504, None),
        ] {
            f(Rejection::new(kind, "no"), status, retry_after);
        }
        let after = |millis| Retry::After(Duration::from_millis(millis));
        for (pause, secs) in [(0, "1"), (1000, "1"), (1001, "2"), (70_000, "70")] {
            let rejection = Rejection::new(Kind::Limited, "no").with_retry(after(pause));
            f(rejection, 429, Some(secs));
        }
    }
}
