//! Samples of a series, decoded for the few components that read values.

use prost::Message;

use metrifold_model::Version;

use crate::SeriesRef;
use crate::wire::{Fields, Value};

use super::messages::Histogram;

/// The bits of Prometheus' stale marker, which is one of the NaNs.
pub const STALE: u64 = 0x7ff0_0000_0000_0002;

impl<'a> SeriesRef<'a> {
    /// Values and timestamps of the float samples.
    pub fn samples(&self) -> impl Iterator<Item = (f64, i64)> + use<'a> {
        Fields::new(self.rest())
            .map_while(Result::ok)
            .filter(|field| field.number == 2)
            .filter_map(|field| field.bytes().ok())
            .map(|sample| {
                let (mut value, mut timestamp) = (0.0, 0);
                for field in Fields::new(sample).map_while(Result::ok) {
                    match (field.number, field.value) {
                        (1, Value::Fixed64(bits)) => value = f64::from_bits(bits),
                        (2, Value::Varint(number)) => timestamp = number as i64,
                        _ => {}
                    }
                }
                (value, timestamp)
            })
    }

    /// Timestamps of the native histograms.
    pub fn histogram_timestamps(&self) -> impl Iterator<Item = i64> + use<'a> {
        const TIMESTAMP: u32 = 15;
        self.encoded_histograms().map(|histogram| {
            let mut fields = Fields::new(histogram).map_while(Result::ok);
            let timestamp = fields.find(|field| field.number == TIMESTAMP);
            match timestamp.map(|field| field.value) {
                Some(Value::Varint(number)) => number as i64,
                _ => 0,
            }
        })
    }

    /// The native histograms that can be decoded; `None` for one whose encoding is longer than
    /// `most` bytes, since the decoded form of a bucket can take many times as much.
    pub fn histograms(&self, most: usize) -> impl Iterator<Item = Option<Histogram>> + use<'a> {
        self.encoded_histograms()
            .filter_map(move |encoded| match encoded.len() > most {
                true => Some(None),
                false => Histogram::decode(encoded).ok().map(Some),
            })
    }

    fn encoded_histograms(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let number = match self.version() {
            Version::V1 => 4,
            Version::V2 => 3,
        };
        Fields::new(self.rest())
            .map_while(Result::ok)
            .filter(move |field| field.number == number)
            .filter_map(|field| field.bytes().ok())
    }
}
