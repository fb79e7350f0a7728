//! Counts the content of a body without reading its labels, for batches that no component decodes.
//! Series count whether they are valid or not, since all of them are sent.

use metrifold_model::{Counts, SeriesCounts, Version};

use crate::wire;
use crate::wire::{LEN, Parts, WireError, tag};

use super::decode::{DecodeError, Decoder, Limits};

/// Decompresses a body and counts its content.
///
/// # Errors
///
/// Fails when the body as a whole is malformed or exceeds a limit.
pub fn count(version: Version, body: &[u8], limits: &Limits) -> Result<Counts, DecodeError> {
    let raw = Decoder::decompress(body, limits)?;
    let counted = match version {
        Version::V1 => message(raw.as_slice(), &V1, limits),
        Version::V2 => message(raw.as_slice(), &V2, limits),
    };
    counted.map_err(DecodeError::walk(version, limits))
}

/// Tags of the fields that are counted.
struct Tags {
    series: u8,
    metadata: Option<u8>,
    sample: u8,
    histogram: u8,
    exemplar: u8,
}

const V1: Tags = Tags {
    series: tag(1, LEN),
    metadata: Some(tag(3, LEN)),
    sample: tag(2, LEN),
    histogram: tag(4, LEN),
    exemplar: tag(3, LEN),
};

const V2: Tags = Tags {
    series: tag(5, LEN),
    metadata: None,
    sample: tag(2, LEN),
    histogram: tag(3, LEN),
    exemplar: tag(4, LEN),
};

fn message(buf: &[u8], tags: &Tags, limits: &Limits) -> Result<Counts, WireError> {
    let most = limits.series as u64;
    let mut counts = Counts::default();
    let mut pos = 0;
    while pos < buf.len() {
        let tag = buf[pos];
        let end = field(buf, &mut pos)?;
        if tag == tags.series {
            if counts.series >= most {
                return Err(WireError::TooMany(Parts::Series));
            }
            counts.add(series(&buf[..end], pos, tags)?);
        } else if Some(tag) == tags.metadata {
            if counts.metadata >= most {
                return Err(WireError::TooMany(Parts::Metadata));
            }
            counts.metadata += 1;
        }
        pos = end;
    }
    Ok(counts)
}

#[inline(always)]
fn series(buf: &[u8], start: usize, tags: &Tags) -> Result<SeriesCounts, WireError> {
    let mut counts = SeriesCounts::default();
    let mut pos = start;
    while pos < buf.len() {
        let tag = buf[pos];
        let end = field(buf, &mut pos)?;
        counts.samples += u32::from(tag == tags.sample);
        counts.histograms += u32::from(tag == tags.histogram);
        counts.exemplars += u32::from(tag == tags.exemplar);
        pos = end;
    }
    Ok(counts)
}

/// Moves to the start of a field's value, past its length if it has one. Returns the value's end.
#[inline(always)]
fn field(buf: &[u8], pos: &mut usize) -> Result<usize, WireError> {
    // Fast path for all counted fields: length-delimited, with a number from 1 to 15.
    if matches!(buf[*pos], 8..0x80) && buf[*pos] & 7 == LEN {
        *pos += 1;
        return wire::length(buf, pos);
    }
    let key = wire::key(buf, pos)?;
    let mut end = *pos;
    wire::skip(buf, &mut end, (key & 7) as u8)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::super::tests::{snappy, v1_request, v2_request};
    use super::super::{decode, rewrite};
    use super::*;

    /// The decoder's counts, if the whole body is valid.
    fn decoded(version: Version, body: &[u8]) -> Option<Counts> {
        let (arena, invalid) = decode(version, body, &Limits::ACCEPTED).ok()?;
        (invalid.series() == 0).then(|| arena.counts())
    }

    fn counted(version: Version, body: &[u8]) -> Option<Counts> {
        count(version, body, &Limits::ACCEPTED).ok()
    }

    proptest! {
        #[test]
        fn what_is_counted_in_1_0_is_what_the_decoder_finds(request in v1_request()) {
            let body = snappy(&request.encode_to_vec());
            let found = decoded(Version::V1, &body);
            prop_assert!(found.is_some());
            prop_assert_eq!(counted(Version::V1, &body), found);
        }

        #[test]
        fn what_is_counted_in_2_0_is_what_the_decoder_finds(request in v2_request()) {
            let body = snappy(&request.encode_to_vec());
            let found = decoded(Version::V2, &body);
            prop_assert!(found.is_some());
            let samples = |counts: Counts| counts.all_samples();
            prop_assert_eq!(counted(Version::V2, &body).map(samples), found.map(samples));
        }

        #[test]
        fn a_damaged_message_is_counted_as_it_is_decoded(
            request in v1_request(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = request.encode_to_vec();
            prop_assume!(!bytes.is_empty());
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(1 + cut.index(bytes.len()));
            let body = snappy(&bytes);
            if let Some(found) = decoded(Version::V1, &body) {
                prop_assert_eq!(counted(Version::V1, &body), Some(found));
            }
        }
    }

    #[test]
    fn no_walk_goes_on_behind_the_most_parts_that_are_allowed() {
        let limits = Limits {
            series: 10,
            ..Limits::default()
        };
        // Empty fields take two bytes each, so that a small body holds millions.
        let of = |number: u8, count: usize| snappy(&[tag(number, LEN), 0].repeat(count));
        let too_many = |parts| DecodeError::TooMany {
            parts,
            limit: limits.most(parts),
        };
        for (version, number, parts) in [
            (Version::V1, 1, Parts::Series),
            (Version::V1, 3, Parts::Metadata),
            (Version::V2, 5, Parts::Series),
            (Version::V2, 4, Parts::Symbols),
        ] {
            let most = limits.most(parts);
            let (fits, more) = (of(number, most), of(number, most + 1));
            assert!(decode(version, &fits, &limits).is_ok(), "{parts}");
            assert_eq!(
                decode(version, &more, &limits).unwrap_err(),
                too_many(parts)
            );
            if parts != Parts::Symbols {
                assert!(count(version, &fits, &limits).is_ok());
                assert_eq!(count(version, &more, &limits).unwrap_err(), too_many(parts));
            }
            let rewrite = |body| rewrite(version, body, &limits, |_| true).map(drop);
            assert!(rewrite(&fits).is_ok());
            assert_eq!(rewrite(&more).unwrap_err(), too_many(parts));
        }
    }

    #[test]
    fn series_that_are_invalid_count_because_they_are_sent() {
        // A series without labels, with two samples.
        let body = snappy(&[0x0a, 4, 0x12, 0, 0x12, 0]);
        assert_eq!(decoded(Version::V1, &body), None);
        let counts = counted(Version::V1, &body).unwrap();
        assert_eq!((counts.series, counts.samples), (1, 2));
    }
}
