//! Decompression. Nearly all elements are copied with a fixed width that exceeds their length:
//! later elements overwrite the excess. Near the ends, and where a copy overlaps its own output,
//! bytes are counted.

use super::SnappyError;

/// Widths of fast copies: most elements yield at most `NARROW` bytes, and all others except long
/// literals at most `WIDE`.
const NARROW: usize = 16;
const WIDE: usize = 64;
/// Longest literal whose length fits in its tag.
const LITERAL: usize = 60;

/// Decoded tag of a copy.
#[derive(Clone, Copy)]
struct Copy {
    /// Mask of the offset's bits in the two bytes after the tag.
    mask: u16,
    /// Upper bits of the offset, if the tag holds them.
    high: u16,
    len: u8,
    /// Length of the element.
    size: u8,
}

/// Copies by tag; the entries of literal tags are unused.
const COPIES: [Copy; 256] = {
    let mut copies = [Copy {
        mask: 0,
        high: 0,
        len: 0,
        size: 1,
    }; 256];
    let mut tag = 0;
    while tag < 256 {
        let copy = &mut copies[tag];
        copy.len = 1 + (tag >> 2) as u8;
        (copy.mask, copy.size) = match tag & 3 {
            1 => (0xff, 2),
            2 => (0xffff, 3),
            _ => (0, 5),
        };
        if tag & 3 == 1 {
            copy.len = 4 + (tag >> 2 & 7) as u8;
            copy.high = (tag as u16 >> 5) << 8;
        }
        tag += 1;
    }
    copies
};

/// Decompresses elements into a buffer, which they must fill exactly.
pub(super) fn decompress(src: &[u8], out: &mut [u8]) -> Result<(), SnappyError> {
    let (mut s, mut d) = (0, 0);
    loop {
        (s, d) = fast(src, out, s, d);
        if s == src.len() {
            break;
        }
        (s, d) = any(src, out, s, d)?;
    }
    if d == out.len() {
        Ok(())
    } else {
        Err(corrupt("body is shorter than declared"))
    }
}

/// Continues from two positions as long as elements can be copied at fixed width; returns the
/// positions at which it stopped.
#[inline(always)]
fn fast(src: &[u8], out: &mut [u8], mut s: usize, mut d: usize) -> (usize, usize) {
    while let Some(next) = src
        .get(s..)
        .and_then(|rest| rest.first_chunk::<{ WIDE + 1 }>())
    {
        let [tag, rest @ ..] = next;
        let Some((before, to)) = out.split_at_mut_checked(d) else {
            break;
        };
        let Some(to) = to.first_chunk_mut::<WIDE>() else {
            break;
        };
        if tag & 3 == 0 {
            let len = usize::from(tag >> 2) + 1;
            if len > LITERAL {
                break;
            }
            *to = *rest;
            (s, d) = (s + 1 + len, d + len);
            continue;
        }
        if tag & 3 == 3 {
            break; // an offset of 32 bits, which no encoder needs
        }
        let copy = COPIES[usize::from(*tag)];
        let low = u16::from_le_bytes([rest[0], rest[1]]) & copy.mask;
        let offset = usize::from(copy.high | low);
        let from = before.get(d.wrapping_sub(offset)..).unwrap_or_default();
        if let Some(from) = from.first_chunk::<WIDE>() {
            *to = *from;
        } else if let Some(from) = from.first_chunk::<NARROW>()
            && usize::from(copy.len) <= NARROW
        {
            to[..NARROW].copy_from_slice(from);
        } else {
            break;
        }
        // Not `size` from the table: the next tag has to wait for this.
        (s, d) = (s + 1 + usize::from(tag & 3), d + usize::from(copy.len));
    }
    (s, d)
}

/// Decodes one element of any kind; at least its tag is present.
fn any(src: &[u8], out: &mut [u8], s: usize, d: usize) -> Result<(usize, usize), SnappyError> {
    let tag = src[s];
    if tag & 3 == 0 {
        let (mut start, mut len) = (s + 1, usize::from(tag >> 2) + 1);
        if let Some(bytes) = len.checked_sub(60).filter(|bytes| *bytes > 0) {
            let Some(bytes) = src.get(start..start + bytes) else {
                return Err(corrupt("a literal has no length"));
            };
            start += bytes.len();
            let low_first = bytes.iter().rev();
            len = low_first.fold(0, |len, byte| len << 8 | usize::from(*byte)) + 1;
        }
        let (Some(from), Some(to)) = (src.get(start..start + len), out.get_mut(d..d + len)) else {
            return Err(corrupt("a literal reaches past the end"));
        };
        to.copy_from_slice(from);
        return Ok((start + len, d + len));
    }
    let copy = COPIES[usize::from(tag)];
    let end = s + usize::from(copy.size);
    let Some(bytes) = src.get(s + 1..end) else {
        return Err(corrupt("a copy has no offset"));
    };
    let low_first = bytes.iter().rev();
    let low = low_first.fold(0, |low, byte| low << 8 | usize::from(*byte));
    let offset = usize::from(copy.high) | low;
    if offset == 0 || offset > d {
        return Err(corrupt("a copy reaches back before the start"));
    }
    let len = usize::from(copy.len);
    if out.len() - d < len {
        return Err(corrupt("a copy reaches past the end"));
    }
    if len <= offset {
        out.copy_within(d - offset..d - offset + len, d);
    } else {
        for at in d..d + len {
            out[at] = out[at - offset];
        }
    }
    Ok((end, d + len))
}

