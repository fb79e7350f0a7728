//! The transport of a sink, which carries bodies to its endpoint.
//!
//! Pace, merging, isolation and the loop of attempts are independent of the protocol: they use a
//! [`Transport`]. The transport interprets the protocol's answers and holds connections and
//! credentials.

use std::time::Duration;

use bytes::Bytes;

use metrifold_codec::remote_write::Written;
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Tenant, Version};

/// Carries bodies of remote write to an endpoint.
pub trait Transport: Send + Sync + 'static {
    /// Sends one body, once, and returns the answer. The transport bounds the time.
    fn attempt(&self, attempt: Attempt<'_>) -> impl Future<Output = Answer> + Send;
}

/// A body to send.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// Version in which the body is encoded.
    pub version: Version,
    /// Tenant of the body.
    pub tenant: Option<&'a Tenant>,
    /// Counts of the body, if they are known.
    pub counts: Option<Counts>,
    /// The compressed body, in parts to be concatenated.
    pub body: Vec<Bytes>,
    /// Number of failed attempts before this one.
    pub failures: u32,
}

/// Result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The endpoint stored the body.
    Stored,
    /// The endpoint reports success, with all samples but not all exemplars.
    LacksExemplars(Written),
    /// The endpoint stored the valid part: its reason, and the counts that it stored, if it states
    /// them.
    Partly(String, Option<Written>),
    /// The endpoint does not accept this version, but may accept the other one.
    OtherVersion,
    /// The endpoint reports success without the written counts that 2.0 requires.
    Unwritten,
    /// The endpoint refuses something in the body.
    Refused(Refusal),
    /// The endpoint refuses the body whatever its content, and the configuration drops it for that.
    Unwanted(Reason, String),
    /// The attempt failed, which says nothing about the content: the body is to be retried.
    Failed {
        /// Scope of the failure.
        failure: Failure,
        /// Reason of the failure.
        reason: String,
        /// Pause that the endpoint asked for.
        after: Option<Duration>,
    },
}

impl Answer {
    /// Whether the endpoint stored samples of the body.
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(
            self,
            Self::Stored | Self::LacksExemplars(_) | Self::Partly(..)
        )
    }
}

/// An endpoint's refusal of a batch or of some of its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Code in the protocol, such as the HTTP status.
    pub code: String,
    /// What the endpoint objects to.
    pub class: RefusalClass,
    /// Reason that the endpoint gave.
    pub reason: String,
}

/// Object of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// Some of the content.
    Content,
    /// Some of the content, or the version, which this endpoint has not been seen to accept yet.
    ContentOrVersion,
    /// Only the size.
    Size,
    /// Some of the content, and the batch must not be sent again, not even in parts.
    Whole,
}

impl Refusal {
    /// Whether the endpoint objects only to the size.
    pub(super) fn is_of_size(&self) -> bool {
        self.class == RefusalClass::Size
    }

    /// Reason under which the refused samples are counted.
    pub(super) fn loss(&self) -> Reason {
        if self.is_of_size() {
            Reason::TooLarge
        } else {
            Reason::Refused
        }
    }
}

/// Scope of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// All tenants: no endpoint could be reached.
    Unreachable,
    /// The tenant, until others fail as well: the endpoint failed, did not answer, or refuses every
    /// request.
    Broken,
    /// As `Broken`, with a server error, which the content may have caused.
    ServerError,
    /// The tenant: the endpoint asks for fewer of its requests.
    TooMuch,
}
