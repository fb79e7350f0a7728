//! OpenMetrics 1.0: single blanks only, units, exemplars, and a required `# EOF`.
//!
//! As in Prometheus, `_created` is a series like any other unless start timestamps are wanted: then
//! it is the start timestamp of the other series of its metric, which it follows on the page.

mod starts;

use metrifold_codec::MetricType;

use crate::cursor::{Cursor, Syntax};
use crate::custom::Conversion;
use crate::family::Described;
use crate::labels::{LabelSet, Text, unescape};
use crate::page::{NOT_UTF8, Options, Point, RawExemplar, Receiver, Sample};
use crate::text::NAME;
use crate::{ParseError, number};

use starts::{Found, Starts};

pub(crate) fn read(
    page: &str,
    is_utf8: bool,
    options: &Options,
    receiver: &mut impl Receiver,
) -> Result<(), ParseError> {
    let mut reader = Reader {
        cursor: Cursor::new(page, is_utf8, options),
        described: Described::default(),
        kind: MetricType::Unknown,
        labels: LabelSet::default(),
        exemplar: LabelSet::default(),
        starts: options.start_timestamps.then(Starts::default),
        custom: Conversion::new(options),
    };
    while reader.line(receiver)? {}
    reader.described.finish(receiver);
    Ok(())
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    described: Described,
    /// The type last declared, which applies to the following samples.
    kind: MetricType,
    labels: LabelSet,
    exemplar: LabelSet,
    /// Start timestamps of the current family, if they are wanted.
    starts: Option<Starts>,
    custom: Option<Conversion>,
}

/// Kinds of metadata lines.
enum About {
    Help,
    Type,
    Unit,
}

impl<'a> Reader<'a> {
    /// Reads a line. Returns whether another one follows.
    fn line(&mut self, receiver: &mut impl Receiver) -> Result<bool, ParseError> {
        let cursor = &mut self.cursor;
        cursor.start = cursor.at;
        if cursor.peek() != Some(b'#') {
            if cursor.peek().is_none() {
                return Err(cursor.error("the page does not end with # EOF"));
            }
            self.series(receiver)?;
            return Ok(true);
        }
        if let Some(custom) = &mut self.custom {
            let finished = custom.finish(cursor.page, receiver);
            finished.map_err(|reason| cursor.error(reason))?;
        }
        let line = cursor.rest();
        if line.starts_with(b"# EOF") {
            cursor.at += 5;
            cursor.at += usize::from(cursor.peek() == Some(b'\n'));
            return match cursor.peek() {
                None => Ok(false),
                Some(_) => Err(cursor.error("there is something behind # EOF")),
            };
        }
        let about = match line.get(..7) {
            Some(b"# HELP ") => About::Help,
            Some(b"# TYPE ") => About::Type,
            Some(b"# UNIT ") => About::Unit,
            _ => return Err(cursor.error("expected # HELP, # TYPE, # UNIT or # EOF")),
        };
        cursor.at += 7;
        self.family(&about, receiver)?;
        Ok(true)
    }

    fn family(&mut self, about: &About, receiver: &mut impl Receiver) -> Result<(), ParseError> {
        let cursor = &mut self.cursor;
        let name = cursor.family_name();
        let name = name.ok_or_else(|| cursor.error("expected the name of a metric"))?;
        if cursor.peek() != Some(b' ') {
            return Err(cursor.error("expected a text behind the name of a metric"));
        }
        let start = cursor.at + 1;
        cursor.skip_line();
        cursor.check_line()?;
        if cursor.peek().is_none() {
            return Err(cursor.error("the page does not end with # EOF"));
        }
        let text = cursor.slice(start, cursor.at);
        match about {
            About::Help => {
                if !cursor.is_utf8 && text.contains(NOT_UTF8) {
                    return Err(cursor.error("the help of a metric is not UTF-8"));
                }
                unescape(text, true, self.described.help(name, receiver));
            }
            About::Type => {
                self.kind = match text {
                    "counter" => MetricType::Counter,
                    "gauge" => MetricType::Gauge,
                    "histogram" => MetricType::Histogram,
                    "gaugehistogram" => MetricType::GaugeHistogram,
                    "summary" => MetricType::Summary,
                    "info" => MetricType::Info,
                    "stateset" => MetricType::StateSet,
                    "unknown" => MetricType::Unknown,
                    _ => return Err(cursor.error("there is no such type of metric")),
                };
                self.described.kind(name, self.kind, receiver);
                if let Some(starts) = &mut self.starts {
                    starts.begin(name, self.kind);
                }
                if let Some(custom) = &mut self.custom {
                    custom.family(name, self.kind);
                }
            }
            About::Unit => {
                let before = name.strip_suffix(text);
                if !text.is_empty() && !before.is_some_and(|before| before.ends_with('_')) {
                    return Err(cursor.error("the name of the metric does not end with its unit"));
                }
                self.described.unit(name, text, receiver);
            }
        }
        self.cursor.at += 1;
        Ok(())
    }

