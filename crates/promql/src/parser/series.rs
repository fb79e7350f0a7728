//! Series descriptions: a metric, and a sequence of values.

use std::collections::HashSet;

use super::{Parsed, Parser};
use crate::ast::METRIC_NAME;
use crate::error::ParseError;
use crate::options::Options;
use crate::series::{Histogram, ResetHint, Series, SeriesItem, SeriesValue};
use crate::text::{Span, Text};
use crate::token::{Kind, Token};

const LABEL: &str = " in label set, expected identifier or \"}\"";
const LABEL_END: &str = " in label set, expected \",\" or \"}\"";
const EQUAL: &str = " in label set, expected \"=\"";
const STRING: &str = " in label set, expected string";
const VALUES: &str = " in series values";
const VALUE: &str = " in series values, expected number or \"stale\"";
const HISTOGRAM: &str =
    " in histogram description, expected histogram description key, e.g. buckets:[5 10 7]";

/// Schema of histograms with custom bucket boundaries.
const CUSTOM_BUCKETS: i32 = -53;

/// Parses a series description.
///
/// # Errors
///
/// Returns the first error, or an exceeded bound of `options`.
pub fn parse_series(input: &str, options: &Options) -> Result<Series, ParseError> {
    series(input, options).map_err(|error| *error)
}

fn series(input: &str, options: &Options) -> Parsed<Series> {
    let mut parser = Parser::new(input, options, true)?;
    let mut labels = Vec::new();
    let token = parser.peek()?;
    if token.kind.is_metric_name() {
        parser.bump();
        labels.push((Text::from(METRIC_NAME), parser.text(token).into()));
    }
    if parser.peek()?.kind == Kind::LeftBrace {
        parser.label_set(&mut labels)?;
    }
    labels.sort();
    parser.context = VALUES;
    let items = parser.items()?;
    Ok(Series { labels, items })
}

