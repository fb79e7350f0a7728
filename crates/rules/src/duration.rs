//! Durations in Prometheus' notation: `1h30m`, with units from years to milliseconds, each at most once
//! and in falling order. They are never negative, and at most about 292 years.

use std::fmt;
use std::str::FromStr;

/// Units and their lengths in milliseconds, in the order of a duration's text.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
/// The longest duration: Prometheus holds it as nanoseconds in 63 bits.
const MAX_MILLIS: u64 = (i64::MAX / 1_000_000) as u64;

/// A duration in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PromDuration(u64);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text is not a list of numbers with units.
    #[error("{0:?} is no duration: write a number and a unit, as in 30s, 5m or 1h30m")]
    Malformed(String),
    /// The text has an unknown unit.
    #[error("unknown unit {0:?} in a duration: use y, w, d, h, m, s or ms")]
    Unit(String),
    /// Units are repeated, or not in falling order.
    #[error("units of {0:?} are not in falling order: write them from y to ms, each once")]
    Order(String),
    /// The duration exceeds the maximum.
    #[error("{0:?} is longer than 292 years: use a shorter duration")]
    TooLong(String),
}

impl PromDuration {
    /// Creates a duration from milliseconds; `None` if Prometheus cannot represent it.
    pub fn from_millis(millis: u64) -> Option<Self> {
        (millis <= MAX_MILLIS).then_some(Self(millis))
    }

    /// The number of milliseconds.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// Whether the duration is zero, which for most keys is the same as unset.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for PromDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let malformed = || DurationError::Malformed(text.to_owned());
        if text == "0" {
            return Ok(Self(0));
        }
        if text.is_empty() {
            return Err(malformed());
        }
        let too_long = || DurationError::TooLong(text.to_owned());
        let (mut rest, mut millis, mut units) = (text, 0u64, &UNITS[..]);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            if number.is_empty() {
                return Err(malformed());
            }
            let letters = tail
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            if unit.is_empty() {
                return Err(malformed());
            }
            let Some(factor) = UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(DurationError::Unit(unit.to_owned()));
            };
            let Some(place) = units.iter().position(|(name, _)| *name == unit) else {
                return Err(DurationError::Order(text.to_owned()));
            };
            units = &units[place + 1..];
            // The text has only digits, so parsing fails only if it exceeds 64 bits.
            let number: u64 = number.parse().map_err(|_| too_long())?;
            millis = number
                .checked_mul(factor.1)
                .and_then(|part| millis.checked_add(part))
                .filter(|sum| *sum <= MAX_MILLIS)
                .ok_or_else(too_long)?;
            rest = tail;
        }
        Ok(Self(millis))
    }
}

impl fmt::Display for PromDuration {
    /// Writes the duration as Prometheus does: years and weeks only if nothing remains.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, millis) in UNITS {
            if matches!(unit, "y" | "w") && !rest.is_multiple_of(millis) {
                continue;
            }
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_writes_reads_back() {
        for text in [
            "0s",
            "1ms",
            "1s5ms",
            "1m30s",
            "1h30m",
            "90d",
            "12w",
            "1y",
            "1d1h1m1s1ms",
            "2w",
        ] {
            let duration: PromDuration = text.parse().unwrap();
            assert_eq!(duration.to_string(), text);
        }
        assert_eq!("90m".parse::<PromDuration>().unwrap().to_string(), "1h30m");
        assert_eq!("8d".parse::<PromDuration>().unwrap().to_string(), "8d");
        assert!("0".parse::<PromDuration>().unwrap().is_zero());
    }

    #[test]
    fn errors_say_which_part_is_wrong() {
        let error = |text: &str| text.parse::<PromDuration>().unwrap_err();
        for text in ["", "5", "m", "-1m", " 1m", "1"] {
            assert!(matches!(error(text), DurationError::Malformed(_)), "{text}");
        }
        assert_eq!(error("1M"), DurationError::Unit("M".into()));
        assert_eq!(error("1.5h"), DurationError::Unit(".".into()));
        for text in ["1m1h", "1m1m", "1ms1s"] {
            assert!(matches!(error(text), DurationError::Order(_)), "{text}");
        }
        for text in ["300y", "99999999999999999999s", "106752d"] {
            assert!(matches!(error(text), DurationError::TooLong(_)), "{text}");
        }
    }

    #[test]
    fn any_number_of_milliseconds_survives_writing_and_reading() {
        use proptest::prelude::*;
        proptest!(|(millis in 0..=MAX_MILLIS)| {
            let duration = PromDuration::from_millis(millis).unwrap();
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        });
        assert_eq!(PromDuration::from_millis(MAX_MILLIS + 1), None);
    }
}
