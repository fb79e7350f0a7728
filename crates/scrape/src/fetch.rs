//! Fetches a target's page: request, redirects, body.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use metrifold_exposition::{Format, Options, ParseError, Receiver, read};
use metrifold_http::redirect::{MAX_REDIRECTS, redirected, same_server};
use metrifold_http::{Body, BodyError, Client, Credentials, TransportKind, body};

use crate::blocking::{LONG_PAGE, blocking};
use crate::encoding;
use crate::error::{Cause, ScrapeError};
use crate::in_flight::{Share, Turn};
use crate::settings::Settings;
use crate::target::ScrapeTarget;

/// Bytes of a compressed body from which on decompressing may take milliseconds: the other tasks of
/// the thread then move to another thread.
const LONG_BODY: usize = 16 << 10;
const TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// Client and credentials for pages.
pub(crate) struct Fetcher {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
}

/// Request for a page.
pub(crate) struct Ask {
    /// Longest time for the whole scrape, redirects and body included.
    pub(crate) timeout: Duration,
    /// Headers in addition to those of every scrape, or replacing them.
    pub(crate) headers: HeaderMap,
}

/// A page, uncompressed.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) text: Bytes,
    pub(crate) format: Format,
    pub(crate) content_type: Option<HeaderValue>,
    /// The turn of a page that may take much memory; held until the page has been used.
    pub(crate) turn: Option<Turn>,
    /// The page's share of `max_in_flight_bytes`, held as long as the page.
    pub(crate) share: Option<Share>,
}

impl Page {
    /// Reads the page. As in Prometheus, an empty one is valid in every format.
    pub(crate) fn read(
        &self,
        options: &Options,
        receiver: &mut impl Receiver,
    ) -> Result<(), ParseError> {
        match self.text.is_empty() {
            true => Ok(()),
            false => read(&self.text, self.format, options, receiver),
        }
    }

    /// Extends the share to the uncompressed text, for a page that waits before it is used and has no
    /// turn until then.
    pub(crate) fn count_text(&mut self) -> Result<(), ScrapeError> {
        let Some(share) = &mut self.share else {
            return Ok(());
        };
        let more = self.text.len().saturating_sub(share.bytes());
        match share.take(more) {
            true => {
                self.turn = None;
                Ok(())
            }
            false => Err(no_room()),
        }
    }
}

