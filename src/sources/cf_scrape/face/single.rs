//! `/singleTargetMetrics`: one instance, scraped on request.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use metrifold_http::{Request, Response, answer};
use metrifold_scrape::{Candidate, Format, Merged};

use super::catalogue::Catalogue;
use super::{Face, Failed, TEXT, page};

/// Promregator's metrics about a scrape.
pub(super) const UP: &str = "promregator_up";
pub(super) const UP_HELP: &str = "Whether the instance was scraped.";
const DURATION: &str = "promregator_scrape_duration_seconds";
const DURATION_HELP: &str = "How long the scrape of the instance took.";

impl Face {
    pub(super) async fn single(self: &Arc<Self>, request: Request) -> Response {
        let deadline = self.deadline(&request);
        let accept = request.headers.get(ACCEPT).cloned();
        let through = self.through(&request);
        let catalogue = self.catalogue().await;
        let candidate = asked(&catalogue, &request);
        // Released early: they are not needed while the scrape runs.
        drop((request, catalogue));
        let page = match candidate {
            Ok(candidate) => self.one(&candidate, accept, through, deadline).await,
            Err(failed) => Err(failed),
        };
        page.unwrap_or_else(|Failed(status, text)| answer::text(status, &text))
    }

    /// The page of an instance: unchanged, or rewritten if rules apply to it.
    async fn one(
        &self,
        candidate: &Candidate,
        accept: Option<HeaderValue>,
        through: HeaderValue,
        deadline: Instant,
    ) -> Result<Response, Failed> {
        let scrapes = &self.parts.scrapes;
        let rewrites = scrapes.has_rules(candidate);
        let accept = match rewrites {
            true => Some(TEXT),
            false => accept,
        };
        let started = Instant::now();
        let found = self.scrape(candidate, accept, through, deadline).await?;
        let seconds = started.elapsed().as_secs_f64();
        if rewrites {
            let mut merged = Merged::default();
            scrapes.merge(candidate, &[], &found, &mut merged)?;
            merged.push(UP, UP_HELP, &[], 1.0);
            merged.push(DURATION, DURATION_HELP, &[], seconds);
            return Ok(page(TEXT, merged.finish().into()));
        }
        let text = report(found.format(), found.text(), seconds)?;
        Ok(page(
            content_type(found.format(), found.content_type()),
            text,
        ))
    }
}

/// The instance that a request names.
fn asked(catalogue: &Catalogue, request: &Request) -> Result<Candidate, Failed> {
    let param = |name: &str| request.param(name).unwrap_or_default();
    let (app, number) = (param("app"), param("instance"));
    let failed = |status, text: &str| Failed(status, text.to_owned());
    let is_guid = |it: u8| matches!(it, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if app.is_empty() || !app.bytes().all(is_guid) {
        let text = "Invalid Application Id provided";
        return Err(failed(StatusCode::BAD_REQUEST, text));
    }
    if number.parse::<u32>().is_err() {
        let text = "Invalid Instance Number provided";
        return Err(failed(StatusCode::BAD_REQUEST, text));
    }
    let entry = catalogue
        .find(app, number, request.param("which"))
        .ok_or_else(|| failed(StatusCode::NOT_FOUND, "there is no such instance"))?;
    let candidate = entry.candidate.clone();
    candidate.map_err(|reason| Failed(StatusCode::BAD_GATEWAY, reason))
}

/// Content-Type of a page: the original where it names the format that the page was taken for.
fn content_type(format: Format, original: Option<&HeaderValue>) -> HeaderValue {
    let named = original.filter(|it| {
        let text = it.to_str().ok();
        text.is_some_and(|text| Format::of(Some(text)) == Ok(format))
    });
    named.cloned().unwrap_or_else(|| fallback(format))
}

/// Content-Type for a page that came without a known one.
fn fallback(format: Format) -> HeaderValue {
    match format {
        Format::Text => TEXT,
        Format::OpenMetrics => {
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8")
        }
        Format::Protobuf => HeaderValue::from_static(
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
        ),
    }
}

/// Appends Promregator's metrics about a scrape, if the format is text. Fails for a page that breaks
/// off: with an end of ours, it would pass for a whole one.
fn report(format: Format, text: &Bytes, seconds: f64) -> Result<Bytes, Failed> {
    let body = match format {
        Format::Protobuf => return Ok(text.clone()),
        Format::OpenMetrics => without_end(text).ok_or_else(|| {
            let text = "the page breaks off: it does not end with # EOF".to_owned();
            Failed(StatusCode::BAD_GATEWAY, text)
        })?,
        Format::Text => &text[..],
    };
    let mut out = Vec::with_capacity(text.len() + 256);
    out.extend_from_slice(body);
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.push(b'\n');
    }
    for (name, help, value) in [(UP, UP_HELP, 1.0), (DURATION, DURATION_HELP, seconds)] {
        let lines = format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        out.extend_from_slice(lines.as_bytes());
    }
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    Ok(out.into())
}

/// A page of OpenMetrics without its `# EOF`. `None` if it does not end with that line.
fn without_end(text: &[u8]) -> Option<&[u8]> {
    let trimmed = text.strip_suffix(b"\n").unwrap_or(text);
    let body = trimmed.strip_suffix(b"# EOF")?;
    (body.is_empty() || body.ends_with(b"\n")).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(format: Format, text: &'static str) -> String {
        let out = report(format, &Bytes::from_static(text.as_bytes()), 0.5).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_content_type_names_the_format_that_a_page_was_taken_for() {
        let open = HeaderValue::from_static("application/openmetrics-text; version=0.0.1");
        let other = HeaderValue::from_static("text/html");
        assert_eq!(content_type(Format::OpenMetrics, Some(&open)), open);
        assert_eq!(content_type(Format::Text, Some(&open)), TEXT);
        assert_eq!(content_type(Format::Text, Some(&other)), TEXT);
        assert_eq!(content_type(Format::Text, None), TEXT);
    }

    #[test]
    fn a_page_stays_whole_whatever_it_ends_with() {
        let added = reported(Format::Text, "");
        assert!(added.contains("\npromregator_up 1\n"), "{added}");
        assert!(
            added.ends_with("\npromregator_scrape_duration_seconds 0.5\n"),
            "{added}"
        );
        assert_eq!(reported(Format::Text, "a 1\n"), format!("a 1\n{added}"));
        assert_eq!(reported(Format::Text, "a 1"), format!("a 1\n{added}"));
        let open = |text| reported(Format::OpenMetrics, text);
        assert_eq!(open("a 1\n# EOF\n"), format!("a 1\n{added}# EOF\n"));
        assert_eq!(open("a 1\n# EOF"), format!("a 1\n{added}# EOF\n"));
        assert_eq!(reported(Format::Protobuf, "x"), "x");
        for text in ["", "a 1\n", "a 1\n# EO", "a 1 # EOF\n"] {
            let failed = report(
                Format::OpenMetrics,
                &Bytes::from_static(text.as_bytes()),
                0.5,
            );
            assert_eq!(failed.unwrap_err().0, StatusCode::BAD_GATEWAY, "{text}");
        }
    }
}
