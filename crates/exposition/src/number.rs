//! Numbers as Go reads and writes them.

/// Prometheus' canonical NaN, which differs from its staleness marker.
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;

/// Reads a value of a page of text, as Go does: a finite literal beyond the range of a float is none.
pub fn value(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    // Fast path for short integers, which most samples are.
    if bytes.len() <= 15 && !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) {
        let digits = bytes.iter();
        let number = digits.fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        return Some(number as f64);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value: f64 = text.parse().ok()?;
    if value.is_nan() {
        // Go accepts no sign before NaN.
        return (unsigned.len() == text.len()).then_some(f64::from_bits(NORMAL_NAN));
    }
    let named = unsigned.starts_with(['i', 'I']);
    (value.is_finite() || named).then_some(value)
}

/// Reads the bound of a bucket, in which Go also accepts underscores between digits.
pub(crate) fn bound(text: &str) -> Option<f64> {
    if !text.contains('_') {
        return value(text);
    }
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = text.as_bytes();
    let between =
        |at: usize| is_digit(bytes.get(at.wrapping_sub(1))) && is_digit(bytes.get(at + 1));
    let all = text.match_indices('_').all(|(at, _)| between(at));
    match all {
        true => value(&text.replace('_', "")),
        false => None,
    }
}

/// Reads a timestamp of OpenMetrics, which is in seconds, as milliseconds.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    let seconds = value(text).filter(|seconds| seconds.is_finite())?;
    let milliseconds = seconds * 1000.0;
    // Go's conversion on amd64 turns a value out of range into the smallest integer.
    let in_range =
        milliseconds > -9.223_372_036_854_776e18 && milliseconds < 9.223_372_036_854_776e18;
    Some(match in_range {
        true => milliseconds as i64,
        false => i64::MIN,
    })
}

/// Writes a number in OpenMetrics' canonical form for `le` and `quantile`: the shortest form, with
/// an exponent from 1e6 on and below 1e-4, and never without a point or an exponent.
pub(crate) fn put_canonical(out: &mut String, value: f64) {
    use std::fmt::Write as _;
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        return;
    }
    if value == 0.0 {
        out.push_str("0.0");
        return;
    }
    let magnitude = value.abs();
    let start = out.len();
    // Writing to a string cannot fail.
    if (1e-4..1e6).contains(&magnitude) {
        let _ = write!(out, "{value}");
        if !out[start..].contains('.') {
            out.push_str(".0");
        }
        return;
    }
    let _ = write!(out, "{value:e}");
    if let Some(at) = out[start..].find('e') {
        let exponent = out.split_off(start + at + 1);
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent.as_str()),
        };
        out.push(sign);
        if digits.len() < 2 {
            out.push('0');
        }
        out.push_str(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_by_go() {
        for (text, expected) in [
            ("1", 1.0),
            ("+1", 1.0),
            ("-.5", -0.5),
            ("1.", 1.0),
            ("1e3", 1000.0),
            ("1E-400", 0.0),
            ("inf", f64::INFINITY),
            ("+Inf", f64::INFINITY),
            ("-INFINITY", f64::NEG_INFINITY),
            ("123456789012345", 123_456_789_012_345.0),
            ("18446744073709551615", 1.844_674_407_370_955_2e19),
        ] {
            assert_eq!(value(text), Some(expected), "{text}");
        }
        assert_eq!(value("NaN").map(f64::to_bits), Some(NORMAL_NAN));
        for wrong in [
            "", "+", ".", "e5", "1e", "1_0", "0x1", "+nan", "-NaN", "1e400", " 1", "1 ",
        ] {
            assert_eq!(value(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn bounds_of_buckets_are_written_as_openmetrics_wants_them() {
        for (value, expected) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-1.0, "-1.0"),
            (0.005, "0.005"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            let mut out = "x".to_owned();
            put_canonical(&mut out, value);
            assert_eq!(out[1..], *expected);
        }
    }
}
