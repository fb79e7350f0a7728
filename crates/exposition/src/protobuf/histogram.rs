//! A histogram as it is exposed, and its encoding for remote write.

mod resolution;

use std::borrow::Cow;

use metrifold_codec::wire::{
    FIXED64, Field, Fields, VARINT, Value, WireError, packed, put_bytes, put_varint, tag,
};

use super::{Fault, double};

/// `reset_hint` of a gauge histogram.
const GAUGE: u64 = 3;
/// The coarsest valid schema.
const COARSEST: i32 = -4;

#[derive(Default)]
pub(super) struct Histogram<'a> {
    count: u64,
    count_float: f64,
    pub(super) sum: f64,
    pub(super) buckets: Vec<Bucket<'a>>,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative: Side<'a>,
    positive: Side<'a>,
    pub(super) exemplars: Vec<&'a [u8]>,
    /// Message with the time since which it has been counting.
    pub(super) start: Option<&'a [u8]>,
}

/// A classic bucket.
#[derive(Default)]
pub(super) struct Bucket<'a> {
    pub(super) count: f64,
    pub(super) upper_bound: f64,
    pub(super) exemplar: Option<&'a [u8]>,
}

/// The native buckets on one side of zero.
#[derive(Default)]
struct Side<'a> {
    spans: Vec<Cow<'a, [u8]>>,
    /// Number of buckets in the spans.
    length: u64,
    /// Whether a span begins before the end of the previous one.
    overlaps: bool,
    /// Integer counts, each as the difference to the previous one.
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl<'a> Histogram<'a> {
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut histogram = Self::default();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => histogram.count = field.number()?,
                2 => histogram.sum = double(&field)?,
                3 => histogram.buckets.push(Bucket::read(field.bytes()?)?),
                4 => histogram.count_float = double(&field)?,
                5 => histogram.schema = zigzag(field.number()?) as i32,
                6 => histogram.zero_threshold = double(&field)?,
                7 => histogram.zero_count = field.number()?,
                8 => histogram.zero_count_float = double(&field)?,
                9 => histogram.negative.span(field.bytes()?)?,
                10 => deltas(&field, &mut histogram.negative.deltas)?,
                11 => counts(&field, &mut histogram.negative.counts)?,
                12 => histogram.positive.span(field.bytes()?)?,
                13 => deltas(&field, &mut histogram.positive.deltas)?,
                14 => counts(&field, &mut histogram.positive.counts)?,
                15 => histogram.start = Some(field.bytes()?),
                16 => histogram.exemplars.push(field.bytes()?),
                _ => {}
            }
        }
        Ok(histogram)
    }

    /// Number of observations.
    pub(super) fn count(&self) -> f64 {
        match self.count_float == 0.0 {
            true => self.count as f64,
            false => self.count_float,
        }
    }

    /// Whether it has native buckets. An empty native histogram is marked by an empty span.
    pub(super) fn is_native(&self) -> bool {
        !self.positive.spans.is_empty()
            || !self.negative.spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    /// Whether its counts are floats.
    fn is_float(&self) -> bool {
        self.count_float > 0.0
            || self.zero_count_float > 0.0
            || !self.positive.counts.is_empty()
            || !self.negative.counts.is_empty()
    }

    /// Fails when it is inconsistent, since stores refuse such a histogram.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if !(COARSEST..=8).contains(&self.schema) {
            let text = format!("a histogram has the unknown schema {}", self.schema);
            return Err(Fault::Text(text));
        }
        let is_float = self.is_float();
        let mut counted = Some(self.zero_count);
        for side in [&self.negative, &self.positive] {
            let buckets = match is_float {
                true => side.counts.len(),
                false => side.deltas.len(),
            };
            if side.length != buckets as u64 {
                let text = format!(
                    "the spans of a histogram have {} buckets, and there are {buckets}",
                    side.length
                );
                return Err(Fault::Text(text));
            }
            if side.overlaps {
                return Err("a span of a histogram begins before the end of the one before".into());
            }
            if side.counts.iter().any(|count| *count < 0.0) {
                return Err("a bucket of a histogram has a negative count".into());
            }
            let mut count = 0i64;
            for delta in side.deltas.iter().filter(|_| !is_float) {
                let next = count.checked_add(*delta).filter(|count| *count >= 0);
                let next = next.ok_or("a bucket of a histogram has a negative count")?;
                count = next;
                counted = counted.and_then(|sum| sum.checked_add(next as u64));
            }
        }
        if is_float {
            let negative = self.count_float < 0.0 || self.zero_count_float < 0.0;
            return match negative {
                true => Err("a histogram has a negative count".into()),
                false => Ok(()),
            };
        }
        // An observation of NaN is counted, but is in no bucket.
        let matches = counted.is_some_and(|counted| match self.sum.is_nan() {
            true => self.count >= counted,
            false => self.count == counted,
        });
        match matches {
            true => Ok(()),
            false => Err("the buckets of a histogram do not add up to its count".into()),
        }
    }

    /// Appends its encoding for remote write, without a timestamp.
    pub(super) fn encode(&self, gauge: bool, out: &mut Vec<u8>) {
        let is_float = self.is_float();
        match is_float {
            true => put_double(out, 2, self.count_float),
            false => put_number(out, 1, self.count),
        }
        if self.sum.to_bits() != 0 {
            put_double(out, 3, self.sum);
        }
        if self.schema != 0 {
            put_number(out, 4, to_zigzag(self.schema.into()));
        }
        if self.zero_threshold.to_bits() != 0 {
            put_double(out, 5, self.zero_threshold);
        }
        match is_float {
            true => put_double(out, 7, self.zero_count_float),
            false => put_number(out, 6, self.zero_count),
        }
        self.negative.encode(8, is_float, out);
        self.positive.encode(11, is_float, out);
        if gauge {
            put_gauge(out);
        }
    }
}

