//! Negotiates the version of the text format with a scraper.
//!
//! Source: <https://prometheus.io/docs/instrumenting/content_negotiation/>.

use http::HeaderValue;

use metrifold_codec::text::Escaping;

/// Version and escaping of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Whether the version is 1.0.0, in which names may be quoted.
    quotes: bool,
    pub(super) escaping: Escaping,
}

impl Format {
    /// Without a preference: version 0.0.4, names escaped with underscores.
    const CLASSIC: Self = Self {
        quotes: false,
        escaping: Escaping::Underscores,
    };

    /// The best form that all `Accept` headers of a request allow.
    pub(super) fn negotiate<'a>(accept: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let values = accept.into_iter().filter_map(|value| value.to_str().ok());
        let entries = values.flat_map(|value| value.split(','));
        let mut best: Option<(u16, Self)> = None;
        for (quality, format) in entries.filter_map(Self::entry) {
            // Equal quality: the first entry wins.
            if quality > best.map_or(0, |(quality, _)| quality) {
                best = Some((quality, format));
            }
        }
        best.map_or(Self::CLASSIC, |(_, format)| format)
    }

    /// An entry of `Accept` that can be served, with its quality in thousandths.
    fn entry(entry: &str) -> Option<(u16, Self)> {
        let mut parts = entry.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("text/plain") {
            return None;
        }
        let (mut format, mut quality) = (Self::CLASSIC, 1000);
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "version" if value == "1.0.0" => format.quotes = true,
                "version" if value != "0.0.4" => return None,
                "escaping" => {
                    // An unknown scheme means the default.
                    format.escaping = Escaping::from_parameter(value).unwrap_or_default();
                }
                "q" => {
                    let liked: f32 = value.parse().ok()?;
                    quality = (liked.clamp(0.0, 1.0) * 1000.0) as u16;
                }
                _ => {}
            }
        }
        if !format.quotes && format.escaping == Escaping::AllowUtf8 {
            // Version 0.0.4 has no quoted names.
            format.escaping = Escaping::Underscores;
        }
        Some((quality, format))
    }

    pub(super) fn content_type(self) -> HeaderValue {
        let text = match (self.quotes, self.escaping) {
            (false, Escaping::Underscores | Escaping::AllowUtf8) => {
                "text/plain; version=0.0.4; charset=utf-8"
            }
            (false, Escaping::Dots) => "text/plain; version=0.0.4; charset=utf-8; escaping=dots",
            (false, Escaping::Values) => {
                "text/plain; version=0.0.4; charset=utf-8; escaping=values"
            }
            (true, Escaping::AllowUtf8) => {
                "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (true, Escaping::Underscores) => {
                "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            (true, Escaping::Dots) => "text/plain; version=1.0.0; charset=utf-8; escaping=dots",
            (true, Escaping::Values) => "text/plain; version=1.0.0; charset=utf-8; escaping=values",
        };
        HeaderValue::from_static(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_that_the_scraper_likes_best_is_chosen() {
        let f = |accept: &str, version: &str, escaping: Escaping| {
            let format = Format::negotiate([&HeaderValue::from_str(accept).unwrap()]);
            assert_eq!(format.escaping, escaping, "{accept}");
            let content_type = format.content_type();
            let content_type = content_type.to_str().unwrap();
            assert!(content_type.contains(version), "{accept}: {content_type}");
        };
        // Prometheus 3.
        let three = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,\
            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        f(three, "1.0.0", Escaping::AllowUtf8);
        // Prometheus 2, and a browser.
        let two = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
        f(two, "0.0.4", Escaping::Underscores);
        f("text/html,*/*;q=0.8", "0.0.4", Escaping::Underscores);
        f(
            "text/plain; version=1.0.0; escaping=dots; q=0.2, text/plain; version=1.0.0; escaping=values",
            "1.0.0",
            Escaping::Values,
        );
        f(
            "text/plain;version=1.0.0;escaping=new",
            "1.0.0",
            Escaping::Underscores,
        );
        f(
            "text/plain;version=0.0.4;escaping=allow-utf-8",
            "0.0.4",
            Escaping::Underscores,
        );
        f(
            "text/plain;version=9, text/plain;q=0",
            "0.0.4",
            Escaping::Underscores,
        );
    }
}