    fn series(&mut self, receiver: &mut impl Receiver) -> Result<(), ParseError> {
        if let Some(starts) = &mut self.starts {
            starts.look_ahead(&self.cursor);
        }
        let cursor = &mut self.cursor;
        read_labels(cursor, self.kind, &mut self.labels)?;
        let start = cursor.at + 1;
        let value = word(cursor).and_then(number::value);
        let value = value.ok_or_else(|| cursor.error("expected a value"))?;
        let value_at = Some((start, cursor.at));
        let mut timestamp = None;
        if cursor.peek() == Some(b' ') && !cursor.rest().starts_with(b" # {") {
            let parsed = word(cursor).and_then(number::seconds);
            timestamp = Some(parsed.ok_or_else(|| cursor.error("expected a timestamp"))?);
        }
        let mut exemplar = None;
        if cursor.rest().starts_with(b" # {") {
            exemplar = Some(read_exemplar(cursor, &mut self.exemplar)?);
        }
        match self.cursor.peek() {
            Some(b'\n') => {}
            None => return Err(self.cursor.error("the page does not end with # EOF")),
            Some(_) => return Err(self.cursor.error("expected the end of the line")),
        }
        self.cursor.check_line()?;
        let found = self.starts.as_ref();
        let found = found.map(|starts| starts.of(&self.labels, self.cursor.page));
        let start = match found {
            Some(Found::IsStart) => {
                self.cursor.at += 1;
                return Ok(());
            }
            Some(Found::Start(start)) => start,
            None => None,
        };
        let sample = Sample {
            labels: &self.labels,
            page: self.cursor.page,
            point: Point::Value(value),
            timestamp,
            start,
            value_at,
            exemplars: exemplar.as_slice(),
            exemplar_labels: &self.exemplar,
        };
        let taken = match &mut self.custom {
            Some(custom) => custom.sample(&sample, receiver),
            None => receiver.sample(&sample),
        };
        taken.map_err(|reason| self.cursor.error(reason))?;
        self.cursor.at += 1;
        Ok(())
    }
}

/// Reads the name and the labels of a series.
fn read_labels(
    cursor: &mut Cursor<'_>,
    kind: MetricType,
    labels: &mut LabelSet,
) -> Result<(), ParseError> {
    labels.clear();
    let name = labels.own(|own| own.push_str(NAME));
    let mut named = false;
    if let Some((start, end)) = cursor.metric_name() {
        labels.push(name, Text::of_page(start, end));
        named = true;
    } else if cursor.peek() == Some(b'{') {
        labels.push(name, Text::default());
    } else {
        return Err(cursor.error("expected the name of a metric, or a comment"));
    }
    if cursor.peek() == Some(b'{') {
        cursor.at += 1;
        named = cursor.labels(Syntax::OpenMetrics, named, kind, labels)?;
    }
    match named {
        true => Ok(()),
        false => Err(cursor.error("the metric has no name")),
    }
}

/// Reads a blank and the word after it.
fn word<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    if cursor.peek() != Some(b' ') {
        return None;
    }
    let start = cursor.at + 1;
    let rest = cursor.bytes.get(start..).unwrap_or_default();
    let len = rest
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\n' | 0));
    let end = start + len.unwrap_or(rest.len());
    cursor.at = end;
    (end > start).then(|| cursor.slice(start, end))
}

/// Reads ` # {…} value [timestamp]`.
fn read_exemplar(
    cursor: &mut Cursor<'_>,
    labels: &mut LabelSet,
) -> Result<RawExemplar, ParseError> {
    cursor.at += 4;
    labels.clear();
    cursor.labels(Syntax::Exemplar, true, MetricType::Unknown, labels)?;
    let value = word(cursor).and_then(number::value);
    let value = value.ok_or_else(|| cursor.error("expected the value of an exemplar"))?;
    let mut timestamp = None;
    if cursor.peek() == Some(b' ') {
        let parsed = word(cursor).and_then(number::seconds);
        timestamp = Some(parsed.ok_or_else(|| cursor.error("expected a timestamp"))?);
    }
    Ok(RawExemplar {
        value,
        timestamp,
        range: (0, labels.len()),
    })
}
