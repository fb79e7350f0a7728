//! The counts of a classic histogram, and their form as a native one.

use metrifold_codec::wire::{FIXED64, VARINT, put_bytes, put_varint, tag};

/// Schema of histograms with custom buckets, -53, encoded.
const SCHEMA: u64 = 105;
/// Longest run of empty buckets that is written like others.
const EMPTY: usize = 2;

/// The counts of a classic histogram.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Upper bounds, ascending, with the number of observations up to each.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    /// Whether the counts contradict each other.
    contradicts: bool,
    /// Number of buckets that were written.
    kept: usize,
}

impl Counts {
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.count = None;
        self.sum = 0.0;
        self.contradicts = false;
    }

    /// Adds a bucket. A second one with the same bound is ignored.
    pub(crate) fn bucket(&mut self, bound: f64, count: f64) {
        let at = self.buckets.partition_point(|(known, _)| *known < bound);
        if self
            .buckets
            .get(at)
            .is_some_and(|(known, _)| *known == bound)
        {
            return;
        }
        let below = at.checked_sub(1).map(|before| self.buckets[before].1);
        let above = self.buckets.get(at).map(|bucket| bucket.1);
        self.contradicts |= bound.is_nan()
            || count < 0.0
            || below.is_some_and(|below| count < below)
            || above.is_some_and(|above| count > above);
        self.buckets.insert(at, (bound, count));
    }

    pub(crate) fn count(&mut self, count: f64) {
        self.contradicts |= count < 0.0;
        self.count = Some(count);
    }

    pub(crate) fn sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// Writes the histogram as a message of remote write 2.0, without a timestamp. Returns false if
    /// the counts are not those of a histogram.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>) -> bool {
        let last = self.buckets.last().copied();
        let Some(count) = self.count.or(last.map(|(_, count)| count)) else {
            return false;
        };
        if last.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.bucket(f64::INFINITY, count);
        }
        let whole = |count: f64| count.round() == count && count < 9e15;
        let numbers = self.buckets.iter().map(|bucket| bucket.1);
        if self.contradicts || self.buckets.last().is_none_or(|(_, all)| *all != count) {
            return false;
        }
        let is_float = !numbers.chain([count]).all(whole);
        out.clear();
        match is_float {
            true => put_double(out, 2, count),
            false => put_number(out, 1, count as u64),
        }
        put_double(out, 3, self.sum);
        put_number(out, 4, SCHEMA);
        match is_float {
            true => put_double(out, 7, 0.0),
            false => put_number(out, 6, 0),
        }
        let kept = self.compact(if is_float { 0 } else { EMPTY });
        let (mut packed, mut before) = (Vec::new(), 0);
        for (_, here) in &kept {
            if is_float {
                packed.extend_from_slice(&here.to_le_bytes());
            } else {
                let delta = *here as i64 - before;
                before = *here as i64;
                put_varint(&mut packed, (delta << 1 ^ delta >> 63) as u64);
            }
        }
        let mut end = 0;
        for run in kept.chunk_by(|a, b| a.0 + 1 == b.0) {
            let mut span = Vec::new();
            // The offset is signed: encoded, it is doubled.
            put_number(&mut span, 1, (run[0].0 - end) as u64 * 2);
            put_number(&mut span, 2, run.len() as u64);
            put_bytes(out, 11, &span);
            end = run[0].0 + run.len();
        }
        if !packed.is_empty() {
            put_bytes(out, 12 + u8::from(is_float), &packed);
        }
        self.kept = kept.len();
        let bounds = self.buckets.iter().map(|bucket| bucket.0);
        let bounds: Vec<u8> = bounds
            .filter(|bound| bound.is_finite() || *bound < 0.0)
            .flat_map(f64::to_le_bytes)
            .collect();
        if !bounds.is_empty() {
            // Field 16: its key takes two bytes.
            put_varint(out, 16 << 3 | 2);
            put_varint(out, bounds.len() as u64);
            out.extend_from_slice(&bounds);
        }
        true
    }

    /// Fails if more than `most` buckets were written. 0 sets no limit.
    pub(crate) fn check(&self, most: usize) -> Result<(), String> {
        match most > 0 && self.kept > most {
            true => Err(format!(
                "a histogram has {} custom buckets: native_histogram_bucket_limit is {most}",
                self.kept
            )),
            false => Ok(()),
        }
    }

    /// The buckets with observations, each by its number, and runs of up to `most` empty ones between
    /// them.
    fn compact(&self, most: usize) -> Vec<(usize, f64)> {
        let mut kept: Vec<(usize, f64)> = Vec::with_capacity(self.buckets.len());
        let mut below = 0.0;
        for (number, (_, up_to)) in self.buckets.iter().enumerate() {
            let here = up_to - below;
            below = *up_to;
            if here == 0.0 {
                continue;
            }
            if let Some((last, _)) = kept.last().copied()
                && number - last <= most + 1
            {
                kept.extend((last + 1..number).map(|empty| (empty, 0.0)));
            }
            kept.push((number, here));
        }
        kept
    }
}

