//! Answers of a provider's sources: targets, or the failure that kept them away.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use metrifold_base::foreign;

/// The most characters of a failure's text that are kept.
const MAX_TEXT: usize = 1000;

/// Failure to get a usable answer from a source.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct Failure {
    /// The kind of failure, as metrics count it.
    pub reason: Reason,
    /// Description of the failure, scrubbed of secrets.
    pub text: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A file is absent or cannot be read.
    Unreadable,
    /// The endpoint does not answer, or not in time.
    Unreachable,
    /// Credentials are missing or were refused.
    Credentials,
    /// The server answered with an error.
    Refused,
    /// The answer is not in the form that was expected.
    Invalid,
    /// The answer is larger than allowed, in bytes, targets or labels.
    TooLarge,
    /// The answer has no targets, and the previous one had some.
    Empty,
    /// The provider itself panicked, or cannot be rebuilt.
    Died,
}

impl Reason {
    /// Every reason, in the order of the metrics.
    pub const ALL: [Self; 8] = [
        Self::Unreadable,
        Self::Unreachable,
        Self::Credentials,
        Self::Refused,
        Self::Invalid,
        Self::TooLarge,
        Self::Empty,
        Self::Died,
    ];

    /// Name of the reason in metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Unreachable => "unreachable",
            Self::Credentials => "credentials",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Empty => "empty",
            Self::Died => "died",
        }
    }
}

impl Failure {
    /// Makes a failure. The text may quote a server or a file: it is scrubbed of secrets and cut.
    pub fn new(reason: Reason, text: impl fmt::Display) -> Self {
        Self {
            reason,
            text: foreign(&text.to_string(), MAX_TEXT),
        }
    }
}
