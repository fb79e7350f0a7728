//! A compressed 1.0 body whose values can be replaced without compressing it again.
//!
//! Most pages of a scraped target differ from the one before in values alone. Each value lies in a
//! literal of its own, which no copy refers to; the timestamp lies in the first series' literal, and
//! is a copy in the others. So a new body is a copy of the old one with 8 bytes per series replaced.
//! Zeros are written as well, although protobuf leaves them out: their place is needed.

use bytes::Bytes;

use metrifold_model::{SeriesCounts, Version};

use crate::Arena;
use crate::snappy::{self, REACH};
use crate::wire::{FIXED64, LEN, VARINT, put_varint, tag, varint, varint_len};

use super::decode::{DecodeError, Limits, decode};
use super::structure_v1::Structure;

/// Bytes of a value with its tag.
const VALUE: usize = 9;

/// A compressed body of 1.0 in which every series has one sample, all of one time.
#[derive(Debug)]
pub struct Template {
    /// Elements of the body, without its header.
    elements: Box<[u8]>,
    /// Length of the uncompressed body.
    len: usize,
    /// For each series, the distance of its value from the end of the one before, as a varint.
    values: Box<[u8]>,
    /// Place of the timestamp in the elements, and the length of its varint.
    timestamp: usize,
    timestamp_len: usize,
    series: usize,
}

impl Template {
    /// The template of a decoded batch without its metadata, for timestamps as long as this one, in
    /// milliseconds. `None` unless every series has one sample and nothing else.
    pub fn new(arena: &Arena, timestamp: i64) -> Option<Self> {
        let one_sample = SeriesCounts {
            samples: 1,
            ..SeriesCounts::default()
        };
        let fits = arena.version == Version::V1
            && arena.iter().next().is_some()
            && arena.iter().all(|series| series.counts() == one_sample);
        if !fits {
            return None;
        }
        let timestamp_len = varint_len(timestamp as u64);
        let sample = VALUE + 1 + timestamp_len;
        let mut head = vec![tag(2, LEN), sample as u8, tag(1, FIXED64)];
        head.resize(head.len() + size_of::<f64>(), 0);
        let mut tail = vec![tag(2, VARINT)];
        put_varint(&mut tail, timestamp as u64);
        let mut structure = Structure::default();
        structure.restart();
        let (mut values, mut after) = (Vec::new(), 0);
        let (mut first, mut before, mut series) = (0, None, 0);
        let mut reaches = true;
        structure.labels_with(arena, 2 + sample, |out| {
            let place = match before {
                None => {
                    let place = out.apart(&[&head[..], &tail].concat());
                    first = place + head.len() + 1;
                    place
                }
                Some(_) => out.apart(&head),
            };
            put_varint(
                &mut values,
                (place + head.len() - size_of::<f64>() - after) as u64,
            );
            after = place + head.len();
            let end = match before {
                None => out.position(),
                Some(before) => {
                    let end = out.position() + tail.len();
                    reaches &= end - before <= REACH;
                    if reaches {
                        out.copy(end - before, tail.len());
                    }
                    end
                }
            };
            before = Some(end);
            series += 1;
        });
        let body = structure.out.finish();
        reaches.then(|| Self {
            elements: snappy::elements(&body).into(),
            len: structure.out.position(),
            values: values.into(),
            timestamp: first,
            timestamp_len,
            series,
        })
    }

    /// Number of series.
    pub fn series(&self) -> usize {
        self.series
    }

    /// The series, each with a sample that means nothing.
    ///
    /// # Errors
    ///
    /// Never fails: what was encoded here can be decoded.
    pub fn decode(&self) -> Result<Arena, DecodeError> {
        decode(Version::V1, &self.body(), &Limits::ACCEPTED).map(|(arena, _)| arena)
    }

    fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(varint_len(self.len as u64) + self.elements.len());
        put_varint(&mut body, self.len as u64);
        body.extend_from_slice(&self.elements);
        body
    }

    /// Starts a body with this timestamp, in milliseconds. `None` if it takes other bytes than those
    /// that the template has for it.
    pub fn fill(&self, timestamp: i64) -> Option<Filling<'_>> {
        let mut text = Vec::with_capacity(10);
        put_varint(&mut text, timestamp as u64);
        if text.len() != self.timestamp_len {
            return None;
        }
        let mut body = self.body();
        let start = body.len() - self.elements.len();
        let place = body.get_mut(start + self.timestamp..)?;
        place.get_mut(..text.len())?.copy_from_slice(&text);
        Some(Filling {
            template: self,
            body,
            at: start,
            next: 0,
        })
    }
}

/// A body whose values are being written.
#[derive(Debug)]
pub struct Filling<'a> {
    template: &'a Template,
    body: Vec<u8>,
    /// End of the last value in the body.
    at: usize,
    /// Start of the next value's distance.
    next: usize,
}

