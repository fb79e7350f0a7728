//! The subset of protobuf's wire format that remote write needs: varints, tags, length prefixes.
//!
//! All functions work on offsets into one buffer, never allocate, never panic on foreign bytes, and
//! do not recurse. Source: <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;

/// The fault that makes bytes no valid protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A length or a field reaches past the end of its message.
    Truncated,
    /// A varint of more than ten bytes.
    Varint,
    /// A wire type that does not exist, or a group.
    WireType(u8),
    /// A field's key is longer than it needs to be, or has an impossible field number.
    Key,
    /// A known field has the wrong wire type.
    Field(u32),
    /// A string that is not UTF-8.
    Utf8,
    /// The first symbol is not the empty string.
    FirstSymbol,
    /// Well-formed, but with more parts of one kind than are allowed.
    TooMany(Parts),
    /// Well-formed, but with more bytes than are allowed once every reference is replaced by its text.
    Expands,
    /// Well-formed, but with more bytes in that form than there is memory for at the moment.
    NoRoom,
}

/// Kinds of parts whose number in a request is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Time series.
    Series,
    /// Entries of metadata.
    Metadata,
    /// Entries of the table of symbols.
    Symbols,
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Series => "series",
            Self::Metadata => "entries of metadata",
            Self::Symbols => "symbols",
        })
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "message is truncated"),
            Self::Varint => write!(f, "varint is longer than ten bytes"),
            Self::WireType(t) => write!(f, "wire type {t} is not supported"),
            Self::Key => write!(f, "key of a field is not valid"),
            Self::Field(n) => write!(f, "field {n} has the wrong wire type"),
            Self::Utf8 => write!(f, "string is not valid UTF-8"),
            Self::FirstSymbol => write!(f, "first symbol is not the empty string"),
            Self::TooMany(parts) => write!(f, "too many {parts}"),
            Self::NoRoom => f.write_str("memory is short"),
            Self::Expands => write!(
                f,
                "labels, exemplars and metadata take too many bytes when written out"
            ),
        }
    }
}

impl std::error::Error for WireError {}

/// Wire type: a varint.
pub const VARINT: u8 = 0;
/// Wire type: eight bytes.
pub const FIXED64: u8 = 1;
/// Wire type: a length and that many bytes.
pub(crate) const LEN: u8 = 2;
/// Wire type: four bytes.
pub(crate) const FIXED32: u8 = 5;

/// Tag of a field with a number below 16, which is one byte.
pub const fn tag(field: u8, wire_type: u8) -> u8 {
    field << 3 | wire_type
}

/// Reads a varint at `*pos` and moves past it.
#[inline(always)]
pub fn varint(buf: &[u8], pos: &mut usize) -> Result<u64, WireError> {
    match buf.get(*pos) {
        Some(&b) if b < 0x80 => {
            *pos += 1;
            Ok(u64::from(b))
        }
        Some(&low) => match buf.get(*pos + 1) {
            Some(&high) if high < 0x80 => {
                *pos += 2;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => varint_long(buf, pos),
        },
        None => Err(WireError::Truncated),
    }
}

#[cold]
fn varint_long(buf: &[u8], pos: &mut usize) -> Result<u64, WireError> {
    let mut value = 0u64;
    for shift in 0..10 {
        let b = *buf.get(*pos).ok_or(WireError::Truncated)?;
        *pos += 1;
        value |= u64::from(b & 0x7f) << (7 * shift);
        if b < 0x80 {
            return Ok(value);
        }
    }
    Err(WireError::Varint)
}

/// Reads the key of a field at `*pos`: its number and its wire type.
///
/// Only the minimal encoding of a key is accepted. Other decoders read a longer one as the same
/// field, and some drop upper bits of the number: a label with such a key would be visible to an
/// endpoint, but hidden from code that finds labels by their first byte.
pub fn key(buf: &[u8], pos: &mut usize) -> Result<u64, WireError> {
    const NUMBER_MAX: u64 = (1 << 29) - 1;
    let start = *pos;
    let key = varint(buf, pos)?;
    let shortest = *pos - start == varint_len(key);
    if shortest && (1..=NUMBER_MAX).contains(&(key >> 3)) {
        Ok(key)
    } else {
        Err(WireError::Key)
    }
}

/// Reads a length prefix at `*pos`; returns the end of the content, which is within `buf`.
#[inline(always)]
pub fn length(buf: &[u8], pos: &mut usize) -> Result<usize, WireError> {
    let len = varint(buf, pos)?;
    let left = (buf.len() - *pos) as u64;
    if len > left {
        return Err(WireError::Truncated);
    }
    Ok(*pos + len as usize)
}

/// Moves past the value of a field whose tag has been read.
pub fn skip(buf: &[u8], pos: &mut usize, wire_type: u8) -> Result<(), WireError> {
    let end = match wire_type {
        VARINT => {
            varint(buf, pos)?;
            return Ok(());
        }
        FIXED64 => *pos + 8,
        FIXED32 => *pos + 4,
        LEN => length(buf, pos)?,
        other => return Err(WireError::WireType(other)),
    };
    if end > buf.len() {
        return Err(WireError::Truncated);
    }
    *pos = end;
    Ok(())
}

/// Encoded length of `value` as a varint.
#[inline(always)]
pub(crate) const fn varint_len(value: u64) -> usize {
    if value < 0x80 {
        1
    } else {
        (70 - (value | 1).leading_zeros() as usize) / 7
    }
}

/// Appends `value` as a varint.
#[inline(always)]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Length of the common prefix of two texts, in bytes, at most `most`.
#[inline(always)]
pub(crate) fn common_prefix(a: &[u8], b: &[u8], most: usize) -> usize {
    let mut len = 0;
    for (a, b) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0) {
        let differs = u128::from_le_bytes(*a) ^ u128::from_le_bytes(*b);
        if differs != 0 {
            return most.min(len + differs.trailing_zeros() as usize / 8);
        }
        len += 16;
        if len >= most {
            return most;
        }
    }
    let tail = a[len..].iter().zip(&b[len..]);
    most.min(len + tail.take_while(|(a, b)| a == b).count())
}

