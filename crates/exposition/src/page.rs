//! The content of a page, and the trait that receives it.

use metrifold_codec::MetricType;

use crate::labels::LabelSet;

/// Options and limits of reading a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether native histograms are read as such; otherwise as classic ones.
    pub native_histograms: bool,
    /// Whether the classic series of a histogram are read in addition to a native form.
    pub classic_histograms: bool,
    /// Whether classic histograms become native ones with custom buckets; without
    /// `classic_histograms`, they are not series any more.
    pub custom_histograms: bool,
    /// Whether start timestamps are read. Then `_created` of counters, histograms and summaries of
    /// OpenMetrics is the start timestamp of their samples; otherwise it is a series like any other.
    pub start_timestamps: bool,
    /// Most buckets of a native histogram; one with more gets a coarser schema until it fits. 0
    /// sets no limit.
    pub histogram_buckets: usize,
    /// Finest schema of a native histogram; a finer one is coarsened. No schema is finer than 8.
    pub histogram_schema: i32,
    /// Most labels of a series on the page.
    pub labels: usize,
    /// Most bytes of a line of text.
    pub line_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            native_histograms: false,
            classic_histograms: false,
            custom_histograms: false,
            start_timestamps: false,
            histogram_buckets: 0,
            histogram_schema: 8,
            labels: 1000,
            line_bytes: 1 << 20,
        }
    }
}

/// A sample on a page, borrowed until the next one is read.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub(crate) labels: &'a LabelSet,
    pub(crate) page: &'a str,
    /// The measured value.
    pub point: Point<'a>,
    /// Timestamp in milliseconds, if the page has one.
    pub timestamp: Option<i64>,
    /// Time in milliseconds since which a counter, histogram or summary has been counting, if the
    /// page has one and it was to be read.
    pub start: Option<i64>,
    /// Start and end of the value on a page of text, if the point is that value. A line break or the
    /// page's end follows it, unless there is a timestamp or an exemplar.
    pub value_at: Option<(usize, usize)>,
    pub(crate) exemplars: &'a [RawExemplar],
    pub(crate) exemplar_labels: &'a LabelSet,
}

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point<'a> {
    /// A float.
    Value(f64),
    /// A native histogram: an encoded message `Histogram` of remote write, without a timestamp.
    Histogram(&'a [u8]),
}

/// An exemplar of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar<'a> {
    /// The exemplar's value.
    pub value: f64,
    /// Timestamp in milliseconds, if the page has one.
    pub timestamp: Option<i64>,
    labels: &'a LabelSet,
    page: &'a str,
    range: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RawExemplar {
    pub(crate) value: f64,
    pub(crate) timestamp: Option<i64>,
    /// Range of its labels among those of all exemplars of the sample.
    pub(crate) range: (usize, usize),
}

impl<'a> Sample<'a> {
    /// The labels on the page: `__name__` first, then the others in the order of the page. Some may
    /// have an empty value, or repeat a name.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.labels.iter(self.page)
    }

    /// The exemplars, in the order of the page.
    pub fn exemplars(&self) -> impl ExactSizeIterator<Item = Exemplar<'a>> + use<'a> {
        let (labels, page) = (self.exemplar_labels, self.page);
        self.exemplars.iter().map(move |raw| Exemplar {
            value: raw.value,
            timestamp: raw.timestamp,
            labels,
            page,
            range: raw.range,
        })
    }
}

impl<'a> Exemplar<'a> {
    /// The exemplar's labels.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.labels.part(self.page, self.range)
    }
}

/// Metadata of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family<'a> {
    /// Name of the family, as on the page.
    pub name: &'a str,
    /// Type of its metrics.
    pub kind: MetricType,
    /// Help text; empty if there is none.
    pub help: &'a str,
    /// Unit; empty if there is none.
    pub unit: &'a str,
}

/// Receives the content of a page.
pub trait Receiver {
    /// Receives the metadata of a family.
    fn family(&mut self, family: Family<'_>);

    /// Receives a sample.
    ///
    /// # Errors
    ///
    /// Returns the reason for refusing the page; reading stops.
    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String>;
}

/// Replaces bytes that are not UTF-8: a noncharacter, which valid pages do not contain.
pub(crate) const NOT_UTF8: char = '\u{fdd0}';

/// Whether a text was valid UTF-8. Skips the search if the whole page was.
pub(crate) fn is_utf8(text: &str, page_is_utf8: bool) -> bool {
    page_is_utf8 || !text.contains(NOT_UTF8)
}
