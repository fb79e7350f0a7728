//! Values as users write them: durations, sizes, addresses, endpoints.

use std::fmt;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer, SeqAccess, Unexpected};

use crate::Secret;

/// A duration: a whole number with a unit, or several from large to small: `500ms`, `30s`, `5m`,
/// `1h30m`, `2d`, `1w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A size in bytes: a whole number with a unit, `512B`, `64KiB`, `32MiB`, `4GiB` (powers of 1024)
/// or `kB`, `MB`, `GB` (powers of 1000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Period {
    /// From seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// From milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl Size {
    /// From mebibytes.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// From kibibytes.
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// In bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }
}

const PERIOD_UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Splits off the leading number.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut rest = text;
            let mut units = PERIOD_UNITS.iter();
            let mut millis = 0u64;
            while !rest.is_empty() {
                let (count, behind) = number(rest)?;
                let end = behind
                    .find(|c: char| c.is_ascii_digit())
                    .unwrap_or(behind.len());
                // Units are taken from one iterator, so that each must be smaller than the one
                // before.
                let (_, unit) = units.find(|(name, _)| *name == &behind[..end])?;
                millis = millis.checked_add(count.checked_mul(*unit)?)?;
                rest = &behind[end..];
            }
            (!text.is_empty()).then_some(Self::millis(millis))
        };
        parse().ok_or_else(|| {
            format!("{text:?} is not a duration: write a whole number with a unit (ms, s, m, h, d, w), such as \"30s\" or \"1h30m\"")
        })
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (count, unit) = number(text)?;
            let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            count.checked_mul(*factor).map(Self)
        };
        parse().ok_or_else(|| {
            format!("{text:?} is not a size: write a whole number with a unit (B, KiB, MiB, GiB), such as \"64MiB\"")
        })
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis() as u64;
        if millis == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in PERIOD_UNITS {
            if millis >= unit {
                write!(f, "{}{name}", millis / unit)?;
                millis %= unit;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS[4..].iter().rev().chain(&SIZE_UNITS[..1]);
        for (name, unit) in binary {
            if self.0.is_multiple_of(*unit) && self.0 >= *unit {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "0B")
    }
}

/// Implements `Deserialize` by [`FromStr`]; a bare number gets the same error as bad text.
macro_rules! from_string {
    ($($type:ty, $expects:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expects)
                    }
                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_i64<E: Error>(self, number: i64) -> Result<$type, E> {
                        Err(E::invalid_type(Unexpected::Signed(number), &self))
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    )*};
}

from_string! {
    Period, "a duration in quotes, such as \"30s\"";
    Size, "a size in quotes, such as \"64MiB\"";
    Endpoint, "an http:// or https:// URL in quotes";
    Address, "an address in quotes, such as \"0.0.0.0:9201\"";
}

