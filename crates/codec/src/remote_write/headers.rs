//! HTTP headers of remote write.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use metrifold_model::{Counts, Version};

/// The protocol's version header.
pub const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
/// Response header: number of samples of a 2.0 request that were written.
pub const SAMPLES_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-samples-written");
/// Response header: number of histograms of a 2.0 request that were written.
pub const HISTOGRAMS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-histograms-written");
/// Response header: number of exemplars of a 2.0 request that were written.
pub const EXEMPLARS_WRITTEN: HeaderName =
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written");

/// Why a request cannot be understood: answered with 415.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NegotiationError {
    /// The content type is not one of remote write's.
    #[error(
        "content type {0:?} is not supported: send application/x-protobuf with proto=prometheus.WriteRequest or proto=io.prometheus.write.v2.Request"
    )]
    Type(String),
    /// The content encoding is not snappy.
    #[error("content encoding {encoding:?} is not supported: send snappy (block format)")]
    Encoding {
        /// The version that the content type tells.
        version: Version,
        /// The content encoding.
        encoding: String,
    },
}

impl NegotiationError {
    /// The version of the request, if its content type is one of remote write's.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Type(_) => None,
            Self::Encoding { version, .. } => Some(*version),
        }
    }
}

/// The version in which a request is encoded. Missing headers mean 1.0 and snappy, as in
/// Prometheus.
///
/// # Errors
///
/// Fails when the content type or the encoding is not one of remote write's.
pub fn negotiate(headers: &HeaderMap) -> Result<Version, NegotiationError> {
    let version = version(headers)?;
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !is_snappy(encoding) => {
            let encoding = text(encoding);
            Err(NegotiationError::Encoding { version, encoding })
        }
        _ => Ok(version),
    }
}

fn is_snappy(encoding: &HeaderValue) -> bool {
    let encoding = encoding.as_bytes().trim_ascii();
    encoding.eq_ignore_ascii_case(b"snappy")
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The version that the content type tells.
fn version(headers: &HeaderMap) -> Result<Version, NegotiationError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(Version::V1);
    };
    let value = text(value);
    let mut parts = value.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    if !media.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(NegotiationError::Type(value));
    }
    let mut version = Version::V1;
    for parameter in parts {
        let Some((key, message)) = parameter.split_once('=') else {
            continue;
        };
        if !key.trim().eq_ignore_ascii_case("proto") {
            continue;
        }
        version = match message.trim().trim_matches('"') {
            "prometheus.WriteRequest" => Version::V1,
            "io.prometheus.write.v2.Request" => Version::V2,
            _ => return Err(NegotiationError::Type(value)),
        };
    }
    Ok(version)
}

/// Content type of a request. Thanos compares that of 2.0 byte by byte.
pub fn content_type(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::V1 => "application/x-protobuf",
        Version::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
    })
}

/// Version header of a request.
pub fn version_value(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::V1 => "0.1.0",
        Version::V2 => "2.0.0",
    })
}

/// Numbers that a receiver reports as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

impl From<Counts> for Written {
    fn from(counts: Counts) -> Self {
        Self {
            samples: counts.samples,
            histograms: counts.histograms,
            exemplars: counts.exemplars,
        }
    }
}

impl Written {
    /// Reads the headers of a response; None if it has none of them.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let number = |name: &HeaderName| -> Option<u64> {
            headers.get(name)?.to_str().ok()?.trim().parse().ok()
        };
        let written = [
            number(&SAMPLES_WRITTEN),
            number(&HISTOGRAMS_WRITTEN),
            number(&EXEMPLARS_WRITTEN),
        ];
        written.iter().any(Option::is_some).then(|| Self {
            samples: written[0].unwrap_or(0),
            histograms: written[1].unwrap_or(0),
            exemplars: written[2].unwrap_or(0),
        })
    }

    /// Adds the headers to a response.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(SAMPLES_WRITTEN, self.samples.into());
        headers.insert(HISTOGRAMS_WRITTEN, self.histograms.into());
        headers.insert(EXEMPLARS_WRITTEN, self.exemplars.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: Option<&str>, encoding: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = content_type {
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
        }
        if let Some(value) = encoding {
            headers.insert(CONTENT_ENCODING, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn versions_are_told_by_the_content_type() {
        let f = |content_type, expected| {
            let headers = request(content_type, Some("snappy"));
            assert_eq!(negotiate(&headers).ok(), expected, "{content_type:?}");
        };
        f(None, Some(Version::V1));
        f(Some("application/x-protobuf"), Some(Version::V1));
        f(
            Some("application/x-protobuf;proto=prometheus.WriteRequest"),
            Some(Version::V1),
        );
        f(
            Some("application/x-protobuf;proto=io.prometheus.write.v2.Request"),
            Some(Version::V2),
        );
        f(
            Some("Application/X-Protobuf; charset=utf-8; proto=\"io.prometheus.write.v2.Request\""),
            Some(Version::V2),
        );
        f(Some("application/x-protobuf;proto=other.Message"), None);
        f(Some("application/json"), None);
        f(Some(""), None);
    }

    #[test]
    fn only_snappy_is_an_encoding() {
        assert!(negotiate(&request(None, None)).is_ok());
        assert!(negotiate(&request(None, Some("Snappy"))).is_ok());
        for other in ["gzip", "zstd", "snappy, gzip", ""] {
            let error = negotiate(&request(None, Some(other))).unwrap_err();
            assert_eq!(error.version(), Some(Version::V1), "{other}");
        }
    }

    #[test]
    fn written_headers_round_trip_and_their_absence_is_seen() {
        let mut headers = HeaderMap::new();
        assert_eq!(Written::read(&headers), None);
        let written = Written {
            samples: 3,
            histograms: 0,
            exemplars: 7,
        };
        written.write(&mut headers);
        assert_eq!(Written::read(&headers), Some(written));
    }
}
