//! Delimited messages `io.prometheus.client.MetricFamily`, the only format with native histograms.

mod histogram;

use metrifold_codec::MetricType;
use metrifold_codec::wire::{Field, Fields, Value, WireError, varint};

use crate::ParseError;
use crate::custom::Counts;
use crate::family::Described;
use crate::labels::{LabelSet, Text};
use crate::number;
use crate::page::{Options, Point, RawExemplar, Receiver, Sample};
use crate::text::NAME;

use histogram::Histogram;

/// Fault of a message.
#[derive(Debug)]
pub(crate) enum Fault {
    Wire(WireError),
    Text(String),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<&str> for Fault {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Fault {
    fn at(self, at: usize) -> ParseError {
        match self {
            Self::Wire(error) => ParseError::message(at, error),
            Self::Text(text) => ParseError::message(at, text),
        }
    }
}

pub(crate) fn read(
    page: &[u8],
    options: &Options,
    receiver: &mut impl Receiver,
) -> Result<(), ParseError> {
    let mut reader = Reader {
        options,
        described: Described::default(),
        labels: LabelSet::default(),
        exemplar_labels: LabelSet::default(),
        exemplars: Vec::new(),
        message: Vec::new(),
        start: None,
    };
    let mut at = 0;
    while at < page.len() {
        let start = at;
        let length = varint(page, &mut at).map_err(|error| Fault::from(error).at(start))?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| at.checked_add(length));
        let family = end.and_then(|end| page.get(at..end));
        let family = family.ok_or_else(|| Fault::Wire(WireError::Truncated).at(start))?;
        at += family.len();
        reader
            .family(family, receiver)
            .map_err(|fault| fault.at(start))?;
    }
    reader.described.finish(receiver);
    Ok(())
}

struct Reader<'a> {
    options: &'a Options,
    described: Described,
    labels: LabelSet,
    exemplar_labels: LabelSet,
    exemplars: Vec<RawExemplar>,
    /// Buffer for encoded native histograms.
    message: Vec<u8>,
    /// Start timestamp of the current metric.
    start: Option<i64>,
}

/// Numbers of the types of families.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const SUMMARY: u64 = 2;
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;
const GAUGE_HISTOGRAM: u64 = 5;

/// A metric of a family.
#[derive(Default)]
struct Metric<'a> {
    labels: Vec<&'a [u8]>,
    /// Messages of the types; if one is repeated, the last counts.
    gauge: &'a [u8],
    counter: &'a [u8],
    summary: &'a [u8],
    untyped: &'a [u8],
    histogram: &'a [u8],
    timestamp: i64,
}

/// The suffix or label that tells a family's series apart.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    Suffix(&'static str),
    Bucket(f64),
    Quantile(f64),
}

