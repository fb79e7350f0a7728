//! The requests of `object_store` over our own client of HTTP: one stack, with the TLS and the proxies
//! of everything else. An answer is read whole, up to a bound, and one that should be a list and is
//! not, such as a page of a proxy in between, is no list without objects.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
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

/// The parameters of a request for a list, and the element that the answer has then: of S3 and Google,
/// and of Azure.
const LISTS: [(&str, &str); 2] = [
    ("list-type=2", "<ListBucketResult"),
    ("comp=list", "<EnumerationResults"),
];

/// Makes connections, and whatever `object_store` asks for over them.
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
            && !contains(&text, element)
        {
            let error = std::io::Error::other("the answer is no list of objects");
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(text)))
    }
}

/// Whether a text begins with an element, but for what goes before it in XML.
fn contains(text: &Bytes, element: &str) -> bool {
    const PROLOGUE: usize = 500;
    let start = &text[..text.len().min(PROLOGUE)];
    String::from_utf8_lossy(start).contains(element)
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
    // What `async_trait` makes of an `async fn`.
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