/// Appends a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(tag(field, LEN));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// One field of a message, as [`Fields`] yields it.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// The field's number.
    pub number: u32,
    /// The field with its tag, for copying unchanged.
    pub whole: &'a [u8],
    /// The decoded value.
    pub value: Value<'a>,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A varint.
    Varint(u64),
    /// Eight bytes, little endian.
    Fixed64(u64),
    /// Four bytes, little endian.
    Fixed32(u32),
    /// Bytes, a string, a message or packed numbers.
    Len(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Content of a length-delimited field.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Len(bytes) => Ok(bytes),
            _ => Err(WireError::Field(self.number)),
        }
    }

    /// Value of a varint field.
    pub fn number(&self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(v) => Ok(v),
            _ => Err(WireError::Field(self.number)),
        }
    }
}

/// Iterates over the fields of a message; ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    buf: &'a [u8],
    pos: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message in `buf`.
    pub fn new(buf: &'a [u8]) -> Self {
        Self { buf, pos: 0 }
    }

    fn read(&mut self) -> Result<Field<'a>, WireError> {
        let start = self.pos;
        let key = key(self.buf, &mut self.pos)?;
        let number = u32::try_from(key >> 3).map_err(|_| WireError::Key)?;
        let at = self.pos;
        let wire_type = (key & 7) as u8;
        let value = match wire_type {
            VARINT => Value::Varint(varint(self.buf, &mut self.pos)?),
            LEN => {
                let end = length(self.buf, &mut self.pos)?;
                let bytes = &self.buf[self.pos..end];
                self.pos = end;
                Value::Len(bytes)
            }
            FIXED64 => Value::Fixed64(u64::from_le_bytes(self.array(at)?)),
            FIXED32 => Value::Fixed32(u32::from_le_bytes(self.array(at)?)),
            other => return Err(WireError::WireType(other)),
        };
        Ok(Field {
            number,
            whole: &self.buf[start..self.pos],
            value,
        })
    }

    fn array<const N: usize>(&mut self, at: usize) -> Result<[u8; N], WireError> {
        let bytes = self.buf.get(at..at + N).ok_or(WireError::Truncated)?;
        self.pos = at + N;
        bytes.try_into().map_err(|_| WireError::Truncated)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pos >= self.buf.len() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.pos = self.buf.len();
        }
        Some(field)
    }
}

/// Numbers of a packed field of varints.
pub fn packed(buf: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> + '_ {
    let mut pos = 0;
    std::iter::from_fn(move || {
        (pos < buf.len()).then(|| varint(buf, &mut pos).inspect_err(|_| pos = buf.len()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut pos = 0;
            prop_assert_eq!(varint(&out, &mut pos), Ok(value));
            prop_assert_eq!(pos, out.len());
        }

        #[test]
        fn foreign_bytes_never_panic_and_fields_stay_inside(bytes: Vec<u8>) {
            let mut total = 0;
            for field in Fields::new(&bytes).flatten() {
                total += field.whole.len();
            }
            prop_assert!(total <= bytes.len());
        }
    }

    #[test]
    fn a_key_has_one_spelling_and_a_number() {
        assert_eq!(key(&[0x0a], &mut 0), Ok(0x0a));
        assert_eq!(
            key(&[0xfa, 0xff, 0xff, 0xff, 0x0f], &mut 0),
            Ok(0xffff_fffa)
        );
        for bytes in [
            &[0x8a, 0x00][..],
            &[0x8a, 0x80, 0x80, 0x00],
            // The key of field 1 in 32 bits, with the field number's upper bits cut off.
            &[0x8a, 0x80, 0x80, 0x80, 0x80, 0x01],
            &[0x02],
            &[0x00],
        ] {
            assert_eq!(key(bytes, &mut 0), Err(WireError::Key), "{bytes:?}");
        }
        assert_eq!(key(&[], &mut 0), Err(WireError::Truncated));
    }

    #[test]
    fn varints_of_one_to_three_bytes_round_trip_and_are_refused_when_cut() {
        for value in (0..1 << 10).chain((1 << 14) - 9..(1 << 14) + 9) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut pos = 0;
            assert_eq!((varint(&out, &mut pos), pos), (Ok(value), out.len()));
            out.pop();
            assert_eq!(varint(&out, &mut 0), Err(WireError::Truncated), "{value}");
        }
        // A varint longer than needed is valid, as for other decoders.
        assert_eq!(varint(&[0x81, 0x00], &mut 0), Ok(1));
    }

    #[test]
    fn a_varint_of_eleven_bytes_is_refused() {
        assert_eq!(varint(&[0xff; 11], &mut 0), Err(WireError::Varint));
        assert_eq!(varint(&[0xff; 3], &mut 0), Err(WireError::Truncated));
    }
}
