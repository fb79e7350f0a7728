//! What a provider hears of its sources: targets, or why there are none to be had.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use metrifold_base::foreign;

/// The most characters of a failure that are kept.
const MAX_TEXT: usize = 1000;

/// Why a source has given no answer that could be taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{text}")]
pub struct Failure {
    /// The kind of failure, as metrics count it.
    pub reason: Reason,
    /// What happened, in words, without secrets.
    pub text: String,
}

/// What kinds of failures there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A file could not be read, or is not there.
    Unreadable,
    /// Nobody answered, or not in time.
    Unreachable,
    /// There are no credentials to ask with, or they were refused.
    Credentials,
    /// The answer says that it is none.
    Refused,
    /// The answer is not in the form that was expected.
    Invalid,
    /// The answer is larger than allowed, in bytes, targets or labels.
    TooLarge,
    /// The answer has no target, and the one before had some.
    Empty,
    /// The provider itself has died, or cannot be built anew.
    Died,
}

impl Reason {
    /// All of them.
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

    /// In metrics and answers.
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
    /// A failure. The text may quote what a server or a file says.
    pub fn new(reason: Reason, text: impl fmt::Display) -> Self {
        Self {
            reason,
            text: foreign(&text.to_string(), MAX_TEXT),
        }
    }
}
