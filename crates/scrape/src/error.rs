//! Failures of scrapes.

use std::fmt;

/// The kind of failure, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No credentials are available at the moment.
    Credentials,
    /// No answer arrived.
    Unreachable,
    /// The whole answer did not arrive in time.
    Timeout,
    /// The status is not 200, or there are too many redirects.
    Status,
    /// The answer has no known format, or cannot be decompressed.
    Format,
    /// The page violates its format, or a series on it is invalid.
    Page,
    /// The page is larger than `body_size_limit`.
    BodySize,
    /// The page has more samples than `sample_limit`.
    Samples,
    /// A series has more or longer labels than allowed.
    Labels,
    /// `max_in_flight_bytes` leaves no room for the page at the moment.
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

    /// Name of the cause in metrics.
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
