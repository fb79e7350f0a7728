//! The HTTP answer to what was not done: its status follows from the kind of the rejection.

use http::StatusCode;

use metrifold_model::rejection::{Rejection, RejectionKind, Retry};

use super::{Response, answer};

/// Seconds after which to ask again, where the rejection does not say and the status needs it.
const RETRY_AFTER: u64 = 1;

/// The status of a kind of rejection.
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

/// Seconds for `Retry-After`, if the answer to a rejection has one: 429 and 503 always do.
pub fn retry_after(rejection: &Rejection) -> Option<u64> {
    match rejection.retry {
        Retry::After(pause) => {
            let up = u64::from(pause.subsec_nanos() > 0);
            Some(pause.as_secs().saturating_add(up).max(1))
        }
        Retry::Never | Retry::Backoff => match rejection.kind {
            RejectionKind::Limited | RejectionKind::Unavailable => Some(RETRY_AFTER),
            _ => None,
        },
    }
}

/// The answer in plain text.
pub fn answer(rejection: &Rejection) -> Response {
    let status = status(rejection.kind);
    match retry_after(rejection) {
        Some(secs) => answer::retry_after(status, secs, &rejection.reason),
        None => answer::text(status, &rejection.reason),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn each_kind_has_a_status_that_says_what_to_do() {
        use RejectionKind as Kind;
        let told = |rejection: Rejection| {
            let answer = answer(&rejection);
            let after = answer.headers().get(RETRY_AFTER);
            let after = after.map(|value| value.to_str().unwrap().to_owned());
            (answer.status().as_u16(), after)
        };
        for (kind, status, after) in [
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
            let expected = (status, after.map(str::to_owned));
            assert_eq!(told(Rejection::new(kind, "no")), expected);
        }
        for (pause, secs) in [(0, "1"), (1_000, "1"), (1_001, "2"), (90_000, "90")] {
            let retry = Retry::After(Duration::from_millis(pause));
            let rejection = Rejection::new(Kind::Limited, "no").with_retry(retry);
            assert_eq!(told(rejection), (429, Some(secs.to_owned())));
        }
    }
}
