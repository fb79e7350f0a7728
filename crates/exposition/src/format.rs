//! Formats of pages, the `Accept` header that asks for them, and the `Content-Type` that names one.

use std::fmt::Write as _;

use thiserror::Error;

/// A format, as far as parsing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text 0.0.4 or 1.0.0.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Delimited messages `io.prometheus.client.MetricFamily`.
    Protobuf,
}

/// Formats in the `Accept` header, under the names of Prometheus' configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Delimited protobuf.
    PrometheusProto,
    /// Text 0.0.4.
    PrometheusText0_0_4,
    /// Text 1.0.0.
    PrometheusText1_0_0,
    /// OpenMetrics 0.0.1.
    OpenMetricsText0_0_1,
    /// OpenMetrics 1.0.0.
    OpenMetricsText1_0_0,
}

/// How targets escape names beyond the classic characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escaping {
    /// No escaping: names in quotes.
    #[default]
    AllowUtf8,
    /// An underscore for each character that is not classic.
    Underscores,
    /// `_dot_` for a dot, and two underscores for an underscore.
    Dots,
    /// The code of each such character.
    Values,
}

/// An `Accept` header.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    /// The formats, in the order of preference.
    pub protocols: &'a [Protocol],
    /// The escaping of names.
    pub escaping: Escaping,
}

/// Fault of a `Content-Type` that names no known format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContentTypeError {
    /// The header is missing or empty.
    #[error("the answer has no Content-Type")]
    Blank,
    /// The header names something else.
    #[error("the answer's Content-Type {0:?} is no format of metrics")]
    Unsupported(String),
}

impl Protocol {
    /// Every protocol, in Prometheus' order of preference.
    pub const ALL: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// Protocols that are requested by default.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// Protocols that are requested by default for what protobuf alone has, such as native
    /// histograms.
    pub const NATIVE: [Self; 5] = Self::ALL;

    fn media_type(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// Whether its pages may have quoted names, so that an escaping has to be negotiated.
    fn quotes(self) -> bool {
        matches!(self, Self::PrometheusText1_0_0 | Self::OpenMetricsText1_0_0)
    }

    /// Format of its pages.
    pub fn format(self) -> Format {
        match self {
            Self::PrometheusProto => Format::Protobuf,
            Self::PrometheusText0_0_4 | Self::PrometheusText1_0_0 => Format::Text,
            Self::OpenMetricsText0_0_1 | Self::OpenMetricsText1_0_0 => Format::OpenMetrics,
        }
    }
}

impl Escaping {
    fn as_str(self) -> &'static str {
        match self {
            Self::AllowUtf8 => "allow-utf-8",
            Self::Underscores => "underscores",
            Self::Dots => "dots",
            Self::Values => "values",
        }
    }
}

impl Accept<'_> {
    /// The header's value, as Prometheus writes it.
    pub fn value(&self) -> String {
        let mut value = String::new();
        let mut weight = Protocol::ALL.len() + 2;
        for protocol in self.protocols {
            value.push_str(protocol.media_type());
            // Writing to a string cannot fail.
            if protocol.quotes() {
                let _ = write!(value, ";escaping={}", self.escaping.as_str());
            }
            let _ = write!(value, ";q=0.{weight},");
            weight -= 1;
        }
        let _ = write!(value, "*/*;q=0.{weight}");
        value
    }
}

impl Format {
    /// Reads a `Content-Type`.
    ///
    /// # Errors
    ///
    /// Fails when it is missing or names no known format.
    pub fn of(content_type: Option<&str>) -> Result<Self, ContentTypeError> {
        let content_type = content_type.map(str::trim).unwrap_or_default();
        if content_type.is_empty() {
            return Err(ContentTypeError::Blank);
        }
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let is = |known: &str| media_type.eq_ignore_ascii_case(known);
        if is("text/plain") {
            Ok(Self::Text)
        } else if is("application/openmetrics-text") {
            Ok(Self::OpenMetrics)
        } else if is("application/vnd.google.protobuf") {
            Ok(Self::Protobuf)
        } else {
            let shown = content_type.chars().take(100).collect();
            Err(ContentTypeError::Unsupported(shown))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_prometheus_asks_for() {
        let accept = Accept {
            protocols: &Protocol::DEFAULT,
            escaping: Escaping::AllowUtf8,
        };
        assert_eq!(
            accept.value(),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.7,\
             application/openmetrics-text;version=0.0.1;q=0.6,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             text/plain;version=0.0.4;q=0.4,*/*;q=0.3"
        );
    }

    #[test]
    fn a_content_type_is_read_leniently_and_never_guessed() {
        for (text, format) in [
            ("text/plain", Format::Text),
            (" Text/Plain ; charset=utf-8;;", Format::Text),
            (
                "application/openmetrics-text; version=1.0.0",
                Format::OpenMetrics,
            ),
            ("application/vnd.google.protobuf; proto=x", Format::Protobuf),
        ] {
            assert_eq!(Format::of(Some(text)), Ok(format), "{text}");
        }
        assert_eq!(Format::of(None), Err(ContentTypeError::Blank));
        assert_eq!(Format::of(Some(" ")), Err(ContentTypeError::Blank));
        for other in ["text/html", "application/json", "text/plainer"] {
            let error = Err(ContentTypeError::Unsupported(other.to_owned()));
            assert_eq!(Format::of(Some(other)), error);
        }
    }
}
