//! OpenMetrics 1.0: no blanks at will, units, exemplars, an end that has to be there.
//!
//! As in Prometheus, `_created` is a series like any other.

use metrifold_codec::MetricType;

use crate::cursor::{Cursor, Syntax};
use crate::family::Described;
use crate::labels::{LabelSet, Text, unescape};
use crate::page::{NOT_UTF8, Options, Point, RawExemplar, Receiver, Sample};
use crate::text::NAME;
use crate::{ParseError, number};

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
    };
    while reader.line(receiver)? {}
    reader.described.finish(receiver);
    Ok(())
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    described: Described,
    /// The type that was given last, for whatever follows.
    kind: MetricType,
    labels: LabelSet,
    exemplar: LabelSet,
}

/// What is said of a family.
enum About {
    Help,
    Type,
    Unit,
}

impl<'a> Reader<'a> {
    /// Reads a line. Says whether there is another one.
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
        let cursor = &mut self.cursor;
        let labels = &mut self.labels;
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
            named = cursor.labels(Syntax::OpenMetrics, named, self.kind, labels)?;
        }
        if !named {
            return Err(cursor.error("the metric has no name"));
        }
        let value = word(cursor).and_then(number::value);
        let value = value.ok_or_else(|| cursor.error("expected a value"))?;
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
        let sample = Sample {
            labels: &self.labels,
            page: self.cursor.page,
            point: Point::Value(value),
            timestamp,
            exemplars: exemplar.as_slice(),
            exemplar_labels: &self.exemplar,
        };
        receiver
            .sample(&sample)
            .map_err(|reason| self.cursor.error(reason))?;
        self.cursor.at += 1;
        Ok(())
    }
}

/// Reads a blank and the word behind it.
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
