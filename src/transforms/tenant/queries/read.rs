//! Remote read: a matcher is added to each query of a request.
//!
//! Source: `prompb/remote.proto` and `prompb/types.proto` of Prometheus.

use snap::raw::Encoder;

use metrifold_codec::snappy;

/// `ReadRequest.queries`.
const QUERIES: u64 = 1;
/// `ReadRequest.accepted_response_types`.
const RESPONSE_TYPES: u64 = 2;
/// `Query.start_timestamp_ms` and `Query.end_timestamp_ms`.
const TIMES: [u64; 2] = [1, 2];
/// `Query.matchers`.
const MATCHERS: u64 = 3;
/// `Query.hints`.
const HINTS: u64 = 4;
/// `LabelMatcher.Type` of a regular expression.
const REGEX: u8 = 2;

/// Narrows every query of a request to series whose label matches a regular expression.
///
/// An equality is not safe, even for a single value: a Prometheus removes an equality matcher on
/// one of its external labels, and then returns series with any value.
pub(super) fn narrow(
    sent: &[u8],
    label: &str,
    pattern: &str,
    most: usize,
) -> Result<Vec<u8>, String> {
    let length = snappy::declared_len(sent, most).map_err(|error| error.to_string())?;
    let mut plain = vec![0; length];
    snappy::decompress(sent, &mut plain).map_err(|error| error.to_string())?;
    let mut matcher = Vec::new();
    matcher.extend([1 << 3, REGEX]);
    put(&mut matcher, 2, label.as_bytes());
    put(&mut matcher, 3, pattern.as_bytes());
    let narrowed = request(&plain, &matcher);
    let narrowed = narrowed.ok_or("body is not a remote-read request of a known form")?;
    Encoder::new()
        .compress_vec(&narrowed)
        .map_err(|error| format!("body cannot be compressed: {error}"))
}

fn request(plain: &[u8], matcher: &[u8]) -> Option<Vec<u8>> {
    let mut narrowed = Vec::with_capacity(plain.len() + matcher.len() + 64);
    let mut rest = plain;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (QUERIES, Value::Bytes(query)) => {
                check(query)?;
                let mut query = query.to_vec();
                put(&mut query, MATCHERS, matcher);
                put(&mut narrowed, QUERIES, &query);
            }
            (RESPONSE_TYPES, Value::Number(number)) => {
                varint(&mut narrowed, RESPONSE_TYPES << 3);
                varint(&mut narrowed, number);
            }
            (RESPONSE_TYPES, Value::Bytes(packed)) => put(&mut narrowed, RESPONSE_TYPES, packed),
            _ => return None,
        }
    }
    Some(narrowed)
}

/// Checks that a query has known fields only: an unknown one might select more series.
fn check(mut query: &[u8]) -> Option<()> {
    while !query.is_empty() {
        match field(&mut query)? {
            (number, Value::Number(_)) if TIMES.contains(&number) => {}
            (MATCHERS | HINTS, Value::Bytes(_)) => {}
            _ => return None,
        }
    }
    Some(())
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes the next field from the front: number and value.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = number(rest)?;
    let value = match key & 7 {
        0 => Value::Number(number(rest)?),
        2 => {
            let length = usize::try_from(number(rest)?).ok()?;
            let (value, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            Value::Bytes(value)
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        *rest = behind;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