impl Filling<'_> {
    /// Writes the value of the next series. `None` if there is none.
    #[inline]
    pub fn put(&mut self, value: f64) -> Option<()> {
        let values = &self.template.values;
        let distance = match *values.get(self.next)? {
            short @ 0..0x80 => {
                self.next += 1;
                usize::from(short)
            }
            _ => varint(values, &mut self.next).ok()? as usize,
        };
        let place = self.body.get_mut(self.at + distance..)?;
        *place.first_chunk_mut()? = value.to_le_bytes();
        self.at += distance + size_of::<f64>();
        Some(())
    }

    /// The body. `None` if a series lacks its value.
    pub fn finish(self) -> Option<Bytes> {
        (self.next == self.template.values.len()).then(|| self.body.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Fields;
    use crate::{ArenaBuilder, Name};

    const TIME: i64 = 1_700_000_000_000;

    /// A batch with these labels, of which the first is the name, and these samples per series.
    fn batch(series: &[Vec<(String, String)>], samples: usize) -> Arena {
        let mut builder = ArenaBuilder::new(Limits::ACCEPTED);
        for labels in series {
            builder.start_series();
            for (name, value) in labels {
                builder.push_label(name, value);
            }
            for _ in 0..samples {
                builder.push_sample(0.0, TIME);
            }
            builder.finish_series().unwrap();
        }
        builder.finish()
    }

    fn labels(arena: &Arena) -> Vec<Vec<(Vec<u8>, Vec<u8>)>> {
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        arena
            .iter()
            .map(|series| series.labels().map(owned).collect())
            .collect()
    }

    /// Values and timestamps of a body, and the batch itself.
    fn read(body: &[u8]) -> (Vec<(u64, i64)>, Arena) {
        let (arena, invalid) = decode(Version::V1, body, &Limits::ACCEPTED).unwrap();
        assert_eq!(invalid.series(), 0);
        let points = arena.iter().map(|series| {
            let fields: Vec<_> = Fields::new(series.rest()).map(Result::unwrap).collect();
            assert_eq!(fields.len(), 1);
            let sample = fields[0].bytes().unwrap();
            let value = sample[1..][..8].try_into().unwrap();
            let time = varint(sample, &mut 10).unwrap();
            (u64::from_le_bytes(value), time as i64)
        });
        (points.collect(), arena)
    }

    fn series() -> impl Strategy<Value = Vec<(String, String)>> {
        let value = prop_oneof![
            6 => "[a-z]{1,12}",
            2 => "[a-z]{100,300}",
            1 => Just("x".repeat(9000)),
        ];
        let others = prop::collection::btree_map("[a-c]{1,2}", value, 0..5);
        ("m_[a-c]{1,3}", others).prop_map(|(name, others)| {
            let named = ("__name__".to_owned(), name);
            std::iter::once(named).chain(others).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_filled_body_has_the_labels_of_its_template_and_the_given_values(
            series in prop::collection::vec(series(), 1..60),
            values in prop::collection::vec(any::<u64>(), 60),
            later in 0i64..100_000_000,
            drop in any::<u64>(),
        ) {
            let mut arena = batch(&series, 1);
            // Edits leave labels outside of the encoded entries, and series out.
            let mut bits = drop;
            arena.retain(|series| {
                bits = bits.rotate_right(3);
                if bits & 3 == 1 {
                    series.set(&Name::new("bb"), b"edited");
                }
                bits & 7 != 2
            });
            prop_assume!(arena.iter().next().is_some());
            let template = Template::new(&arena, TIME).unwrap();
            let mut filling = template.fill(TIME + later).unwrap();
            let values = &values[..template.series()];
            for value in values {
                filling.put(f64::from_bits(*value)).unwrap();
            }
            prop_assert!(filling.put(0.0).is_none());
            let body = filling.finish().unwrap();
            let (points, filled) = read(&body);
            let expected: Vec<_> = values.iter().map(|value| (*value, TIME + later)).collect();
            prop_assert_eq!(points, expected);
            prop_assert_eq!(labels(&filled), labels(&arena));
            prop_assert_eq!(labels(&template.decode().unwrap()), labels(&arena));
        }
    }

    #[test]
    fn a_template_needs_one_sample_per_series_timestamps_of_one_length_and_every_value() {
        let named = |text: &str| vec![("__name__".to_owned(), text.to_owned())];
        let two = [named("a"), named("b")];
        assert!(Template::new(&batch(&two, 2), TIME).is_none());
        assert!(Template::new(&batch(&[], 1), TIME).is_none());
        // A copy of the timestamp cannot reach back over so long a series.
        let long = [named("a"), named(&"b".repeat(REACH))];
        assert!(Template::new(&batch(&long, 1), TIME).is_none());
        let template = Template::new(&batch(&two, 1), TIME).unwrap();
        assert!(template.fill(1).is_none());
        let mut filling = template.fill(TIME).unwrap();
        filling.put(1.0).unwrap();
        assert!(filling.finish().is_none());
    }
}
