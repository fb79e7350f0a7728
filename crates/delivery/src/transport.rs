//! What carries a body to the far end of a sink, and what can come of that.
//!
//! Pace, merging, isolation and the loop of attempts know no protocol: they speak to a
//! [`Transport`]. It knows what its protocol's answers mean and holds what it takes to ask, such as
//! connections and credentials.

use std::time::Duration;

use bytes::Bytes;

use metrifold_codec::remote_write::Written;
use metrifold_model::ledger::Reason;
use metrifold_model::{Counts, Tenant, Version};

/// Carries bodies of remote write to a far end.
pub trait Transport: Send + Sync + 'static {
    /// Carries one body there, once, within a time that is the transport's to bound, and says what
    /// came of it.
    fn attempt(&self, attempt: Attempt<'_>) -> impl Future<Output = Answer> + Send;
}

/// One body on its way.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The version in which it is encoded.
    pub version: Version,
    /// Whose it is.
    pub tenant: Option<&'a Tenant>,
    /// What the body carries, if it was counted.
    pub counts: Option<Counts>,
    /// The compressed body, in parts that belong one behind the other.
    pub body: Vec<Bytes>,
    /// How often it was tried in vain before.
    pub failures: u32,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The endpoint has it.
    Stored,
    /// The endpoint says that all is well, and that it has all samples and not all exemplars.
    LacksExemplars(Written),
    /// The endpoint has what was valid of it: why not all, and as much as it says, if it says so.
    Partly(String, Option<Written>),
    /// The endpoint does not take this version, and may take the other one.
    OtherVersion,
    /// The endpoint says that all is well, and not what it wrote, as who takes 2.0 does.
    Unwritten,
    /// The endpoint refuses something that is in it.
    Refused(Refusal),
    /// The endpoint refuses it whatever is in it, and the configuration says that this is its end.
    Unwanted(Reason, String),
    /// It did not get there. That says nothing of what is in it, so it is to be tried again.
    Failed {
        /// Whom it concerns.
        failure: Failure,
        /// Why.
        reason: String,
        /// When the endpoint wants it again, if it said so.
        after: Option<Duration>,
    },
}

/// What an endpoint said to a batch of which it does not want everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The protocol's code for it, such as HTTP's status.
    pub code: String,
    /// Whether the content is at fault, or the version.
    pub class: RefusalClass,
    /// What the endpoint said.
    pub reason: String,
}

/// What is wrong with a batch that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// Something in it.
    Content,
    /// Something in it, or its version, of which this endpoint has not shown yet that it takes it.
    ContentOrVersion,
    /// Its size is all that is wrong with it.
    Size,
    /// Something in it, and it must not be sent again, not even in parts.
    Whole,
}

impl Refusal {
    /// Whether the size is all that is wrong with it.
    pub(super) fn is_of_size(&self) -> bool {
        self.class == RefusalClass::Size
    }

    /// The reason under which its samples count as lost.
    pub(super) fn loss(&self) -> Reason {
        if self.is_of_size() {
            Reason::TooLarge
        } else {
            Reason::Refused
        }
    }
}

/// Whom a failed attempt concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Everybody: nobody was reached.
    Unreachable,
    /// Its tenant, until others fail as well: the endpoint could not do it, has not answered, or
    /// refuses whatever is sent.
    Broken,
    /// The same, and it may have been for what was sent: the endpoint answered that it failed inside.
    ServerError,
    /// Its tenant: the endpoint wants less of his.
    TooMuch,
}
