//! Series descriptions, which unit tests of rules use for their input series.

use crate::text::Text;

/// A series and its values, such as `up{job="a"} 1 1+2x10 _ stale`.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Labels with their values, sorted by name; the metric's name is the label `__name__`.
    pub labels: Vec<(Text, Text)>,
    /// The values, with repetitions not expanded.
    pub items: Vec<SeriesItem>,
}

/// Consecutive values.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesItem {
    /// The first value.
    pub value: SeriesValue,
    /// Difference between consecutive values; `None` if all are equal.
    pub step: Option<SeriesValue>,
    /// Number of values.
    pub count: u64,
}

/// A value of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesValue {
    /// No sample.
    Omitted,
    /// A staleness marker.
    Stale,
    /// A float.
    Number(f64),
    /// A histogram.
    Histogram(Box<Histogram>),
}

/// A native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Schema of the buckets, which sets their resolution.
    pub schema: i32,
    /// Sum of all observations.
    pub sum: f64,
    /// Number of observations.
    pub count: f64,
    /// Number of observations in the zero bucket.
    pub zero_count: f64,
    /// Largest distance from zero within the zero bucket.
    pub zero_threshold: f64,
    /// Upper bounds of custom buckets.
    pub custom_values: Vec<f64>,
    /// Counts of the positive buckets.
    pub buckets: Vec<f64>,
    /// Index of the first positive bucket.
    pub offset: i32,
    /// Counts of the negative buckets.
    pub negative_buckets: Vec<f64>,
    /// Index of the first negative bucket.
    pub negative_offset: i32,
    /// Hint about a counter reset, if one is given.
    pub reset_hint: Option<ResetHint>,
}

/// Hint about a counter reset before a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetHint {
    /// Not known.
    Unknown,
    /// There was a reset.
    Reset,
    /// There was no reset.
    NotReset,
    /// The histogram is a gauge.
    Gauge,
}
