//! Sends the requests of `object_store` with the product's own HTTP client, so that TLS and proxies
//! work as everywhere else. Answers are read whole, up to a bound. An answer to a list request that is
//! no list, such as an error page of a proxy, is an error, not an empty list.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

use metrifold_base::BuildError;
use metrifold_http::{Client, TransportError, TransportKind, body};

use super::config::BucketConfig;

/// Query parameter of a list request and root element of its answer: for S3 and Google, and for Azure.
const LISTS: [(&str, &[u8]); 2] = [
    ("list-type=2", b"ListBucketResult"),
    ("comp=list", b"EnumerationResults"),
];

/// The HTTP service that `object_store` uses.
#[derive(Clone)]
pub(super) struct Connector {
    client: Client,
    timeout: Duration,
    max_answer: usize,
}

impl Connector {
    pub(super) fn new(config: &BucketConfig) -> Result<Self, BuildError> {
        Ok(Self {
            client: Client::new(&config.client)?,
            timeout: config.timeout,
            max_answer: config.max_answer,
        })
    }

    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, content) = request.into_parts();
        let content = content.collect().await?.to_bytes();
        let is_head = head.method == http::Method::HEAD;
        let list = LISTS.iter().find(|(parameter, _)| {
            let query = head.uri.query().unwrap_or_default();
            query.split('&').any(|pair| pair == *parameter)
        });
        let sent = self
            .client
            .request(head.method, &head.uri, head.headers, content, self.timeout);
        let (head, content) = sent.await.map_err(transport)?.into_parts();
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let length = length.filter(|_| !is_head);
        let text = body::read(content, length, self.max_answer, self.timeout).await;
        let text = text.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
        if let Some((_, element)) = list
            && head.status.is_success()
            && root(&text) != Some(*element)
        {
            let error = std::io::Error::other("the answer is not a list of objects");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(text)))
    }
}

/// Name of the root element of an XML document, without its prefix.
fn root(text: &[u8]) -> Option<&[u8]> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let mut rest = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    loop {
        rest = rest.trim_ascii_start().strip_prefix(b"<")?;
        // Ends of the declarations and comments that may precede the root element.
        let end: &[u8] = match rest {
            [b'?', ..] => b"?>",
            [b'!', b'-', b'-', ..] => b"-->",
            [b'!', ..] => b">",
            _ => break,
        };
        let at = rest.windows(end.len()).position(|part| part == end)?;
        rest = &rest[at + end.len()..];
    }
    let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/');
    let name = rest.split(ends).next()?;
    name.rsplit(|byte| *byte == b':').next()
}

fn transport(error: TransportError) -> HttpError {
    let kind = match error.kind {
        TransportKind::Connect | TransportKind::Tls | TransportKind::Proxy => {
            HttpErrorKind::Connect
        }
        TransportKind::Timeout => HttpErrorKind::Timeout,
        TransportKind::Reset | TransportKind::Body | TransportKind::Other => {
            HttpErrorKind::Interrupted
        }
    };
    HttpError::new(kind, error)
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

impl HttpService for Connector {
    // The expansion of an `async fn` by `async_trait`, without that dependency.
    fn call<'s, 'f>(
        &'s self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_element_is_found_behind_whatever_stands_in_front_of_it() {
        let long = format!(
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- {} -->\n<!DOCTYPE x><List a=\"b\">",
            "<Other>".repeat(200)
        );
        for text in [&*long, "<List/>", "  <s3:List xmlns:s3='x'>", "<List>"] {
            assert_eq!(root(text.as_bytes()), Some(&b"List"[..]), "{text}");
        }
        for text in [
            "<!DOCTYPE html><html><!-- <List> --></html>",
            "<ListOfOthers>",
            "List",
            "{}",
            "",
            "<?xml",
            "<!-- <List> -",
        ] {
            assert_ne!(root(text.as_bytes()), Some(&b"List"[..]), "{text}");
        }
    }
}