impl Parser<'_> {
    fn label_set(&mut self, labels: &mut Vec<(Text, Text)>) -> Parsed<()> {
        self.bump();
        loop {
            let token = self.peek()?;
            if token.kind == Kind::RightBrace {
                break;
            }
            self.count(token.span)?;
            labels.push(self.label_item(token)?);
            let token = self.peek()?;
            match token.kind {
                Kind::Comma => self.bump(),
                Kind::RightBrace => break,
                _ => return Err(self.unexpected_in(token, LABEL_END)),
            }
        }
        self.bump();
        Ok(())
    }

    fn label_item(&mut self, label: Token) -> Parsed<(Text, Text)> {
        let quoted = match label.kind {
            Kind::Identifier => false,
            Kind::String => true,
            _ => return Err(self.unexpected_in(label, LABEL)),
        };
        self.bump();
        let name = match quoted {
            true => self.string(label),
            false => self.text(label).into(),
        };
        let equal = self.peek()?;
        if equal.kind != Kind::Eql {
            return match quoted {
                true => Ok((METRIC_NAME.into(), name)),
                false => Err(self.unexpected_in(equal, EQUAL)),
            };
        }
        self.bump();
        let value = self.peek()?;
        if value.kind != Kind::String {
            return Err(self.unexpected_in(value, STRING));
        }
        self.bump();
        Ok((name, self.string(value)))
    }

    fn items(&mut self) -> Parsed<Vec<SeriesItem>> {
        let mut items = Vec::new();
        loop {
            let token = self.peek()?;
            match token.kind {
                Kind::Eof => return Ok(items),
                Kind::Space => self.bump(),
                _ if items.is_empty() => return Err(self.unexpected(token)),
                _ => return Err(self.unexpected_in(token, "")),
            }
            let token = self.peek()?;
            if !matches!(token.kind, Kind::Eof | Kind::Space) {
                self.count(token.span)?;
                items.push(self.item(token)?);
            }
        }
    }

    fn item(&mut self, token: Token) -> Parsed<SeriesItem> {
        match token.kind {
            Kind::Blank => {
                self.bump();
                let count = self.times()?.unwrap_or(1);
                Ok(item(SeriesValue::Omitted, None, count))
            }
            Kind::Identifier => {
                self.bump();
                if self.text(token) != "stale" {
                    return Err(self.unexpected_in(token, VALUE));
                }
                self.numbers(SeriesValue::Stale)
            }
            Kind::OpenHistogram => {
                let first = self.described()?;
                self.histograms(first)
            }
            _ => {
                let value = self.signed_number()?;
                self.numbers(SeriesValue::Number(value))
            }
        }
    }

    /// Parses the rest of an item after a number: a step and a count, or a count.
    fn numbers(&mut self, value: SeriesValue) -> Parsed<SeriesItem> {
        if !matches!(self.peek()?.kind, Kind::Add | Kind::Sub) {
            return self.repeated(value, None);
        }
        let step = self.signed_number()?;
        let token = self.peek()?;
        if token.kind != Kind::Times {
            return Err(self.unexpected(token));
        }
        self.repeated(value, Some(SeriesValue::Number(step)))
    }

    /// Parses a count of repetitions, to which the value itself is added.
    fn repeated(&mut self, value: SeriesValue, step: Option<SeriesValue>) -> Parsed<SeriesItem> {
        let token = self.peek()?;
        let more = self.times()?.unwrap_or(0);
        self.counted(value, step, more, token)
    }

    fn counted(
        &self,
        value: SeriesValue,
        step: Option<SeriesValue>,
        more: u64,
        token: Token,
    ) -> Parsed<SeriesItem> {
        let Some(count) = more.checked_add(1) else {
            let message = format!("too many repetitions in series values: {more}");
            return Err(self.syntax(token.span, message));
        };
        Ok(item(value, step, count))
    }

    fn times(&mut self) -> Parsed<Option<u64>> {
        if !self.accept(Kind::Times)? {
            return Ok(None);
        }
        self.unsigned().map(Some)
    }

    fn unsigned(&mut self) -> Parsed<u64> {
        let token = self.expect(Kind::Number)?;
        let text = self.text(token);
        text.parse().map_err(|_| {
            let reason = match text.bytes().all(|byte| byte.is_ascii_digit()) {
                true => "value out of range",
                false => "invalid syntax",
            };
            let text = crate::go::quoted(text);
            let message = format!(
                "invalid repetition in series values: strconv.ParseUint: parsing {text}: {reason}",
            );
            self.syntax(token.span, message)
        })
    }

    fn signed_number(&mut self) -> Parsed<f64> {
        let minus = self.accept(Kind::Sub)?;
        if !minus {
            self.accept(Kind::Add)?;
        }
        let token = self.expect(Kind::Number)?;
        let value = self.number_or_duration(token)?;
        Ok(if minus { -value } else { value })
    }

    fn histograms(&mut self, first: Histogram) -> Parsed<SeriesItem> {
        let sign = self.peek()?.kind;
        let value = |histogram| SeriesValue::Histogram(Box::new(histogram));
        if !matches!(sign, Kind::Add | Kind::Sub) {
            return self.repeated(value(first), None);
        }
        self.bump();
        let mut step = self.described()?;
        let token = self.peek()?;
        if token.kind != Kind::Times {
            return Err(self.unexpected(token));
        }
        self.bump();
        let token = self.peek()?;
        let more = self.unsigned()?;
        if more > 0 {
            let message = if first.schema > step.schema {
                let (step, first) = (step.schema, first.schema);
                format!("error combining histograms: cannot merge from schema {step} to {first}")
            } else if (first.schema == CUSTOM_BUCKETS) != (step.schema == CUSTOM_BUCKETS) {
                "cannot apply this operation on histograms with a mix of exponential and custom \
                 bucket schemas"
                    .to_owned()
            } else {
                String::new()
            };
            if !message.is_empty() {
                return Err(self.syntax(token.span, message));
            }
        }
        if sign == Kind::Sub {
            negate(&mut step);
        }
        self.counted(value(first), Some(value(step)), more, token)
    }

    /// Parses a histogram in double braces.
    fn described(&mut self) -> Parsed<Histogram> {
        self.expect(Kind::OpenHistogram)?;
        let mut histogram = Histogram::default();
        let mut seen = HashSet::new();
        // The braces may contain a single space.
        if self.accept(Kind::Space)? {
            self.expect(Kind::CloseHistogram)?;
            return Ok(histogram);
        }
        if self.accept(Kind::CloseHistogram)? {
            return Ok(histogram);
        }
        loop {
            let key = self.expect(Kind::HistogramKey)?;
            let word = self.text(key).to_ascii_lowercase();
            self.expect(Kind::Colon)?;
            self.property(&word, &mut histogram)?;
            if let Some(word) = seen.replace(word) {
                let message = format!("duplicate key \"{word}\" in histogram");
                return Err(self.syntax(Span::default(), message));
            }
            let token = self.peek()?;
            match token.kind {
                Kind::Space => self.bump(),
                Kind::CloseHistogram => {}
                _ => return Err(self.unexpected_in(token, HISTOGRAM)),
            }
            if self.accept(Kind::CloseHistogram)? {
                return Ok(histogram);
            }
            let token = self.peek()?;
            if token.kind != Kind::HistogramKey {
                return Err(self.unexpected_in(token, HISTOGRAM));
            }
        }
    }

    fn property(&mut self, key: &str, histogram: &mut Histogram) -> Parsed<()> {
        match key {
            "schema" => histogram.schema = self.integer()?,
            "sum" => histogram.sum = self.signed_number()?,
            "count" => histogram.count = self.signed_number()?,
            "z_bucket" => histogram.zero_count = self.signed_number()?,
            "z_bucket_w" => {
                let token = self.expect(Kind::Number)?;
                histogram.zero_threshold = self.number_or_duration(token)?;
            }
            "custom_values" => histogram.custom_values = self.bucket_list()?,
            "buckets" => histogram.buckets = self.bucket_list()?,
            "offset" => histogram.offset = self.integer()?,
            "n_buckets" => histogram.negative_buckets = self.bucket_list()?,
            "n_offset" => histogram.negative_offset = self.integer()?,
            _ => histogram.reset_hint = Some(self.reset_hint()?),
        }
        Ok(())
    }

    fn reset_hint(&mut self) -> Parsed<ResetHint> {
        let token = self.expect(Kind::ResetHint)?;
        Ok(match &*self.text(token).to_ascii_lowercase() {
            "reset" => ResetHint::Reset,
            "not_reset" => ResetHint::NotReset,
            "gauge" => ResetHint::Gauge,
            _ => ResetHint::Unknown,
        })
    }

    fn integer(&mut self) -> Parsed<i32> {
        let minus = self.accept(Kind::Sub)?;
        let token = self.peek()?;
        let value = self.unsigned()?;
        let signed = i32::try_from(value).map(|value| if minus { -value } else { value });
        signed.map_err(|_| {
            let message = format!("{value} is too large for a schema or an offset");
            self.syntax(token.span, message)
        })
    }

    fn bucket_list(&mut self) -> Parsed<Vec<f64>> {
        self.expect(Kind::LeftBracket)?;
        let mut buckets = Vec::new();
        loop {
            self.count(Span::default())?;
            buckets.push(self.signed_number()?);
            let spaced = self.accept(Kind::Space)?;
            if self.accept(Kind::RightBracket)? {
                return Ok(buckets);
            }
            if !spaced {
                let token = self.peek()?;
                return Err(self.unexpected(token));
            }
        }
    }
}

fn item(value: SeriesValue, step: Option<SeriesValue>, count: u64) -> SeriesItem {
    SeriesItem { value, step, count }
}

fn negate(histogram: &mut Histogram) {
    histogram.sum = -histogram.sum;
    histogram.count = -histogram.count;
    histogram.zero_count = -histogram.zero_count;
    let buckets = histogram
        .buckets
        .iter_mut()
        .chain(&mut histogram.negative_buckets);
    for bucket in buckets {
        *bucket = -*bucket;
    }
}