/// An address to listen on: `127.0.0.1:9201`, `[::1]:9201`, `localhost:9201` (which is
/// `127.0.0.1`) or `:9201` (which is `0.0.0.0`: all addresses of IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            if let Ok(address) = text.parse() {
                return Some(Self(address));
            }
            let (host, port) = text.rsplit_once(':')?;
            let host = match host {
                "" => Ipv4Addr::UNSPECIFIED,
                "localhost" => Ipv4Addr::LOCALHOST,
                _ => return None,
            };
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|_| digits)?;
            Some(Self(SocketAddr::from((host, port))))
        };
        parse().ok_or_else(|| {
            format!("{text:?} is not an address to listen on: write an IP address and a port, such as \"0.0.0.0:9201\", or \":9201\" for all addresses")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One value, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a list of such")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![T::deserialize(text.into_deserializer())?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(OneOrMany(values))
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

/// URL of an HTTP endpoint. Credentials in it are refused: they belong under `basic_auth`. Its
/// query may hold a secret and is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: http::Uri,
    /// Values of the query, held so that they stay registered as secrets while the URL is in use.
    query: Vec<Secret>,
}

impl Endpoint {
    /// The URL.
    pub fn uri(&self) -> &http::Uri {
        &self.uri
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// Errors do not quote the text, which may hold credentials.
    fn from_str(text: &str) -> Result<Self, String> {
        // First: the parser has other words for what is most often a URL without its scheme.
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !scheme
            .is_some_and(|it| it.eq_ignore_ascii_case("http") || it.eq_ignore_ascii_case("https"))
        {
            return Err("does not start with http:// or https://".to_owned());
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|error| format!("is not a URL: {error}"))?;
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        if authority.contains('@') {
            return Err(
                "URL holds credentials: write them under basic_auth or authorization, those of a proxy under proxy_basic_auth".into(),
            );
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        // `http` ignores an invalid port and would use the scheme's, so that another server got the
        // data.
        let port = authority.strip_prefix(host).unwrap_or_default();
        let is_port = |port: &str| {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            digits && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if port.strip_prefix(':').is_some_and(|port| !is_port(port)) {
            return Err("has no port from 1 to 65535".to_owned());
        }
        let query = uri.query().unwrap_or_default();
        let values = query.split('&').flat_map(|pair| {
            let value = pair.split_once('=').map_or(pair, |(_, value)| value);
            // Servers that echo it may have decoded it.
            [value.to_owned(), percent_decoded(value)].map(Secret::new)
        });
        Ok(Self {
            query: values.collect(),
            uri,
        })
    }
}

/// A value of a query as servers read it.
fn percent_decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, behind @ ..] = rest {
        let escaped = || {
            let digits = str::from_utf8(behind.get(..2)?).ok()?;
            u8::from_str_radix(digits, 16).ok()
        };
        let (byte, length) = match first {
            b'%' => escaped().map_or((b'%', 0), |byte| (byte, 2)),
            b'+' => (b' ', 0),
            other => (*other, 0),
        };
        bytes.push(byte);
        rest = &behind[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.uri.to_string();
        match whole.split_once('?') {
            Some((place, _)) => write!(f, "{place}?***"),
            None => f.write_str(&whole),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_print_as_they_are_written() {
        for text in ["0s", "500ms", "30s", "5m", "1h30m", "2d", "1w2d3h4m5s6ms"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["0B", "512B", "64KiB", "32MiB", "4GiB", "1TiB"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        assert_eq!("2MB".parse(), Ok(Size(2_000_000)));
    }

    #[test]
    fn what_is_no_duration_or_size_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "5m1h",
            "1s1s",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        for text in ["", "64", "MiB", "64mib", "-1B", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_may_leave_the_host_out_or_call_it_localhost() {
        for (text, address) in [
            ("127.0.0.1:9201", "127.0.0.1:9201"),
            ("[::1]:9201", "[::1]:9201"),
            (":9201", "0.0.0.0:9201"),
            ("localhost:9201", "127.0.0.1:9201"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), address);
        }
        for text in [
            "",
            "9201",
            "localhost",
            ":",
            ":+1",
            ":65536",
            "example.org:80",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.contains("write an IP address and a port"), "{error}");
        }
    }

    #[test]
    fn endpoints_need_a_scheme_and_a_host_and_hold_no_credentials() {
        assert!(
            "http://thanos:19291/api/v1/receive"
                .parse::<Endpoint>()
                .is_ok()
        );
        for text in ["thanos:19291", "ftp://x/", "/x", "http://u:p@x/", "http://"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
        for (port, is_port) in [
            (":1", true),
            (":65535", true),
            ("", true),
            (":", false),
            (":0", false),
            (":65536", false),
            (":99999", false),
            (":123456789012", false),
            (":+80", false),
            (":80a", false),
        ] {
            for host in ["thanos", "127.0.0.1", "[::1]"] {
                let text = format!("https://{host}{port}/api");
                assert_eq!(text.parse::<Endpoint>().is_ok(), is_port, "{text}");
            }
        }
        for text in [
            "thanos:19291/api",
            "thanos/api",
            "",
            "/x",
            "ftp://x/",
            "://x",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error, "does not start with http:// or https://", "{text}");
        }
        assert!("HTTP://thanos/api".parse::<Endpoint>().is_ok());
        let error = "http://u:topsecret@x/".parse::<Endpoint>().unwrap_err();
        assert!(!error.contains("topsecret"));
        let escaped: Endpoint = "http://x/a?token=top%2Fsec%2Bret+%zz%".parse().unwrap();
        for told in ["got top%2Fsec%2Bret+%zz%", "got top/sec+ret %zz%."] {
            assert!(crate::scrub(told).starts_with("got ***"), "{told}");
        }
        drop(escaped);
        let endpoint: Endpoint = "http://x/a?token=topsecret&b".parse().unwrap();
        assert_eq!(
            format!("{endpoint} {endpoint:?}"),
            "http://x/a?*** http://x/a?***"
        );
        assert_eq!(crate::scrub("no topsecret here"), "no topsecret here");
        assert_eq!(crate::foreign("no topsecret here", 99), "no *** here");
    }
}
