//! How closely a batch has to be looked at between its source and its sinks.

/// What somebody on a batch's way needs of it; who needs more needs the less as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Nothing: it leaves as it came.
    Nothing,
    /// To know how much it carries, if that can be told.
    Count,
    /// That its series are valid and their labels sorted.
    Check,
    /// To read or edit its series, or to have them encoded in another version.
    Decode,
}
