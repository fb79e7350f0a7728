//! What there is on a page, and who receives it.

use metrifold_codec::MetricType;

use crate::labels::LabelSet;

/// What of a page is read, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether native histograms are read as such; if not, they are read as classic ones.
    pub native_histograms: bool,
    /// Whether the classic series of a histogram are read as well if it is also a native one.
    pub classic_histograms: bool,
    /// Most buckets of a native histogram; one with more gets a coarser schema until it has no more.
    /// 0 sets no limit.
    pub histogram_buckets: usize,
    /// Most labels of a series as it is exposed.
    pub labels: usize,
    /// Most bytes of a line of text.
    pub line_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            native_histograms: false,
            classic_histograms: false,
            histogram_buckets: 0,
            labels: 1000,
            line_bytes: 1 << 20,
        }
    }
}

/// A sample on a page. It is there until the next one is read.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub(crate) labels: &'a LabelSet,
    pub(crate) page: &'a str,
    /// What was measured.
    pub point: Point<'a>,
    /// When, in milliseconds, if the page says so.
    pub timestamp: Option<i64>,
    pub(crate) exemplars: &'a [RawExemplar],
    pub(crate) exemplar_labels: &'a LabelSet,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point<'a> {
    /// A number.
    Value(f64),
    /// A native histogram: an encoded message `Histogram` of remote write, without its timestamp.
    Histogram(&'a [u8]),
}

/// An example of what a series counts.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar<'a> {
    /// Its value.
    pub value: f64,
    /// When it was, in milliseconds, if the page says so.
    pub timestamp: Option<i64>,
    labels: &'a LabelSet,
    page: &'a str,
    range: (usize, usize),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct RawExemplar {
    pub(crate) value: f64,
    pub(crate) timestamp: Option<i64>,
    /// Which labels are its own among those of all exemplars of the sample.
    pub(crate) range: (usize, usize),
}

impl<'a> Sample<'a> {
    /// Its labels as they are exposed, `__name__` first and the others in their order on the page;
    /// some may have no value, or the name of another one.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.labels.iter(self.page)
    }

    /// Its exemplars.
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
    /// Its labels.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.labels.part(self.page, self.range)
    }
}

/// What a page says of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family<'a> {
    /// Its name as it stands on the page.
    pub name: &'a str,
    /// What it measures.
    pub kind: MetricType,
    /// What it means.
    pub help: &'a str,
    /// In which unit.
    pub unit: &'a str,
}

/// Takes what is read of a page.
pub trait Receiver {
    /// Takes what is said of a family.
    fn family(&mut self, family: Family<'_>);

    /// Takes a sample.
    ///
    /// # Errors
    ///
    /// Fails when the page is not to be read any further, and says why.
    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), String>;
}

/// Stands for what is no UTF-8: a noncharacter, which interchanged text never holds.
pub(crate) const NOT_UTF8: char = '\u{fdd0}';

/// Whether a text had something in it that is no UTF-8. Pages that are UTF-8 are not searched.
pub(crate) fn is_utf8(text: &str, page_is_utf8: bool) -> bool {
    page_is_utf8 || !text.contains(NOT_UTF8)
}
