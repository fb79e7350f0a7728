//! Series descriptions, in which unit tests of rules say what series there are.

use crate::text::Text;

/// A series and its values, as `up{job="a"} 1 1+2x10 _ stale`.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Labels with their values, sorted by label; a metric's name is the label `__name__`.
    pub labels: Vec<(Text, Text)>,
    /// The values, repetitions not written out.
    pub items: Vec<SeriesItem>,
}

/// Values that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesItem {
    /// The first.
    pub value: SeriesValue,
    /// What is added to each for the next; without it, all are equal.
    pub step: Option<SeriesValue>,
    /// How many there are.
    pub count: u64,
}

/// A value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesValue {
    /// There is none.
    Omitted,
    /// The series ends.
    Stale,
    /// A number.
    Number(f64),
    /// A histogram.
    Histogram(Box<Histogram>),
}

/// A native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The resolution of its buckets.
    pub schema: i32,
    /// The sum of all observations.
    pub sum: f64,
    /// Their count.
    pub count: f64,
    /// The count of those that are about zero.
    pub zero_count: f64,
    /// How far from zero these may be.
    pub zero_threshold: f64,
    /// Bounds of buckets that have no regular ones.
    pub custom_values: Vec<f64>,
    /// Counts of positive observations.
    pub buckets: Vec<f64>,
    /// The number of the first of these buckets.
    pub offset: i32,
    /// Counts of negative observations.
    pub negative_buckets: Vec<f64>,
    /// The number of the first of these buckets.
    pub negative_offset: i32,
    /// What is known of resets before it, if anything was said.
    pub reset_hint: Option<ResetHint>,
}

/// What is known of resets of a counter before a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetHint {
    /// Nothing.
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// It is no counter.
    Gauge,
}
