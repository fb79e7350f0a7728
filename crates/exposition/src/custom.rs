//! Classic histograms as native ones with custom buckets, whose bounds are those of the classic ones.
//! The histograms that are converted, and those that stay classic, are the same as in Prometheus.

mod counts;

use metrifold_codec::MetricType;

use crate::labels::{LabelSet, Text};
use crate::number;
use crate::page::{Options, Point, RawExemplar, Receiver, Sample};

pub(crate) use counts::Counts;

const BUCKET: &str = "_bucket";
const COUNT: &str = "_count";
const SUM: &str = "_sum";
const BOUND: &str = "le";

/// Converts the classic histograms of a page of text, whose series come one by one.
#[derive(Debug, Default)]
pub(crate) struct Conversion {
    /// Whether the classic series stay.
    keeps: bool,
    /// Most buckets of a histogram. 0 sets no limit.
    most: usize,
    /// Name of the family, if it is one of histograms.
    family: Option<String>,
    /// Whether series of a metric are being collected.
    collects: bool,
    /// The labels of that metric, without `le`, and the rest of its sample.
    labels: LabelSet,
    counts: Counts,
    exemplars: Vec<RawExemplar>,
    exemplar_labels: LabelSet,
    timestamp: Option<i64>,
    start: Option<i64>,
    message: Vec<u8>,
}

/// What a series of a classic histogram holds.
#[derive(Clone, Copy)]
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

impl Conversion {
    /// A conversion, if these options ask for one.
    pub(crate) fn new(options: &Options) -> Option<Self> {
        options.custom_histograms.then(|| Self {
            keeps: options.classic_histograms,
            most: options.histogram_buckets,
            ..Self::default()
        })
    }

    /// Begins a family. The metric before must have been finished.
    pub(crate) fn family(&mut self, name: &str, kind: MetricType) {
        self.family = (kind == MetricType::Histogram).then(|| name.to_owned());
    }

    /// Takes a sample: passes it on, unless it is one of a classic histogram that is converted.
    pub(crate) fn sample(
        &mut self,
        sample: &Sample<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<(), String> {
        if self.collects && !self.is_of_metric(sample) {
            self.finish(sample.page, receiver)?;
        }
        let Some(part) = self.part(sample) else {
            return receiver.sample(sample);
        };
        if !self.collects {
            self.begin(sample);
        }
        self.timestamp = sample.timestamp;
        self.keep_exemplars(sample);
        let Point::Value(value) = sample.point else {
            return receiver.sample(sample);
        };
        match part {
            Part::Bucket(bound) => self.counts.bucket(bound, value),
            Part::Count => self.counts.count(value),
            Part::Sum => self.counts.sum(value),
        }
        match self.keeps {
            // As in Prometheus, its exemplars are those of the native form.
            true => receiver.sample(&Sample {
                exemplars: &[],
                ..*sample
            }),
            false => Ok(()),
        }
    }

    /// Passes on the histogram that has been collected.
    pub(crate) fn finish(
        &mut self,
        page: &str,
        receiver: &mut impl Receiver,
    ) -> Result<(), String> {
        if !std::mem::take(&mut self.collects) || !self.counts.encode(&mut self.message) {
            return Ok(());
        }
        self.counts.check(self.most)?;
        receiver.sample(&Sample {
            labels: &self.labels,
            page,
            point: Point::Histogram(&self.message),
            timestamp: self.timestamp,
            start: self.start,
            value_at: None,
            exemplars: &self.exemplars,
            exemplar_labels: &self.exemplar_labels,
        })
    }

    /// The part of a histogram of the current family that a series holds.
    fn part(&self, sample: &Sample<'_>) -> Option<Part> {
        let family = self.family.as_deref()?;
        let (_, name) = sample.labels().next()?;
        match name.strip_prefix(family)? {
            COUNT => Some(Part::Count),
            SUM => Some(Part::Sum),
            BUCKET => {
                let mut labels = sample.labels();
                let (_, bound) = labels.find(|(name, _)| *name == BOUND)?;
                let bound = number::bound(bound).filter(|bound| !bound.is_nan())?;
                Some(Part::Bucket(bound))
            }
            _ => None,
        }
    }

    /// Whether a series belongs to the metric that is being collected, by its name and labels.
    fn is_of_metric(&self, sample: &Sample<'_>) -> bool {
        let (_, name) = sample.labels().next().unwrap_or_default();
        let mut suffixes = [BUCKET, SUM, COUNT].into_iter();
        let base = suffixes.find_map(|suffix| name.strip_suffix(suffix));
        if self.family.as_deref() != Some(base.unwrap_or(name)) {
            return false;
        }
        let others = sample.labels().skip(1).filter(|(name, _)| *name != BOUND);
        others.eq(self.labels.iter("").skip(1))
    }

    fn begin(&mut self, sample: &Sample<'_>) {
        self.collects = true;
        self.start = sample.start;
        self.counts.clear();
        self.exemplars.clear();
        self.exemplar_labels.clear();
        self.labels.clear();
        let family = self.family.as_deref().unwrap_or_default();
        let own = |labels: &mut LabelSet, text: &str| labels.own(|own| own.push_str(text));
        let name = own(&mut self.labels, "__name__");
        let value = own(&mut self.labels, family);
        self.labels.push(name, value);
        for (name, value) in sample.labels().skip(1).filter(|(name, _)| *name != BOUND) {
            let name: Text = own(&mut self.labels, name);
            let value = own(&mut self.labels, value);
            self.labels.push(name, value);
        }
    }

    /// Keeps the exemplars of a sample that have timestamps; a native histogram has no others.
    fn keep_exemplars(&mut self, sample: &Sample<'_>) {
        for exemplar in sample.exemplars().filter(|it| it.timestamp.is_some()) {
            let from = self.exemplar_labels.len();
            for (name, value) in exemplar.labels() {
                let name = self.exemplar_labels.own(|own| own.push_str(name));
                let value = self.exemplar_labels.own(|own| own.push_str(value));
                self.exemplar_labels.push(name, value);
            }
            self.exemplars.push(RawExemplar {
                value: exemplar.value,
                timestamp: exemplar.timestamp,
                range: (from, self.exemplar_labels.len()),
            });
        }
    }
}
