//! Who may call a route: decided by the dispatcher, before any handler runs.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use metrifold_model::{Caller, ClientCertificate};

use super::{Response, answer};

/// Decides who calls, and whether the caller is let in.
pub trait Access: Send + Sync {
    /// Looks at the head of a request, whose body has not been read. The future is dropped if the
    /// caller goes away.
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a>;
}

/// What becomes of a request at the door.
pub type Admission<'a> = Pin<Box<dyn Future<Output = Result<Caller, Refusal>> + Send + 'a>>;

/// The head of a request that has found its route.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method: one that the route answers.
    pub method: &'a Method,
    /// The target: path and query.
    pub uri: &'a Uri,
    /// The headers, as they were sent.
    pub headers: &'a HeaderMap,
    /// What the path's parameters matched, percent-decoded.
    pub params: &'a [(Box<str>, Box<str>)],
    /// The caller's address.
    pub peer: SocketAddr,
    /// The certificate that the caller proved to own.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
}

/// Why a caller is not let in. The reason is the caller's to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody knows who calls: 401 with a `WWW-Authenticate` for each way to prove it.
    Unauthenticated {
        /// What is missing or wrong.
        reason: String,
        /// How it can be proven.
        challenges: Vec<HeaderValue>,
    },
    /// The caller may not do this: 403.
    Forbidden(String),
    /// There is no such thing for this caller: 404.
    NotFound(String),
    /// The caller asks too often: 429 with `Retry-After`.
    TooMany {
        /// What there is too much of.
        reason: String,
        /// Seconds after which to try again.
        retry_after: u64,
    },
    /// It cannot be decided at the moment, through no fault of the caller: 503 with `Retry-After`.
    Unavailable {
        /// What is missing.
        reason: String,
        /// Seconds after which to try again.
        retry_after: u64,
    },
}

impl Refusal {
    /// The answer that tells the caller.
    pub fn answer(&self) -> Response {
        match self {
            Self::Unauthenticated { reason, challenges } => {
                let mut response = answer::text(StatusCode::UNAUTHORIZED, reason);
                for challenge in challenges {
                    let headers = response.headers_mut();
                    headers.append(WWW_AUTHENTICATE, challenge.clone());
                }
                response
            }
            Self::Forbidden(reason) => answer::text(StatusCode::FORBIDDEN, reason),
            Self::NotFound(reason) => answer::text(StatusCode::NOT_FOUND, reason),
            Self::TooMany {
                reason,
                retry_after,
            } => answer::retry_after(StatusCode::TOO_MANY_REQUESTS, *retry_after, reason),
            Self::Unavailable {
                reason,
                retry_after,
            } => answer::retry_after(StatusCode::SERVICE_UNAVAILABLE, *retry_after, reason),
        }
    }
}

/// Lets everybody in. A caller stays anonymous, whatever certificate it has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Everybody;

impl Access for Everybody {
    fn admit<'a>(&'a self, head: Head<'a>) -> Admission<'a> {
        Box::pin(ready(Ok(Caller {
            identity: None,
            certificate: head.certificate.cloned(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn each_refusal_has_a_status_that_says_what_to_do() {
        let reason = || "because".to_owned();
        let challenges = vec![
            HeaderValue::from_static("Basic"),
            HeaderValue::from_static("Bearer"),
        ];
        let unauthenticated = Refusal::Unauthenticated {
            reason: reason(),
            challenges: challenges.clone(),
        };
        let answer = unauthenticated.answer();
        assert_eq!(answer.status(), 401);
        let sent = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        assert!(sent.eq(&challenges));
        for (refusal, status, retry_after) in [
            (Refusal::Forbidden(reason()), 403, None),
            (Refusal::NotFound(reason()), 404, None),
            (
                Refusal::TooMany {
                    reason: reason(),
                    retry_after: 3,
                },
                429,
                Some("3"),
            ),
            (
                Refusal::Unavailable {
                    reason: reason(),
                    retry_after: 4,
                },
                503,
                Some("4"),
            ),
        ] {
            let answer = refusal.answer();
            assert_eq!(answer.status(), status);
            let sent = answer.headers().get(RETRY_AFTER);
            let sent = sent.map(|value| value.to_str().unwrap());
            assert_eq!(sent, retry_after);
        }
    }
}