fn put_number(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(tag(field, VARINT));
    put_varint(out, number);
}

fn put_double(out: &mut Vec<u8>, field: u8, number: f64) {
    out.push(tag(field, FIXED64));
    out.extend_from_slice(&number.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use metrifold_codec::remote_write::messages::{Count, Histogram};
    use prost::Message;

    use super::*;

    fn converted(buckets: &[(f64, f64)], count: Option<f64>) -> Option<Histogram> {
        let mut counts = Counts::default();
        for (bound, up_to) in buckets {
            counts.bucket(*bound, *up_to);
        }
        if let Some(count) = count {
            counts.count(count);
        }
        counts.sum(7.5);
        let mut message = Vec::new();
        let encodes = counts.encode(&mut message);
        encodes.then(|| Histogram::decode(&*message).unwrap())
    }

    #[test]
    fn buckets_become_differences_between_bounds() {
        let infinity = f64::INFINITY;
        let histogram = converted(&[(1.0, 2.0), (2.5, 2.0), (infinity, 5.0)], Some(5.0)).unwrap();
        assert_eq!(histogram.count, Some(Count::Int(5)));
        assert_eq!((histogram.sum, histogram.schema), (7.5, -53));
        assert_eq!(histogram.positive_spans[0].length, 3);
        assert_eq!(histogram.positive_deltas, [2, -2, 3]);
        assert_eq!(histogram.custom_values, [1.0, 2.5]);
        // In any order, twice, without the last bucket, without a count.
        let same = [(2.5, 2.0), (1.0, 2.0), (2.5, 9.0)];
        assert_eq!(converted(&same, Some(5.0)), Some(histogram.clone()));
        let all = [(1.0, 2.0), (2.5, 2.0), (infinity, 5.0)];
        assert_eq!(converted(&all, None), Some(histogram));
        let floats = converted(&[(1.0, 0.5)], Some(2.0)).unwrap();
        assert_eq!(floats.count, Some(Count::Float(2.0)));
        assert_eq!(floats.positive_counts, [0.5, 1.5]);
        // Longer runs without observations are left out.
        let far = [
            (1.0, 1.0),
            (2.0, 1.0),
            (3.0, 1.0),
            (4.0, 1.0),
            (5.0, 2.0),
            (6.0, 2.0),
        ];
        let far = converted(&far, Some(2.0)).unwrap();
        let spans = far.positive_spans.iter();
        let spans: Vec<_> = spans.map(|span| (span.offset, span.length)).collect();
        assert_eq!(spans, [(0, 1), (3, 1)]);
        assert_eq!(
            (far.positive_deltas, far.custom_values.len()),
            (vec![1, 0], 6)
        );
        let only = converted(&[], Some(3.0)).unwrap();
        assert_eq!(
            (only.positive_deltas, only.custom_values),
            (vec![3], vec![])
        );
    }

    #[test]
    fn counts_that_contradict_each_other_are_no_histogram() {
        for (buckets, count) in [
            (&[(1.0, 2.0), (2.0, 1.0)][..], Some(2.0)),
            (&[(2.0, 1.0), (1.0, 2.0)], Some(2.0)),
            (&[(1.0, -1.0)], Some(2.0)),
            (&[(1.0, 2.0)], Some(1.0)),
            (&[(f64::INFINITY, 2.0)], Some(1.0)),
            (&[], Some(-1.0)),
            (&[], None),
        ] {
            assert_eq!(converted(buckets, count), None, "{buckets:?} {count:?}");
        }
    }
}
