//! A rejection, as a value that all planes share: its kind, its fault, and whether a retry can
//! help.
//!
//! A protocol derives its answer from the kind: for HTTP, `metrifold_http::rejection` does.

use std::time::Duration;

use thiserror::Error;

/// Reason why a batch, a query or a rule was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The kind of rejection, from which the HTTP status follows.
    pub kind: RejectionKind,
    /// Party that has to change something.
    pub fault: Fault,
    /// Whether and when a retry can help.
    pub retry: Retry,
    /// Explanation for the caller.
    pub reason: String,
}

/// The kind of rejection, from which the HTTP status follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// The content breaks a rule.
    Invalid,
    /// The caller has not proven who it is (401).
    Unauthenticated,
    /// The caller is known and lacks the right (403).
    Forbidden,
    /// What was asked for does not exist (404).
    NotFound,
    /// The request is larger than its limit (413).
    TooLarge,
    /// The caller exceeds a limit of its own.
    Limited,
    /// Metrifold failed.
    Internal,
    /// The upstream cannot be reached, or its answer cannot be understood (502).
    Unreachable,
    /// Something that the request needs is not available at the moment (503).
    Unavailable,
    /// The upstream did not answer in time (504).
    TimedOut,
}

/// Party that has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller.
    Client,
    /// The upstream that Metrifold sends to or queries.
    Upstream,
    /// Metrifold.
    Internal,
}

/// Whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No: the same request will be rejected again.
    Never,
    /// After this time.
    After(Duration),
    /// After growing pauses.
    Backoff,
}

impl RejectionKind {
    /// Name of the kind in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Limited => "limited",
            Self::Internal => "internal",
            Self::Unreachable => "unreachable",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
        }
    }
}

impl Rejection {
    /// A rejection with the default fault and retry of its kind.
    pub fn new(kind: RejectionKind, reason: impl Into<String>) -> Self {
        use RejectionKind as Kind;
        let (fault, retry) = match kind {
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::TooLarge => (Fault::Client, Retry::Never),
            Kind::Limited => (Fault::Client, Retry::Backoff),
            Kind::Internal => (Fault::Internal, Retry::Backoff),
            Kind::Unreachable | Kind::Unavailable | Kind::TimedOut => {
                (Fault::Upstream, Retry::Backoff)
            }
        };
        Self {
            kind,
            fault,
            retry,
            reason: reason.into(),
        }
    }

    /// The content breaks a rule.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Self::new(RejectionKind::Invalid, reason)
    }

    /// Something that the request needs is not available at the moment (503).
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(RejectionKind::Unavailable, reason)
    }

    /// Replaces the fault.
    pub fn with_fault(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }

    /// Replaces the retry.
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Whether a retry can help.
    pub fn may_retry(&self) -> bool {
        self.retry != Retry::Never
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_its_caller_has_to_change_is_never_worth_a_retry() {
        use RejectionKind as Kind;
        for (kind, fault, may_retry) in [
            (Kind::Invalid, Fault::Client, false),
            (Kind::Unauthenticated, Fault::Client, false),
            (Kind::Forbidden, Fault::Client, false),
            (Kind::NotFound, Fault::Client, false),
            (Kind::TooLarge, Fault::Client, false),
            (Kind::Limited, Fault::Client, true),
            (Kind::Internal, Fault::Internal, true),
            (Kind::Unreachable, Fault::Upstream, true),
            (Kind::Unavailable, Fault::Upstream, true),
            (Kind::TimedOut, Fault::Upstream, true),
        ] {
            let rejection = Rejection::new(kind, "no");
            assert_eq!(rejection.fault, fault, "{kind:?}");
            assert_eq!(rejection.may_retry(), may_retry, "{kind:?}");
        }
    }
}
