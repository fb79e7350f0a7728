//! Counts of the samples on a page.

/// Counts of samples on a page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Samples on the page.
    pub(crate) scraped: usize,
    /// Samples left after the rules.
    pub(crate) kept: usize,
    /// Duplicate samples of series that are on the page already.
    pub(crate) duplicates: u64,
    /// Samples dropped because they are too far in the future.
    pub(crate) ahead: u64,
}