#[cold]
fn corrupt(what: &str) -> SnappyError {
    SnappyError::Corrupt(what.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{declared_len, decompress};
    use crate::wire;

    /// Largest length that a damaged block may declare in these tests.
    const MOST: usize = 1 << 16;

    /// An element in one of its encodings, valid at its place or not.
    fn element() -> impl Strategy<Value = Vec<u8>> {
        let literal = prop::collection::vec(any::<u8>(), 1..300);
        let literal = (literal, 0usize..4).prop_map(|(text, spelling)| {
            let len = text.len() - 1;
            let bytes = match len {
                0..60 if spelling == 0 => 0,
                0..256 => spelling.max(1),
                _ => spelling.max(2),
            };
            let tag = if bytes == 0 { len } else { 59 + bytes };
            let mut element = vec![(tag as u8) << 2];
            element.extend(&(len as u32).to_le_bytes()[..bytes]);
            element.extend(text);
            element
        });
        // Offsets around all bounds, mostly within the text written so far.
        let offset = prop_oneof![0u32..20, 55u32..70, 0u32..400, Just(1 << 20)];
        let copy = (0u8..64, offset, 1u8..4).prop_map(|(len, offset, kind)| {
            let low = offset.to_le_bytes();
            match kind {
                1 => vec![((offset >> 8) as u8 % 8) << 5 | (len % 8) << 2 | 1, low[0]],
                2 => vec![len << 2 | 2, low[0], low[1]],
                _ => [&[len << 2 | 3], &low[..]].concat(),
            }
        });
        prop_oneof![2 => literal, 3 => copy]
    }

    fn by_snap(body: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        let written = snap::raw::Decoder::new().decompress(body, &mut out).ok()?;
        (written == len).then_some(out)
    }

    fn by_us(body: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![1; len];
        decompress(body, &mut out).ok()?;
        Some(out)
    }

    fn with_header(len: usize, elements: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        wire::put_varint(&mut body, len as u64);
        body.extend_from_slice(elements);
        body
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn elements_of_all_kinds_yield_what_another_decoder_makes_of_them(
            elements in prop::collection::vec(element(), 0..40),
            missing in 0usize..3,
        ) {
            // Leaves out elements that reach back too far, except sometimes the last one.
            let (mut kept, mut len) = (Vec::new(), 0);
            for element in &elements {
                let next = [&kept[..], element].concat();
                let yields = (1..300).find(|more| by_snap(&with_header(len + more, &next), len + more).is_some());
                if let Some(more) = yields {
                    (kept, len) = (next, len + more);
                }
            }
            let body = with_header(len, &kept);
            prop_assert_eq!(by_us(&body, len), by_snap(&body, len));
            prop_assert!(by_us(&body, len).is_some() || len == 0);
            for len in [len + 1, len.saturating_sub(missing)] {
                let body = with_header(len, &kept);
                prop_assert_eq!(by_us(&body, len), by_snap(&body, len));
            }
        }

        #[test]
        fn damaged_blocks_are_refused_by_both_or_read_alike(
            elements in prop::collection::vec(element(), 1..12),
            len in 0usize..2_000,
            cut: prop::sample::Index,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut body = with_header(len, &elements.concat());
            for (place, byte) in damage {
                let place = place.index(body.len());
                body[place] = byte;
            }
            body.truncate(cut.index(body.len()) + 1);
            if let Ok(len) = declared_len(&body, MOST) {
                prop_assert_eq!(by_us(&body, len), by_snap(&body, len));
            }
        }

        #[test]
        fn text_comes_back(
            words in prop::collection::vec("[a-d]{1,70}", 0..200),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..2_000),
        ) {
            let pick = |index: &prop::sample::Index| words.get(index.index(words.len().max(1)));
            let text: Vec<u8> = picks.iter().filter_map(pick).flat_map(|word| word.bytes()).collect();
            let body = snap::raw::Encoder::new().compress_vec(&text).unwrap();
            prop_assert_eq!(by_us(&body, text.len()), Some(text));
        }
    }
}