impl Reader<'_> {
    fn family(&mut self, message: &[u8], receiver: &mut impl Receiver) -> Result<(), Fault> {
        let (mut name, mut help, mut unit, mut kind) = ("", "", "", COUNTER);
        let mut metrics = 0;
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => name = text(&field)?,
                2 => help = text(&field)?,
                3 => kind = field.number()?,
                4 => metrics += 1,
                5 => unit = text(&field)?,
                _ => {}
            }
        }
        if metrics == 0 {
            return Ok(());
        }
        if name.is_empty() {
            return Err("a family has no name".into());
        }
        let metric_type = match kind {
            COUNTER => MetricType::Counter,
            GAUGE => MetricType::Gauge,
            SUMMARY => MetricType::Summary,
            UNTYPED => MetricType::Unknown,
            HISTOGRAM => MetricType::Histogram,
            GAUGE_HISTOGRAM => MetricType::GaugeHistogram,
            _ => return Err(Fault::Text(format!("{name} has an unknown type {kind}"))),
        };
        self.described.kind(name, metric_type, receiver);
        self.described.help(name, receiver).push_str(help);
        self.described.unit(name, unit, receiver);
        for field in Fields::new(message) {
            let field = field?;
            if field.number == 4 {
                let metric = Metric::read(field.bytes()?)?;
                self.metric(name, kind, &metric, receiver)?;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        name: &str,
        kind: u64,
        metric: &Metric<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<(), Fault> {
        self.clear_exemplars();
        self.start = None;
        match kind {
            COUNTER => {
                let mut value = 0.0;
                for field in Fields::new(metric.counter) {
                    let field = field?;
                    match field.number {
                        1 => value = double(&field)?,
                        2 => self.exemplar(field.bytes()?, false)?,
                        3 => self.begin(field.bytes()?)?,
                        _ => {}
                    }
                }
                self.send(name, Part::Whole, metric, value, receiver)
            }
            SUMMARY => self.summary(name, metric, receiver),
            HISTOGRAM | GAUGE_HISTOGRAM => {
                let mut histogram = Histogram::read(metric.histogram)?;
                if let Some(start) = histogram.start {
                    self.begin(start)?;
                }
                let native = self.options.native_histograms && histogram.is_native();
                if native {
                    self.native(
                        name,
                        &mut histogram,
                        kind == GAUGE_HISTOGRAM,
                        metric,
                        receiver,
                    )?;
                }
                let custom = self.options.custom_histograms && !native;
                let keeps = self.options.classic_histograms;
                let classic = match native {
                    true => keeps && !histogram.buckets.is_empty(),
                    false => keeps || !custom,
                };
                if classic {
                    self.classic(name, &histogram, metric, receiver)?;
                }
                match custom {
                    true => {
                        let gauge = kind == GAUGE_HISTOGRAM;
                        self.custom(name, &histogram, gauge, metric, receiver)
                    }
                    false => Ok(()),
                }
            }
            _ => {
                let message = match kind {
                    GAUGE => metric.gauge,
                    _ => metric.untyped,
                };
                let mut value = 0.0;
                for field in Fields::new(message) {
                    let field = field?;
                    if field.number == 1 {
                        value = double(&field)?;
                    }
                }
                self.send(name, Part::Whole, metric, value, receiver)
            }
        }
    }

    fn summary(
        &mut self,
        name: &str,
        metric: &Metric<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<(), Fault> {
        let (mut count, mut sum) = (0, 0.0);
        let mut quantiles = Vec::new();
        for field in Fields::new(metric.summary) {
            let field = field?;
            match field.number {
                1 => count = field.number()?,
                2 => sum = double(&field)?,
                3 => {
                    let (mut quantile, mut value) = (0.0, 0.0);
                    for field in Fields::new(field.bytes()?) {
                        let field = field?;
                        match field.number {
                            1 => quantile = double(&field)?,
                            2 => value = double(&field)?,
                            _ => {}
                        }
                    }
                    quantiles.push((quantile, value));
                }
                4 => self.begin(field.bytes()?)?,
                _ => {}
            }
        }
        self.send(name, Part::Suffix("_count"), metric, count as f64, receiver)?;
        self.send(name, Part::Suffix("_sum"), metric, sum, receiver)?;
        for (quantile, value) in quantiles {
            self.send(name, Part::Quantile(quantile), metric, value, receiver)?;
        }
        Ok(())
    }

    fn classic(
        &mut self,
        name: &str,
        histogram: &Histogram<'_>,
        metric: &Metric<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<(), Fault> {
        self.clear_exemplars();
        let count = histogram.count();
        self.send(name, Part::Suffix("_count"), metric, count, receiver)?;
        self.send(name, Part::Suffix("_sum"), metric, histogram.sum, receiver)?;
        for bucket in &histogram.buckets {
            self.clear_exemplars();
            if let Some(exemplar) = bucket.exemplar {
                self.exemplar(exemplar, false)?;
            }
            let part = Part::Bucket(bucket.upper_bound);
            self.send(name, part, metric, bucket.count, receiver)?;
            if bucket.upper_bound == f64::INFINITY {
                return Ok(());
            }
        }
        self.clear_exemplars();
        let part = Part::Bucket(f64::INFINITY);
        self.send(name, part, metric, count, receiver)
    }

    fn native(
        &mut self,
        name: &str,
        histogram: &mut Histogram<'_>,
        gauge: bool,
        metric: &Metric<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<(), Fault> {
        histogram.check()?;
        histogram.coarsen(self.options.histogram_schema)?;
        histogram.limit(self.options.histogram_buckets)?;
        self.timed_exemplars(histogram)?;
        self.message.clear();
        histogram.encode(gauge, &mut self.message);
        self.name(name, Part::Whole, metric)?;
        let sample = self.sample(Point::Histogram(&self.message), metric);
        receiver.sample(&sample).map_err(Fault::Text)
    }

    /// Passes on a classic histogram as a native one with custom buckets.
    fn custom(
        &mut self,
        name: &str,
        histogram: &Histogram<'_>,
        gauge: bool,
        metric: &Metric<'_>,
        receiver: &mut impl Receiver,
    ) -> Result<(), Fault> {
        let mut counts = Counts::default();
        counts.count(histogram.count());
        counts.sum(histogram.sum);
        for bucket in &histogram.buckets {
            counts.bucket(bucket.upper_bound, bucket.count);
        }
        self.message.clear();
        if !counts.encode(&mut self.message) {
            return Err("the buckets of a histogram contradict each other or its count".into());
        }
        counts
            .check(self.options.histogram_buckets)
            .map_err(Fault::Text)?;
        if gauge {
            histogram::put_gauge(&mut self.message);
        }
        self.timed_exemplars(histogram)?;
        self.name(name, Part::Whole, metric)?;
        let sample = self.sample(Point::Histogram(&self.message), metric);
        receiver.sample(&sample).map_err(Fault::Text)
    }

    /// Collects the exemplars of a native histogram: only those with a timestamp, since others would
    /// be repeated with every scrape.
    fn timed_exemplars(&mut self, histogram: &Histogram<'_>) -> Result<(), Fault> {
        self.clear_exemplars();
        for exemplar in &histogram.exemplars {
            self.exemplar(exemplar, true)?;
        }
        if histogram.exemplars.is_empty() {
            let buckets = histogram.buckets.iter();
            for exemplar in buckets.filter_map(|bucket| bucket.exemplar) {
                self.exemplar(exemplar, true)?;
            }
        }
        Ok(())
    }

    /// Passes a sample to the receiver.
    fn send(
        &mut self,
        name: &str,
        part: Part,
        metric: &Metric<'_>,
        value: f64,
        receiver: &mut impl Receiver,
    ) -> Result<(), Fault> {
        self.name(name, part, metric)?;
        let sample = self.sample(Point::Value(value), metric);
        receiver.sample(&sample).map_err(Fault::Text)
    }

    fn sample<'a>(&'a self, point: Point<'a>, metric: &Metric<'_>) -> Sample<'a> {
        Sample {
            labels: &self.labels,
            page: "",
            point,
            timestamp: (metric.timestamp != 0).then_some(metric.timestamp),
            start: self.start,
            value_at: None,
            exemplars: &self.exemplars,
            exemplar_labels: &self.exemplar_labels,
        }
    }

    /// Collects the name and the labels of a series.
    fn name(&mut self, name: &str, part: Part, metric: &Metric<'_>) -> Result<(), Fault> {
        if metric.labels.len() > self.options.labels {
            let most = self.options.labels;
            let text = format!("{name} has a series of more than {most} labels");
            return Err(Fault::Text(text));
        }
        let labels = &mut self.labels;
        labels.clear();
        let key = labels.own(|own| own.push_str(NAME));
        let value = labels.own(|own| {
            own.push_str(name);
            match part {
                Part::Suffix(suffix) => own.push_str(suffix),
                Part::Bucket(_) => own.push_str("_bucket"),
                Part::Whole | Part::Quantile(_) => {}
            }
        });
        labels.push(key, value);
        for message in &metric.labels {
            let (name, value) = label(message, labels)?;
            labels.push(name, value);
        }
        let (name, bound) = match part {
            Part::Bucket(bound) => ("le", bound),
            Part::Quantile(bound) => ("quantile", bound),
            Part::Whole | Part::Suffix(_) => return Ok(()),
        };
        let name = labels.own(|own| own.push_str(name));
        let value = labels.own(|own| number::put_canonical(own, bound));
        labels.push(name, value);
        Ok(())
    }

    /// Reads the start timestamp of the current metric, if start timestamps are wanted.
    fn begin(&mut self, message: &[u8]) -> Result<(), Fault> {
        if self.options.start_timestamps {
            let start = milliseconds(message)?;
            self.start = (start != 0).then_some(start);
        }
        Ok(())
    }

    fn clear_exemplars(&mut self) {
        self.exemplars.clear();
        self.exemplar_labels.clear();
    }

    fn exemplar(&mut self, message: &[u8], timed: bool) -> Result<(), Fault> {
        let start = self.exemplar_labels.len();
        let (mut value, mut timestamp) = (0.0, None);
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => {
                    let (name, value) = label(field.bytes()?, &mut self.exemplar_labels)?;
                    self.exemplar_labels.push(name, value);
                }
                2 => value = double(&field)?,
                3 => timestamp = Some(milliseconds(field.bytes()?)?),
                _ => {}
            }
        }
        if timestamp.is_some() || !timed {
            self.exemplars.push(RawExemplar {
                value,
                timestamp,
                range: (start, self.exemplar_labels.len()),
            });
        }
        Ok(())
    }
}