impl<'a> Bucket<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Fault> {
        let mut bucket = Self::default();
        let (mut count, mut count_float) = (0, 0.0);
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => count = field.number()?,
                2 => bucket.upper_bound = double(&field)?,
                3 => bucket.exemplar = Some(field.bytes()?),
                4 => count_float = double(&field)?,
                _ => {}
            }
        }
        bucket.count = match count_float == 0.0 {
            true => count as f64,
            false => count_float,
        };
        Ok(bucket)
    }
}

impl<'a> Side<'a> {
    /// Adds a span, whose encoding is the same in remote write.
    fn span(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        let (offset, length) = read_span(message)?;
        self.overlaps |= offset < 0 && !self.spans.is_empty();
        self.spans.push(message.into());
        self.length += u64::from(length);
        Ok(())
    }

    /// Appends the spans as `field`, and the counts as one of the next two fields.
    fn encode(&self, field: u8, is_float: bool, out: &mut Vec<u8>) {
        for span in &self.spans {
            put_bytes(out, field, span);
        }
        let mut packed = Vec::new();
        if is_float {
            for count in &self.counts {
                packed.extend_from_slice(&count.to_le_bytes());
            }
        } else {
            for delta in &self.deltas {
                put_varint(&mut packed, to_zigzag(*delta));
            }
        }
        if !packed.is_empty() {
            put_bytes(out, field + 1 + u8::from(is_float), &packed);
        }
    }
}

/// The offset and the length of a span.
fn read_span(message: &[u8]) -> Result<(i64, u32), Fault> {
    let (mut offset, mut length) = (0, 0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            // The offset is a signed 32-bit number.
            1 => offset = i64::from(zigzag(field.number()?) as i32),
            2 => length = field.number()? as u32,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// Reads signed numbers, packed or one by one.
fn deltas(field: &Field<'_>, into: &mut Vec<i64>) -> Result<(), Fault> {
    match field.value {
        Value::Len(bytes) => {
            for number in packed(bytes) {
                into.push(zigzag(number?));
            }
        }
        _ => into.push(zigzag(field.number()?)),
    }
    Ok(())
}

/// Reads floats, packed or one by one.
fn counts(field: &Field<'_>, into: &mut Vec<f64>) -> Result<(), Fault> {
    let Value::Len(bytes) = field.value else {
        into.push(double(field)?);
        return Ok(());
    };
    let (eights, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(WireError::Truncated.into());
    }
    into.extend(eights.iter().map(|eight| f64::from_le_bytes(*eight)));
    Ok(())
}

/// Marks an encoded histogram as that of a gauge.
pub(super) fn put_gauge(out: &mut Vec<u8>) {
    put_number(out, 14, GAUGE);
}

fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(tag(field, VARINT));
    put_varint(out, number);
}

fn put_double(out: &mut Vec<u8>, field: u8, number: f64) {
    out.push(tag(field, FIXED64));
    out.extend_from_slice(&number.to_le_bytes());
}

fn zigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn to_zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}
