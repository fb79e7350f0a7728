//! Reduction of native histograms with too many or too narrow buckets to a coarser schema.

use metrifold_codec::wire::{VARINT, put_varint, tag};

use super::super::Fault;
use super::{COARSEST, Histogram, Side, read_span, to_zigzag};

impl Histogram<'_> {
    /// Coarsens the schema until it is no finer than `finest`. The counts must have been checked.
    pub(in super::super) fn coarsen(&mut self, finest: i32) -> Result<(), Fault> {
        while self.schema > finest.max(COARSEST) {
            self.halve()?;
        }
        Ok(())
    }

    /// Coarsens the schema until there are at most `buckets` buckets. 0 sets no limit. The counts
    /// must have been checked.
    pub(in super::super) fn limit(&mut self, buckets: usize) -> Result<(), Fault> {
        while buckets > 0 && self.negative.len() + self.positive.len() > buckets as u64 {
            if self.schema <= COARSEST {
                let found = self.negative.len() + self.positive.len();
                let text = format!(
                    "a histogram has {found} buckets in its coarsest schema: native_histogram_bucket_limit is {buckets}"
                );
                return Err(Fault::Text(text));
            }
            self.halve()?;
        }
        Ok(())
    }

    /// Takes the next coarser schema.
    fn halve(&mut self) -> Result<(), Fault> {
        let is_float = self.is_float();
        self.schema -= 1;
        self.negative.halve(is_float)?;
        self.positive.halve(is_float)
    }
}

impl Side<'_> {
    fn len(&self) -> u64 {
        self.length
    }

    /// Merges each two buckets that the next coarser schema does not distinguish.
    fn halve(&mut self, is_float: bool) -> Result<(), Fault> {
        if self.length == 0 {
            return Ok(());
        }
        let mut halved: Vec<(i64, f64, i64)> = Vec::with_capacity(self.length as usize);
        let (mut place, mut count) = (0i64, 0i64);
        let mut numbers = 0..;
        for span in &self.spans {
            let (offset, length) = read_span(span)?;
            place = place.saturating_add(offset);
            for _ in 0..length {
                let number = numbers.next().unwrap_or(usize::MAX);
                let float = self.counts.get(number).copied().unwrap_or_default();
                if !is_float {
                    count += self.deltas.get(number).copied().unwrap_or_default();
                }
                // A bucket is indexed by its upper bound, which may also be one of the coarser
                // schema.
                let coarser = ((place - 1) >> 1) + 1;
                match halved.last_mut() {
                    Some((last, floats, counts)) if *last == coarser => {
                        *floats += float;
                        *counts = counts.saturating_add(count);
                    }
                    _ => halved.push((coarser, float, count)),
                }
                place += 1;
            }
        }
        self.length = halved.len() as u64;
        self.spans.clear();
        let mut end = 0;
        for run in halved.chunk_by(|a, b| a.0 + 1 == b.0) {
            self.spans.push(span(run[0].0 - end, run.len()).into());
            end = run[0].0 + run.len() as i64;
        }
        if is_float {
            self.counts = halved.iter().map(|it| it.1).collect();
        } else {
            let mut before = 0;
            let deltas = halved
                .iter()
                .map(|it| it.2 - std::mem::replace(&mut before, it.2));
            self.deltas = deltas.collect();
        }
        Ok(())
    }
}

/// Encodes a span.
fn span(offset: i64, length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.push(tag(1, VARINT));
    put_varint(&mut out, to_zigzag(offset));
    out.push(tag(2, VARINT));
    put_varint(&mut out, length as u64);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(side: &Side<'_>) -> Vec<(i64, u32)> {
        side.spans
            .iter()
            .map(|span| read_span(span).unwrap())
            .collect()
    }

    #[test]
    fn buckets_are_merged_by_their_upper_bounds() {
        // At the indexes -1, 0, 1, 2 and 6.
        let mut side = Side {
            spans: vec![span(-1, 4).into(), span(3, 1).into()],
            length: 5,
            deltas: vec![1, 1, 1, 1, 1],
            ..Side::default()
        };
        side.halve(false).unwrap();
        // At the indexes 0 (from -1 and 0), 1 (from 1 and 2) and 3 (from 6).
        assert_eq!(spans(&side), [(0, 2), (1, 1)]);
        assert_eq!(side.deltas, [3, 4, -2]);
        side.halve(false).unwrap();
        assert_eq!(spans(&side), [(0, 3)]);
        assert_eq!(side.deltas, [3, 4, -2]);
        let mut side = Side {
            spans: vec![span(1, 2).into()],
            length: 2,
            counts: vec![0.5, 2.0],
            ..Side::default()
        };
        side.halve(true).unwrap();
        assert_eq!(spans(&side), [(1, 1)]);
        assert_eq!(side.counts, [2.5]);
    }

    #[test]
    fn a_histogram_that_stays_too_large_is_refused() {
        let side = || Side {
            spans: vec![span(0, 1).into(), span(40, 1).into()],
            length: 2,
            deltas: vec![1, 0],
            ..Side::default()
        };
        let histogram = |schema| Histogram {
            schema,
            positive: side(),
            ..Histogram::default()
        };
        let mut large = histogram(-4);
        let refused = large.limit(1).unwrap_err();
        assert!(format!("{refused:?}").contains("native_histogram_bucket_limit"));
        let mut fine = histogram(8);
        fine.limit(1).unwrap_err();
        let mut fine = histogram(8);
        fine.limit(2).unwrap();
        assert_eq!(fine.schema, 8);
    }

    #[test]
    fn a_schema_is_made_no_finer_than_asked() {
        let histogram = |schema| Histogram {
            schema,
            positive: Side {
                spans: vec![span(1, 4).into()],
                length: 4,
                deltas: vec![1, 0, 0, 0],
                ..Side::default()
            },
            ..Histogram::default()
        };
        for (schema, finest, expected, deltas) in [
            (3, 8, 3, vec![1, 0, 0, 0]),
            (3, 3, 3, vec![1, 0, 0, 0]),
            (3, 2, 2, vec![2, 0]),
            (3, 1, 1, vec![4]),
            (-4, -9, -4, vec![1, 0, 0, 0]),
        ] {
            let mut coarser = histogram(schema);
            coarser.coarsen(finest).unwrap();
            assert_eq!(
                (coarser.schema, &coarser.positive.deltas),
                (expected, &deltas)
            );
        }
    }
}
