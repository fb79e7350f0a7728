//! Requests to other servers of rules, whose answers are read whole.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{Request, Response, StatusCode};
use tokio::time::Instant;

use metrifold_http::body::{BodyError, read};
use metrifold_http::{Client, Credentials};

/// Sends requests with credentials. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) client: Client,
    pub(crate) credentials: Credentials,
    /// Maximum time for a request and for its answer.
    pub(crate) timeout: Duration,
}

impl Asker {
    /// Sends a request and reads up to `max` bytes of the answer.
    ///
    /// # Errors
    ///
    /// Fails when there are no credentials, or no answer. An answer that cannot be read whole still has
    /// its status.
    pub(crate) async fn ask(
        &self,
        request: Request<Bytes>,
        max: usize,
    ) -> Result<Response<Result<Bytes, BodyError>>, String> {
        let deadline = Instant::now() + self.timeout;
        let (asked, body) = request.into_parts();
        let mut headers = asked.headers;
        let credentials = self.credentials.header().await;
        let credentials = credentials.map_err(|error| error.to_string())?;
        if let Some(value) = &credentials {
            headers.insert(AUTHORIZATION, value.clone());
        }
        let sent = self
            .client
            .request(asked.method, &asked.uri, headers, body, self.timeout);
        let (head, answer) = sent.await.map_err(|error| error.to_string())?.into_parts();
        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        if let Some(value) = credentials.filter(|_| refused.contains(&head.status)) {
            self.credentials.refused(&value);
        }
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let left = deadline.saturating_duration_since(Instant::now());
        let text = read(answer, length, max, left).await;
        Ok(Response::from_parts(head, text))
    }
}
