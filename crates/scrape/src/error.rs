//! Why a scrape has failed.

use std::fmt;

/// The kind of failure, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// There are no credentials at the moment.
    Credentials,
    /// No answer came.
    Unreachable,
    /// The answer, or all of it, did not come in time.
    Timeout,
    /// The answer has a status other than 200, or redirects too often.
    Status,
    /// The answer is in no format of metrics, or cannot be decompressed.
    Format,
    /// The page is not in its format, or a series on it is invalid.
    Page,
    /// The body is larger than allowed.
    BodySize,
    /// There are more samples than allowed.
    Samples,
    /// Labels are more or longer than allowed.
    Labels,
    /// There is no room for the page at the moment.
    Room,
}

/// A scrape that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScrapeError {
    pub(crate) cause: Cause,
    pub(crate) text: String,
}

impl Cause {
    pub(crate) const ALL: [Self; 10] = [
        Self::Credentials,
        Self::Unreachable,
        Self::Timeout,
        Self::Status,
        Self::Format,
        Self::Page,
        Self::BodySize,
        Self::Samples,
        Self::Labels,
        Self::Room,
    ];

    /// In metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Format => "format",
            Self::Page => "page",
            Self::BodySize => "body_size_limit",
            Self::Samples => "sample_limit",
            Self::Labels => "label_limit",
            Self::Room => "no_room",
        }
    }
}

impl ScrapeError {
    pub(crate) fn new(cause: Cause, text: impl fmt::Display) -> Self {
        Self {
            cause,
            text: text.to_string(),
        }
    }
}
