//! Levels of work on a batch between its source and its sinks.

/// Work on a batch that a source, transform or sink needs. Each level includes the levels below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// None: the batch leaves as it arrived.
    Nothing,
    /// Count the samples, if the body allows it.
    Count,
    /// Validate the series and sort their labels.
    Check,
    /// Decode the series, for reading, editing or another version.
    Decode,
}