impl Fetcher {
    /// Fetches a target's page within its timeout.
    pub(crate) async fn fetch(
        &self,
        settings: &Settings,
        target: &ScrapeTarget,
        ask: &Ask,
    ) -> Result<Page, ScrapeError> {
        let deadline = Instant::now() + ask.timeout;
        let own = &target.own;
        let found = own.find_credentials.as_ref().map(|it| it.find());
        let found = found.transpose();
        let found = found.map_err(|error| ScrapeError::new(Cause::Credentials, error))?;
        let credentials = found.as_ref().or(own.credentials.as_ref());
        let credentials = credentials.unwrap_or(&self.credentials);
        let authorization = tokio::time::timeout_at(deadline, credentials.header()).await;
        let authorization = authorization.map_err(|_| late(ask.timeout))?;
        let authorization =
            authorization.map_err(|error| ScrapeError::new(Cause::Credentials, error))?;
        let client = target.own.client.as_ref().unwrap_or(&self.client);
        let mut uri = target.uri.clone();
        let every_header = || {
            let mut headers = headers(settings, ask.timeout);
            headers.extend(ask.headers.clone());
            headers
        };
        let own_headers = |found: Option<(HeaderName, HeaderValue)>| {
            let mut headers = every_header();
            let authorization = authorization.clone().map(|value| (AUTHORIZATION, value));
            let own = target.own.headers.iter().cloned();
            // Each replaces one of the same name; `extend` would add to it.
            for (name, value) in own.chain(authorization).chain(found) {
                headers.insert(name, value);
            }
            headers
        };
        if let Some(finder) = &own.find_header
            && let Some(question) = finder.question()
        {
            // The page needs the rest of the time.
            let left = deadline.saturating_duration_since(Instant::now()) / 2;
            let headers = own_headers(Some(question));
            let answer = client.request(Method::GET, &uri, headers, Bytes::new(), left);
            // Without an answer, it is asked again at the next scrape.
            if let Ok(answer) = answer.await {
                finder.answered(&answer.into_parts().0);
            }
        }
        // The target's own headers and credentials go only to its own server, and to nothing that
        // another server has redirected to.
        let mut own_server = true;
        for _ in 0..=MAX_REDIRECTS {
            own_server &= same_server(&uri, &target.uri);
            let headers = match own_server {
                true => own_headers(own.find_header.as_ref().map(|finder| finder.find())),
                false => every_header(),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = client
                .request(Method::GET, &uri, headers, Bytes::new(), left)
                .await;
            let answer = answer.map_err(|error| match error.kind {
                TransportKind::Timeout => late(ask.timeout),
                _ => ScrapeError::new(Cause::Unreachable, error),
            })?;
            if settings.keys.follow_redirects {
                let next = redirected(&uri, answer.status(), answer.headers());
                let next = next.map_err(|error| ScrapeError::new(Cause::Status, error))?;
                if let Some(next) = next {
                    uri = next;
                    continue;
                }
            }
            let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
            if let Some(value) = &authorization
                // Another server was not sent them, and says nothing about them.
                && own_server
                && refused.contains(&answer.status())
            {
                credentials.refused(value);
            }
            return take(settings, answer, deadline, ask.timeout).await;
        }
        let text = format!("there are more than {MAX_REDIRECTS} redirects in a row");
        Err(ScrapeError::new(Cause::Status, text))
    }
}

/// Reads the answer to a request, which is not a redirect.
async fn take(
    settings: &Settings,
    answer: http::Response<Body>,
    deadline: Instant,
    timeout: Duration,
) -> Result<Page, ScrapeError> {
    let (head, body) = answer.into_parts();
    if head.status != StatusCode::OK {
        let text = format!("server answered {}", head.status);
        return Err(ScrapeError::new(Cause::Status, text));
    }
    let header = |name| head.headers.get(name).map(HeaderValue::as_bytes);
    let length = header(CONTENT_LENGTH);
    let length = length.and_then(|length| str::from_utf8(length).ok()?.parse().ok());
    let limit = settings.keys.body_size_limit.bytes();
    let mut share = Share::of(&settings.in_flight);
    let left = deadline.saturating_duration_since(Instant::now());
    let read = body::read_within(body, length, limit, left, |bytes| share.take(bytes));
    let body = read.await.map_err(|error| match error {
        BodyError::TooLarge { .. } => encoding::too_large(limit),
        BodyError::Timeout => late(timeout),
        BodyError::NoRoom => no_room(),
        BodyError::Refused(_) | BodyError::Broken(_) => ScrapeError::new(Cause::Unreachable, error),
    })?;
    let compressed = head.headers.contains_key(CONTENT_ENCODING);
    let long = compressed && body.len() >= LONG_BODY;
    // A small body may be a large page, and a large page a larger batch.
    let turn = match compressed || body.len() >= LONG_PAGE {
        true => {
            let turn = tokio::time::timeout_at(deadline, settings.in_flight.turn());
            turn.await.map_err(|_| late(timeout))?
        }
        false => None,
    };
    let decode = || encoding::decode(body, header(CONTENT_ENCODING), limit);
    let text = blocking(long, decode)?;
    let content_type = header(CONTENT_TYPE).map(String::from_utf8_lossy);
    let format = match (Format::of(content_type.as_deref()), settings.fallback) {
        (Ok(format), _) | (Err(_), Some(format)) => format,
        // An empty page is valid in every format.
        (Err(_), None) if text.is_empty() => Format::Text,
        (Err(error), None) => {
            let text = format!("{error}: see fallback_scrape_protocol");
            return Err(ScrapeError::new(Cause::Format, text));
        }
    };
    Ok(Page {
        text,
        format,
        content_type: head.headers.get(CONTENT_TYPE).cloned(),
        turn,
        share: Some(share),
    })
}

fn no_room() -> ScrapeError {
    let text = "not enough memory for the page at the moment: see max_in_flight_bytes";
    ScrapeError::new(Cause::Room, text)
}

fn late(timeout: Duration) -> ScrapeError {
    let text = format!("the page did not come within {timeout:?}");
    ScrapeError::new(Cause::Timeout, text)
}

fn headers(settings: &Settings, timeout: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, settings.accept.clone());
    let encoding = match settings.keys.enable_compression {
        true => encoding::COMPRESSED,
        false => encoding::PLAIN,
    };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    let agent = concat!("metrifold/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    if let Ok(seconds) = HeaderValue::try_from(timeout.as_secs_f64().to_string()) {
        headers.insert(TIMEOUT, seconds);
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use crate::keys::ScrapeKeys;

    use super::*;

    async fn taken(settings: &Settings, body: Vec<u8>, gzip: bool) -> Result<Page, ScrapeError> {
        let timeout = Duration::from_secs(60);
        let mut answer = http::Response::new(Body::from(Bytes::from(body)));
        if gzip {
            let value = HeaderValue::from_static("gzip");
            answer.headers_mut().insert(CONTENT_ENCODING, value);
        }
        take(settings, answer, Instant::now() + timeout, timeout).await
    }

    #[tokio::test]
    async fn a_page_counts_against_the_limit_as_long_as_it_lives() {
        let keys = "body_size_limit = '1KiB'\nmax_in_flight_bytes = '1KiB'";
        let keys: ScrapeKeys = toml::from_str(keys).unwrap();
        let settings = Settings::new(&keys, "source").unwrap();
        let text =
            |length: usize| [b"# ".as_slice(), vec![b'x'; length - 3].as_slice(), b"\n"].concat();
        let first = taken(&settings, text(700), false).await.unwrap();
        let error = taken(&settings, text(400), false).await.unwrap_err();
        assert_eq!(error.cause, Cause::Room);
        let second = taken(&settings, text(300), false).await.unwrap();
        drop((first, second));
        // A page that waits counts with its uncompressed text.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&text(900)).unwrap();
        let mut long = taken(&settings, encoder.finish().unwrap(), true)
            .await
            .unwrap();
        long.count_text().unwrap();
        let mut other = taken(&settings, text(100), false).await.unwrap();
        other.count_text().unwrap();
        let error = taken(&settings, text(100), false).await.unwrap_err();
        assert_eq!(error.cause, Cause::Room);
        drop(long);
        taken(&settings, text(900), false).await.unwrap();
    }
    #[tokio::test(start_paused = true)]
    async fn pages_that_may_take_much_memory_take_turns() {
        let settings = Settings::new(&toml::from_str("").unwrap(), "source").unwrap();
        let gzip = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(b"a 1\n").unwrap();
            encoder.finish().unwrap()
        };
        let turns = std::thread::available_parallelism().unwrap().get();
        let mut held = Vec::new();
        for _ in 0..turns {
            held.push(taken(&settings, gzip(), true).await.unwrap());
        }
        let error = taken(&settings, gzip(), true).await.unwrap_err();
        assert_eq!(error.cause, Cause::Timeout);
        let long = [b"# ".as_slice(), &vec![b'x'; LONG_PAGE], b"\n"].concat();
        let error = taken(&settings, long, false).await.unwrap_err();
        assert_eq!(error.cause, Cause::Timeout);
        taken(&settings, b"a 1\n".to_vec(), false).await.unwrap();
        // One that waits before it is used gives its turn back, and counts as what it is.
        held[0].count_text().unwrap();
        taken(&settings, gzip(), true).await.unwrap();
    }
}