impl<'a> Metric<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut metric = Self::default();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => metric.labels.push(field.bytes()?),
                2 => metric.gauge = field.bytes()?,
                3 => metric.counter = field.bytes()?,
                4 => metric.summary = field.bytes()?,
                5 => metric.untyped = field.bytes()?,
                6 => metric.timestamp = field.number()? as i64,
                7 => metric.histogram = field.bytes()?,
                _ => {}
            }
        }
        Ok(metric)
    }
}

/// Reads a label into the buffer of a set.
fn label(message: &[u8], labels: &mut LabelSet) -> Result<(Text, Text), Fault> {
    let (mut name, mut value) = ("", "");
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => name = text(&field)?,
            2 => value = text(&field)?,
            _ => {}
        }
    }
    let name = labels.own(|own| own.push_str(name));
    Ok((name, labels.own(|own| own.push_str(value))))
}

fn text<'a>(field: &Field<'a>) -> Result<&'a str, Fault> {
    let text = std::str::from_utf8(field.bytes()?);
    Ok(text.map_err(|_| WireError::Utf8)?)
}

/// The value of a field of type double.
fn double(field: &Field<'_>) -> Result<f64, Fault> {
    match field.value {
        Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
        _ => Err(WireError::Field(field.number).into()),
    }
}

/// A `google.protobuf.Timestamp` in milliseconds.
fn milliseconds(message: &[u8]) -> Result<i64, Fault> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => seconds = field.number()? as i64,
            2 => nanoseconds = field.number()? as i32,
            _ => {}
        }
    }
    let milliseconds = seconds.wrapping_mul(1000);
    Ok(milliseconds.wrapping_add(i64::from(nanoseconds / 1_000_000)))
}
