//! Text 0.0.4, and 1.0.0, which adds quoted names.

use metrifold_codec::MetricType;

use crate::cursor::{Cursor, Syntax};
use crate::custom::Conversion;
use crate::family::Described;
use crate::labels::{LabelSet, Text, unescape};
use crate::page::{NOT_UTF8, Options, Point, Receiver, Sample};
use crate::{ParseError, number};

/// The label that holds a metric's name.
pub(crate) const NAME: &str = "__name__";

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
        custom: Conversion::new(options),
    };
    while reader.line(receiver)? {}
    reader.finish_metric(receiver)?;
    reader.described.finish(receiver);
    Ok(())
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    described: Described,
    /// The type last declared, which applies to the following samples.
    kind: MetricType,
    labels: LabelSet,
    custom: Option<Conversion>,
}

impl Reader<'_> {
    /// Passes on a converted histogram that was collected up to here.
    fn finish_metric(&mut self, receiver: &mut impl Receiver) -> Result<(), ParseError> {
        let custom = self.custom.as_mut();
        let finished = custom.map_or(Ok(()), |it| it.finish(self.cursor.page, receiver));
        finished.map_err(|reason| self.cursor.error(reason))
    }

    /// Reads a line. Returns whether another one may follow.
    fn line(&mut self, receiver: &mut impl Receiver) -> Result<bool, ParseError> {
        self.cursor.start = self.cursor.at;
        self.cursor.skip_blanks();
        match self.cursor.peek() {
            // Prometheus' parser takes a zero byte here for the end of the page.
            None | Some(0) => return Ok(false),
            Some(b'\n') => {}
            Some(b'#') => return self.comment(receiver),
            _ => self.series(receiver)?,
        }
        self.cursor.at += 1;
        Ok(true)
    }

    /// Reads a comment, which may be metadata of a family.
    fn comment(&mut self, receiver: &mut impl Receiver) -> Result<bool, ParseError> {
        self.finish_metric(receiver)?;
        let cursor = &mut self.cursor;
        cursor.at += 1;
        let before = cursor.at;
        cursor.skip_blanks();
        let apart = cursor.at > before;
        let word = cursor.rest();
        let is_help = word.starts_with(b"HELP");
        let says = apart
            && (is_help || word.starts_with(b"TYPE"))
            && matches!(word.get(4), Some(b' ' | b'\t'));
        if says {
            cursor.at += 4;
            cursor.skip_blanks();
            self.family(is_help, receiver)?;
        } else {
            // Prometheus' parser also ends at a zero byte at the start of a comment's word, or
            // anywhere in a comment without a blank.
            let end = word.iter().position(|byte| *byte == b'\n');
            let comment = &word[..end.unwrap_or(word.len())];
            let ends = match apart {
                true => comment.first() == Some(&0),
                false => comment.contains(&0),
            };
            if ends {
                return Ok(false);
            }
            cursor.skip_line();
        }
        self.cursor.at += 1;
        Ok(true)
    }

    fn family(&mut self, is_help: bool, receiver: &mut impl Receiver) -> Result<(), ParseError> {
        let cursor = &mut self.cursor;
        let name = cursor.family_name();
        let name = name.ok_or_else(|| cursor.error("expected the name of a metric"))?;
        let start = cursor.at;
        cursor.skip_line();
        cursor.check_line()?;
        let text = cursor.slice(start, cursor.at);
        // One byte separates the name from the text, whatever it is.
        let text = match text.bytes().all(|byte| matches!(byte, b' ' | b'\t')) {
            true => Some(""),
            false => text.get(1..),
        };
        let text = text.filter(|text| !is_help || cursor.is_utf8 || !text.contains(NOT_UTF8));
        let text = text.ok_or_else(|| cursor.error("the help of a metric is not UTF-8"))?;
        if is_help {
            unescape(text, false, self.described.help(name, receiver));
            return Ok(());
        }
        self.kind = match text {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            "histogram" => MetricType::Histogram,
            "summary" => MetricType::Summary,
            "untyped" => MetricType::Unknown,
            _ => return Err(cursor.error("there is no such type of metric")),
        };
        self.described.kind(name, self.kind, receiver);
        if let Some(custom) = &mut self.custom {
            custom.family(name, self.kind);
        }
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
            cursor.skip_blanks();
        } else if cursor.peek() == Some(b'{') {
            labels.push(name, Text::default());
        } else {
            return Err(cursor.error("expected the name of a metric, or a comment"));
        }
        if cursor.peek() == Some(b'{') {
            cursor.at += 1;
            named = cursor.labels(Syntax::Text, named, self.kind, labels)?;
            cursor.skip_blanks();
        }
        if !named {
            return Err(cursor.error("the metric has no name"));
        }
        let start = cursor.at;
        let rest = cursor.rest();
        let ends = |byte: &u8| matches!(byte, b'{' | b' ' | b'\t' | b'\n' | 0);
        cursor.at += rest.iter().position(ends).unwrap_or(rest.len());
        if cursor.at == start {
            return Err(cursor.error("expected a value"));
        }
        let value = number::value(cursor.slice(start, cursor.at));
        let value = value.ok_or_else(|| cursor.error("the value is not a number"))?;
        let value_at = Some((start, cursor.at));
        cursor.skip_blanks();
        let mut timestamp = None;
        if cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            let start = cursor.at;
            while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                cursor.at += 1;
            }
            let parsed = cursor.slice(start, cursor.at).parse();
            timestamp = Some(parsed.map_err(|_| cursor.error("the timestamp is too large"))?);
            cursor.skip_blanks();
        }
        if !matches!(cursor.peek(), None | Some(b'\n')) {
            return Err(cursor.error("expected a timestamp or the end of the line"));
        }
        cursor.check_line()?;
        let sample = Sample {
            labels: &self.labels,
            page: self.cursor.page,
            point: Point::Value(value),
            timestamp,
            start: None,
            value_at,
            exemplars: &[],
            exemplar_labels: &self.labels,
        };
        let taken = match &mut self.custom {
            Some(custom) => custom.sample(&sample, receiver),
            None => receiver.sample(&sample),
        };
        taken.map_err(|reason| self.cursor.error(reason))
    }
}
